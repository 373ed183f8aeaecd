//! Breaks a cluster all the time while people use it, and judges what was seen from outside.
//!
//! ```text
//!  plan (seed) ──► faults ──► Stage: schedulers, workers, virtual workers, database, disk
//!                               ▲ every link over a wire of its own
//!  Client × n ──────────────────┘      jobs leave traces, virtual workers keep records
//!      └─► History ◄── watch (API)  ◄──────────┘
//!             └─► check: what must always hold
//! ```
//!
//! It goes in rounds, each with a fresh cluster and a seed of its own, so that what is found is found again in a minute and
//! the history to read is short.

pub mod certificates;
pub mod check;
mod disk;
mod driver;
pub mod evidence;
pub mod history;
mod load;
pub mod plan;
mod promise;
mod quota;
mod round;
mod stage;
mod story;
mod watch;
pub mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Database;
use plan::Shape;

pub use round::Ended;

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Options {
    /// Decides faults and wishes; each round has the next.
    pub seed: u64,
    /// No round begins after this.
    pub time: Duration,
    /// How long a round harms.
    pub round: Duration,
    /// Faults a minute.
    pub per_minute: u32,
    /// A bug that the schedulers have, to see whether it is found.
    pub planted: Option<String>,
    /// On PostgreSQL, with two schedulers; else on SQLite with one.
    pub on_postgres: bool,
    /// Below which files lie.
    pub directory: PathBuf,
    /// Where the logs of a round go in which something was found.
    pub logs: PathBuf,
    /// This program, which plays parts as well.
    pub program: PathBuf,
}

/// What was done and found, over all rounds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Tally {
    /// Rounds that were played to their end.
    pub rounds: u32,
    /// Faults by whom and what.
    pub faults: BTreeMap<String, u32>,
    /// Processes that were killed.
    pub kills: u32,
    /// Programs that ended by themselves and were started again.
    pub restarts: BTreeMap<String, u32>,
    /// Submissions that were acknowledged.
    pub acknowledged: u64,
    /// Submissions that nobody answered in time.
    pub unanswered: u64,
    /// Jobs that were stored, tasks of arrays counted each.
    pub jobs: u64,
    /// Attempts of them.
    pub attempts: u64,
    /// Of these, ended by each cause.
    pub causes: BTreeMap<String, u64>,
    /// Attempts that really ran on a node, by their own traces.
    pub runs: u64,
    /// Gangs that were told when they would start, when all was calm.
    pub promises: u32,
    /// The longest that was waited for all jobs to end after the last fault of a round.
    pub calm_after_s: f64,
    /// Promises that were broken.
    pub broken: BTreeSet<u8>,
    /// What was found, with the seed of its round.
    pub violations: Vec<(u64, String)>,
}

/// Bugs that can be planted in a scheduler, with the promise that each breaks.
pub const BUGS: [(&str, u8); 12] = [
    ("gpu-twice", 1),
    ("gpu-counted-twice", 2),
    ("limit-ignored", 3),
    ("acknowledged-unstored", 4),
    ("started-elsewhere", 5),
    ("gang-in-part", 6),
    ("revived", 7),
    ("charge-lost", 8),
    ("promised-too-early", 9),
    ("guarantee-ignored", 10),
    ("end-unstored", 11),
    ("starved", 12),
];

/// How a planted bug was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The bug.
    pub bug: &'static str,
    /// The promise that it breaks.
    pub promise: u8,
    /// Rounds until something was found, the last one with it.
    pub rounds: u32,
    /// And how long they took.
    pub took: Duration,
    /// Promises that were found broken; none: it was not found.
    pub broken: Vec<u8>,
}

/// Plants one bug after the other, and plays rounds with it until something is found or the time is over.
pub async fn plant(options: &Options, wanted: &str) -> Vec<Found> {
    let mut all = Vec::new();
    for (bug, promise) in BUGS.into_iter().filter(|(bug, _)| wanted == "all" || wanted == *bug) {
        let begun = Instant::now();
        let tally = run(&Options { planted: Some(bug.to_owned()), ..options.clone() }).await;
        let broken = tally.broken.into_iter().collect();
        let found = Found { bug, promise, rounds: tally.rounds, took: begun.elapsed(), broken };
        eprintln!("{}\n", found.line());
        all.push(found);
    }
    all
}

impl Found {
    /// In a table.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { bug, promise, rounds, took, broken } = self;
        let found = match broken.as_slice() {
            [] => "NOT FOUND".to_owned(),
            broken => format!("found as broken: {broken:?}"),
        };
        format!(
            "{bug:<24} breaks {promise:>2}  {rounds} rounds, {:>4.0} s  {found}",
            took.as_secs_f64()
        )
    }
}

/// Plays rounds until the time is over or something is found.
pub async fn run(options: &Options) -> Tally {
    let begun = Instant::now();
    let mut tally = Tally::default();
    for number in 0.. {
        let seed = options.seed + number;
        let Some(database) = database(options).await else { break };
        let ended = round::play(seed, database, shape(options), options).await;
        eprintln!("{}", ended.line(seed));
        ended.add_to(&mut tally);
        tell(seed, &ended);
        let found = ended.violations.iter().map(|violation| (seed, violation.to_string()));
        tally.violations.extend(found);
        tally.broken.extend(ended.violations.iter().map(|violation| violation.promise));
        if !tally.violations.is_empty() || begun.elapsed() >= options.time {
            break;
        }
    }
    tally
}

async fn database(options: &Options) -> Option<Database> {
    if options.on_postgres { Database::postgres().await } else { Some(Database::Sqlite) }
}

fn shape(options: &Options) -> Shape {
    let (server, disk) = (options.on_postgres, !options.on_postgres);
    let schedulers = if options.on_postgres { 2 } else { 1 };
    let slow_server = server && stage::server_faults().is_some();
    let (workers, virtuals, clients, drivers) = (2, 10, 3, 1);
    Shape { schedulers, workers, virtuals, clients, server, disk, drivers, slow_server }
}

/// What was found, and all that was seen of whom it is about.
fn tell(seed: u64, ended: &Ended) {
    for violation in ended.violations.iter().take(TOLD) {
        eprintln!("\nseed {seed}, {violation}");
        story::of(violation, ended).iter().for_each(|line| eprintln!("  {line}"));
    }
}

/// Violations that are told with their story; the first ones lead to the others.
const TOLD: usize = 8;
/// Lines of a story.
const STORY_LINES: usize = 60;

impl Ended {
    /// A round in a line.
    fn line(&self, seed: u64) -> String {
        let kills = self.faults.iter().filter(|fault| fault.harm.kills()).count();
        let attempts: usize = self.history.jobs.iter().map(|job| job.attempts.len()).sum();
        format!(
            "seed {seed}: {} faults ({kills} kills), {} jobs, {attempts} attempts, calm after {:.1} s, {}",
            self.faults.len(),
            self.history.jobs.len(),
            self.calm_after.as_secs_f64(),
            match self.violations.as_slice() {
                [] => "nothing wrong".to_owned(),
                found => format!("{} VIOLATIONS", found.len()),
            }
        )
    }

    fn add_to(&self, tally: &mut Tally) {
        tally.rounds += 1;
        for fault in &self.faults {
            let name = format!("{} {}", fault.target.word(), fault.harm.word());
            *tally.faults.entry(name).or_default() += 1;
            tally.kills += u32::from(fault.harm.kills());
        }
        for (name, count) in &self.restarts {
            *tally.restarts.entry(name.clone()).or_default() += count;
        }
        let history = &self.history;
        for submit in &history.submits {
            match submit.answer {
                history::Answer::Done(_) => tally.acknowledged += 1,
                history::Answer::None => tally.unanswered += 1,
                history::Answer::Refused(_) => {}
            }
        }
        tally.jobs += history.jobs.len() as u64;
        for attempt in history.jobs.iter().flat_map(|job| &job.attempts) {
            tally.attempts += 1;
            *tally.causes.entry(format!("{:?}", attempt.cause()).to_lowercase()).or_default() += 1;
        }
        tally.runs += history.runs.iter().filter(|run| run.starts > 0).count() as u64;
        tally.promises += u32::from(history.promise.is_some_and(|promise| promise.told_us > 0));
        tally.calm_after_s = tally.calm_after_s.max(self.calm_after.as_secs_f64());
    }
}

impl Tally {
    /// As a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut lines = vec![
            format!("{:<44} {:>10}", "rounds", self.rounds),
            format!("{:<44} {:>10}", "faults", self.faults.values().sum::<u32>()),
            format!("{:<44} {:>10}", "  of them kills of processes", self.kills),
        ];
        let counted = |name: &String, count: String| format!("  {name:<42} {count:>10}");
        lines.extend(self.faults.iter().map(|(name, count)| counted(name, count.to_string())));
        lines.push(format!("{:<44} {:>10}", "submissions acknowledged", self.acknowledged));
        lines.push(format!("{:<44} {:>10}", "  never answered", self.unanswered));
        lines.push(format!("{:<44} {:>10}", "jobs", self.jobs));
        lines.push(format!("{:<44} {:>10}", "attempts", self.attempts));
        let causes = self.causes.iter();
        lines.extend(
            causes.map(|(name, count)| counted(&format!("ended: {name}"), count.to_string())),
        );
        lines.push(format!("{:<44} {:>10}", "attempts that ran on a node", self.runs));
        lines.push(format!("{:<44} {:>10}", "promised starts watched", self.promises));
        lines.push(format!("{:<44} {:>10.1}", "longest until all had ended, s", self.calm_after_s));
        for (name, count) in &self.restarts {
            lines.push(counted(&format!("{name} ended by itself"), count.to_string()));
        }
        lines.push(format!("{:<44} {:>10}", "violations", self.violations.len()));
        lines.join("\n")
    }
}
