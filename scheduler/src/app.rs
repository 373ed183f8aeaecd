//! Putting the parts together: store, leadership, writer, planner, loops, servers; and taking them down again.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use gotgan_core::ids::UserName;
use gotgan_store::{Leadership, Round, Store};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::answers::{self, Gate};
use crate::api::Services;
use crate::assembly::{Assembly, Ground};
use crate::auth::tls::{self, Renewal, ServerIdentity, TlsFiles};
use crate::auth::{Authenticator, Role, new_token, random_secret};
use crate::clock;
use crate::config::Config;
use crate::connections;
use crate::flow::estimate::Keeper;
use crate::front::Front;
use crate::loops;
use crate::loops::leadership::Terms;
use crate::metrics::{self, Metrics};
use crate::standby::Reads;

/// Name of the setting that keeps the secret behind jobs' own tokens.
const JOB_SECRET: &str = "job_token_secret";

/// How long a leader that is about to serve tries to be seen by standbys.
const SHOW_LIMIT: Duration = Duration::from_secs(1);

/// How long callers wait at most for its first look at the queue.
const FIRST_PASS_LIMIT: Duration = Duration::from_secs(1);

/// Why it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Asked,
    /// It no longer leads.
    LostLeadership,
}

/// Runs a scheduler until it is asked to stop or no longer leads. Jobs are not touched by its end.
///
/// # Errors
/// Anything that keeps it from starting, with what was being done.
pub async fn run(config: Config, insecure: bool, stop: CancellationToken) -> anyhow::Result<Ended> {
    config.check()?;
    let config = config.with_rules()?;
    let data_dir = config.server.data_dir.clone();
    std::fs::create_dir_all(&data_dir)
        .with_context(|| format!("cannot make the data directory {}", data_dir.display()))?;
    let data_dir = data_dir.canonicalize().unwrap_or(data_dir);
    let _lock = lock(&data_dir)?;
    let wait = Duration::from_secs(config.server.database_wait_s);
    let opened = loops::leadership::open(&config.database_url(), wait, &stop).await?;
    let Some(store) = opened else { return Ok(Ended::Asked) };
    let listener = listen(config.server.listen)?;
    let bound = listener.local_addr().context("cannot tell the listening address")?;
    let address = announced(&config, bound, insecure);
    let identity = if insecure { None } else { Some(Arc::new(identity(&config, bound)?)) };
    let (metrics, leads) = (Metrics::new(), Arc::new(AtomicBool::new(false)));
    metrics::answer(&config.server.http_listen, &metrics, &leads, &stop).await?;
    let front = Front::open(listener, renewed(identity.as_deref(), &config, bound)?).await;
    let reads = Reads { store: &store, config: &config, metrics: &metrics };
    let candidate = Candidate { reads, holder: &holder(&data_dir)?, address: &address };
    let taken = candidate.wait(&front, &stop).await?;
    let Some(leadership) = taken else { return Ok(Ended::Asked) };
    tracing::info!(epoch = %leadership.epoch, address, database = store.kind().word(), "leading");
    let parts = Parts { config, store, identity, address, leadership, metrics, leads };
    lead(parts, front, stop).await
}

/// One that would lead.
struct Candidate<'a> {
    reads: Reads<'a>,
    holder: &'a str,
    address: &'a str,
}

impl Candidate<'_> {
    /// Takes the leadership, answering as a standby as long as another has it; `None` if asked to stop first.
    async fn wait(
        &self,
        front: &Front,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<Leadership>> {
        let Self { reads, holder, address } = *self;
        let mut aside = None;
        let note = |leader| {
            let is_first = aside.is_none();
            front.stand_by(leader, aside.get_or_insert_with(|| reads.aside()).clone());
            if is_first {
                announce("standby", address);
            }
        };
        let Reads { store, config, .. } = reads;
        let terms = Terms {
            lease_ms: config.timing.leader_lease_ms,
            watches: config.server.watch_leader_session,
        };
        let taken = loops::leadership::take(store, (holder, address), terms, stop, note).await?;
        front.coming();
        Ok(taken)
    }
}

/// What leading needs.
struct Parts {
    config: Config,
    store: Arc<dyn Store>,
    identity: Option<Arc<ServerIdentity>>,
    address: String,
    leadership: Leadership,
    metrics: Arc<Metrics>,
    leads: Arc<AtomicBool>,
}

async fn lead(parts: Parts, front: Front, stop: CancellationToken) -> anyhow::Result<Ended> {
    let epoch = parts.leadership.epoch;
    let outcome = run_leader(&parts, front, &stop).await;
    // So that another need not wait for the lease to run out; if it was lost already, that is no error.
    if let Err(error) = loops::leadership::resign(&parts.store, epoch).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "the lease was not given back");
    }
    outcome
}

async fn run_leader(
    parts: &Parts,
    front: Front,
    stop: &CancellationToken,
) -> anyhow::Result<Ended> {
    let lost = CancellationToken::new();
    let (store, epoch) = (&parts.store, parts.leadership.epoch);
    let shown = loops::leadership::show(store, epoch, SHOW_LIMIT);
    let (services, ()) = tokio::join!(start_flow(parts, &lost), shown);
    let services = services?;
    spawn_loops(parts, &services, &lost, stop);
    parts.leads.store(true, Ordering::Relaxed);
    serve(parts, services, front, stop, &lost).await
}

/// Loads the world and starts writer and planner on it. `lost` is cancelled when the writer ends.
async fn start_flow(parts: &Parts, lost: &CancellationToken) -> anyhow::Result<Arc<Services>> {
    let Parts { config, store, leadership, .. } = parts;
    let ground = Ground {
        store: Arc::clone(store),
        epoch: leadership.epoch,
        policy: Arc::new(config.policy.clone()),
        timing: config.timing,
        authenticator: authenticator(store, leadership, &config.server.data_dir).await?,
        identity: parts.identity.clone(),
        address: parts.address.clone(),
        metrics: Arc::clone(&parts.metrics),
    };
    let Assembly { services, writer, planner, estimator } = ground.assemble().await?;
    planner
        .spawn(services.writer.clone(), Handle::current(), lost.clone())
        .context("cannot start the planner")?;
    let (store_of, epoch, runtime) = (Arc::clone(store), leadership.epoch, Handle::current());
    estimator
        .spawn(Keeper { store: store_of, epoch, runtime })
        .context("cannot start the estimator")?;
    let ended = lost.clone();
    tokio::spawn(async move {
        // However it ends, also by a panic: a leader without a writer must make room for another.
        let _ended = ended.drop_guard();
        let why = writer.run().await;
        tracing::debug!(%why, "the writer ended");
    });
    Ok(services)
}

/// Name of this scheduler to the store: that of its host, and an id of its data directory, since hosts may be called
/// alike.
fn holder(data_dir: &Path) -> anyhow::Result<String> {
    let path = data_dir.join("scheduler.id");
    if let Ok(id) = std::fs::read_to_string(&path) {
        return Ok(format!("{}:{}", host_name(), id.trim()));
    }
    let id: String = random_secret().chars().take(16).collect();
    tls::write_secret(&path, &id)?;
    Ok(format!("{}:{id}", host_name()))
}

/// Makes sure that no other scheduler works on this data directory. The lock ends with the process, however it
/// ends, so whoever holds it may take the leadership of its predecessor over without waiting for the lease.
fn lock(data_dir: &Path) -> anyhow::Result<File> {
    let path = data_dir.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("another scheduler runs on the data directory {}", data_dir.display())
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    connections::listen(address).with_context(|| format!("cannot listen on {address}"))
}

/// How clients reach this scheduler.
fn announced(config: &Config, bound: SocketAddr, insecure: bool) -> String {
    let scheme = if insecure { "http" } else { "https" };
    let host = match config.server.names.first() {
        Some(name) => name.clone(),
        None if bound.ip().is_unspecified() => host_name(),
        None if bound.is_ipv6() => format!("[{}]", bound.ip()),
        None => bound.ip().to_string(),
    };
    format!("{scheme}://{host}:{}", bound.port())
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

/// What handshakes are done with: the certificate of this identity, and what it is renewed by.
fn renewed(
    identity: Option<&ServerIdentity>,
    config: &Config,
    bound: SocketAddr,
) -> anyhow::Result<Option<watch::Receiver<TlsAcceptor>>> {
    let Some(found) = identity else { return Ok(None) };
    let (renewal, current) = Renewal::begin(found).context("cannot use TLS")?;
    let config = config.clone();
    tokio::spawn(renewal.keep(move || self::identity(&config, bound)));
    Ok(Some(current))
}

fn identity(config: &Config, bound: SocketAddr) -> anyhow::Result<ServerIdentity> {
    let tls = &config.tls;
    if let (Some(ca), Some(certificate), Some(key)) = (&tls.ca, &tls.certificate, &tls.key) {
        let files = TlsFiles {
            ca: ca.clone(),
            ca_key: tls.ca_key.clone(),
            certificate: certificate.clone(),
            key: key.clone(),
        };
        return ServerIdentity::from_files(&files, clock::now())
            .context("cannot use the certificates given");
    }
    if tls.ca.is_some() || tls.certificate.is_some() || tls.key.is_some() {
        bail!("tls: give ca, certificate and key together, or none of them");
    }
    let mut names = config.server.names.clone();
    names.extend(["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned(), host_name()]);
    if !bound.ip().is_unspecified() {
        names.push(bound.ip().to_string());
    }
    names.sort();
    names.dedup();
    let dir = config.server.data_dir.join("tls");
    ServerIdentity::load_or_make(&dir, &names, clock::now()).context("cannot make the certificates")
}

/// Loads the tokens; at the very first start makes one for the administrator.
async fn authenticator(
    store: &Arc<dyn Store>,
    leadership: &Leadership,
    data_dir: &Path,
) -> anyhow::Result<Authenticator> {
    let fresh = random_secret();
    let secret = store.setting_or_insert(JOB_SECRET, &fresh).await?;
    let authenticator = Authenticator::new(secret);
    let tokens = store.tokens().await?;
    let path = data_dir.join("admin.token");
    let kept = std::fs::read_to_string(&path).ok();
    let known = |text: &String| {
        tokens.iter().any(|token| text.trim().starts_with(&format!("gotgan_{}_", token.id)))
    };
    // A file whose token the store does not know was left by a crash between the two writes below.
    let make = kept.map_or(tokens.is_empty(), |text| !known(&text));
    authenticator.replace(tokens);
    if make {
        let subject = UserName::new("admin").context("name of the administrator")?;
        let (record, token) = new_token(subject, Role::Admin, Vec::new(), None, clock::now());
        tls::write_secret(&path, &token)?;
        let round = Round { tokens: vec![record.clone()], ..Round::default() };
        store.commit(leadership.epoch, clock::now(), &round).await?;
        authenticator.upsert(record);
        tracing::info!(file = %path.display(), "made a token for the administrator");
    }
    Ok(authenticator)
}

fn spawn_loops(
    parts: &Parts,
    services: &Services,
    lost: &CancellationToken,
    stop: &CancellationToken,
) {
    for each in loops::of_leader(services, &parts.config.health) {
        tokio::spawn(each);
    }
    let lease_ms = parts.config.timing.leader_lease_ms;
    let (store, epoch) = (Arc::clone(&parts.store), parts.leadership.epoch);
    let (lost, stop) = (lost.clone(), stop.clone());
    tokio::spawn(async move {
        loops::leadership::keep(store, epoch, lease_ms, stop.clone()).await;
        if !stop.is_cancelled() {
            lost.cancel();
        }
    });
}

/// Answers calls until asked to stop or the leadership is lost.
async fn serve(
    parts: &Parts,
    services: Arc<Services>,
    mut front: Front,
    stop: &CancellationToken,
    lost: &CancellationToken,
) -> anyhow::Result<Ended> {
    let (dispatcher, timing) = (Arc::clone(&services.dispatcher), parts.config.timing);
    let gate = Gate { limits: parts.config.limits, insecure: parts.identity.is_none() };
    // Before thousands of nodes have the processors: what waits is known then when the first of them reports.
    services.last_pass.first(FIRST_PASS_LIMIT).await;
    front.lead(answers::of_leader(services, gate).await?).await;
    announce("ready", &parts.address);
    let why = tokio::select! {
        () = stop.cancelled() => Ended::Asked,
        () = lost.cancelled() => Ended::LostLeadership,
        error = front.broken() => return Err(error),
    };
    let grace = match why {
        Ended::Asked => Duration::from_millis(timing.shutdown_grace_ms),
        // Another leads; every answer from here could be wrong.
        Ended::LostLeadership => Duration::ZERO,
    };
    // Workers' streams never end by themselves.
    dispatcher.close();
    front.close(grace).await;
    Ok(why)
}

/// Tells whoever started this program where it serves, or stands by.
fn announce(word: &str, address: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever started it may have closed the pipe; then nobody wants to know.
    let _ = writeln!(out, "{word} {address}").and_then(|()| out.flush());
}
