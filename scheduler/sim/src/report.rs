//! What came of a scenario, for people and for programs. The same scenario gives the same text, byte for byte.

use std::fmt::Write as _;

use serde::Serialize;

use crate::engine::Outcome;
use crate::expect::{self, Verdict};
use crate::meter::{Balance, Parts};
use crate::record::AttemptEnd;
use crate::setup::Setup;

/// Columns of the text.
const WIDTH: usize = 80;

/// Width of the first column of the table.
const FIRST: usize = 6;

/// Least width of the others, without a blank before each.
const CELL: usize = 7;

/// GPU-milliseconds of a GPU-hour.
const HOUR_MS: u128 = 3_600_000;

/// Refused submissions that are shown; the rest is counted.
const REFUSED_MAX: usize = 5;

/// Everything that came of it.
#[derive(Debug, Serialize)]
pub struct ScenarioReport {
    /// Version of the form of this document.
    pub schema: &'static str,
    /// Always true: nothing here ran on a GPU.
    pub simulated: bool,
    /// One line.
    pub title: String,
    /// The first moment, Unix microseconds.
    pub from_us: i64,
    /// The same as quota files write it.
    pub from: String,
    /// The last moment, Unix microseconds.
    pub until_us: i64,
    /// The same as quota files write it.
    pub until: String,
    /// What draws began with.
    pub seed: u64,
    /// Whether every expectation is met and everything adds up.
    pub passed: bool,
    /// Jobs, counted.
    pub jobs: Jobs,
    /// What the run took.
    pub run: Run,
    /// What GPUs did, by class, in the order of names.
    pub classes: Vec<ClassParts>,
    /// What must be equal.
    pub balances: Vec<BalanceLine>,
    /// Every expectation, in the order of the file.
    pub expectations: Vec<Expectation>,
    /// What must never be.
    pub violations: Vec<String>,
    /// Submissions that were refused: the first few.
    pub refused: Vec<String>,
    /// Streams that brought no job: no such project at that time, or no size that fits.
    pub silent_streams: Vec<String>,
}

/// Jobs, counted.
#[derive(Debug, Serialize)]
pub struct Jobs {
    /// Stored.
    pub submitted: usize,
    /// Refused by admission.
    pub refused: usize,
    /// Attempts that began to run.
    pub starts: usize,
    /// Attempts that ended.
    pub ends: usize,
    /// Attempts that were stopped or lost.
    pub stopped: usize,
}

/// What the run took.
#[derive(Debug, Serialize)]
pub struct Run {
    /// Moments at which something happened.
    pub moments: u64,
    /// Passes of the planner.
    pub passes: u64,
    /// Decisions that came too late.
    pub late_decisions: u64,
}

/// What the GPUs of a class did, in thousandths of GPU-seconds.
#[derive(Debug, Serialize)]
pub struct ClassParts {
    /// The class.
    pub class: String,
    /// All there were.
    pub capacity_gpu_milli_seconds: u64,
    /// Held within guarantees.
    pub guaranteed_gpu_milli_seconds: u64,
    /// Held beyond them.
    pub borrowed_gpu_milli_seconds: u64,
    /// Held by attempts that started beyond a budget.
    pub overuse_gpu_milli_seconds: u64,
    /// Held by scavengers.
    pub scavenged_gpu_milli_seconds: u64,
    /// Free and reserved for somebody.
    pub reserved_gpu_milli_seconds: u64,
    /// Free and usable.
    pub idle_gpu_milli_seconds: u64,
    /// Free on nodes taken out of service.
    pub draining_gpu_milli_seconds: u64,
    /// Free on nodes not heard.
    pub down_gpu_milli_seconds: u64,
    /// Kept out of quotas.
    pub spare_gpu_milli_seconds: u64,
}

/// Two counts of the same.
#[derive(Debug, Serialize)]
pub struct BalanceLine {
    /// What is compared, with its unit.
    pub what: &'static str,
    /// Of which class.
    pub class: String,
    /// By the one count.
    pub left: u64,
    /// By the other.
    pub right: u64,
    /// Whether they are equal.
    pub equal: bool,
}

/// An expectation.
#[derive(Debug, Serialize)]
pub struct Expectation {
    /// What was looked at.
    pub name: String,
    /// When, Unix microseconds.
    pub at_us: i64,
    /// The same as quota files write it.
    pub at: String,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// Whether that is so.
    pub met: bool,
}

impl From<Verdict> for Expectation {
    fn from(verdict: Verdict) -> Self {
        let Verdict { name, at, expected, found, met } = verdict;
        Expectation { name, at_us: at.0.0, at: at.to_string(), expected, found, met }
    }
}

impl ScenarioReport {
    /// Judges what came of a scenario, and of its counterfactual.
    #[must_use]
    pub fn of(setup: &Setup, outcome: &Outcome, other: Option<&Outcome>) -> Self {
        let expects = setup.expects.iter().enumerate();
        let expectations: Vec<Expectation> = expects
            .map(|(index, expect)| {
                let there = other.and_then(|other| other.found.get(&index));
                let here = outcome.found.get(&index);
                expect::judge(expect, setup.until, here, there).into()
            })
            .collect();
        let mut balances = balances(outcome);
        let mut violations = outcome.record.violations.clone();
        if let Some(other) = other {
            let uneven = balances_of(other).filter(|line| !line.equal);
            balances.extend(uneven.map(|line| BalanceLine {
                class: format!("{} (counterfactual)", line.class),
                ..line
            }));
            let wrong = other.record.violations.iter();
            violations.extend(wrong.map(|wrong| format!("in the counterfactual: {wrong}")));
        }
        let passed = expectations.iter().all(|one| one.met)
            && balances.iter().all(|line| line.equal)
            && violations.is_empty();
        ScenarioReport {
            schema: "gotgan.scenario/1",
            simulated: true,
            title: setup.title.clone(),
            from_us: setup.from.0.0,
            from: setup.from.to_string(),
            until_us: setup.until.0.0,
            until: setup.until.to_string(),
            seed: setup.seed,
            passed,
            jobs: jobs(outcome),
            run: Run {
                moments: outcome.record.moments,
                passes: outcome.record.passes,
                late_decisions: outcome.record.late_decisions,
            },
            classes: classes(outcome),
            balances,
            expectations,
            violations,
            refused: refused(outcome),
            silent_streams: silent_streams(setup, outcome),
        }
    }

    /// For people, at most 80 columns wide.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = Lines::default();
        lines.wrap("", &format!("SIMULATED: {}", self.title));
        lines.wrap("  ", &format!("{} to {}, seed {}", self.from, self.until, self.seed));
        let Jobs { submitted, refused, starts, ends, stopped } = &self.jobs;
        let counts = format!(
            "{submitted} jobs, {refused} refused; {starts} starts, {ends} ends, {stopped} of them \
             stopped or lost"
        );
        lines.wrap("  ", &counts);
        self.table(&mut lines);
        for balance in &self.balances {
            lines.balance(balance);
        }
        for expectation in &self.expectations {
            lines.expectation(expectation);
        }
        for violation in &self.violations {
            lines.wrap("  FAILED  ", violation);
        }
        for refused in &self.refused {
            lines.wrap("  refused ", refused);
        }
        for stream in &self.silent_streams {
            lines.wrap("  note    ", &format!("stream {stream} brought no job"));
        }
        let met = self.expectations.iter().filter(|one| one.met).count();
        let all = self.expectations.len();
        let word = if self.passed { "passed" } else { "FAILED" };
        lines.wrap("", &format!("{word}: {met} of {all} expectations met (simulated)"));
        lines.0
    }

    /// Columns in which there is nothing at all are left out.
    fn table(&self, lines: &mut Lines) {
        let mut columns = Vec::new();
        for (head, amount) in COLUMNS {
            let cells: Vec<u64> = self.classes.iter().map(amount).collect();
            let shown = cells.iter().any(|cell| *cell > 0) || head == COLUMNS[0].0;
            columns.extend(shown.then_some((head, cells)));
        }
        lines.row("GPU-h", columns.iter().map(|(head, _)| (*head, (*head).to_owned())));
        for (at, class) in self.classes.iter().enumerate() {
            let hours = columns
                .iter()
                .map(|(head, cells)| (*head, (u128::from(cells[at]) / HOUR_MS).to_string()));
            lines.row(&class.class, hours);
        }
    }
}

/// An amount of a class.
type Column = (&'static str, fn(&ClassParts) -> u64);

/// The table's columns.
const COLUMNS: [Column; 10] = [
    ("capacity", |class| class.capacity_gpu_milli_seconds),
    ("guaranteed", |class| class.guaranteed_gpu_milli_seconds),
    ("borrowed", |class| class.borrowed_gpu_milli_seconds),
    ("overuse", |class| class.overuse_gpu_milli_seconds),
    ("scavenged", |class| class.scavenged_gpu_milli_seconds),
    ("reserved", |class| class.reserved_gpu_milli_seconds),
    ("idle", |class| class.idle_gpu_milli_seconds),
    ("draining", |class| class.draining_gpu_milli_seconds),
    ("down", |class| class.down_gpu_milli_seconds),
    ("spare", |class| class.spare_gpu_milli_seconds),
];

/// Lines of text, none too wide.
#[derive(Default)]
struct Lines(String);

impl Lines {
    /// A row of cells, each with the head of its column.
    fn row(&mut self, first: &str, cells: impl Iterator<Item = (&'static str, String)>) {
        let mut row = format!("  {first:<FIRST$}");
        if first.len() > FIRST {
            row = format!("  {first}\n  {:<FIRST$}", "");
        }
        for (head, cell) in cells {
            let width = head.len().max(CELL);
            // Writing to a text cannot fail.
            let _ = write!(row, " {cell:>width$}");
        }
        self.0.push_str(row.trim_end());
        self.0.push('\n');
    }

    fn balance(&mut self, balance: &BalanceLine) {
        let BalanceLine { what, class, left, right, equal } = balance;
        if *equal {
            return self.wrap("  ok      ", &format!("{class}: {what}"));
        }
        self.wrap("  FAILED  ", &format!("{class}: {what}: {left} and {right}"));
    }

    fn expectation(&mut self, expectation: &Expectation) {
        let Expectation { name, at, expected, found, met, .. } = expectation;
        let mark = if *met { "  ok      " } else { "  FAILED  " };
        self.wrap(mark, &format!("{at} {name}: expected {expected}, found {found}"));
    }

    /// Words of a line, the lines after it indented alike.
    fn wrap(&mut self, mark: &str, text: &str) {
        let indent = " ".repeat(mark.len());
        let mut line = mark.to_owned();
        let mut is_empty = true;
        for word in text.split_whitespace() {
            let width = line.chars().count() + 1 + word.chars().count();
            if !is_empty && width > WIDTH {
                self.push(&line);
                line.clone_from(&indent);
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line.push_str(word);
            is_empty = false;
        }
        self.push(&line);
    }

    fn push(&mut self, line: &str) {
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }
}

fn jobs(outcome: &Outcome) -> Jobs {
    let jobs = &outcome.record.jobs;
    let ends = || jobs.values().flat_map(|job| &job.ends);
    Jobs {
        submitted: jobs.len(),
        refused: outcome.record.refused.len(),
        starts: jobs.values().map(|job| job.starts.len()).sum(),
        ends: ends().count(),
        stopped: ends().filter(|end| AttemptEnd::is_stop(end)).count(),
    }
}

fn classes(outcome: &Outcome) -> Vec<ClassParts> {
    let totals = outcome.meter.totals();
    let line = |(class, parts): (&gotgan_core::ids::GpuClass, &Parts)| ClassParts {
        class: class.to_string(),
        capacity_gpu_milli_seconds: narrow(parts.capacity),
        guaranteed_gpu_milli_seconds: narrow(parts.guaranteed),
        borrowed_gpu_milli_seconds: narrow(parts.borrowed),
        overuse_gpu_milli_seconds: narrow(parts.overuse),
        scavenged_gpu_milli_seconds: narrow(parts.scavenged),
        reserved_gpu_milli_seconds: narrow(parts.reserved),
        idle_gpu_milli_seconds: narrow(parts.idle),
        draining_gpu_milli_seconds: narrow(parts.draining),
        down_gpu_milli_seconds: narrow(parts.down),
        spare_gpu_milli_seconds: narrow(parts.spare),
    };
    totals.iter().map(line).collect()
}

fn balances(outcome: &Outcome) -> Vec<BalanceLine> {
    balances_of(outcome).collect()
}

fn balances_of(outcome: &Outcome) -> impl Iterator<Item = BalanceLine> {
    let balances = outcome.meter.balances(&outcome.world).into_iter();
    balances.map(|Balance { what, class, left, right }| BalanceLine {
        what,
        class: class.to_string(),
        left: narrow(left),
        right: narrow(right),
        equal: left == right,
    })
}

fn silent_streams(setup: &Setup, outcome: &Outcome) -> Vec<String> {
    let names = setup.streams.iter().map(|stream| stream.name.clone());
    names.filter(|name| !outcome.record.brought.contains(name)).collect()
}

fn refused(outcome: &Outcome) -> Vec<String> {
    let first = outcome.record.refused.iter().take(REFUSED_MAX);
    let show = gotgan_core::quota::show_moment;
    first.map(|one| format!("{} {}: {}", show(one.at), one.project, one.reason)).collect()
}

fn narrow(amount: u128) -> u64 {
    u64::try_from(amount).unwrap_or(u64::MAX)
}
