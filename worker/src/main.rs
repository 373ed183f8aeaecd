//! `gotgan-worker`: the daemon of a node. Command line and signals; everything else is in the library.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use gotgan_worker::config::Config;
use gotgan_worker::inventory::Inventory;
use gotgan_worker::power::setter::{self, Setting};
use gotgan_worker::reader::child::{self, ReaderPlan};
use gotgan_worker::{join, run, smoke};
use tokio::signal::unix::{SignalKind, signal};

/// The daemon of a Gotgan node: reports the machine to the scheduler and runs attempts of jobs on it.
///
/// What attempts are confined by: `gotgan-worker inventory`, and docs/operations/confinement.md.
#[derive(Debug, Parser)]
#[command(name = "gotgan-worker", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon (also without any subcommand). Ends with SIGTERM or Ctrl-C; attempts go on.
    Run(Box<RunArguments>),
    /// Exchange a one-time join token for this node's certificate.
    Join(JoinArguments),
    /// Print what this machine would report.
    Inventory(InventoryArguments),
    /// Read everything this machine's NVIDIA driver tells of its GPUs, and say whether all is sound.
    ///
    /// Changes nothing unless --touch is given. Ends with 0 if all is sound, 1 if something is not, 2 without a driver.
    GpuSmoke(SmokeArguments),
    /// Read GPUs for the daemon that started this.
    #[command(hide = true)]
    NvmlReader(ReaderArguments),
    /// Set power limits for the daemon that started this.
    #[command(hide = true)]
    NvmlPower(PowerArguments),
    /// Cut a GPU for the daemon that started this.
    #[command(hide = true)]
    NvmlCut(CutArguments),
}

#[derive(Debug, Args)]
struct PowerArguments {
    /// NVML's library [default: where the system finds it].
    #[arg(long, value_name = "PATH")]
    library: Option<String>,
    /// GPUs with their limits; without one: what it has.
    #[arg(value_name = "UUID[=MILLIWATTS]")]
    settings: Vec<Setting>,
}

#[derive(Debug, Args)]
struct CutArguments {
    /// NVML's library [default: where the system finds it].
    #[arg(long, value_name = "PATH")]
    library: Option<String>,
    /// UUID of the GPU.
    #[arg(long, value_name = "UUID")]
    gpu: String,
    /// Profile of an instance; may be repeated.
    #[arg(long = "profile", value_name = "PROFILE", conflicts_with = "whole")]
    profiles: Vec<String>,
    /// It is to be whole.
    #[arg(long)]
    whole: bool,
}

#[derive(Debug, Args)]
struct ReaderArguments {
    /// NVML's library [default: where the system finds it].
    #[arg(long, value_name = "PATH")]
    library: Option<String>,
    /// How often GPUs are read.
    #[arg(long, value_name = "MILLISECONDS")]
    interval_ms: u64,
    /// UUID of a GPU to read; may be repeated [default: all].
    #[arg(long = "gpu", value_name = "UUID")]
    gpus: Vec<String>,
}

#[derive(Debug, Args)]
struct SmokeArguments {
    /// Machine-readable.
    #[arg(long)]
    json: bool,
    /// NVML's library [default: where the system finds it].
    #[arg(long, value_name = "PATH")]
    library: Option<String>,
    /// Also set each GPU's power limit, to the value that it has.
    #[arg(long)]
    touch: bool,
    /// Seconds after which a driver that does not answer a call is taken to hang.
    #[arg(long, value_name = "SECONDS", default_value_t = smoke::PATIENCE.as_secs())]
    patience: u64,
}

#[derive(Debug, Args)]
struct RunArguments {
    /// Address of a scheduler; may be repeated or hold several with commas: any of them leads to the leader.
    #[arg(long = "scheduler", value_name = "URL", env = "GOTGAN_SCHEDULER", value_delimiter = ',')]
    schedulers: Vec<String>,
    /// Directory for journal, certificates and output.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Plain http:// without certificates; only for tests.
    #[arg(long)]
    insecure: bool,
    /// Certificate of the authority, to join with if there is no certificate yet.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Token to join with if there is no certificate yet.
    #[arg(long, value_name = "TOKEN", env = "GOTGAN_JOIN_TOKEN", hide_env_values = true)]
    join_token: Option<String>,
    /// Program that runs attempts [default: gotgan-shim beside this one].
    #[arg(long, value_name = "PATH")]
    shim: Option<PathBuf>,
    #[command(flatten)]
    node: NodeArguments,
}

#[derive(Debug, Args)]
struct NodeArguments {
    /// Settings file; see docs/operations/worker.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Name of the node [default: as joined, else the host's name].
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Where other nodes reach this one [default: its address towards the scheduler].
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// Invent GPUs, as in 8xB200 or 4xH100,4xA100.
    #[arg(long, value_name = "GPUS")]
    simulate: Option<String>,
    /// CPUs to offer to jobs [default: all].
    #[arg(long)]
    cpus: Option<u64>,
    /// Memory to offer to jobs [default: all].
    #[arg(long, value_name = "MIB")]
    memory_mib: Option<u64>,
    /// Label of the node; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// NVML's library [default: where the system finds it].
    #[arg(long, value_name = "FILE")]
    nvml_library: Option<String>,
}

#[derive(Debug, Args)]
struct JoinArguments {
    /// Address of a scheduler; may be repeated or hold several with commas: the one that leads is asked.
    #[arg(long = "scheduler", value_name = "URL", required = true, value_delimiter = ',')]
    schedulers: Vec<String>,
    /// Certificate of the authority that signs the scheduler's.
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// From `gotgan admin join-token`; valid once.
    #[arg(long, value_name = "TOKEN", env = "GOTGAN_JOIN_TOKEN", hide_env_values = true)]
    token: String,
    /// Name of the node [default: the host's name].
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Where to keep certificate and key.
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
}

#[derive(Debug, Args)]
struct InventoryArguments {
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArguments,
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let result = match arguments.command {
        None => in_runtime(Box::pin(run_daemon(arguments.run))),
        Some(Command::Run(run)) => in_runtime(Box::pin(run_daemon(*run))),
        Some(Command::Join(join)) => in_runtime(join_cluster(join)),
        Some(Command::Inventory(inventory)) => print_inventory(inventory),
        Some(Command::GpuSmoke(smoke)) => return print_smoke(&smoke),
        // Without a runtime: its threads are its own.
        Some(Command::NvmlReader(arguments)) => return read_gpus(arguments),
        Some(Command::NvmlPower(PowerArguments { library, settings })) => {
            return setter::run(library.as_deref(), &settings);
        }
        Some(Command::NvmlCut(arguments)) => return cut_gpu(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gotgan-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn in_runtime(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(work)
}

fn cut_gpu(arguments: &CutArguments) -> ExitCode {
    let CutArguments { library, gpu, profiles, whole } = arguments;
    let profiles = (!whole).then_some(profiles.as_slice());
    gotgan_worker::cutting::run(library.as_deref(), gpu, profiles)
}

fn read_gpus(arguments: ReaderArguments) -> ExitCode {
    let ReaderArguments { library, interval_ms, gpus } = arguments;
    let interval = Duration::from_millis(interval_ms);
    child::run(&ReaderPlan { library, interval, known: gpus })
}

async fn run_daemon(arguments: RunArguments) -> Result<()> {
    let config = config_of_run(arguments)?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen to signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to signals")?;
    let shutdown = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending; attempts go on");
    };
    // What it waits on is too large for the stack.
    Ok(Box::pin(run::run(&config, shutdown)).await?)
}

async fn join_cluster(arguments: JoinArguments) -> Result<()> {
    let config = Config {
        schedulers: arguments.schedulers,
        ca: arguments.ca,
        join_token: arguments.token,
        node: arguments.node.unwrap_or_default(),
        state_directory: arguments.state_dir,
        ..Config::default()
    };
    config.check()?;
    let node = run::node_name(&config, &config.state_directory)?;
    join::join(&run::join_plan(&config, &node)).await?;
    tracing::info!(node, "joined");
    Ok(())
}

fn config_of_run(arguments: RunArguments) -> Result<Config> {
    let mut config = config_of_node(arguments.node)?;
    if !arguments.schedulers.is_empty() {
        config.schedulers = arguments.schedulers;
    }
    config.insecure |= arguments.insecure;
    set(&mut config.state_directory, arguments.state_dir);
    set(&mut config.ca, arguments.ca);
    set(&mut config.join_token, arguments.join_token);
    set(&mut config.shim, arguments.shim);
    Ok(config)
}

fn config_of_node(arguments: NodeArguments) -> Result<Config> {
    let mut config = match &arguments.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    set(&mut config.node, arguments.node);
    set(&mut config.address, arguments.address);
    set(&mut config.simulate, arguments.simulate);
    set(&mut config.cpus, arguments.cpus);
    set(&mut config.memory_mib, arguments.memory_mib);
    set(&mut config.nvml_library, arguments.nvml_library);
    config.labels.extend(run::parse_labels(&arguments.labels)?);
    Ok(config)
}

fn set<T>(setting: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *setting = given;
    }
}

fn print_inventory(arguments: InventoryArguments) -> Result<()> {
    let inventory = run::inventory(&config_of_node(arguments.node)?)?;
    let text = if arguments.json { as_json(&inventory)? } else { as_table(&inventory) };
    #[expect(clippy::print_stdout, reason = "asked for on the command line")]
    {
        println!("{text}");
    }
    Ok(())
}

fn print_smoke(arguments: &SmokeArguments) -> ExitCode {
    let plan = smoke::Plan {
        library: arguments.library.clone(),
        touch: arguments.touch,
        patience: Duration::from_secs(arguments.patience),
    };
    let report = smoke::run(plan);
    let text = if arguments.json { report.as_json() } else { report.as_text() };
    #[expect(clippy::print_stdout, reason = "asked for on the command line")]
    {
        println!("{text}");
    }
    ExitCode::from(report.verdict.exit_code())
}

fn as_json(inventory: &Inventory) -> Result<String> {
    let node = &inventory.node;
    let readings = inventory.readings();
    let gpus: Vec<_> = node
        .gpus
        .iter()
        .map(|gpu| {
            let reading = readings.iter().find(|reading| reading.uuid == gpu.uuid);
            serde_json::json!({
                "index": gpu.index, "uuid": gpu.uuid, "name": gpu.name, "class": gpu.gpu_class,
                "pci_bus_id": gpu.pci_bus_id, "memory_mib": gpu.memory_mib,
                "memory_used_mib": reading.and_then(|r| r.memory_used_mib),
                "utilisation_percent": reading.and_then(|r| r.utilisation_percent),
                "temperature_c": reading.and_then(|r| r.temperature_c),
                "power_mw": reading.and_then(|r| r.power_mw),
                "power_limit_mw": reading.and_then(|r| r.power_limit_mw),
                "ecc_uncorrected": reading.and_then(|r| r.ecc_uncorrected),
                "ecc_corrected": reading.and_then(|r| r.ecc_corrected),
                "processes": reading.map_or(0, |r| r.processes.len()),
                "error": reading.map_or("", |r| r.error.as_str()),
            })
        })
        .collect();
    let confinement = node.confinement.clone().unwrap_or_default();
    let images = node.images.clone().unwrap_or_default();
    let value = serde_json::json!({
        "schema": "gotgan.worker.inventory/1", "node": node.node, "address": node.address,
        "simulated": node.simulated, "os": node.os, "kernel": node.kernel,
        "driver_version": node.driver_version, "cuda_version": node.cuda_version,
        "cpu_milli": node.cpu_milli, "memory_mib": node.memory_mib, "labels": node.labels,
        "gpus": gpus, "confined_by": confinement.applied, "not_confined": confinement.missing,
        "images_run_by": images.by, "images_missing": images.missing,
    });
    Ok(serde_json::to_string_pretty(&value)?)
}

/// Nothing where the site does not ask for images.
fn images_line(inventory: &Inventory) -> Option<String> {
    let images = inventory.node.images.as_ref()?;
    match (images.able, images.missing.is_empty()) {
        (true, _) => Some(format!("images   run by {}", images.by)),
        (false, true) => None,
        (false, false) => Some(format!("NO IMAGES  {}", images.missing)),
    }
}

fn as_table(inventory: &Inventory) -> String {
    let node = &inventory.node;
    let simulated = if node.simulated { "  (simulated)" } else { "" };
    let mut lines = vec![
        format!("node     {}{simulated}", node.node),
        format!("system   {}, kernel {}", node.os, node.kernel),
        format!("offers   {} CPUs, {} MiB memory", node.cpu_milli / 1000, node.memory_mib),
    ];
    let confinement = node.confinement.clone().unwrap_or_default();
    let by = match confinement.applied.is_empty() {
        true => "nothing".to_owned(),
        false => confinement.applied.join(", "),
    };
    lines.push(format!("confined {by}"));
    lines.extend(confinement.missing.iter().map(|missing| format!("NOT CONFINED  {missing}")));
    lines.extend(images_line(inventory));
    if !node.driver_version.is_empty() {
        lines.push(format!("driver   {}, CUDA {}", node.driver_version, node.cuda_version));
    }
    if node.gpus.is_empty() {
        lines.push("GPUs     none".into());
    }
    for (gpu, reading) in node.gpus.iter().zip(inventory.readings()) {
        let shown = |value: Option<u32>| value.map_or("-".into(), |value| value.to_string());
        lines.push(format!(
            "GPU {:<4} {:<10} {:<44} {:>7} MiB  {:>3} %  {:>3} C  {}  {}",
            gpu.index,
            gpu.gpu_class,
            gpu.name,
            gpu.memory_mib,
            shown(reading.utilisation_percent),
            shown(reading.temperature_c),
            gpu.uuid,
            reading.error,
        ));
    }
    lines.join("\n")
}
