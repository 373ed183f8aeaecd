//! The connection to the scheduler: TLS, the token, and patience while a scheduler restarts or another takes over.
//!
//! A request is repeated as it is, with the same idempotency key, so repeating never does a thing twice.

use std::{cell::RefCell, error::Error as _, time::Duration};

use gotgan_proto::{
    ANSWER_MAX_BYTES, LEADER_ADDRESS, MESSAGE_MAX_BYTES, NOT_LEADER, STALE_MS, STALE_READ,
    v1::{
        cluster_client::ClusterClient, jobs_client::JobsClient, nodes_client::NodesClient,
        quota_client::QuotaClient,
    },
};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::Instant;
use tonic::{
    Code, Request, Response, Status,
    metadata::{Ascii, MetadataMap, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tonic_types::StatusExt;

use crate::{
    config::Settings,
    error::Error,
    output::{self, progress::Progress, time},
};

/// Longest wait for a connection; a scheduler that is there answers in milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The same where another can be tried: the host of a dead leader may say nothing at all.
const CONNECT_TIMEOUT_OF_SEVERAL: Duration = Duration::from_secs(2);

/// Longest wait for one answer that is not a stream; commits take milliseconds, even in a crowd.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A silent connection is asked for a sign of life this often, so that a follower notices a lost host.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// First and longest pause between two tries.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// Adds to each request the token, and whether a standby may answer it.
#[derive(Clone, Debug)]
pub struct Head {
    bearer: Option<MetadataValue<Ascii>>,
    stale: bool,
}

impl Interceptor for Head {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.bearer {
            request.metadata_mut().insert("authorization", value.clone());
        }
        if self.stale {
            request.metadata_mut().insert(STALE_READ, MetadataValue::from_static("1"));
        }
        Ok(request)
    }
}

type Service = InterceptedService<Channel, Head>;

/// One connection with what goes with each request.
#[derive(Clone, Debug)]
pub struct Api {
    channel: Channel,
    head: Head,
}

impl Api {
    fn service(&self) -> Service {
        InterceptedService::new(self.channel.clone(), self.head.clone())
    }

    /// The service for jobs.
    #[must_use]
    pub fn jobs(&self) -> JobsClient<Service> {
        JobsClient::new(self.service())
            .max_decoding_message_size(ANSWER_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES)
    }

    /// The service for nodes.
    #[must_use]
    pub fn nodes(&self) -> NodesClient<Service> {
        NodesClient::new(self.service())
            .max_decoding_message_size(ANSWER_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES)
    }

    /// The service for quotas and the ledger.
    #[must_use]
    pub fn quota(&self) -> QuotaClient<Service> {
        QuotaClient::new(self.service())
            .max_decoding_message_size(ANSWER_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES)
    }

    /// The service for the cluster and its tokens.
    #[must_use]
    pub fn cluster(&self) -> ClusterClient<Service> {
        ClusterClient::new(self.service())
            .max_decoding_message_size(ANSWER_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES)
    }
}

/// The schedulers we know, the one we are connected to, and how long we try.
#[derive(Debug)]
pub struct Client {
    endpoints: Vec<Endpoint>,
    ca_pem: Option<String>,
    head: Head,
    retry_for: Duration,
    progress: Progress,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Index of the endpoint to try first.
    next: usize,
    /// The leader, by what a standby said; tried before the others, once.
    hinted: Option<Endpoint>,
    api: Option<Api>,
    /// Somebody was told that an answer may be old.
    told_age: bool,
}

impl Client {
    /// Prepares for these settings; nothing is sent yet.
    ///
    /// # Errors
    /// When an address, the CA or the token cannot be used.
    pub fn new(
        settings: &Settings,
        retry_for: Duration,
        progress: Progress,
    ) -> Result<Self, Error> {
        let servers = settings.servers()?;
        let secure = servers.iter().any(|server| server.starts_with("https://"));
        let ca_pem = if secure { Some(settings.ca_pem()?) } else { None };
        let patience = if servers.len() > 1 { CONNECT_TIMEOUT_OF_SEVERAL } else { CONNECT_TIMEOUT };
        let endpoint = |server: &String| endpoint(server, ca_pem.as_deref(), patience);
        let bearer = settings.token()?.and_then(|token| {
            let mut value = MetadataValue::try_from(format!("Bearer {}", token.0)).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Ok(Self {
            endpoints: servers.iter().map(endpoint).collect::<Result<_, _>>()?,
            ca_pem,
            head: Head { bearer, stale: false },
            retry_for,
            progress,
            state: RefCell::default(),
        })
    }

    /// Takes answers that may be some seconds old, and begins with any of the schedulers, so that those that stand by do
    /// a part of the work.
    #[must_use]
    pub fn stale(mut self) -> Self {
        self.head.stale = true;
        self.state.get_mut().next = usize::from(random_byte()) % self.endpoints.len();
        self
    }

    /// Sends a request until it is answered, it is refused, or patience ends.
    ///
    /// # Errors
    /// The refusal, or why no scheduler answered.
    pub async fn call<T>(
        &self,
        request: impl AsyncFn(Api) -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        let timed = async |api: Api| match tokio::time::timeout(ANSWER_TIMEOUT, request(api)).await
        {
            Ok(answer) => answer,
            Err(_) => Err(Status::deadline_exceeded("the scheduler did not answer within 60 s")),
        };
        self.open(timed).await
    }

    /// As `call`, for streams: the first answer may take its time.
    ///
    /// # Errors
    /// The refusal, or why no scheduler answered.
    pub async fn open<T>(
        &self,
        request: impl AsyncFn(Api) -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        let mut patience = Patience::new(self.retry_for);
        let mut was_led = false;
        loop {
            let problem = match self.connected().await {
                Ok(api) => match request(api).await {
                    Ok(answer) => {
                        self.progress.clear();
                        self.tell_age(answer.metadata());
                        return Ok(answer.into_inner());
                    }
                    Err(status) if passes(&status) => {
                        self.disconnect();
                        // The first hint is followed at once; one that led to another standby is old news.
                        if self.follow(&status) && !was_led {
                            was_led = true;
                            continue;
                        }
                        Error::from(status)
                    }
                    Err(status) => {
                        self.progress.clear();
                        return Err(status.into());
                    }
                },
                Err(Attempt::Hopeless(problem)) => return Err(problem),
                Err(Attempt::MayPass(problem)) => problem,
            };
            patience.pause(problem, &self.progress).await?;
        }
    }

    /// Says once that a standby answered, and how old it may be.
    fn tell_age(&self, head: &MetadataMap) {
        let age_ms = head.get(STALE_MS).and_then(|age| age.to_str().ok()?.parse::<u64>().ok());
        let Some(age_ms) = age_ms else { return };
        if !std::mem::replace(&mut self.state.borrow_mut().told_age, true) {
            let age_s = age_ms.div_ceil(1_000);
            output::aside(&format!("a standby answered; some of it may be {age_s} s old"));
        }
    }

    /// The same schedulers over a connection of its own, for streams that would fill the common one. It is silent
    /// while it tries again.
    #[must_use]
    pub fn sibling(&self) -> Self {
        Self {
            endpoints: self.endpoints.clone(),
            ca_pem: self.ca_pem.clone(),
            head: self.head.clone(),
            retry_for: self.retry_for,
            progress: Progress::new(false),
            state: RefCell::default(),
        }
    }

    /// How long a request is tried again.
    #[must_use]
    pub fn retry_for(&self) -> Duration {
        self.retry_for
    }

    async fn connected(&self) -> Result<Api, Attempt> {
        if let Some(api) = self.state.borrow().api.clone() {
            return Ok(api);
        }
        let api = self.connect().await?;
        self.state.borrow_mut().api = Some(api.clone());
        Ok(api)
    }

    /// Tries each scheduler once, beginning with the last good one, or with the one that is said to lead.
    async fn connect(&self) -> Result<Api, Attempt> {
        let (count, first) = (self.endpoints.len(), self.state.borrow().next);
        let mut failures = Vec::new();
        let hinted = self.state.borrow_mut().hinted.take();
        if let Some(endpoint) = hinted
            && let Ok(channel) = endpoint.connect().await
        {
            return Ok(Api { channel, head: self.head.clone() });
        }
        for index in (0..count).map(|step| (first + step) % count) {
            match self.endpoints[index].connect().await {
                Ok(channel) => {
                    self.state.borrow_mut().next = index;
                    return Ok(Api { channel, head: self.head.clone() });
                }
                Err(problem) => {
                    failures.push((self.endpoints[index].uri().to_string(), chain(&problem)))
                }
            }
        }
        Err(unreachable(&failures))
    }

    /// Whether the refusal names the leader; then that one is tried next. Never from an encrypted address to one that is
    /// not, and the leader proves its name by the same authority.
    fn follow(&self, status: &Status) -> bool {
        let Some(leader) = leader_of(status) else { return false };
        let mut state = self.state.borrow_mut();
        let known = self.endpoints.iter().position(|endpoint| same_place(endpoint, &leader));
        if let Some(index) = known {
            state.next = index;
            return true;
        }
        let encrypted = leader.starts_with("https://");
        if !encrypted && self.ca_pem.is_some() {
            return false;
        }
        state.hinted = endpoint(&leader, self.ca_pem.as_deref(), CONNECT_TIMEOUT_OF_SEVERAL).ok();
        state.hinted.is_some()
    }

    /// Forgets the connection, and begins with the next scheduler: this one may be gone or not lead.
    fn disconnect(&self) {
        let mut state = self.state.borrow_mut();
        state.api = None;
        state.next = (state.next + 1) % self.endpoints.len();
    }
}

enum Attempt {
    MayPass(Error),
    Hopeless(Error),
}

/// The leader's address, where the refusal of a standby names it.
fn leader_of(status: &Status) -> Option<String> {
    let info = status.get_details_error_info().filter(|info| info.reason == NOT_LEADER)?;
    info.metadata.get(LEADER_ADDRESS).cloned()
}

fn same_place(endpoint: &Endpoint, address: &str) -> bool {
    endpoint.uri().to_string().trim_end_matches('/') == address.trim_end_matches('/')
}

fn endpoint(server: &str, ca_pem: Option<&str>, patience: Duration) -> Result<Endpoint, Error> {
    let wrong = |problem: tonic::transport::Error| {
        Error::invalid(
            format!("{server}: {}", chain(&problem)),
            "write https://HOST:PORT, and check the CA file",
        )
    };
    let endpoint = Endpoint::from_shared(server.to_owned())
        .map_err(wrong)?
        .connect_timeout(patience)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    match ca_pem.filter(|_| server.starts_with("https://")) {
        Some(pem) => {
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
            endpoint.tls_config(tls).map_err(wrong)
        }
        None => Ok(endpoint),
    }
}

/// Whether the same request may succeed a little later or elsewhere.
#[must_use]
pub fn passes(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable => true,
        // A connection that broke in mid-answer shows as one of these, with the cause as its source.
        Code::Unknown | Code::Internal | Code::Cancelled => status.source().is_some(),
        _ => false,
    }
}

fn unreachable(failures: &[(String, String)]) -> Attempt {
    let lines: Vec<String> = failures
        .iter()
        .map(|(server, problem)| format!("cannot reach {server}: {problem}"))
        .collect();
    let message = lines.join("\n");
    let all = |word: &str| {
        failures.iter().all(|(_, problem)| problem.to_ascii_lowercase().contains(word))
    };
    if all("certificate") || all("unknownissuer") {
        let hint = "is --ca (GOTGAN_CA) the CA of this scheduler? it is the ca.pem it wrote when it first started; the name in the address must be in the scheduler's certificate";
        return Attempt::Hopeless(Error::Unreachable { message, hint: hint.to_owned() });
    }
    if all("corrupt message") || all("invalid uri") || all("invalidcontenttype") {
        let hint = "what listens there does not speak TLS; check the port and the address";
        return Attempt::Hopeless(Error::Unreachable { message, hint: hint.to_owned() });
    }
    let hint = "is the scheduler running, and the address right? `gotgan config` shows where it comes from";
    Attempt::MayPass(Error::Unreachable { message, hint: hint.to_owned() })
}

/// An error with all its causes in one line; repeated words are left out.
fn chain(problem: &dyn std::error::Error) -> String {
    let mut parts: Vec<String> = vec![problem.to_string()];
    let mut source = problem.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        source = cause.source();
    }
    if parts.len() > 1 && parts[0] == "transport error" {
        parts.remove(0);
    }
    parts.join(": ")
}

/// Pauses between tries: doubled each time, spread by chance so that many clients do not come at once, and ended
/// by a deadline.
#[derive(Debug)]
pub struct Patience {
    deadline: Instant,
    pause: Duration,
}

impl Patience {
    /// Patience for this long from now.
    #[must_use]
    pub fn new(retry_for: Duration) -> Self {
        Self { deadline: Instant::now() + retry_for, pause: PAUSE_FIRST }
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// The problem itself, once patience has ended.
    pub async fn pause(&mut self, problem: Error, progress: &Progress) -> Result<(), Error> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            progress.clear();
            return Err(problem);
        }
        let first_line = problem.to_string().lines().next().unwrap_or_default().to_owned();
        progress.note(&format!("{first_line}; trying again for {} s", left.as_secs()));
        let spread =
            Duration::from_millis(u64::from(random_byte()) * self.pause.as_millis() as u64 / 512);
        tokio::time::sleep((self.pause / 2 + spread).min(left)).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}

fn random_byte() -> u8 {
    let mut byte = [0_u8; 1];
    match SystemRandom::new().fill(&mut byte) {
        Ok(()) => byte[0],
        Err(_) => 128,
    }
}

/// A key for one request: the milliseconds of the clock, then 80 random bits, in hex. Keys made one after the other lie
/// side by side in the scheduler's index, so that it writes fewer pages.
///
/// # Errors
/// When the system gives no random bytes.
pub fn new_idempotency_key() -> Result<String, Error> {
    let mut bytes = [0_u8; 10];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::Unexpected("the system gives no random bytes".to_owned()))?;
    let random: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{:012x}{random}", time::now_us() / 1_000))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Sourced;
    use tonic_types::ErrorDetails;

    #[test]
    fn keys_are_128_bits_and_differ() {
        let (first, second) = (new_idempotency_key().unwrap(), new_idempotency_key().unwrap());
        assert_eq!(first.len(), 32);
        assert_ne!(first, second);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        assert!(passes(&Status::unavailable("restarting")));
        for status in
            [Status::internal("x"), Status::unknown("x"), Status::failed_precondition("x")]
        {
            assert!(!passes(&status));
        }
    }

    fn client(servers: &str) -> Client {
        let none = || Sourced { value: None, source: "not set" };
        let settings = Settings {
            server: Sourced { value: Some(servers.to_owned()), source: "--server" },
            ca: none(),
            token_file: none(),
            token: None,
            token_source: "token file",
            config_path: None,
            config_found: false,
            insecure: true,
        };
        Client::new(&settings, Duration::ZERO, Progress::new(false)).unwrap()
    }

    fn led_by(address: &str) -> Status {
        let mut details = ErrorDetails::new();
        let metadata = [(LEADER_ADDRESS.to_owned(), address.to_owned())];
        details.set_error_info(NOT_LEADER, "gotgan", metadata);
        Status::with_error_details(Code::Unavailable, "stands by", details)
    }

    #[tokio::test]
    async fn the_leader_that_a_standby_names_is_tried_next_and_begun_with_after() {
        let client = client("http://a:1,http://b:1");
        assert!(client.follow(&led_by("http://b:1")));
        assert_eq!(client.state.borrow().next, 1);
        assert!(client.state.borrow().hinted.is_none());
        assert!(client.follow(&led_by("http://c:1")), "one that nobody told of");
        assert!(client.state.borrow().hinted.is_some());
        assert!(!client.follow(&Status::unavailable("restarting")));
    }

    #[tokio::test]
    async fn a_hint_never_leads_from_an_encrypted_address_to_one_that_is_not() {
        let mut client = client("http://a:1");
        client.ca_pem = Some(String::new());
        assert!(!client.follow(&led_by("http://c:1")));
        assert!(client.state.borrow().hinted.is_none());
    }
}
