//! The certificates of a cluster: its CA, the server's certificate, and the ones of workers.
//!
//! Without configuration a CA is made on first start and kept in the data directory; a site that has its own CA
//! names the files instead. The CA must be this cluster's alone: whoever it signs a worker's certificate for, is
//! that worker. There is no revocation of certificates.

mod files;
mod issue;
mod renewal;
mod tickets;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gotgan_core::amount::UnixMicros;
use gotgan_core::ids::NodeName;
use rcgen::KeyPair;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{CipherSuite, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use issue::Authority;
pub use renewal::Renewal;
use tickets::Tickets;

/// The organizational unit that marks a certificate as a worker's.
const WORKER_MARK: &str = "gotgan-worker";

/// Replaces a file that only its owner may read, such that it holds the old text or the new one after any crash.
///
/// # Errors
/// [`TlsError::File`].
pub fn write_secret(path: &Path, text: &str) -> Result<(), TlsError> {
    files::write(path, text, files::Secrecy::Secret)
}

/// Why there is no usable certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// Read or write.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} does not hold {what}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// A key and a certificate do not belong together.
    #[error("{} is not the key of {}", key.display(), certificate.display())]
    KeyMismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// A certificate has run out.
    #[error("the certificate in {} has expired; put a new one there", path.display())]
    Expired {
        /// Its file.
        path: PathBuf,
    },
    /// A name the server should be known by is none.
    #[error("\"{0}\" is neither an IP address nor a host name")]
    BadName(String),
    /// A worker's request is not a PKCS#10 request in PEM, or its own signature does not verify.
    #[error(
        "the certificate request is not a signed PKCS#10 request in PEM of at most {REQUEST_MAX_BYTES} bytes"
    )]
    BadRequest,
    /// Files were configured without the CA's key.
    #[error(
        "the CA's key is not configured, so no worker can join or renew; sign workers' certificates elsewhere or configure it"
    )]
    CannotSign,
    /// The library refused to make a key or a certificate.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// Certificates or key that TLS cannot use.
    #[error("the server's certificates and key cannot be used for TLS")]
    Unusable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Largest certificate request of a worker; one with a P-256 key has some 400 bytes, one with a 4096-bit RSA key 1700.
pub const REQUEST_MAX_BYTES: usize = 16 << 10;

/// Files of a site that has its own CA, all PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The CA that signed the server and signs the workers.
    pub ca: PathBuf,
    /// Its key; without it no worker can join through the scheduler.
    pub ca_key: Option<PathBuf>,
    /// The server's certificate, with any intermediate ones after it.
    pub certificate: PathBuf,
    /// The server's key.
    pub key: PathBuf,
}

/// What a server shows to its clients, and by what it knows its workers.
pub struct ServerIdentity {
    ca_pem: String,
    authority: Option<Authority>,
    certificate_pem: String,
    key_pem: String,
}

impl std::fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let can_sign = self.authority.is_some();
        f.debug_struct("ServerIdentity").field("can_sign", &can_sign).finish_non_exhaustive()
    }
}

impl ServerIdentity {
    /// The identity kept in `dir`; what is missing is made. The server is known by `names` (host names and IP
    /// addresses; unspecified addresses such as `0.0.0.0` are skipped), by this machine's host name and as
    /// localhost. Its certificate is made again when the names change or it nears its end.
    ///
    /// # Errors
    /// [`TlsError`] if the files cannot be used or made. A CA certificate without its key is not replaced, since
    /// every worker would have to join again.
    pub fn load_or_make(dir: &Path, names: &[String], now: UnixMicros) -> Result<Self, TlsError> {
        files::make_dir(dir)?;
        let authority = Authority::load_or_make(dir, now)?;
        let server = issue::server_certificate(dir, &authority, names, now)?;
        Ok(ServerIdentity {
            ca_pem: authority.pem().to_owned(),
            authority: Some(authority),
            certificate_pem: server.certificate_pem,
            key_pem: server.key_pem,
        })
    }

    /// The identity of configured files.
    ///
    /// # Errors
    /// [`TlsError`] if a file cannot be read, holds something else, has expired, or a key does not fit.
    pub fn from_files(paths: &TlsFiles, now: UnixMicros) -> Result<Self, TlsError> {
        let ca_pem = files::read(&paths.ca)?;
        issue::check_certificate(&ca_pem, &paths.ca, now)?;
        let authority = match &paths.ca_key {
            Some(key) => Some(Authority::load(&paths.ca, key, now)?),
            None => None,
        };
        let certificate_pem = files::read(&paths.certificate)?;
        issue::check_certificate(&certificate_pem, &paths.certificate, now)?;
        let key_pem = files::read(&paths.key)?;
        issue::check_key(&key_pem, &paths.key, &certificate_pem, &paths.certificate)?;
        Ok(ServerIdentity { ca_pem, authority, certificate_pem, key_pem })
    }

    /// Signs a worker's request: a client certificate whose common name is the node. Only the key is taken from
    /// the request; whatever else it asks for is ignored.
    ///
    /// # Errors
    /// [`TlsError::BadRequest`] for anything but a well-formed, self-signed PKCS#10 request in PEM;
    /// [`TlsError::CannotSign`] without the CA's key.
    pub fn sign_worker(
        &self,
        request_pem: &str,
        node: &NodeName,
        now: UnixMicros,
    ) -> Result<String, TlsError> {
        let authority = self.authority.as_ref().ok_or(TlsError::CannotSign)?;
        authority.sign_worker(request_pem, node, now)
    }

    /// The CA's certificate, which clients and workers check the server by.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Does handshakes: clients may show a certificate, and one that this CA did not sign ends them.
    ///
    /// # Errors
    /// [`TlsError::Unusable`] if the certificates or the key are not what TLS can use.
    pub fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let config = self.server_config().map_err(TlsError::Unusable)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    fn server_config(&self) -> Result<ServerConfig, Box<dyn std::error::Error + Send + Sync>> {
        let provider = Arc::new(provider());
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(&self.ca_pem)?);
        let known = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let known = known.allow_unauthenticated().build()?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(known)
            .with_single_cert(certificates(&self.certificate_pem)?, key)?;
        config.ignore_client_order = true;
        config.alpn_protocols = vec![b"h2".to_vec()];
        if let Some(tickets) = Tickets::of(self.key_pem.as_bytes(), self.ca_pem.as_bytes()) {
            config.ticketer = Arc::new(tickets);
        }
        // Whoever comes back has a new one then.
        config.send_tls13_tickets = 1;
        Ok(config)
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect()
}

/// What the library offers, the suite first whose keys are derived with SHA-256: processors have instructions for it,
/// and none for SHA-384, which then is a tenth of all handshakes.
fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

/// What a worker's certificate says.
pub(super) struct CertifiedNode {
    pub(super) node: NodeName,
    pub(super) expires: UnixMicros,
}

/// The node a certificate (DER) was made for; `None` if it is not a worker's.
pub(super) fn node_of_certificate(der: &[u8]) -> Option<CertifiedNode> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let mut units = subject.iter_organizational_unit();
    if !units.any(|unit| unit.as_str() == Ok(WORKER_MARK)) {
        return None;
    }
    let mut names = subject.iter_common_name();
    let (name, None) = (names.next()?.as_str().ok()?, names.next()) else {
        return None;
    };
    Some(CertifiedNode { node: NodeName::new(name).ok()?, expires: issue::not_after(&certificate) })
}

/// A new key as every certificate here uses it: ECDSA on P-256.
fn new_key() -> Result<KeyPair, TlsError> {
    Ok(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use rcgen::CertificateParams;

    use super::*;

    /// 2026-01-01.
    const NOW: UnixMicros = UnixMicros(1_767_225_600_000_000);
    const DAY_S: i64 = 86_400;

    fn identity(dir: &Path, names: &[&str], now: UnixMicros) -> Result<ServerIdentity, TlsError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        ServerIdentity::load_or_make(dir, &names, now)
    }

    fn request() -> String {
        let params = CertificateParams::new(vec!["other.example".to_owned()]).unwrap();
        params.serialize_request(&new_key().unwrap()).unwrap().pem().unwrap()
    }

    fn node() -> NodeName {
        NodeName::new("gpu-1").unwrap()
    }

    fn der(pem: &str) -> Vec<u8> {
        x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents
    }

    /// The request with one character of what it signs changed.
    fn altered(request: &str) -> String {
        let mut lines: Vec<String> = request.lines().map(str::to_owned).collect();
        let middle = &mut lines[2];
        let changed = if middle.starts_with('A') { "B" } else { "A" };
        middle.replace_range(..1, changed);
        lines.join("\n")
    }

    #[test]
    fn a_second_start_finds_the_identity_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = identity(dir.path(), &["sched.example", "10.0.0.7", "0.0.0.0"], NOW).unwrap();
        let again = identity(dir.path(), &["10.0.0.7", "Sched.example"], NOW).unwrap();
        assert_eq!(first.ca_pem(), again.ca_pem());
        assert_eq!(first.certificate_pem, again.certificate_pem);
    }

    #[test]
    fn the_servers_certificate_is_made_again_for_new_names_and_near_its_end_under_the_same_ca() {
        let dir = tempfile::tempdir().unwrap();
        let first = identity(dir.path(), &["a.example"], NOW).unwrap();
        let named = identity(dir.path(), &["b.example"], NOW).unwrap();
        let later = identity(dir.path(), &["b.example"], NOW.plus_seconds(370 * DAY_S)).unwrap();
        assert_ne!(first.certificate_pem, named.certificate_pem);
        assert_ne!(named.certificate_pem, later.certificate_pem);
        assert_eq!(first.ca_pem(), later.ca_pem());
    }

    #[test]
    fn a_start_cut_short_between_two_files_is_made_good() {
        let dir = tempfile::tempdir().unwrap();
        let first = identity(dir.path(), &[], NOW).unwrap();
        let worker = first.sign_worker(&request(), &node(), NOW).unwrap();
        fs::remove_file(dir.path().join("ca.pem")).unwrap();
        fs::write(dir.path().join("server.key"), new_key().unwrap().serialize_pem()).unwrap();
        let healed = identity(dir.path(), &[], NOW).unwrap();
        assert_ne!(first.certificate_pem, healed.certificate_pem);
        let (ca, worker) = (der(healed.ca_pem()), der(&worker));
        let (_, ca) = X509Certificate::from_der(&ca).unwrap();
        let (_, worker) = X509Certificate::from_der(&worker).unwrap();
        assert!(worker.verify_signature(Some(ca.public_key())).is_ok());
        assert_eq!(worker.issuer(), ca.subject());
    }

    #[test]
    fn a_ca_whose_key_is_lost_or_of_another_is_an_error_and_not_replaced() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        identity(dir.path(), &[], NOW).unwrap();
        identity(other.path(), &[], NOW).unwrap();
        let key = dir.path().join("ca.key");
        fs::copy(other.path().join("ca.key"), &key).unwrap();
        let error = identity(dir.path(), &[], NOW).unwrap_err();
        assert!(matches!(error, TlsError::KeyMismatch { .. }), "{error}");
        fs::remove_file(&key).unwrap();
        let error = identity(dir.path(), &[], NOW).unwrap_err();
        assert!(matches!(error, TlsError::File { .. }), "{error}");
    }

    #[test]
    fn a_workers_certificate_names_its_node_for_a_year_and_takes_only_the_key_of_the_request() {
        let dir = tempfile::tempdir().unwrap();
        let identity = identity(dir.path(), &[], NOW).unwrap();
        let pem = identity.sign_worker(&request(), &node(), NOW).unwrap();
        let certified = node_of_certificate(&der(&pem)).unwrap();
        assert_eq!(certified.node, node());
        assert_eq!(certified.expires, NOW.plus_seconds(365 * DAY_S));
        let der = der(&pem);
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        assert!(certificate.subject_alternative_name().unwrap().is_none());
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !certificate.is_ca());
    }

    #[test]
    fn requests_that_are_garbage_too_large_or_badly_signed_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let identity = identity(dir.path(), &[], NOW).unwrap();
        let large = "A".repeat(REQUEST_MAX_BYTES + 1);
        let forged = altered(&request());
        let other = identity.ca_pem().to_owned();
        for bad in ["", "garbage", &large, &forged, &other] {
            let error = identity.sign_worker(bad, &node(), NOW).unwrap_err();
            assert!(matches!(error, TlsError::BadRequest), "{error}");
        }
    }

    #[test]
    fn certificates_that_are_not_a_workers_name_no_node() {
        let dir = tempfile::tempdir().unwrap();
        let identity = identity(dir.path(), &[], NOW).unwrap();
        assert!(node_of_certificate(&der(&identity.certificate_pem)).is_none());
        assert!(node_of_certificate(&der(identity.ca_pem())).is_none());
        assert!(node_of_certificate(b"garbage").is_none());
    }

    #[test]
    fn configured_files_are_checked_and_without_the_cas_key_nobody_joins() {
        let dir = tempfile::tempdir().unwrap();
        identity(dir.path(), &[], NOW).unwrap();
        let file = |name: &str| dir.path().join(name);
        let mut files = TlsFiles {
            ca: file("ca.pem"),
            ca_key: None,
            certificate: file("server.pem"),
            key: file("server.key"),
        };
        let given = ServerIdentity::from_files(&files, NOW).unwrap();
        let error = given.sign_worker(&request(), &node(), NOW).unwrap_err();
        assert!(matches!(error, TlsError::CannotSign), "{error}");
        let late = ServerIdentity::from_files(&files, NOW.plus_seconds(400 * DAY_S)).unwrap_err();
        assert!(matches!(late, TlsError::Expired { .. }), "{late}");
        files.ca_key = Some(file("ca.key"));
        let given = ServerIdentity::from_files(&files, NOW).unwrap();
        assert!(given.sign_worker(&request(), &node(), NOW).is_ok());
        files.key = file("ca.key");
        let error = ServerIdentity::from_files(&files, NOW).unwrap_err();
        assert!(matches!(error, TlsError::KeyMismatch { .. }), "{error}");
        files.key = file("server.pem");
        let error = ServerIdentity::from_files(&files, NOW).unwrap_err();
        assert!(matches!(error, TlsError::Content { .. }), "{error}");
    }

    #[test]
    fn a_server_name_that_is_none_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let error = identity(dir.path(), &["not a name"], NOW).unwrap_err().to_string();
        assert!(error.contains("\"not a name\""), "{error}");
    }
}
