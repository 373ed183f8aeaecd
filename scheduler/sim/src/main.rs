//! The binary `gotgan-sim`.

mod command;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What would the scheduler do? Its own decisions with virtual time. Everything it prints is simulated
#[derive(Parser, Debug)]
#[command(name = "gotgan-sim", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a scenario and check what it expects
    #[command(after_help = "Examples:\n  gotgan-sim scenario examples/scenarios/recall.toml\n  \
                      gotgan-sim scenario late.toml --json\n\n\
                      Ends with 0 if everything is as expected, with 3 if not or if the file is wrong.\n\
                      docs/scenarios.md describes the file.")]
    Scenario(command::scenario::Arguments),
    /// Replay a trace of jobs by a rule, or by the scheduler's own planner
    #[command(
        after_help = "Examples:\n  gotgan-sim replay --trace philly.csv.gz --gpus 512 --backfill easy\n  \
                      gotgan-sim replay --trace cluster.swf --gpus 1024 --order fair --shares shares.csv --json\n  \
                      gotgan-sim replay --trace philly.csv.gz --policy gotgan --nodes 64x8 --html report.html\n\n\
                      Ends with 0, or with 3 if a file or an argument is wrong.\n\
                      docs/simulator.md describes rules, formats and figures."
    )]
    Replay(command::replay::Arguments),
    /// Fill a cluster with tasks by a policy, and see how much of it can be given away
    #[command(
        after_help = "docs/placement.md describes the experiment, the policies and what comes of them."
    )]
    Pack(command::pack::Pack),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Scenario(arguments) => command::scenario::run(&arguments),
        Command::Replay(arguments) => command::replay::run(&arguments),
        Command::Pack(pack) => command::pack::run(&pack),
    }
}
