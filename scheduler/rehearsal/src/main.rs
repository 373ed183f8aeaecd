//! Plays from seed to seed until enough steps are done, and tells the first thing that is wrong.

#![allow(clippy::print_stdout)]

use std::num::NonZero;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use gotgan_rehearsal::judge::{Counts, SITE};
use gotgan_rehearsal::play::{Outcome, Script, play};
use gotgan_scheduler::planted;

/// Steps in which a planted bug must be found.
const PLANTED_STEPS: u64 = 3_000_000;
/// Lines of the story of one job.
const STORY_MAX: usize = 60;
const TELL_EVERY: Duration = Duration::from_secs(20);

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
    /// Plays at once [default: as many as there are processors]
    #[arg(long)]
    threads: Option<NonZero<usize>>,
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
    let threads = arguments.threads.or_else(|| thread::available_parallelism().ok());
    let series = Series::begin(arguments.seed, arguments.steps);
    thread::scope(|scope| {
        for _ in 0..threads.map_or(1, NonZero::get) {
            scope.spawn(|| series.play());
        }
    });
    let ended = series.progress.into_inner().unwrap_or_else(PoisonError::into_inner);
    ended.tell();
    // Of two that broke at once the earlier: the other may be the same.
    match ended.broken.iter().min_by_key(|(seed, _)| *seed) {
        Some((seed, outcome)) => {
            tell(*seed, outcome);
            ExitCode::FAILURE
        }
        None => {
            println!("nothing is wrong");
            ExitCode::SUCCESS
        }
    }
}

/// Plays from seed to seed, of which some run at once.
struct Series {
    /// No play begins after so many steps.
    steps: u64,
    progress: Mutex<Progress>,
}

struct Progress {
    began: Instant,
    told: Instant,
    next_seed: u64,
    plays: u64,
    steps: u64,
    counts: Counts,
    broken: Vec<(u64, Outcome)>,
}

impl Series {
    fn begin(seed: u64, steps: u64) -> Self {
        let (now, counts) = (Instant::now(), Counts::default());
        let progress = Progress {
            began: now,
            told: now,
            next_seed: seed,
            plays: 0,
            steps: 0,
            counts,
            broken: Vec::new(),
        };
        Self { steps, progress: Mutex::new(progress) }
    }

    /// One play after the other, until there are enough steps or something is wrong.
    fn play(&self) {
        while let Some(seed) = self.next_seed() {
            let outcome = play(&Script { seed, ..Script::default() });
            self.lock().take(seed, outcome);
        }
    }

    fn next_seed(&self) -> Option<u64> {
        let mut progress = self.lock();
        let goes_on = progress.broken.is_empty() && progress.steps < self.steps;
        goes_on.then(|| {
            progress.next_seed += 1;
            progress.next_seed - 1
        })
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn take(&mut self, seed: u64, outcome: Outcome) {
        self.plays += 1;
        self.steps += outcome.steps;
        self.counts.add(&outcome.counts);
        if !outcome.violations.is_empty() {
            self.broken.push((seed, outcome));
        }
        if self.told.elapsed() > TELL_EVERY {
            self.told = Instant::now();
            self.tell();
        }
    }

    fn tell(&self) {
        let Counts { kills, pauses, faults, streams, stale: _, .. } = self.counts;
        let Counts { fenced, rounds, jobs, starts, audits, .. } = self.counts;
        let rate = self.steps as f64 / self.began.elapsed().as_secs_f64();
        println!("{} steps in {} plays, {rate:.0} a second", self.steps, self.plays);
        println!(
            "  schedulers killed {kills}, stopped {pauses}; faults of nodes {faults}; streams {streams}"
        );
        println!(
            "  rounds {rounds}, jobs {jobs}, starts {starts}, refused as overtaken {fenced}, audits {audits}"
        );
    }
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
