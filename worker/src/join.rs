//! Becoming a worker of a cluster: a key, a certificate request, and a one-time token for a certificate.
//!
//! The key never leaves the node. What was obtained lies in `tls/` of the state directory.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gotgan_proto::v1::JoinRequest;
use gotgan_proto::v1::workers_client::WorkersClient;
use rcgen::{CertificateParams, DnType, KeyPair};

use crate::lines::connect;
use crate::route;
use crate::session::{SessionError, TlsMaterial};

/// A scheduler that takes longer to sign a certificate hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// What may go wrong when joining.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The key or the request could not be made.
    #[error("cannot make a certificate request: {0}")]
    Request(#[from] rcgen::Error),
    /// No connection.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The scheduler said no.
    #[error("the scheduler refused: {}: {}", .0.code(), .0.message())]
    Refused(Box<tonic::Status>),
    /// The state directory belongs to another node.
    #[error("{path} belongs to node {found}, not to {wanted}: use another --state-dir")]
    OtherNode {
        /// The state directory.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who wants it.
        wanted: String,
    },
}

/// What to join with.
#[derive(Clone, Debug)]
pub struct JoinPlan {
    /// As in `https://host:port`; tried in turn.
    pub schedulers: Vec<String>,
    /// PEM file of the authority that signs the scheduler's certificate.
    pub ca: PathBuf,
    /// One-time token.
    pub token: String,
    /// Name of the node.
    pub node: String,
    /// Where to keep what is obtained.
    pub state_directory: PathBuf,
}

/// Obtains a certificate and stores it with its key. The token is spent even if storing fails.
pub async fn join(plan: &JoinPlan) -> Result<(), JoinError> {
    claim_state_directory(&plan.state_directory, &plan.node)?;
    let ca_pem = read(&plan.ca)?;
    let directory = tls_directory(&plan.state_directory);
    fs::create_dir_all(&directory).map_err(|source| file_error(&directory, source))?;
    let key = own_key(&directory)?;
    let request = JoinRequest {
        join_token: plan.token.clone(),
        node: plan.node.clone(),
        certificate_request_pem: certificate_request(&plan.node, &key)?,
    };
    let answer = ask(plan, &ca_pem, request).await?;
    let ca_pem = if answer.ca_pem.is_empty() { ca_pem } else { answer.ca_pem };
    keep(&plan.state_directory, &ca_pem, &answer.certificate_pem)
}

/// A request for another certificate for the key that is stored.
pub fn request_again(state_directory: &Path, node: &str) -> Result<String, JoinError> {
    let key = read(&tls_directory(state_directory).join("key.pem"))?;
    certificate_request(node, &KeyPair::from_pem(&key)?)
}

/// Stores what was obtained for the key that is stored.
pub fn keep(state_directory: &Path, ca_pem: &str, certificate_pem: &str) -> Result<(), JoinError> {
    let directory = tls_directory(state_directory);
    store(&directory.join("ca.pem"), ca_pem, 0o644)?;
    // Last: its presence means that all is there.
    store(&directory.join("cert.pem"), certificate_pem, 0o644)
}

/// Path of the authority's certificate, as tasks are told.
pub fn ca_path(state_directory: &Path) -> PathBuf {
    tls_directory(state_directory).join("ca.pem")
}

/// What an earlier join stored, if there was one.
pub fn stored(state_directory: &Path) -> Result<Option<TlsMaterial>, JoinError> {
    let directory = tls_directory(state_directory);
    let Some(certificate_pem) = stored_certificate(state_directory)? else { return Ok(None) };
    Ok(Some(TlsMaterial {
        ca_pem: read(&directory.join("ca.pem"))?,
        certificate_pem,
        key_pem: read(&directory.join("key.pem"))?,
    }))
}

/// The certificate alone.
pub fn stored_certificate(state_directory: &Path) -> Result<Option<String>, JoinError> {
    let path = tls_directory(state_directory).join("cert.pem");
    path.exists().then(|| read(&path)).transpose()
}

/// Name of the node a state directory belongs to, if it is known already.
pub fn owner(state_directory: &Path) -> Result<Option<String>, JoinError> {
    let path = state_directory.join("node");
    match fs::read_to_string(&path) {
        Ok(name) => Ok(Some(name.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(file_error(&path, source)),
    }
}

/// Makes the state directory this node's, or finds that it is another's.
pub fn claim_state_directory(state_directory: &Path, node: &str) -> Result<(), JoinError> {
    let path = state_directory.to_path_buf();
    fs::create_dir_all(&path).map_err(|source| file_error(&path, source))?;
    match owner(state_directory)? {
        Some(found) if found != node => {
            Err(JoinError::OtherNode { path, found, wanted: node.to_owned() })
        }
        Some(_) => Ok(()),
        None => store(&path.join("node"), &format!("{node}\n"), 0o644),
    }
}

/// The key of an earlier try, or a new one. It is stored before anything is asked: an answer that is lost can then
/// be asked for again with the same key.
fn own_key(directory: &Path) -> Result<KeyPair, JoinError> {
    let path = directory.join("key.pem");
    if path.exists() {
        return Ok(KeyPair::from_pem(&read(&path)?)?);
    }
    let key = KeyPair::generate()?;
    store(&path, &key.serialize_pem(), 0o600)?;
    Ok(key)
}

fn certificate_request(node: &str, key: &KeyPair) -> Result<String, JoinError> {
    let mut params = CertificateParams::new(vec![node.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, node);
    Ok(params.serialize_request(key)?.pem()?)
}

async fn ask(
    plan: &JoinPlan,
    ca_pem: &str,
    request: JoinRequest,
) -> Result<gotgan_proto::v1::JoinResponse, JoinError> {
    let tls = TlsMaterial {
        ca_pem: ca_pem.to_owned(),
        certificate_pem: String::new(),
        key_pem: String::new(),
    };
    let mut unreached = JoinError::from(SessionError::Silent);
    for address in &plan.schedulers {
        match ask_one(address, &tls, request.clone()).await {
            // One that stands by, or that is not there: another may lead.
            Err(JoinError::Refused(status)) if route::is_standby(&status) => {
                unreached = JoinError::Refused(status);
            }
            Err(JoinError::Session(error)) => unreached = error.into(),
            answer => return answer,
        }
    }
    Err(unreached)
}

async fn ask_one(
    address: &str,
    tls: &TlsMaterial,
    request: JoinRequest,
) -> Result<gotgan_proto::v1::JoinResponse, JoinError> {
    let mut client = WorkersClient::new(connect(address, Some(tls.client_config())).await?);
    let answer = tokio::time::timeout(ANSWER_LIMIT, client.join(request)).await;
    let answer = answer.map_err(|_| SessionError::Silent)?;
    answer.map(tonic::Response::into_inner).map_err(|status| JoinError::Refused(Box::new(status)))
}

fn tls_directory(state_directory: &Path) -> PathBuf {
    state_directory.join("tls")
}

fn read(path: &Path) -> Result<String, JoinError> {
    fs::read_to_string(path).map_err(|source| file_error(path, source))
}

fn store(path: &Path, text: &str, mode: u32) -> Result<(), JoinError> {
    write_whole(path, text, mode).map_err(|source| file_error(path, source))
}

fn write_whole(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(fresh, path)
}

fn file_error(path: &Path, source: io::Error) -> JoinError {
    JoinError::File { path: path.to_owned(), source }
}
