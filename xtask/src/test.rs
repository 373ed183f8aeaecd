//! `cargo xtask test`: every test of the workspace, on both databases.

use std::ffi::OsString;
use std::process::{Command, ExitCode, Stdio};

use anyhow::Result;

use crate::postgres::{self, Postgres};
use crate::workspace::Workspace;
use crate::{child, interrupt};

/// Every process of a run carries it, so that what a test forgot is found and ended.
const RUN_VARIABLE: &str = "GOTGAN_TEST_RUN";

/// Where it is 1, tests that need PostgreSQL fail without it.
const REQUIRE_VARIABLE: &str = "GOTGAN_TEST_REQUIRE_POSTGRES";

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask test                         everything
  cargo xtask test -- -p gotgan-store      the tests of one crate
  cargo xtask test -- gang                 tests with `gang` in their name
  cargo xtask test --no-postgres           without a database server; says what it skips

An own server can be given as GOTGAN_TEST_POSTGRES=postgres://user@host/database; tests create databases of
their own in it.")]
pub struct Options {
    /// Skip all tests that need PostgreSQL
    #[arg(long)]
    no_postgres: bool,
    /// For the test runner
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    runner_arguments: Vec<OsString>,
}

pub fn run(options: &Options) -> Result<ExitCode> {
    interrupt::watch()?;
    let workspace = Workspace::find()?;
    let server = if options.no_postgres { None } else { Some(Postgres::obtain()?) };
    // End-to-end tests start these programs. Built together with the tests: what only tests need of a library would otherwise
    // have nearly everything compiled a second time.
    workspace.build(&["--workspace", "--bins", "--tests"])?;
    let code = run_tests(&workspace, options, server.as_ref())?;
    drop(server);
    if options.no_postgres {
        eprintln!("xtask: WITHOUT POSTGRESQL: its half of the store's conformance suite and every");
        eprintln!("xtask: end-to-end test on it were SKIPPED. `cargo xtask test` runs them.");
    }
    Ok(code)
}

fn run_tests(
    workspace: &Workspace,
    options: &Options,
    server: Option<&Postgres>,
) -> Result<ExitCode> {
    let run = std::process::id().to_string();
    let mut command = runner(workspace);
    command.args(&options.runner_arguments);
    command.env(RUN_VARIABLE, &run).env("GOTGAN_TEST_PROGRAMS", workspace.programs("debug"));
    match server {
        // Required: a test that cannot reach the server fails instead of being skipped.
        Some(server) => command.env(postgres::URL_VARIABLE, &server.url).env(REQUIRE_VARIABLE, "1"),
        None => command.env_remove(postgres::URL_VARIABLE).env_remove(REQUIRE_VARIABLE),
    };
    let status = child::run_in_foreground(&mut command);
    let left = child::end_marked(RUN_VARIABLE, &run);
    if !left.is_empty() {
        eprintln!("xtask: tests left these processes behind, ended now: {}", left.join(", "));
    }
    Ok(if status?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// nextest where it is installed, for its isolation and its summary; else cargo's own.
fn runner(workspace: &Workspace) -> Command {
    let mut probe = workspace.cargo();
    probe.args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    let has_nextest = probe.status().is_ok_and(|status| status.success());
    let mut command = workspace.cargo();
    if has_nextest {
        command.args(["nextest", "run", "--workspace"]);
    } else {
        command.args(["test", "--workspace"]);
    }
    command
}
