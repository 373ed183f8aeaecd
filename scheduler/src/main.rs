//! `gotgan-scheduler`: the gRPC server that admits, plans, dispatches and accounts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use gotgan_scheduler::app::{self, Ended};
use gotgan_scheduler::config::Config;
use gotgan_scheduler::custody::{self, Command, Outcome};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// A submission is a few hundred small allocations, made on one thread and freed on another; the system's allocator
/// makes the threads wait for each other there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The scheduler of Gotgan.
///
/// Prints one line, "ready URL", on standard output once it leads and serves, before it "standby URL" if another leads
/// now; logs go to standard error. SIGTERM and SIGINT
/// stop it without touching any job.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  gotgan-scheduler --data-dir /var/lib/gotgan --listen 0.0.0.0:7440\n  \
                  gotgan-scheduler backup /backup/gotgan.jsonl\n  gotgan-scheduler verify"
)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Configuration file (TOML); flags win over it.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Where certificates, the administrator's token and the embedded database are kept.
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
    /// Address for gRPC; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Address for metrics and health, or "off".
    #[arg(long, value_name = "ADDR|off")]
    http_listen: Option<String>,
    /// "sqlite://PATH" or "postgres://USER@HOST/NAME".
    #[arg(long, value_name = "URL", global = true)]
    database: Option<String>,
    /// No TLS, and any caller may claim to be a worker: for tests and benchmarks on one machine only.
    #[arg(long)]
    insecure: bool,
    /// Form of the logs.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, global = true)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// What was done.
enum Done {
    Ended(Ended),
    Custody(Outcome),
}

fn main() -> ExitCode {
    let args = Args::parse();
    start_logs(args.log_format);
    use_small_pages();
    // So that a script tells what differs from what could not be looked at.
    let failed = if args.command.is_some() { ExitCode::from(2) } else { ExitCode::FAILURE };
    match run(args) {
        Ok(Done::Ended(Ended::Asked) | Done::Custody(Outcome::Good)) => ExitCode::SUCCESS,
        Ok(Done::Ended(Ended::LostLeadership)) => {
            tracing::error!("another scheduler leads; ending, so that a fresh start stands by");
            ExitCode::from(3)
        }
        Ok(Done::Custody(Outcome::Differs)) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!("{error:#}");
            failed
        }
    }
}

/// A kernel's huge pages hold two MiB wherever some bytes are used. The allocator asks for them, and with the small buffers
/// of thousands of streams they make a third more of the memory resident.
fn use_small_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages are left as they are");
    }
}

fn start_logs(format: LogFormat) {
    let filter = EnvFilter::try_from_env("GOTGAN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            logs.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init()
        }
        LogFormat::Json => logs.json().init(),
    }
}

fn run(args: Args) -> anyhow::Result<Done> {
    let mut config = match &args.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    let server = &mut config.server;
    server.data_dir = args.data_dir.unwrap_or(std::mem::take(&mut server.data_dir));
    server.listen = args.listen.unwrap_or(server.listen);
    server.http_listen = args.http_listen.unwrap_or(std::mem::take(&mut server.http_listen));
    server.database = args.database.unwrap_or(std::mem::take(&mut server.database));
    if let Some(command) = args.command {
        let done = runtime()?.block_on(custody::run(command, &config.database_url()));
        return done.map(Done::Custody);
    }
    let server = &config.server;
    if args.insecure && !server.listen.ip().is_loopback() {
        anyhow::bail!("--insecure listens on loopback addresses only; use --listen 127.0.0.1:PORT");
    }
    runtime()?.block_on(async {
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone())?;
        app::run(config, args.insecure, stop).await.map(Done::Ended)
    })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("cannot start the runtime")
}

fn stop_on_signals(stop: CancellationToken) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}
