//! Connections to schedulers, one an address, kept open also to those that stand by: when one of them takes over, a country
//! full of nodes needs no handshakes to come to it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::join;
use crate::session::{SessionError, TlsMaterial};

/// A scheduler that does not answer this long is tried no further.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that answers no ping for this long is gone, whatever TCP thinks.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// How often each line is looked at. One that is down is opened again then, which spreads those of all nodes over this time.
const LOOK_EVERY: Duration = Duration::from_secs(20);

/// The connections of one node.
#[derive(Debug)]
pub struct Lines {
    tls: Mutex<Option<ClientTlsConfig>>,
    /// Absent: what it began with is not renewed.
    kept: Option<Mutex<Kept>>,
    /// What lines are opened by, made once: it holds the certificates that were read, and the tickets that were given.
    endpoints: Mutex<BTreeMap<String, Endpoint>>,
    open: Mutex<BTreeMap<String, Channel>>,
}

/// Certificates that lie in a state directory and may be renewed there.
#[derive(Debug)]
struct Kept {
    state_directory: PathBuf,
    /// As they were read last.
    read: TlsMaterial,
}

impl Lines {
    /// None is open yet.
    #[must_use]
    pub fn new(tls: Option<ClientTlsConfig>) -> Self {
        let (endpoints, open) = (Mutex::default(), Mutex::default());
        Self { tls: Mutex::new(tls), kept: None, endpoints, open }
    }

    /// With certificates that were read from a state directory; each new connection is made with what lies there then.
    #[must_use]
    pub fn kept_in(state_directory: PathBuf, read: TlsMaterial) -> Self {
        let tls = Some(read.client_config());
        Self { kept: Some(Mutex::new(Kept { state_directory, read })), ..Self::new(tls) }
    }

    /// The connection to an address, opened if there is none.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub async fn to(&self, address: &str) -> Result<Channel, SessionError> {
        if let Some(channel) = lock(&self.open).get(address).cloned() {
            return Ok(channel);
        }
        self.look_for_renewal();
        let channel = open(&self.endpoint(address)?).await?;
        lock(&self.open).insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    /// Whoever joined anew has other certificates. Tickets that were given by the old ones are not used any more.
    fn look_for_renewal(&self) {
        let Some(kept) = &self.kept else { return };
        let mut kept = lock(kept);
        match join::stored(&kept.state_directory) {
            Ok(Some(found)) if found != kept.read => {
                tracing::info!("took the certificate that was renewed");
                *lock(&self.tls) = Some(found.client_config());
                lock(&self.endpoints).clear();
                kept.read = found;
            }
            Ok(Some(_) | None) => {}
            Err(error) => tracing::warn!(%error, "cannot look whether the certificate was renewed"),
        }
    }

    fn endpoint(&self, address: &str) -> Result<Endpoint, SessionError> {
        let mut endpoints = lock(&self.endpoints);
        if let Some(endpoint) = endpoints.get(address) {
            return Ok(endpoint.clone());
        }
        let endpoint = endpoint_of(address, lock(&self.tls).clone())?;
        endpoints.insert(address.to_owned(), endpoint.clone());
        Ok(endpoint)
    }

    /// The next one to that address is to be a new one.
    pub fn give_up(&self, address: &str) {
        lock(&self.open).remove(address);
    }

    /// Opens connections to all of these, and opens anew what is broken, for ever; where there is a choice at all. `chance`
    /// is below 1000 and says when within [`LOOK_EVERY`] it begins.
    pub async fn keep_open(&self, addresses: &[String], chance: u32) {
        if addresses.len() < 2 {
            return std::future::pending().await;
        }
        let mut due = Instant::now() + LOOK_EVERY * chance.min(1_000) / 1_000;
        loop {
            sleep_until(due).await;
            for address in addresses {
                if let Err(error) = self.look(address).await {
                    tracing::debug!(scheduler = address, %error, "no line to the scheduler");
                }
            }
            due += LOOK_EVERY;
            due = due.max(Instant::now());
        }
    }

    /// Asks the scheduler how it is, which every one answers. What it says does not matter here.
    async fn look(&self, address: &str) -> Result<(), SessionError> {
        let channel = self.to(address).await?;
        let mut health = HealthClient::new(channel);
        let asked = health.check(HealthCheckRequest::default());
        let answer = tokio::time::timeout(CONNECT_TIMEOUT, asked).await;
        let answer = answer.map_err(|_| SessionError::Silent).and_then(|answer| Ok(answer?));
        if answer.is_err() {
            self.give_up(address);
        }
        answer.map(drop)
    }
}

/// A panic elsewhere does not make the list wrong.
fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TlsMaterial {
    /// What a connection is made with. Without a certificate of its own, as before it has joined, it proves nothing.
    #[must_use]
    pub fn client_config(&self) -> ClientTlsConfig {
        let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.ca_pem));
        match self.certificate_pem.is_empty() {
            true => config,
            false => config.identity(Identity::from_pem(&self.certificate_pem, &self.key_pem)),
        }
    }
}

/// Opens a connection.
///
/// # Errors
/// Why it cannot be opened.
pub async fn connect(address: &str, tls: Option<ClientTlsConfig>) -> Result<Channel, SessionError> {
    open(&endpoint_of(address, tls)?).await
}

fn endpoint_of(address: &str, tls: Option<ClientTlsConfig>) -> Result<Endpoint, SessionError> {
    let mut endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(SessionError::Address)?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true);
    if let Some(config) = tls {
        endpoint = endpoint.tls_config(config).map_err(SessionError::Address)?;
    }
    Ok(endpoint)
}

async fn open(endpoint: &Endpoint) -> Result<Channel, SessionError> {
    endpoint.connect().await.map_err(|error| SessionError::Connect(all_causes(&error)))
}

/// An error with what is behind it, since the transport's own text says only "transport error".
fn all_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_that_cannot_be_opened_is_not_kept() {
        let lines = Lines::new(None);
        let error = lines.to("http://127.0.0.1:1").await.unwrap_err();
        assert!(matches!(error, SessionError::Connect(_)), "{error}");
        assert!(lock(&lines.open).is_empty());
    }

    fn material(name: &str) -> TlsMaterial {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate_pem = params.self_signed(&key).unwrap().pem();
        let ca_pem = certificate_pem.clone();
        TlsMaterial { ca_pem, certificate_pem, key_pem: key.serialize_pem() }
    }

    fn keep(directory: &std::path::Path, material: &TlsMaterial) {
        let tls = directory.join("tls");
        std::fs::create_dir_all(&tls).unwrap();
        std::fs::write(tls.join("ca.pem"), &material.ca_pem).unwrap();
        std::fs::write(tls.join("cert.pem"), &material.certificate_pem).unwrap();
        std::fs::write(tls.join("key.pem"), &material.key_pem).unwrap();
    }

    #[tokio::test]
    async fn a_new_connection_is_made_with_the_certificate_that_lies_there_then() {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (material("old"), material("new"));
        keep(directory.path(), &old);
        let lines = Lines::kept_in(directory.path().to_owned(), old.clone());
        let shown = || lock(lines.kept.as_ref().unwrap()).read.clone();
        let nobody = "https://127.0.0.1:1";
        lines.to(nobody).await.unwrap_err();
        assert!(shown() == old && lock(&lines.endpoints).contains_key(nobody));
        keep(directory.path(), &new);
        lines.endpoint("https://127.0.0.1:2").unwrap();
        lines.to(nobody).await.unwrap_err();
        assert!(shown() == new);
        assert_eq!(lock(&lines.endpoints).len(), 1, "what the old one opened lines by is gone");
        std::fs::remove_file(directory.path().join("tls/key.pem")).unwrap();
        lines.to(nobody).await.unwrap_err();
        assert!(shown() == new, "half of one is none");
    }
}
