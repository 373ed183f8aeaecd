//! `cargo xtask torment`: a cluster is broken while it is used, and what was seen is judged.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::postgres::{self, Postgres};
use crate::workspace::Workspace;
use crate::{child, interrupt};

/// Every process of a run carries it, so that what is left is found and ended.
const RUN_VARIABLE: &str = "GOTGAN_TORMENT_RUN";
/// Names what says how slow the syncs of the database server are.
const SERVER_FAULTS_VARIABLE: &str = "GOTGAN_TEST_POSTGRES_FAULTS";
/// Built beside the programs.
const FAULTS_LIBRARY: &str = "liblibc_faults.so";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum On {
    Sqlite,
    Postgres,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask torment                                 two minutes on SQLite
  cargo xtask torment --minutes 120 --on postgres     two schedulers, for hours
  cargo xtask torment --seed 1234 --minutes 0         one round once more
  cargo xtask torment -- --round 30 --faults 120      shorter rounds, more faults

docs/torment.md says what it does and what it has found.")]
pub struct Options {
    /// Of the first round; each has the next [default: of chance]
    #[arg(long)]
    seed: Option<u64>,
    /// No round begins after this
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// On which database
    #[arg(long, value_enum, default_value = "sqlite")]
    on: On,
    /// Write what was done and found as JSON as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// For `gotgan-torment`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub fn run(options: &Options) -> Result<ExitCode> {
    interrupt::watch()?;
    let workspace = Workspace::find()?;
    // As in development: assertions stay on.
    workspace.build(&["--workspace", "--bins"])?;
    workspace.build(&["--package", "gotgan-libc-faults"])?;
    let programs = workspace.programs("debug");
    let library = programs.join(FAULTS_LIBRARY);
    let server = match options.on {
        On::Postgres => Some(Postgres::obtain_with(Some(&library))?),
        On::Sqlite => None,
    };
    let mut command = Command::new(programs.join("gotgan-torment"));
    command.args(["--minutes", &options.minutes.to_string()]);
    if let Some(seed) = options.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    command.args(["--on", if server.is_some() { "postgres" } else { "sqlite" }]);
    if let Some(file) = &options.json {
        let file = std::path::absolute(file).context("no path for the JSON file")?;
        command.arg("--json").arg(file);
    }
    command.args(&options.arguments).env("GOTGAN_TEST_PROGRAMS", programs);
    match &server {
        Some(server) => command.env(postgres::URL_VARIABLE, &server.url),
        None => command.env_remove(postgres::URL_VARIABLE),
    };
    if let Some(faults) = server.as_ref().and_then(|server| server.faults.as_ref()) {
        command.env(SERVER_FAULTS_VARIABLE, faults);
    }
    let run = std::process::id().to_string();
    command.env(RUN_VARIABLE, &run);
    let status = child::run_in_foreground(&mut command);
    let left = child::end_marked(RUN_VARIABLE, &run);
    if !left.is_empty() {
        eprintln!("xtask: left behind and ended now: {}", left.join(", "));
    }
    Ok(if status?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
