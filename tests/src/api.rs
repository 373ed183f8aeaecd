//! The gRPC API as one principal, with the questions that tests ask again and again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gotgan_proto::v1::cluster_client::ClusterClient;
use gotgan_proto::v1::jobs_client::JobsClient;
use gotgan_proto::v1::nodes_client::NodesClient;
use gotgan_proto::v1::quota_client::QuotaClient;
use gotgan_proto::v1::workers_client::WorkersClient;
use gotgan_proto::v1::{self, JobState};
use gotgan_proto::{MESSAGE_MAX_BYTES, STALE_READ};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::{Interceptor, interceptor::InterceptedService};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use crate::deadline;

/// A connection that has not come about in this time is not coming.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A channel on which every call carries the token.
pub type Line = InterceptedService<Channel, Head>;

/// Adds the bearer token, if there is one, and whether a standby may answer.
#[derive(Debug, Clone)]
pub struct Head {
    bearer: Option<MetadataValue<Ascii>>,
    stale: bool,
}

impl Interceptor for Head {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.bearer {
            request.metadata_mut().insert("authorization", token.clone());
        }
        if self.stale {
            request.metadata_mut().insert(STALE_READ, MetadataValue::from_static("1"));
        }
        Ok(request)
    }
}

/// The API as one principal.
#[derive(Debug, Clone)]
pub struct Api {
    channel: Channel,
    head: Head,
}

/// Opens a channel that connects when first used, and again whenever it broke.
///
/// # Panics
/// If the address or the certificate is none.
#[must_use]
pub fn channel(url: &str, ca_pem: Option<&str>) -> Channel {
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("an address");
    let endpoint = endpoint.connect_timeout(CONNECT_LIMIT).tcp_nodelay(true);
    let endpoint = match ca_pem {
        Some(pem) => {
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
            endpoint.tls_config(tls).expect("a certificate")
        }
        None => endpoint,
    };
    endpoint.connect_lazy()
}

/// A key that nobody has used.
#[must_use]
pub fn fresh_key() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("test-{}-{count}", std::process::id())
}

macro_rules! clients {
    ($($(#[$doc:meta])* $name:ident: $client:ident,)*) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name(&self) -> $client<Line> {
            $client::with_interceptor(self.channel.clone(), self.head.clone())
                .max_decoding_message_size(4 * MESSAGE_MAX_BYTES)
                // Tests must be able to send what is too large.
                .max_encoding_message_size(4 * MESSAGE_MAX_BYTES)
        }
    )*};
}

impl Api {
    /// The API over a channel, as the holder of the token.
    ///
    /// # Panics
    /// If the token has characters that no header may have.
    #[must_use]
    pub fn new(channel: Channel, token: Option<&str>) -> Self {
        let bearer = token.map(|token| format!("Bearer {token}").parse().expect("a token"));
        Self { channel, head: Head { bearer, stale: false } }
    }

    /// The same connection as somebody else.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self::new(self.channel.clone(), Some(token))
    }

    /// The same connection, of which a standby may answer what only reads.
    #[must_use]
    pub fn stale(&self) -> Self {
        let head = Head { stale: true, ..self.head.clone() };
        Self { channel: self.channel.clone(), head }
    }

    /// The same connection as nobody.
    #[must_use]
    pub fn without_token(&self) -> Self {
        Self::new(self.channel.clone(), None)
    }

    /// Channel and token, for a client made elsewhere.
    #[must_use]
    pub fn line(&self) -> Line {
        InterceptedService::new(self.channel.clone(), self.head.clone())
    }

    clients! {
        /// Jobs.
        jobs: JobsClient,
        /// Nodes.
        nodes: NodesClient,
        /// Quota.
        quota: QuotaClient,
        /// Cluster.
        cluster: ClusterClient,
        /// Workers.
        workers: WorkersClient,
    }

    /// Submits one job with a fresh key.
    ///
    /// # Errors
    /// The refusal.
    pub async fn try_submit(&self, spec: v1::JobSpec) -> Result<u64, Status> {
        Ok(self.jobs().submit(Self::request(spec)).await?.into_inner().job_id)
    }

    /// The request that submits a job with a fresh key.
    #[must_use]
    pub fn request(spec: v1::JobSpec) -> v1::SubmitRequest {
        v1::SubmitRequest { idempotency_key: fresh_key(), spec: Some(spec), dry_run: false }
    }

    /// Submits a job that must be accepted.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn submit(&self, spec: v1::JobSpec) -> u64 {
        self.try_submit(spec)
            .await
            .unwrap_or_else(|status| panic!("job refused: {}", told(&status)))
    }

    /// A job with its attempts.
    ///
    /// # Panics
    /// If there is no such job.
    pub async fn job(&self, job_id: u64) -> v1::Job {
        let answer = self.jobs().get(v1::GetJobRequest { job_id }).await;
        answer.unwrap_or_else(|status| panic!("job {job_id}: {}", told(&status))).into_inner()
    }

    /// Waits until the job is in this state.
    ///
    /// # Panics
    /// If it ends in another one, or does not come there.
    pub async fn wait_for_state(&self, job_id: u64, wanted: JobState) -> v1::Job {
        let what = format!("job {job_id} to be {wanted:?}");
        self.wait_for_job(job_id, &what, |job| job.state() == wanted).await
    }

    /// Waits until the job is terminal.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn wait_for_end(&self, job_id: u64) -> v1::Job {
        let what = format!("job {job_id} to end");
        self.wait_for_job(job_id, &what, |job| is_terminal(job.state())).await
    }

    /// Waits until the job is as wanted.
    ///
    /// # Panics
    /// If it ends otherwise, or does not come there.
    pub async fn wait_for_job(
        &self,
        job_id: u64,
        what: &str,
        wanted: impl Fn(&v1::Job) -> bool,
    ) -> v1::Job {
        deadline::until(what, async || {
            let answer = self.jobs().get(v1::GetJobRequest { job_id }).await;
            let job = answer.map_err(|status| told(&status))?.into_inner();
            if wanted(&job) {
                return Ok(job);
            }
            let seen = brief(&job);
            assert!(!is_terminal(job.state()), "waited for {what}, but it has ended: {seen}");
            Err(seen)
        })
        .await
    }

    /// Every job, without attempts.
    ///
    /// # Panics
    /// If the listing fails.
    pub async fn all_jobs(&self) -> Vec<v1::Job> {
        let mut jobs = Vec::new();
        let mut token = String::new();
        loop {
            let page = Some(v1::PageRequest { size: 1000, token });
            let answer = self
                .jobs()
                .list(v1::ListJobsRequest { page, tasks: true, ..Default::default() })
                .await;
            let answer = answer.unwrap_or_else(|s| panic!("jobs: {}", told(&s))).into_inner();
            jobs.extend(answer.jobs);
            token = answer.next_token;
            if token.is_empty() {
                return jobs;
            }
        }
    }

    /// A node.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub async fn try_node(&self, name: &str) -> Result<v1::Node, Status> {
        let request = v1::GetNodeRequest { name: name.to_owned() };
        Ok(self.nodes().get(request).await?.into_inner())
    }

    /// Waits until the node is heard.
    ///
    /// # Panics
    /// If it is not heard.
    pub async fn wait_for_node(&self, name: &str, wanted: v1::NodeLiveness) -> v1::Node {
        deadline::until(&format!("node {name} to be {wanted:?}"), async || {
            let node = self.try_node(name).await.map_err(|status| told(&status))?;
            if node.liveness() == wanted { Ok(node) } else { Err(format!("{:?}", node.liveness())) }
        })
        .await
    }

    /// Drains a node.
    ///
    /// # Panics
    /// If that fails.
    pub async fn drain(&self, name: &str, reason: &str) {
        let (name, reason) = (name.to_owned(), reason.to_owned());
        let request = v1::DrainRequest { idempotency_key: fresh_key(), name, reason };
        self.nodes().drain(request).await.expect("a node can be drained");
    }

    /// What an action on a job wants to know.
    #[must_use]
    pub fn action(job_id: u64, reason: &str) -> v1::JobActionRequest {
        let (idempotency_key, reason, tasks) = (fresh_key(), reason.to_owned(), String::new());
        v1::JobActionRequest { idempotency_key, job_id, reason, tasks }
    }

    /// Why a job waits.
    ///
    /// # Errors
    /// The refusal.
    pub async fn explain(&self, job_id: u64) -> Result<v1::Explanation, Status> {
        Ok(self.jobs().explain(v1::ExplainRequest { job_id }).await?.into_inner())
    }

    /// Waits until the planner has found a blocker of this kind.
    ///
    /// # Panics
    /// If it does not.
    pub async fn wait_for_blocker(&self, job_id: u64, kind: v1::BlockerKind) -> v1::Blocker {
        deadline::until(&format!("job {job_id} to be blocked by {kind:?}"), async || {
            let explanation = self.explain(job_id).await.map_err(|status| told(&status))?;
            let found = explanation.blockers.iter().find(|blocker| blocker.kind() == kind);
            found.cloned().ok_or_else(|| format!("{explanation:?}"))
        })
        .await
    }

    /// Replaces the quota tree by one file.
    ///
    /// # Errors
    /// The refusal.
    pub async fn apply_quota(&self, text: &str) -> Result<v1::ApplyQuotaResponse, Status> {
        let file = v1::QuotaFile { name: "tree.toml".into(), text: text.into() };
        let request = v1::ApplyQuotaRequest {
            idempotency_key: fresh_key(),
            proposal: Some(v1::QuotaProposal { files: vec![file], ..Default::default() }),
            ..Default::default()
        };
        Ok(self.quota().apply(request).await?.into_inner())
    }

    /// Makes a token.
    ///
    /// # Panics
    /// If that fails.
    pub async fn create_token(
        &self,
        subject: &str,
        role: v1::Role,
        projects: &[&str],
        lifetime_s: i64,
    ) -> v1::CreateTokenResponse {
        let request = v1::CreateTokenRequest {
            idempotency_key: fresh_key(),
            subject: subject.to_owned(),
            role: role.into(),
            projects: projects.iter().map(|&project| project.to_owned()).collect(),
            lifetime_s,
        };
        let answer = self.cluster().create_token(request).await;
        answer.unwrap_or_else(|status| panic!("token: {}", told(&status))).into_inner()
    }

    /// The API as a member of projects.
    pub async fn as_member(&self, subject: &str, projects: &[&str]) -> Self {
        let made = self.create_token(subject, v1::Role::Member, projects, 0).await;
        self.with_token(&made.token)
    }

    /// Makes a join token for any node.
    ///
    /// # Panics
    /// If that fails.
    pub async fn join_token(&self) -> String {
        let request =
            v1::CreateJoinTokenRequest { idempotency_key: fresh_key(), ..Default::default() };
        let answer = self.cluster().create_join_token(request).await;
        answer.unwrap_or_else(|s| panic!("join token: {}", told(&s))).into_inner().join_token
    }

    /// The state of the whole.
    ///
    /// # Errors
    /// The refusal.
    pub async fn status(&self) -> Result<v1::ClusterStatus, Status> {
        Ok(self.cluster().status(v1::StatusRequest {}).await?.into_inner())
    }

    /// Waits until no job is on its way.
    ///
    /// # Panics
    /// If some job does not end.
    pub async fn wait_until_idle(&self) {
        deadline::until("all jobs to end", async || {
            let status = self.status().await.map_err(|status| told(&status))?;
            match status.jobs_pending + status.jobs_starting + status.jobs_running {
                0 => Ok(()),
                _ => Err(format!("{status:?}")),
            }
        })
        .await;
    }

    /// Output of a task from an offset on, read to what is there now (or to its end with `follow`).
    ///
    /// # Errors
    /// The refusal.
    pub async fn read_log(&self, request: v1::LogsRequest) -> Result<(Vec<u8>, bool), Status> {
        let mut next = request.offset;
        let (mut bytes, mut end) = (Vec::new(), false);
        let mut chunks = self.jobs().logs(request).await?.into_inner();
        while let Some(chunk) = chunks.message().await? {
            assert_eq!(chunk.offset, next, "output has a gap or an overlap");
            next += chunk.data.len() as u64;
            bytes.extend(chunk.data);
            end = chunk.end;
        }
        Ok((bytes, end))
    }

    /// Standard output of a task, whole.
    ///
    /// # Panics
    /// If it cannot be read to its end.
    pub async fn output(&self, job_id: u64, step: u32, rank: u32) -> String {
        let request = v1::LogsRequest { job_id, step, rank, follow: true, ..Default::default() };
        let what = format!("the output of job {job_id} step {step} rank {rank}");
        deadline::until(&what, async || {
            let (bytes, end) = self.read_log(request).await.map_err(|s| told(&s))?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if end { Ok(text) } else { Err(format!("no end after {text:?}")) }
        })
        .await
    }
}

/// Whether a job in this state never changes again.
#[must_use]
pub fn is_terminal(state: JobState) -> bool {
    match state {
        JobState::Completed | JobState::Failed | JobState::Cancelled | JobState::TimedOut => true,
        JobState::Unspecified
        | JobState::Held
        | JobState::Pending
        | JobState::Starting
        | JobState::Running => false,
    }
}

/// A job in a line.
#[must_use]
pub fn brief(job: &v1::Job) -> String {
    let attempts: Vec<String> = job
        .attempts
        .iter()
        .map(|a| {
            format!("{} {:?} {:?} {:?} {:?}", a.number, a.state(), a.cause(), a.exit, a.detail)
        })
        .collect();
    format!("job {} {:?} {:?} {:?} {attempts:?}", job.job_id, job.state(), job.detail, job.exit)
}

/// A refusal in a line.
#[must_use]
pub fn told(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
