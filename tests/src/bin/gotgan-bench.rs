//! `gotgan-bench`: measures a cluster of this machine. `cargo xtask bench` builds everything and calls it.

#![allow(clippy::print_stdout)]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use gotgan_tests::bench::machine::{self, Machine};
use gotgan_tests::bench::report::Report;
use gotgan_tests::bench::scale::{self, Dose};
use gotgan_tests::bench::{
    Backend, Measure, Setup, failover, lifecycle, overload, quota, submit, worker,
};
use gotgan_tests::database::SERVER_VARIABLE;
use tokio::runtime::{Builder, Runtime};

// The measuring side shares the machine with what it measures; see the scheduler's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures acknowledged durable submissions or whole lifecycles a second, how long quotas take to compute, what a
/// scheduler does with the nodes and the queue of a country, how soon another takes its place, what a worker costs and
/// how quick it is, or what one who asks for too much costs others.
///
/// Prints the machine, the commit, the load average and a table. Marks that are missed are named; they do not
/// change the exit code, because machines differ.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:
  gotgan-bench submit
  gotgan-bench lifecycle --database sqlite --seconds 10 --json lifecycle.json
  gotgan-bench scale --nodes 200 --waiting 2000 --seconds 5
  gotgan-bench scale --only gang
  gotgan-bench failover --nodes 40 --waiting 1000 --runs 3
  gotgan-bench worker --only held
  gotgan-bench overload --only watchers"
)]
struct Arguments {
    /// What to measure
    #[arg(value_enum)]
    what: What,
    /// On which database; PostgreSQL needs GOTGAN_TEST_POSTGRES
    #[arg(long, value_enum, default_value = "both")]
    database: Which,
    /// How long each run submits [default: 5; of scale 60]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// Runs of which the median counts; of failover, how often a scheduler is killed [default: 3; of failover 20]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    runs: Option<u16>,
    /// Decides the mix of jobs
    #[arg(long, default_value_t = 20_260)]
    seed: u64,
    /// Write the results as JSON as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure without TLS
    #[arg(long)]
    plaintext: bool,
    /// Submit jobs held: nothing for the planner to look at
    #[arg(long)]
    held: bool,
    /// Measure only what has this in its name, as the table shows it
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    only: String,
    /// Nodes of eight GPUs, for scale and failover
    #[arg(long, default_value_t = Dose::default().nodes)]
    nodes: usize,
    /// Jobs that wait, for scale and failover
    #[arg(long, default_value_t = Dose::default().waiting)]
    waiting: usize,
    /// Where databases lie while measured; on a disk [default: /var/tmp]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    Submit,
    Lifecycle,
    Quota,
    Scale,
    Failover,
    Worker,
    Overload,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Sqlite,
    Postgres,
    Both,
}

impl Arguments {
    fn seconds(&self) -> f64 {
        let usual = match self.what {
            What::Scale => 60.0,
            What::Overload => 10.0,
            What::Submit | What::Lifecycle | What::Quota | What::Failover | What::Worker => 5.0,
        };
        self.seconds.unwrap_or(usual).clamp(0.1, 3600.0)
    }

    fn runs(&self) -> u16 {
        let usual = match self.what {
            What::Failover => 20,
            What::Submit
            | What::Lifecycle
            | What::Quota
            | What::Scale
            | What::Worker
            | What::Overload => 3,
        };
        self.runs.unwrap_or(usual)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match runtime(arguments.what) {
        Ok(runtime) => runtime.block_on(bench(arguments)),
        Err(error) => {
            eprintln!("the runtime cannot be started: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One thread: the measuring side shares the machine with what it measures. Where thousands of nodes come back at once,
/// which have processors of their own at a site, one thread would be what is measured.
fn runtime(what: What) -> std::io::Result<Runtime> {
    let mut builder = match what {
        What::Failover => Builder::new_multi_thread(),
        What::Submit
        | What::Lifecycle
        | What::Quota
        | What::Scale
        | What::Worker
        | What::Overload => Builder::new_current_thread(),
    };
    builder.enable_all().build()
}

async fn bench(arguments: Arguments) -> ExitCode {
    let Some(backends) = backends(&arguments) else { return ExitCode::FAILURE };
    let setup = setup(&arguments);
    let machine = Machine::look(&setup.directory);
    println!("{}", machine.describe());
    println!(
        "seed {}, {} s a run, {} runs, {}{}\n",
        setup.seed,
        arguments.seconds(),
        setup.runs,
        if setup.plaintext { "plaintext" } else { "TLS" },
        if setup.held { ", jobs held" } else { "" }
    );
    if !machine.is_durable() {
        eprintln!(
            "WARNING: databases lie in memory; nothing durable is measured (use --directory)"
        );
    }
    let results = measure(&arguments, &setup, &backends).await;
    let report = Report {
        schema: "gotgan.bench/1",
        machine,
        seconds: arguments.seconds(),
        seed: setup.seed,
        tls: !setup.plaintext,
        held: setup.held,
        results,
    };
    println!("{}load average after: {}", report.table(), machine::load_average());
    finish(&report, arguments.json.as_deref())
}

async fn measure(arguments: &Arguments, setup: &Setup, backends: &[Backend]) -> Vec<Measure> {
    let &Arguments { what, nodes, waiting, .. } = arguments;
    let mut results = match what {
        What::Quota => quota::measure(setup),
        What::Scale => return scale::measure(setup, Dose { nodes, waiting }).await,
        What::Failover => return failover::measure(setup, Dose { nodes, waiting }).await,
        What::Worker => return worker::measure(setup).await,
        What::Overload => return overload::measure(setup).await,
        What::Submit | What::Lifecycle => Vec::new(),
    };
    for &backend in backends {
        results.extend(match what {
            What::Submit => submit::measure(setup, backend).await,
            What::Lifecycle => lifecycle::measure(setup, backend).await,
            What::Quota => quota::measure_plan(setup, backend).await.into_iter().collect(),
            // Measured above, and on one database.
            What::Scale | What::Failover | What::Worker | What::Overload => Vec::new(),
        });
    }
    results
}

fn setup(arguments: &Arguments) -> Setup {
    let on_disk = Path::new("/var/tmp");
    let usual = if on_disk.is_dir() { on_disk.to_path_buf() } else { env::temp_dir() };
    Setup {
        duration: Duration::from_secs_f64(arguments.seconds()),
        runs: usize::from(arguments.runs()),
        seed: arguments.seed,
        plaintext: arguments.plaintext,
        held: arguments.held,
        only: arguments.only.clone(),
        directory: arguments.directory.clone().unwrap_or(usual),
    }
}

/// The databases to measure; says which cannot be. None if there is nothing left.
fn backends(arguments: &Arguments) -> Option<Vec<Backend>> {
    let which = match arguments.what {
        What::Scale | What::Worker | What::Overload => Which::Sqlite,
        What::Failover => Which::Postgres,
        What::Submit | What::Lifecycle | What::Quota => arguments.database,
    };
    let has_server = env::var_os(SERVER_VARIABLE).is_some();
    let mut backends = Vec::new();
    if which != Which::Postgres {
        backends.push(Backend::Sqlite);
    }
    match (which, has_server) {
        (Which::Sqlite, _) => {}
        (Which::Postgres | Which::Both, true) => backends.push(Backend::Postgres),
        (Which::Postgres | Which::Both, false) => {
            eprintln!(
                "SKIPPED: PostgreSQL, because {SERVER_VARIABLE} is not set; `cargo xtask bench` starts a server"
            );
        }
    }
    (!backends.is_empty()).then_some(backends)
}

fn finish(report: &Report, json: Option<&Path>) -> ExitCode {
    let Some(path) = json else { return ExitCode::SUCCESS };
    let written = serde_json::to_string_pretty(report)
        .map_err(std::io::Error::from)
        .and_then(|text| fs::write(path, text + "\n"));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}
