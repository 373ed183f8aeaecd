//! `gotgan-torment`: breaks a cluster of this machine while it is used, and judges what was seen.
//! `cargo xtask torment` builds everything and calls it.

#![allow(clippy::print_stdout)]

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use gotgan_tests::torment::evidence::Part;
use gotgan_tests::torment::{self, Options, Tally};
use tokio::signal::unix::{SignalKind, signal};

/// As of a program that was interrupted.
const INTERRUPTED: u8 = 130;

/// Kills, stops and cuts off the programs of a cluster while people submit, cancel and change quotas, then looks from
/// outside whether what was promised was kept.
///
/// Goes in rounds with a fresh cluster each and ends with the first in which something is wrong: exit code 1, with its
/// seed, what was seen of the jobs it is about, and the logs kept. Needs root for a disk that can be filled.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:
  gotgan-torment --minutes 10
  gotgan-torment --on postgres --minutes 120 --seed 7 --json torment.json
  gotgan-torment --seed 1234 --minutes 0        # one round, again
  gotgan-torment --planted all --minutes 3      # does it find bugs?"
)]
struct Arguments {
    /// Of the first round; each has the next [default: of chance]
    #[arg(long)]
    seed: Option<u64>,
    /// No round begins after this
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// On which database; PostgreSQL needs GOTGAN_TEST_POSTGRES
    #[arg(long, value_enum, default_value = "sqlite")]
    on: On,
    /// How long each round harms
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    round: f64,
    /// Faults in each of its minutes
    #[arg(long, value_name = "COUNT", default_value_t = 60)]
    faults: u32,
    /// Plant a bug in the schedulers, or each in turn, and see whether it is found
    #[arg(long, value_name = "BUG", value_parser = bug)]
    planted: Option<String>,
    /// Write what was done and found as JSON as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where files lie meanwhile; not below /tmp, which jobs have for their own
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    directory: PathBuf,
    /// Where logs are kept of a round in which something is wrong
    #[arg(long, value_name = "DIR", default_value = "target/torment")]
    logs: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum On {
    Sqlite,
    Postgres,
}

fn main() -> ExitCode {
    // As a job of a torment, before anything that takes time.
    let words: Vec<String> = env::args().collect();
    if let Some(part) = Part::read(&words) {
        return part.play();
    }
    torment(&Arguments::parse())
}

#[tokio::main]
async fn torment(arguments: &Arguments) -> ExitCode {
    let seed = arguments.seed.unwrap_or_else(|| rand::random_range(1..1_000_000));
    let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let options = Options {
        seed,
        time: seconds(arguments.minutes * 60.0),
        round: seconds(arguments.round),
        per_minute: arguments.faults,
        planted: None,
        on_postgres: arguments.on == On::Postgres,
        directory: arguments.directory.clone(),
        logs: arguments.logs.clone(),
        program: env::current_exe().expect("a program knows its path"),
    };
    let mut end = signal(SignalKind::terminate()).expect("signals can be listened to");
    tokio::select! {
        code = play(arguments, &options) => code,
        // Everything that was started is ended by being dropped.
        _ = tokio::signal::ctrl_c() => ExitCode::from(INTERRUPTED),
        _ = end.recv() => ExitCode::from(INTERRUPTED),
    }
}

async fn play(arguments: &Arguments, options: &Options) -> ExitCode {
    if let Some(bug) = &arguments.planted {
        return plant(options, bug).await;
    }
    let tally = torment::run(options).await;
    println!("\n{}", tally.table());
    if let Err(error) = write(arguments.json.as_ref(), &tally) {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    let is_clean = tally.violations.is_empty() && tally.rounds > 0;
    if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every bug must be found.
async fn plant(options: &Options, bug: &str) -> ExitCode {
    let all = torment::plant(options, bug).await;
    all.iter().for_each(|found| println!("{}", found.line()));
    let all_found = all.iter().all(|found| !found.broken.is_empty());
    if all_found { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A name of a bug, or all of them.
fn bug(name: &str) -> Result<String, String> {
    let known = torment::BUGS.map(|(bug, _)| bug);
    if name == "all" || known.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(format!("give all, or one of {}", known.join(", ")))
}

fn write(file: Option<&PathBuf>, tally: &Tally) -> std::io::Result<()> {
    let Some(file) = file else { return Ok(()) };
    fs::write(file, serde_json::to_vec_pretty(tally)?)
}
