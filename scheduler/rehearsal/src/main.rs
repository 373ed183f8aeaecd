//! Plays from seed to seed until enough steps are done, and tells the first thing that is wrong.

#![allow(clippy::print_stdout)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use gotgan_rehearsal::judge::{Counts, SITE};
use gotgan_rehearsal::play::{Outcome, Script, play};
use gotgan_scheduler::planted;

/// Steps in which a planted bug must be found.
const PLANTED_STEPS: u64 = 3_000_000;
/// Lines of the story of one job.
const STORY_MAX: usize = 60;

#[derive(Debug, Parser)]
#[command(
    name = "gotgan-rehearsal",
    about = "Play the scheduler's flow from seeds",
    max_term_width = 100
)]
struct Arguments {
    /// The first seed; each play takes the next
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Plays until so many steps are done
    #[arg(long, default_value_t = 1_000_000)]
    steps: u64,
    /// Plants a bug and looks whether it is found; "all": each in turn
    #[arg(long, value_name = "BUG|all")]
    planted: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.planted.as_deref() {
        None => run(&arguments),
        Some("all") => {
            let names: Vec<_> = planted::names().map(|(_, name)| name).collect();
            let missed = names.iter().filter(|name| !is_found(name, arguments.seed)).count();
            println!("{} of {} planted bugs found", names.len() - missed, names.len());
            if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Some(name) if planted::names().any(|(_, known)| known == name) => {
            if is_found(name, arguments.seed) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Some(name) => {
            let known: Vec<_> = planted::names().map(|(_, name)| name).collect();
            println!("no bug is called {name}; there are {}", known.join(", "));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> ExitCode {
    let (began, mut steps, mut seed) = (Instant::now(), 0, arguments.seed);
    let (mut counts, mut told) = (Counts::default(), Instant::now());
    while steps < arguments.steps {
        let outcome = play(&Script { seed, ..Script::default() });
        steps += outcome.steps;
        counts.add(&outcome.counts);
        if !outcome.violations.is_empty() {
            tell(seed, &outcome);
            return ExitCode::FAILURE;
        }
        seed += 1;
        if told.elapsed() > Duration::from_secs(20) {
            told = Instant::now();
            summary(steps, seed - arguments.seed, began, &counts);
        }
    }
    summary(steps, seed - arguments.seed, began, &counts);
    println!("nothing is wrong");
    ExitCode::SUCCESS
}

fn summary(steps: u64, plays: u64, began: Instant, counts: &Counts) {
    let Counts { kills, pauses, faults, streams, stale: _, fenced, rounds, jobs, starts, audits } =
        counts;
    let rate = steps as f64 / began.elapsed().as_secs_f64();
    println!("{steps} steps in {plays} plays, {rate:.0} a second");
    println!(
        "  schedulers killed {kills}, stopped {pauses}; faults of nodes {faults}; streams {streams}"
    );
    println!(
        "  rounds {rounds}, jobs {jobs}, starts {starts}, refused as overtaken {fenced}, audits {audits}"
    );
}

/// Whether a planted bug is found.
fn is_found(name: &str, first: u64) -> bool {
    let (mut steps, mut seed) = (0, first);
    while steps < PLANTED_STEPS {
        let script = Script { seed, planted: Some(name.to_owned()), ..Script::default() };
        let outcome = play(&script);
        steps += outcome.steps;
        if let Some(first) = outcome.violations.first() {
            println!("{name}: found after {steps} steps, seed {seed}: {first}");
            return true;
        }
        seed += 1;
    }
    println!("{name}: NOT FOUND in {steps} steps");
    false
}

/// Plays it once more, and tells what happened to the jobs that it is about.
fn tell(seed: u64, outcome: &Outcome) {
    println!("seed {seed}, step {}:", outcome.broken_at.unwrap_or(outcome.steps));
    for violation in &outcome.violations {
        println!("  {violation}");
    }
    let again = play(&Script { seed, tells_story: true, ..Script::default() });
    if again.digest != outcome.digest {
        println!("  played again it went otherwise: {:x}, {:x}", outcome.digest, again.digest);
    }
    let mut jobs: Vec<u64> = outcome.violations.iter().flat_map(|it| it.jobs.clone()).collect();
    jobs.push(SITE);
    jobs.sort_unstable();
    jobs.dedup();
    for job in jobs {
        println!("{}:", if job == SITE { "the site".to_owned() } else { format!("job {job}") });
        let lines = again.story.get(&job).map(Vec::as_slice).unwrap_or_default();
        for line in &lines[lines.len().saturating_sub(STORY_MAX)..] {
            println!("  {line}");
        }
    }
    println!("once more: cargo xtask simulate --seed {seed} --steps 1");
}
