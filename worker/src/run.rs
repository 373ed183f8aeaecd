//! Putting the daemon together: state directory, identity, inventory, journal, supervisor, session.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::fcntl::{Flock, FlockArg};

use crate::config::{Config, ConfigError, is_node_name};
use crate::confine::ask;
use crate::confine::plan::Plan;
use crate::container::support::{self, Containers, Images};
use crate::exec::confining::{Confining, number_of};
use crate::exec::launcher::{Launcher, protocol_of};
use crate::exec::{ATTEMPTS, NodeContext, environment, strays};
use crate::handle::{Handle, Input, Stopped};
use crate::health::watch::Watch;
use crate::held::{AttemptKey, Image};
use crate::hooks::{self, Hooks, Kind};
use crate::imex::Imex;
use crate::inventory::{Inventory, InventoryError, InventoryPlan, cpu};
use crate::join::{self, JoinError, JoinPlan};
use crate::journal::{Journal, JournalError};
use crate::limits;
use crate::logs::Logs;
use crate::measure::feed::feed;
use crate::metrics::{MetricsError, Port, Sources};
use crate::power::Power;
use crate::retention::{Retention, sweep};
use crate::session::{Link, Session};
use crate::shim::protocol::VERSION;
use crate::supervisor::{NodeGpus, Supervisor};

/// How often old output is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// Why the daemon cannot run, or ran no longer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Identity.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The machine.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A file or directory.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Two daemons, one state.
    #[error("{0} is in use by another worker")]
    Locked(PathBuf),
    /// The shim's program.
    #[error("cannot start {path}: {source}; give its place with --shim")]
    Shim {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Programs of two releases.
    #[error(
        "{path} is older than this worker (protocol {found}, not {VERSION}): install both of one release"
    )]
    OldShim {
        /// The shim's program.
        path: PathBuf,
        /// Version of the protocol that it speaks.
        found: u32,
    },
    /// All was required.
    #[error(
        "confinement.mode is \"required\", and this machine lacks: {0}; give it what it lacks, switch that off under \
         [confinement], or set mode to \"best_effort\""
    )]
    NotConfined(String),
    /// The page for Prometheus.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// Nothing to say who this is.
    #[error(
        "no certificate in {0}: join first (gotgan-worker join), or give --join-token and --ca"
    )]
    NotJoined(PathBuf),
    /// The supervisor ended.
    #[error("the supervisor of attempts has stopped")]
    Stopped,
}

/// Runs the daemon until `shutdown` resolves. Attempts go on after it.
pub async fn run(config: &Config, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    config.check()?;
    let state = absolute(&config.state_directory)?;
    let node = node_name(config, &state)?;
    join::claim_state_directory(&state, &node)?;
    let _lock = lock(&state)?;
    let attempts = state.join(ATTEMPTS);
    fs::create_dir_all(&attempts).map_err(|source| file_error(&attempts, source))?;
    let port = Port::take(config.metrics_address()?).await?;
    // Before it joins: a token that was used by a worker that then refuses to run is lost.
    let (inventory, ways) = look_at_machine(config, &state, &node)?;
    let link = link(config, &state, &node).await?;
    let context = context(config, &state, &node, ways);
    let launcher = launcher(config)?;
    end_hooks(&context.attempts);
    clear_up(&state, config.retention()).await;
    let journal = Journal::open(&state.join("journal"))?;
    let boot_id = inventory.node.boot_id.clone();
    let rebooted = !journal.1.boot_id.is_empty() && journal.1.boot_id != boot_id;
    context.power.take_over(&journal.1, rebooted).await;
    context.imex.take_over(&journal.1);
    let log_read = journal.1.findings.log_read.filter(|_| journal.1.boot_id == boot_id);
    // Where nobody reads GPUs there is nothing to wait for.
    let settle = inventory.reader().map_or(Duration::ZERO, |_| config.health.settle());
    let gpus = NodeGpus {
        cards: inventory.cards.clone(),
        cutter: inventory.cutter.clone(),
        settle,
        gap: config.reading_gap(),
    };
    let started = Supervisor::start(context.clone(), launcher, journal, gpus, &boot_id);
    let (handle, supervising) = started.await?;
    let watch = Watch::begin(&config.health, &inventory, log_read, handle.clone());
    let logs = Arc::new(Logs::new(context, handle.clone()));
    let leftover_after = config.health.leftover_after();
    let feeding = feed(inventory.clone(), handle.clone(), config.reading_interval());
    let certificate = link.renewal(&node);
    let (shown, asked) = (inventory.clone(), handle.clone());
    let showing = port.serve(Sources { inventory: shown, handle: asked, certificate });
    let session = Session { link, inventory, handle: handle.clone(), logs, leftover_after };
    tokio::select! {
        result = supervising => result.map_err(RunError::from).and(Err(RunError::Stopped)),
        _ = session.run() => Err(RunError::Stopped),
        () = showing => Err(RunError::Stopped),
        _ = feeding => Err(RunError::Stopped),
        _ = watch_for_ever(watch) => Err(RunError::Stopped),
        () = sweep_for_ever(&attempts, &handle, config.retention()) => Err(RunError::Stopped),
        () = shutdown => Ok(()),
    }
}

/// What this machine would report, for the settings given.
pub fn inventory(config: &Config) -> Result<Inventory, RunError> {
    let node = if config.node.is_empty() { cpu::host_name() } else { config.node.clone() };
    let mut inventory = Inventory::take(&inventory_plan(config, &node))?;
    let name = format!("{node}.inventory-{}", std::process::id());
    let plan = confinement(config, &config.state_directory, &name);
    inventory.node.confinement = Some(ask::reported(&plan));
    inventory.node.images = Some(support::reported(&images(config, &plan)));
    Ok(inventory)
}

/// How attempts run on this machine.
struct Ways {
    confining: Confining,
    containers: Containers,
    hooks: Hooks,
    power: Power,
    imex: Imex,
}

/// The machine, and how attempts run on it. Blocks while driver and kernel are asked.
fn look_at_machine(
    config: &Config,
    state: &Path,
    node: &str,
) -> Result<(Arc<Inventory>, Ways), RunError> {
    let hooks = Hooks::of(&config.hooks).map_err(ConfigError::Value)?;
    let prefix = format!("{node}-{:08x}", number_of(&state.to_string_lossy()));
    let plan = confinement(config, state, &prefix);
    ask::tell(&plan);
    if let Some(missing) = plan.refusal() {
        return Err(RunError::NotConfined(missing));
    }
    if config.users.is_set() {
        open_for_users(state)?;
    }
    let mut inventory = Inventory::take(&inventory_plan(config, node))?;
    inventory.node.confinement = Some(ask::reported(&plan));
    let images = images(config, &plan);
    support::tell(&images);
    inventory.node.images = Some(support::reported(&images));
    let power = power(config, &inventory, state);
    inventory.node.power_caps = Some(power.reported());
    let imex = Imex::find(&config.imex, plan.root);
    inventory.node.imex_channels = Some(imex.reported());
    inventory.node.checks_hardware = hooks.has(Kind::Check);
    let (cards, simulated) = (inventory.cards.clone(), inventory.node.simulated);
    let containers = Containers { images, config: config.containers.clone(), cards, simulated };
    let (users, cards) = (config.users.clone(), inventory.cards.clone());
    let confining = Confining { plan, users, prefix, cards };
    Ok((Arc::new(inventory), Ways { confining, containers, hooks, power, imex }))
}

/// Whether GPUs can be capped. Blocks while the driver is asked.
fn power(config: &Config, inventory: &Inventory, state: &Path) -> Power {
    let uuids: Vec<String> = inventory.node.gpus.iter().map(|gpu| gpu.uuid.clone()).collect();
    match inventory.reader() {
        Some(_) => {
            let library = (!config.nvml_library.is_empty()).then(|| config.nvml_library.clone());
            Power::find(&config.power, library, state, &uuids)
        }
        None if uuids.is_empty() => Power::unable(None),
        None => Power::unable(Some("its GPUs are invented")),
    }
}

fn confinement(config: &Config, state: &Path, name: &str) -> Plan {
    ask::find(&config.confinement, &config.users, state, &shim_path(config), name)
}

fn images(config: &Config, plan: &Plan) -> Images {
    support::find(&config.containers, plan, &config.users, &shim_path(config))
}

/// Tasks of other users reach their own directories, by name: nothing here can be listed, and what is the worker's own
/// is open to nobody else.
fn open_for_users(state: &Path) -> Result<(), RunError> {
    for directory in [state.to_owned(), state.join(ATTEMPTS)] {
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o711))
            .map_err(|source| file_error(&directory, source))?;
    }
    Ok(())
}

/// What to join with, for the settings given.
pub fn join_plan(config: &Config, node: &str) -> JoinPlan {
    JoinPlan {
        schedulers: config.schedulers.clone(),
        ca: config.ca.clone(),
        token: config.join_token.clone(),
        node: node.to_owned(),
        state_directory: config.state_directory.clone(),
    }
}

/// The configured name, else the one joined with, else the host's.
pub fn node_name(config: &Config, state: &Path) -> Result<String, RunError> {
    let name = match (config.node.as_str(), join::owner(state)?) {
        ("", Some(owner)) => owner,
        ("", None) => cpu::host_name(),
        (name, _) => name.to_owned(),
    };
    match is_node_name(&name) {
        true => Ok(name),
        false => {
            let text = format!("node name {name:?}: must be 1 to 63 of [a-z0-9-]; use --node");
            Err(ConfigError::Value(text).into())
        }
    }
}

async fn link(config: &Config, state: &Path, node: &str) -> Result<Link, RunError> {
    let tls = match config.insecure {
        true => None,
        false => Some(identity(config, state, node).await?),
    };
    let backoff_max = Duration::from_millis(config.reconnect_max_ms);
    let (schedulers, state_directory) = (config.schedulers.clone(), state.to_owned());
    Ok(Link { schedulers, tls, state_directory, backoff_max })
}

async fn identity(
    config: &Config,
    state: &Path,
    node: &str,
) -> Result<crate::session::TlsMaterial, RunError> {
    let stored = join::stored(state)?;
    let can_join = !config.join_token.is_empty() && !config.ca.as_os_str().is_empty();
    match stored {
        Some(tls) => return Ok(tls),
        None if can_join => join::join(&join_plan(config, node)).await?,
        None => {}
    }
    join::stored(state)?.ok_or_else(|| RunError::NotJoined(state.join("tls")))
}

fn inventory_plan(config: &Config, node: &str) -> InventoryPlan {
    let wanted = |amount: u64| (amount > 0).then_some(amount);
    let given = |text: &String| (!text.is_empty()).then(|| text.clone());
    InventoryPlan {
        node: node.to_owned(),
        address: given(&config.address).unwrap_or_else(|| own_address(&config.schedulers)),
        labels: config.all_labels(),
        simulate: given(&config.simulate),
        cpus: wanted(config.cpus),
        memory_mib: wanted(config.memory_mib),
        nvml_library: given(&config.nvml_library),
        nvml_double_as_real: config.nvml_double_as_real,
        gpu_classes: config.gpu_classes.clone(),
        reading_interval: config.reading_interval(),
        reading_timeout: config.reading_timeout(),
        permissions: config.mig_permissions.clone(),
    }
}

fn context(
    config: &Config,
    state: &Path,
    node: &str,
    Ways { confining, containers, hooks, power, imex }: Ways,
) -> NodeContext {
    let daemon = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut passed_through = environment::passed_through(daemon);
    if config.users.is_set() {
        // The worker's own are wrong for everybody else.
        passed_through.retain(|name, _| !environment::OF_A_USER.contains(&name.as_str()));
    }
    let ca_path = if config.insecure { PathBuf::new() } else { join::ca_path(state) };
    NodeContext {
        node: node.to_owned(),
        attempts: state.join(ATTEMPTS).to_string_lossy().into_owned(),
        server: config.schedulers.join(","),
        ca_path: ca_path.to_string_lossy().into_owned(),
        passed_through,
        confining: Arc::new(confining),
        hooks,
        containers: Arc::new(containers),
        power: Arc::new(power),
        imex: Arc::new(imex),
    }
}

fn launcher(config: &Config) -> Result<Launcher, RunError> {
    let path = shim_path(config);
    let open_files = limits::raise_open_files().inspect_err(|error| {
        tracing::warn!(%error, "cannot raise the limit on open files");
    });
    let refused = |source| RunError::Shim { path: path.clone(), source };
    // A newer one does what this worker may ask for.
    let found = protocol_of(&path).map_err(refused)?;
    if found < VERSION {
        return Err(RunError::OldShim { path, found });
    }
    Launcher::start(&path, open_files.ok()).map_err(refused)
}

fn shim_path(config: &Config) -> PathBuf {
    match config.shim.as_os_str().is_empty() {
        false => config.shim.clone(),
        true => beside_this_program("gotgan-shim"),
    }
}

fn beside_this_program(name: &str) -> PathBuf {
    match std::env::current_exe() {
        Ok(own) => own.with_file_name(name),
        Err(_) => name.into(),
    }
}

/// This host's address on the way to a scheduler. Nothing is sent.
fn own_address(schedulers: &[String]) -> String {
    let found = schedulers.iter().find_map(|address| address_towards(address));
    found.map_or_else(cpu::host_name, |address| address.to_string())
}

fn address_towards(scheduler: &str) -> Option<IpAddr> {
    let uri: tonic::transport::Uri = scheduler.parse().ok()?;
    let host = uri.host()?.trim_matches(['[', ']']);
    let target = (host, uri.port_u16().unwrap_or(443)).to_socket_addrs().ok()?.next()?;
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Held as long as the daemon runs; the system lets go of it whatever way the daemon ends.
fn lock(state: &Path) -> Result<Flock<File>, RunError> {
    let path = state.join("lock");
    let file = File::create(&path).map_err(|source| file_error(&path, source))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| RunError::Locked(state.to_owned()))
}

fn absolute(path: &Path) -> Result<PathBuf, RunError> {
    std::path::absolute(path).map_err(|source| file_error(path, source))
}

/// Makes room, since a full disk would keep the journal from being opened, and ends what the journal does not know.
async fn clear_up(state: &Path, retention: Retention) {
    let path = state.join("journal");
    // Of a journal that cannot be read, nothing is known about what to leave alone.
    let image = match path.exists() {
        true => Journal::peek(&path),
        false => Some(Image::default()),
    };
    let Some(image) = image else {
        return;
    };
    let held: BTreeSet<AttemptKey> = image.attempts.into_keys().collect();
    let attempts = state.join(ATTEMPTS);
    strays::end(&attempts, &held).await;
    sweep_once(&attempts, held, retention).await;
}

/// Hooks of a daemon that was killed must not run beside those that are run again.
fn end_hooks(attempts: &str) {
    match hooks::end_leftovers(attempts) {
        Ok(0) => {}
        Ok(count) => tracing::warn!(count, "ended processes of hooks that an earlier worker ran"),
        Err(error) => tracing::warn!(%error, "cannot look for hooks that an earlier worker ran"),
    }
}

/// Goes on also where nobody watches GPUs.
async fn watch_for_ever(watch: Option<Watch>) -> Stopped {
    match watch {
        Some(watch) => watch.run().await,
        None => std::future::pending().await,
    }
}

async fn sweep_for_ever(attempts: &Path, handle: &Handle, retention: Retention) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    loop {
        ticks.tick().await;
        let Ok(held) = handle.ask(Input::Held).await else {
            return;
        };
        sweep_once(attempts, held, retention).await;
    }
}

async fn sweep_once(attempts: &Path, held: BTreeSet<AttemptKey>, retention: Retention) {
    let attempts = attempts.to_owned();
    let sweeping = move || sweep(&attempts, &held, retention, SystemTime::now());
    match tokio::task::spawn_blocking(sweeping).await {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "removed old output of attempts"),
        Err(error) => tracing::warn!(%error, "looking for old output failed"),
    }
}

fn file_error(path: &Path, source: io::Error) -> RunError {
    RunError::File { path: path.to_owned(), source }
}

/// Labels as given on the command line, `key=value`.
pub fn parse_labels(given: &[String]) -> Result<BTreeMap<String, String>, ConfigError> {
    let parse = |label: &String| match label.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err(ConfigError::Value(format!("label {label:?}: must be KEY=VALUE"))),
    };
    given.iter().map(parse).collect()
}
