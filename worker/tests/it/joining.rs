//! Joining by token, and the stream over TLS to an address without a name.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use gotgan_proto::v1::workers_server::WorkersServer;
use gotgan_worker::renewal::Renewal;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use crate::cluster::{Authority, Peer, Service};

async fn start_with_tls(directory: &std::path::Path) -> (String, mpsc::Receiver<Peer>) {
    let authority = Authority::new();
    std::fs::write(directory.join("ca.pem"), &authority.pem).unwrap();
    let (certificate, key) = authority.server();
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, key))
        .client_ca_root(Certificate::from_pem(&authority.pem))
        .client_auth_optional(true);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let (peers, streams) = mpsc::channel(1);
    let service = WorkersServer::new(Service {
        peers,
        authority: Some(authority),
        epoch: std::sync::Arc::new(crate::cluster::EPOCH.into()),
        heartbeat_ms: std::sync::Arc::new(crate::cluster::HEARTBEAT_MS.into()),
    });
    let server = Server::builder().tls_config(tls).unwrap().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, streams)
}

fn worker(directory: &std::path::Path, address: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gotgan-worker"));
    command.current_dir(directory).env("RUST_LOG", "warn");
    command.args(["--scheduler", address, "--state-dir", "state", "--ca", "ca.pem"]);
    command.args(["--node", "n1"]);
    command
}

/// The subcommand comes first.
fn with_subcommand(mut base: Command, name: &str, more: &[&str]) -> Command {
    let mut command = Command::new(base.get_program());
    command.current_dir(base.get_current_dir().unwrap()).env("RUST_LOG", "warn");
    command.arg(name).args(base.get_args()).args(more);
    base.env_clear();
    command
}

async fn run(mut command: Command) -> std::process::Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_worker_joins_with_a_token_and_then_shows_its_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let (address, mut streams) = start_with_tls(directory.path()).await;
    let joining = with_subcommand(worker(directory.path(), &address), "join", &["--token", "once"]);
    let output = run(joining).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let key = directory.path().join("state/tls/key.pem");
    assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    let mut daemon =
        with_subcommand(worker(directory.path(), &address), "run", &["--simulate", "1xH100"])
            .spawn()
            .unwrap();
    let next = tokio::time::timeout(std::time::Duration::from_secs(30), streams.recv());
    let peer = next.await.expect("no stream").unwrap();
    assert_eq!(peer.register.inventory.unwrap().node, "n1");
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[tokio::test]
async fn a_token_that_is_not_valid_is_refused_with_the_schedulers_words() {
    let directory = tempfile::tempdir().unwrap();
    let (address, _streams) = start_with_tls(directory.path()).await;
    let joining = with_subcommand(worker(directory.path(), &address), "join", &["--token", "old"]);
    let output = run(joining).await;
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("join token is not valid"), "{text}");
    // The next try asks for a certificate of the same key: the first one may have been signed unheard.
    let path = directory.path().join("state/tls/key.pem");
    let key = std::fs::read(&path).unwrap();
    let joining = with_subcommand(worker(directory.path(), &address), "join", &["--token", "once"]);
    assert!(run(joining).await.status.success());
    assert!(std::fs::read(&path).unwrap() == key);
}

#[tokio::test]
async fn a_certificate_is_renewed_for_the_same_key_before_it_runs_out() {
    let directory = tempfile::tempdir().unwrap();
    let (address, mut streams) = start_with_tls(directory.path()).await;
    let joining =
        with_subcommand(worker(directory.path(), &address), "join", &["--token", "brief"]);
    assert!(run(joining).await.status.success());
    let renewal = Renewal { node: "n1".into(), state_directory: directory.path().join("state") };
    let (tls, first) = (renewal.state_directory.join("tls"), renewal.term().unwrap());
    let key = std::fs::read(tls.join("key.pem")).unwrap();
    let mut daemon =
        with_subcommand(worker(directory.path(), &address), "run", &["--simulate", "1xH100"])
            .spawn()
            .unwrap();
    let limit = std::time::Duration::from_secs(30);
    let _peer = tokio::time::timeout(limit, streams.recv()).await.expect("no stream").unwrap();
    let renewed = async {
        while renewal.term().unwrap() == first {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(limit, renewed).await.expect("not renewed");
    assert!(renewal.term().unwrap().until_s > first.until_s + 3_600);
    assert!(std::fs::read(tls.join("key.pem")).unwrap() == key);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}
