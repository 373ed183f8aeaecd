//! The command line of Gotgan: submits jobs, shows them, and lets operators and the allocation office do their work.
//!
//! It speaks only the public API (`gotgan_proto::v1`) and decides nothing by itself: what a job may have and why
//! it waits comes from the scheduler. What lives here is reading people's input (scripts, flags, units), staying
//! connected, and showing answers as tables or JSON.

pub mod args;
pub mod client;
pub mod cmd;
pub mod config;
pub mod context;
pub mod directives;
pub mod error;
pub mod follow;
pub mod listing;
pub mod options;
pub mod output;
pub mod refer;
pub mod script;
pub mod slurm;
pub mod units;
pub mod view;
pub mod watch;

use std::ffi::OsString;

use clap::Parser;

use crate::{args::Cli, context::Context, error::Exit};

/// Runs the program with these arguments, the first being its name, and returns its exit code.
pub fn main(arguments: Vec<OsString>) -> u8 {
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(problem) => {
            let code = if problem.use_stderr() { Exit::Usage } else { Exit::Ok };
            // Help that nobody reads any more (a closed pipe) is no failure.
            let _ = problem.print();
            return code.code();
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(problem) => {
            eprintln!("error: cannot start: {problem}");
            return Exit::Internal.code();
        }
    };
    let context = Context::new(&cli.global, arguments);
    let code = match runtime.block_on(cmd::run(cli.command, &context)) {
        Ok(code) => code,
        Err(problem) => problem.report(context.output.json),
    };
    // Streams still open are dropped with the runtime; nothing waits for them.
    runtime.shutdown_background();
    code
}
