//! Certificates of a site that signs its own, so that they can run out when the plan says so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gotgan_proto::v1::CreateJoinTokenRequest;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair,
};
use tokio::process::Command;

use crate::api::{Api, fresh_key};
use crate::programs;

/// Of one that is good.
pub const LONG: Duration = Duration::from_secs(24 * 3_600);
/// Of one that is to run out: its program must be started with it, since none takes one that ran out.
pub const BRIEF: Duration = Duration::from_secs(2);
/// Certificates begin so long ago, as the product's do.
const BACKDATED: Duration = Duration::from_secs(3_600);
/// What marks a certificate as a worker's.
const WORKER_MARK: &str = "gotgan-worker";
/// Between two tries to join anew.
const JOIN_AGAIN: Duration = Duration::from_millis(300);

/// How long a certificate counts already, and how long it still does.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    /// Already.
    pub since: Duration,
    /// Still.
    pub lasts: Duration,
}

impl Life {
    /// Of one that begins as the product's do.
    #[must_use]
    pub const fn lasting(lasts: Duration) -> Self {
        Self { since: BACKDATED, lasts }
    }
}

/// The authority of a cluster, as whoever has its key can use it.
#[derive(Debug)]
pub struct Authority {
    ca: PathBuf,
    ca_key: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// The one that a scheduler made, in its `tls` directory.
    ///
    /// # Panics
    /// If it is not there.
    #[must_use]
    pub fn of(tls: &Path) -> Self {
        let (ca, ca_key) = (tls.join("ca.pem"), tls.join("ca.key"));
        let read = |path| fs::read_to_string(path).expect("the scheduler made an authority");
        let key = KeyPair::from_pem(&read(&ca_key)).expect("it has a key");
        let issuer = Issuer::from_ca_cert_pem(&read(&ca), key).expect("it is an authority");
        Self { ca, ca_key, issuer }
    }

    /// The settings of a scheduler that has its certificate beside this path.
    #[must_use]
    pub fn settings(&self, certificate: &Path) -> String {
        let [ca, ca_key] = [&self.ca, &self.ca_key].map(|path| path.display());
        let (key, certificate) = (certificate.with_extension("key"), certificate.display());
        format!(
            "\n[tls]\nca = \"{ca}\"\nca_key = \"{ca_key}\"\ncertificate = \"{certificate}\"\nkey = \"{}\"\n",
            key.display()
        )
    }

    /// Puts a scheduler's certificate there, with the key that lies beside it, made at first.
    ///
    /// # Panics
    /// If it cannot.
    pub fn certify_scheduler(&self, path: &Path, lasts: Duration) {
        let key_path = path.with_extension("key");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("these are names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.certify(params, "gotgan-scheduler", &key_path, path, Life::lasting(lasts));
    }

    /// Puts a worker's certificate into its state directory, for the key that it has.
    ///
    /// # Panics
    /// If it has none.
    pub fn certify_worker(&self, node: &str, state: &Path, life: Life) {
        let tls = state.join("tls");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationalUnitName, WORKER_MARK);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.certify(params, node, &tls.join("key.pem"), &tls.join("cert.pem"), life);
    }

    fn certify(
        &self,
        mut params: CertificateParams,
        name: &str,
        key_path: &Path,
        path: &Path,
        Life { since, lasts }: Life,
    ) {
        let key = match fs::read_to_string(key_path) {
            Ok(text) => KeyPair::from_pem(&text).expect("it was a key"),
            Err(_) => KeyPair::generate().expect("a key can be made"),
        };
        fs::write(key_path, key.serialize_pem()).expect("a file can be written");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = epoch + now.saturating_sub(since);
        params.not_after = epoch + (now + lasts);
        let certificate = params.signed_by(&key, &self.issuer).expect("it can be signed");
        // Whoever reads meanwhile sees the one or the other.
        let fresh = path.with_extension("fresh");
        fs::write(&fresh, certificate.pem()).expect("a file can be written");
        fs::rename(&fresh, path).expect("a file can be renamed");
    }
}

/// A worker that needs a new certificate.
#[derive(Debug, Clone)]
pub struct Rejoining {
    /// Its name.
    pub node: String,
    /// Where it finds schedulers.
    pub urls: Vec<String>,
    /// The authority's certificate.
    pub ca: PathBuf,
    /// Its state directory.
    pub state: PathBuf,
}

impl Rejoining {
    /// Does what an operator does: makes a join token for this very node, and joins again in its state directory, until that
    /// has worked. The worker itself is not touched.
    pub async fn join(self, apis: Vec<Api>) {
        loop {
            for api in &apis {
                if let Some(token) = self.token(api).await
                    && self.spend(&token).await
                {
                    return;
                }
            }
            tokio::time::sleep(JOIN_AGAIN).await;
        }
    }

    /// None by a scheduler that does not lead.
    async fn token(&self, api: &Api) -> Option<String> {
        let (idempotency_key, node) = (fresh_key(), self.node.clone());
        let request = CreateJoinTokenRequest { idempotency_key, node, ..Default::default() };
        let asked = tokio::time::timeout(Duration::from_secs(2), async {
            api.cluster().create_join_token(request).await
        });
        Some(asked.await.ok()?.ok()?.into_inner().join_token)
    }

    async fn spend(&self, token: &str) -> bool {
        let mut command = Command::new(programs::path("gotgan-worker"));
        command.args(["join", "--node", &self.node, "--token", token]);
        for url in &self.urls {
            command.args(["--scheduler", url]);
        }
        command.arg("--ca").arg(&self.ca).arg("--state-dir").arg(&self.state);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.kill_on_drop(true).status().await.is_ok_and(|status| status.success())
    }
}
