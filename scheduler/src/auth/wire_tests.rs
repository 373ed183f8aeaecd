//! The gate as clients and workers meet it: a tonic server on a port of this machine, with TLS.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use gotgan_core::amount::UnixMicros;
use gotgan_core::ids::{AttemptId, JobId, NodeName, ProjectPath, UserName};
use gotgan_proto::v1::cluster_client::ClusterClient;
use gotgan_proto::v1::cluster_server::{Cluster, ClusterServer};
use gotgan_proto::v1::jobs_client::JobsClient;
use gotgan_proto::v1::workers_client::WorkersClient;
use gotgan_proto::v1::workers_server::{Workers, WorkersServer};
use gotgan_proto::v1::{self, WhoAmIRequest, WhoAmIResponse};
use gotgan_store::TokenRecord;
use rcgen::{CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::StatusExt as _;

use super::tls::{self, ServerIdentity, TlsFiles};
use super::*;
use crate::connections::{self, Door};
use crate::metrics::{Metrics, RpcMetricsLayer};

const YEAR_S: i64 = 366 * 86_400;

fn now() -> UnixMicros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    UnixMicros(since.as_micros().try_into().unwrap())
}

fn in_a_year() -> UnixMicros {
    now().plus_seconds(YEAR_S)
}

/// Answers `WhoAmI` and `Session` with what the gate found out.
struct Echo;

#[tonic::async_trait]
impl Cluster for Echo {
    async fn who_am_i(
        &self,
        request: Request<WhoAmIRequest>,
    ) -> Result<Response<WhoAmIResponse>, Status> {
        let principal: &Principal = request.extensions().get().unwrap();
        Ok(Response::new(WhoAmIResponse {
            subject: principal.subject.to_string(),
            role: v1::Role::from(principal.role).into(),
            projects: principal.projects.iter().map(ToString::to_string).collect(),
            expires_us: principal.expires.map_or(0, |expires| expires.0),
        }))
    }

    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::ClusterStatus>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn create_token(
        &self,
        _: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn list_tokens(
        &self,
        _: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn revoke_token(
        &self,
        _: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn create_join_token(
        &self,
        _: Request<v1::CreateJoinTokenRequest>,
    ) -> Result<Response<v1::CreateJoinTokenResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

#[tonic::async_trait]
impl Workers for Echo {
    type SessionStream = tokio_stream::Empty<Result<v1::SchedulerMessage, Status>>;

    async fn join(
        &self,
        _: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn renew(
        &self,
        _: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn session(
        &self,
        request: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let principal: &Principal = request.extensions().get().unwrap();
        let node = principal.node().unwrap().as_str().parse().unwrap();
        let mut response = Response::new(tokio_stream::empty());
        response.metadata_mut().insert("node", node);
        Ok(response)
    }
}

/// A server in this process, ended when dropped.
struct TestServer {
    address: SocketAddr,
    identity: ServerIdentity,
    authenticator: Authenticator,
    metrics: Arc<Metrics>,
    task: JoinHandle<()>,
    _dir: TempDir,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestServer {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let identity = ServerIdentity::load_or_make(dir.path(), &[], now()).unwrap();
        Self::start_as(identity, dir, now).await
    }

    async fn start_as(identity: ServerIdentity, dir: TempDir, clock: fn() -> UnixMicros) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (authenticator, metrics) = (Authenticator::new("secret".into()), Metrics::new());
        let acceptor = identity.acceptor().unwrap();
        let door = Door::default();
        door.open();
        let (_, acceptor) = watch::channel(acceptor);
        let lines = connections::lines(listener, Some(acceptor), door);
        let server = Server::builder()
            .layer(RpcMetricsLayer::new(Arc::clone(&metrics)))
            .layer(AuthLayer::new(authenticator.clone(), clock))
            .add_service(ClusterServer::new(Echo))
            .add_service(WorkersServer::new(Echo));
        let task = tokio::spawn(async move {
            server.serve_with_incoming(lines).await.unwrap();
        });
        TestServer { address, identity, authenticator, metrics, task, _dir: dir }
    }

    /// A connection that trusts this cluster's CA, with or without a certificate of its own.
    fn channel(&self, certificate: Option<Identity>) -> Channel {
        let ca = Certificate::from_pem(self.identity.ca_pem());
        let mut tls = ClientTlsConfig::new().ca_certificate(ca).domain_name("localhost");
        if let Some(certificate) = certificate {
            tls = tls.identity(certificate);
        }
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address)).unwrap();
        endpoint.tls_config(tls).unwrap().connect_lazy()
    }

    async fn who_am_i(&self, token: Option<&str>) -> Result<WhoAmIResponse, Status> {
        let mut request = Request::new(WhoAmIRequest {});
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        let mut client = ClusterClient::new(self.channel(None));
        client.who_am_i(request).await.map(Response::into_inner)
    }

    /// Knows a member's token, after `change`; gives its text.
    fn knows_token(&self, change: impl FnOnce(&mut TokenRecord)) -> String {
        let projects = vec![ProjectPath::new("public/nup").unwrap()];
        let (mut record, text) = new_token(kim(), Role::Member, projects, Some(60), now());
        change(&mut record);
        self.authenticator.upsert(record);
        text
    }

    fn worker_certificate(&self, node: &str) -> Identity {
        let (certificate, key) = certified(&self.identity, node);
        Identity::from_pem(certificate, key)
    }
}

/// A worker's certificate and its key, PEM.
fn certified(identity: &ServerIdentity, node: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let node = NodeName::new(node).unwrap();
    let certificate = identity.sign_worker(&request.pem().unwrap(), &node, now()).unwrap();
    (certificate, key.serialize_pem())
}

fn kim() -> UserName {
    UserName::new("kim").unwrap()
}

/// Opens a worker's stream; gives the node that the server saw.
async fn open_session(channel: Channel) -> Result<String, Status> {
    let answer = WorkersClient::new(channel).session(tokio_stream::empty()).await?;
    Ok(answer.metadata().get("node").unwrap().to_str().unwrap().to_owned())
}

/// Code and reason of an answer that refuses.
fn refusal(status: &Status) -> (Code, String) {
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.domain, gotgan_proto::ERROR_DOMAIN);
    (status.code(), info.reason)
}

fn unauthenticated(error: AuthError) -> (Code, String) {
    (Code::Unauthenticated, error.reason().to_owned())
}

/// A CA made outside, with which a test can sign what the scheduler never would.
fn outside_ca() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A client certificate of a CA, with this name and nothing else.
fn signed_by(ca: &CertifiedIssuer<'static, KeyPair>, name: &str) -> Identity {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, ca).unwrap();
    Identity::from_pem(certificate.pem(), key.serialize_pem())
}

/// The identity of a site that brought its own CA.
fn site_identity(dir: &TempDir, ca: &CertifiedIssuer<'static, KeyPair>) -> ServerIdentity {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let file = |name: &str, text: String| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let files = TlsFiles {
        ca: file("ca.pem", ca.pem()),
        ca_key: Some(file("ca.key", ca.key().serialize_pem())),
        certificate: file("site.pem", params.signed_by(&key, ca).unwrap().pem()),
        key: file("site.key", key.serialize_pem()),
    };
    ServerIdentity::from_files(&files, now()).unwrap()
}

#[tokio::test]
async fn a_good_token_is_known_by_the_handler() {
    let server = TestServer::start().await;
    let token = server.knows_token(|_| ());
    let answer = server.who_am_i(Some(&token)).await.unwrap();
    assert_eq!((answer.subject.as_str(), answer.role()), ("kim", v1::Role::Member));
    assert_eq!(answer.projects, ["public/nup"]);
    assert!(answer.expires_us > now().0);
}

#[tokio::test]
async fn every_token_that_does_not_count_is_refused_for_its_own_reason() {
    let server = TestServer::start().await;
    let attempt = AttemptId { job: JobId(1), number: 1 };
    let project = ProjectPath::new("public/nup").unwrap();
    let (_, unknown) = new_token(kim(), Role::Admin, vec![], None, now());
    let cases = [
        (AuthError::MissingToken, None),
        (AuthError::MalformedToken, Some("gotgan_abc".to_owned())),
        (AuthError::UnknownToken, Some(unknown)),
        (AuthError::ExpiredToken, Some(server.knows_token(|t| t.expires = Some(t.created)))),
        (AuthError::RevokedToken, Some(server.knows_token(|t| t.revoked = Some(t.created)))),
        (AuthError::UnusableToken, Some(server.knows_token(|t| t.role = "worker".into()))),
        (
            AuthError::JobEnded,
            Some(server.authenticator.mint_job_token(&attempt, &kim(), &project)),
        ),
    ];
    for (error, token) in cases {
        let status = server.who_am_i(token.as_deref()).await.unwrap_err();
        assert_eq!(refusal(&status), unauthenticated(error));
        assert_eq!(status.message(), error.to_string());
    }
}

#[tokio::test]
async fn a_workers_certificate_opens_its_stream_under_its_own_name() {
    let server = TestServer::start().await;
    let channel = server.channel(Some(server.worker_certificate("gpu-1")));
    assert_eq!(open_session(channel.clone()).await.unwrap(), "gpu-1");
    let denied = ClusterClient::new(channel).status(v1::StatusRequest {}).await.unwrap_err();
    assert_eq!(refusal(&denied), (Code::PermissionDenied, "ROLE_NOT_ALLOWED".to_owned()));
}

#[tokio::test]
async fn a_token_never_opens_a_workers_stream() {
    let server = TestServer::start().await;
    let token = server.knows_token(|token| token.role = "admin".into());
    let mut request = Request::new(tokio_stream::empty());
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let status = WorkersClient::new(server.channel(None)).session(request).await.unwrap_err();
    assert_eq!(refusal(&status), (Code::PermissionDenied, "ROLE_NOT_ALLOWED".to_owned()));
}

#[tokio::test]
async fn a_certificate_of_a_foreign_ca_ends_the_handshake() {
    let server = TestServer::start().await;
    let status =
        open_session(server.channel(Some(signed_by(&outside_ca(), "gpu-1")))).await.unwrap_err();
    assert!(status.get_details_error_info().is_none(), "refused before the gate: {status:?}");
    assert!(matches!(status.code(), Code::Unavailable | Code::Unknown), "{status:?}");
    assert!(server.who_am_i(Some(&server.knows_token(|_| ()))).await.is_ok());
}

#[tokio::test]
async fn a_certificate_of_the_own_ca_that_is_not_a_workers_is_foreign() {
    let (dir, ca) = (tempfile::tempdir().unwrap(), outside_ca());
    let server = TestServer::start_as(site_identity(&dir, &ca), dir, now).await;
    let status = open_session(server.channel(Some(signed_by(&ca, "gpu-1")))).await.unwrap_err();
    assert_eq!(refusal(&status), unauthenticated(AuthError::ForeignCertificate));
    let channel = server.channel(Some(server.worker_certificate("gpu-1")));
    assert_eq!(open_session(channel).await.unwrap(), "gpu-1");
}

#[tokio::test]
async fn a_connection_does_not_outlive_its_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let identity = ServerIdentity::load_or_make(dir.path(), &[], now()).unwrap();
    let server = TestServer::start_as(identity, dir, in_a_year).await;
    let channel = server.channel(Some(server.worker_certificate("gpu-1")));
    let status = open_session(channel).await.unwrap_err();
    assert_eq!(refusal(&status), unauthenticated(AuthError::ExpiredCertificate));
}

#[tokio::test]
async fn a_jobs_token_reads_its_job_and_lists_nothing() {
    let server = TestServer::start().await;
    server.authenticator.set_job_check(Box::new(|_| true));
    let attempt = AttemptId { job: JobId(1), number: 1 };
    let project = ProjectPath::new("public/nup").unwrap();
    let token = server.authenticator.mint_job_token(&attempt, &kim(), &project);
    assert_eq!(server.who_am_i(Some(&token)).await.unwrap().projects, ["public/nup"]);
    let mut request = Request::new(v1::ListJobsRequest::default());
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let status = JobsClient::new(server.channel(None)).list(request).await.unwrap_err();
    assert_eq!(refusal(&status), (Code::PermissionDenied, "JOB_TOKEN_NOT_ALLOWED".to_owned()));
}

#[tokio::test]
async fn a_client_that_does_not_know_the_ca_sends_nothing() {
    let (server, other) = (TestServer::start().await, TestServer::start().await);
    let ca = Certificate::from_pem(other.identity.ca_pem());
    let tls = ClientTlsConfig::new().ca_certificate(ca).domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{}", server.address)).unwrap();
    assert!(endpoint.tls_config(tls).unwrap().connect().await.is_err());
}

/// A worker's connection to a server in this process: what kind of handshake it took, and for whom the server takes it.
async fn greet(client: &TlsConnector, server: &TlsAcceptor) -> (HandshakeKind, Vec<u8>) {
    let (near, far) = tokio::io::duplex(16 << 10);
    let name = "localhost".try_into().unwrap();
    let (near, far) = tokio::join!(client.connect(name, near), server.accept(far));
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    // With what comes first the client takes its ticket.
    far.write_u8(1).await.unwrap();
    near.read_u8().await.unwrap();
    let session = far.get_ref().1;
    let shown = session.peer_certificates().unwrap();
    (session.handshake_kind().unwrap(), shown[0].to_vec())
}

#[tokio::test]
async fn who_comes_back_to_a_server_started_again_is_known_by_half_a_handshake() {
    let dir = tempfile::tempdir().unwrap();
    let identity = || ServerIdentity::load_or_make(dir.path(), &[], now()).unwrap();
    let (shown, key) = certified(&identity(), "n1");
    let shown = CertificateDer::from_pem_slice(shown.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(identity().ca_pem().as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots);
    let secret = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = config.with_client_auth_cert(vec![shown.clone()], secret).unwrap();
    let client = TlsConnector::from(Arc::new(config));
    let first = greet(&client, &identity().acceptor().unwrap()).await;
    assert_eq!(first, (HandshakeKind::Full, shown.to_vec()));
    let again = greet(&client, &identity().acceptor().unwrap()).await;
    assert_eq!(again, (HandshakeKind::Resumed, shown.to_vec()));
}

/// What a server shows to a client that trusts the CA of `dir`.
async fn shown_by(server: &TlsAcceptor, ca_pem: &str) -> Vec<u8> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let (near, far) = tokio::io::duplex(16 << 10);
    let client = TlsConnector::from(Arc::new(config));
    let (near, far) =
        tokio::join!(client.connect("localhost".try_into().unwrap(), near), server.accept(far));
    far.unwrap();
    near.unwrap().get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn whoever_comes_after_a_renewal_is_met_with_the_new_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let identity =
        |name: &str| ServerIdentity::load_or_make(dir.path(), &[name.to_owned()], now()).unwrap();
    let old = identity("old.example");
    let ca = old.ca_pem().to_owned();
    let (mut renewal, current) = tls::Renewal::begin(&old).unwrap();
    let before = shown_by(&current.borrow().clone(), &ca).await;
    assert!(!renewal.take(&identity("old.example")).unwrap(), "it is the same");
    // A new name is a new certificate.
    assert!(renewal.take(&identity("new.example")).unwrap());
    let after = shown_by(&current.borrow().clone(), &ca).await;
    assert_ne!(before, after);
}

#[tokio::test]
async fn garbage_on_the_port_ends_that_connection_only() {
    let server = TestServer::start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The server may close before or after its alert is read.
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"));
    assert!(server.who_am_i(Some(&server.knows_token(|_| ()))).await.is_ok());
}

#[tokio::test]
async fn those_who_say_nothing_or_half_a_greeting_keep_nobody_waiting_outside() {
    let server = TestServer::start().await;
    let mut idle = Vec::new();
    // More than have their turn at once.
    for said in [&b""[..], &[22, 3, 1, 2, 0, 1]].repeat(100) {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(said).await.unwrap();
        idle.push(stream);
    }
    assert!(server.who_am_i(Some(&server.knows_token(|_| ()))).await.is_ok());
}

#[tokio::test]
async fn calls_are_counted_by_method_and_code_also_when_refused() {
    let server = TestServer::start().await;
    server.who_am_i(Some(&server.knows_token(|_| ()))).await.unwrap();
    server.who_am_i(None).await.unwrap_err();
    let method = "gotgan_rpcs_total{method=\"gotgan.v1.Cluster/WhoAmI\"";
    let lines = ["OK", "UNAUTHENTICATED"].map(|code| format!("{method},code=\"{code}\"}} 1\n"));
    // A call is counted when the server lets go of its answer, a little after the client has it.
    while !lines.iter().all(|line| server.metrics.encode().contains(line)) {
        tokio::task::yield_now().await;
    }
}
