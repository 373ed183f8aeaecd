//! `cargo xtask bench NAME`: programs built as they are deployed, a PostgreSQL beside SQLite, and `gotgan-bench` on both.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::postgres::{self, Postgres};
use crate::workspace::Workspace;
use crate::{child, interrupt};

/// As the programs are deployed.
const PROFILE: &str = "dist";

/// What a benchmark measures, and the program that measures.
const BUILD: [&str; 11] = [
    "--profile",
    PROFILE,
    "--bins",
    "-p",
    "gotgan",
    "-p",
    "gotgan-scheduler",
    "-p",
    "gotgan-worker",
    "-p",
    "gotgan-tests",
];

/// Benchmarks that need no server.
const ON_SQLITE_ALONE: [&str; 3] = ["scale", "worker", "overload"];

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask bench submit
  cargo xtask bench lifecycle --json target/lifecycle.json
  cargo xtask bench scale --nodes 200 --waiting 2000 --seconds 5
  cargo xtask bench worker
  cargo xtask bench overload
  cargo xtask bench failover --nodes 40 --waiting 1000 --runs 3")]
pub struct Options {
    /// Which benchmark: submit, lifecycle, quota, scale, failover, worker or overload
    name: String,
    /// Write the results as JSON as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure SQLite alone
    #[arg(long)]
    no_postgres: bool,
    /// For the benchmark
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub fn run(options: &Options) -> Result<ExitCode> {
    interrupt::watch()?;
    let workspace = Workspace::find()?;
    let needs_server = !options.no_postgres && !ON_SQLITE_ALONE.contains(&options.name.as_str());
    let server = if needs_server { Some(Postgres::obtain()?) } else { None };
    workspace.build(&BUILD)?;
    let mut command = Command::new(workspace.programs(PROFILE).join("gotgan-bench"));
    command.arg(&options.name);
    if let Some(file) = &options.json {
        let file = std::path::absolute(file).context("no path for the JSON file")?;
        command.arg("--json").arg(file);
    }
    command.args(&options.arguments).env("GOTGAN_TEST_PROGRAMS", workspace.programs(PROFILE));
    match &server {
        Some(server) => command.env(postgres::URL_VARIABLE, &server.url),
        None => command.env_remove(postgres::URL_VARIABLE),
    };
    let status = child::run_in_foreground(&mut command)?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
