//! `cargo xtask simulate`: the scheduler's flow is played from seeds, and what was seen is judged.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::workspace::Workspace;
use crate::{child, interrupt};

/// From so many steps on, ten minutes spent on a fast program are earned back.
const MANY: u64 = 50_000_000;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask simulate                               a million steps
  cargo xtask simulate --steps 1000000000            a billion, for hours
  cargo xtask simulate --seed 1234 --steps 1         one play once more
  cargo xtask simulate --planted all                 does it find bugs?

docs/simulation.md says what it does and what it has found.")]
pub struct Options {
    /// Of the first play; each has the next
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// No play begins after so many steps
    #[arg(long, default_value_t = 1_000_000)]
    steps: u64,
    /// Plant a bug and see whether it is found; all: each in turn
    #[arg(long, value_name = "BUG|all")]
    planted: Option<String>,
}

pub fn run(options: &Options) -> Result<ExitCode> {
    interrupt::watch()?;
    let workspace = Workspace::find()?;
    let (profile, folder) =
        if options.steps >= MANY { ("assured", "assured") } else { ("dev", "debug") };
    workspace.build(&["--profile", profile, "-p", "gotgan-rehearsal"])?;
    let mut command = Command::new(workspace.programs(folder).join("gotgan-rehearsal"));
    command.args(["--seed", &options.seed.to_string(), "--steps", &options.steps.to_string()]);
    if let Some(bug) = &options.planted {
        command.args(["--planted", bug]);
    }
    let status = child::run_in_foreground(&mut command)?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
