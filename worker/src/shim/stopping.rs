//! The way to the end: perhaps a warning, then TERM, after the grace KILL, again and again until nothing is left.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::getpid;

use super::grip::Grip;
use super::protocol::{Ending, ShimSpec, Warning};
use super::tree::{self, Process};

/// First pause between two rounds of KILL; a process may fork between a look at `/proc` and its death.
const KILL_PAUSE_MIN: Duration = Duration::from_millis(10);
/// Longest pause: what does not die then hangs in the kernel, and only waiting helps.
const KILL_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Why the end has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Step 0 is over, or one of its tasks has failed.
    Done,
    /// The time is over.
    Limit,
    /// Ordered, with the number of the cause.
    Told(i32),
}

/// An end that has begun.
#[derive(Debug)]
pub struct Stopping {
    why: Why,
    /// For a person.
    pub reason: String,
    term_at: Option<Instant>,
    kill_at: Instant,
    kill_pause: Duration,
    /// When KILL was first sent.
    killing_since: Option<Instant>,
    /// What the last round of KILL found, by process id and start.
    killed: BTreeSet<(i32, u64)>,
}

impl Stopping {
    /// Begins now. With `ahead`, a warning was just sent and TERM waits as long, at most half of the grace.
    pub fn new(
        why: Why,
        reason: String,
        now: Instant,
        grace: Duration,
        ahead: Option<Duration>,
    ) -> Self {
        let wait = ahead.map_or(Duration::ZERO, |ahead| ahead.min(grace / 2));
        let (term_at, kill_at) = (Some(now + wait), now + grace);
        let (kill_pause, killing_since, killed) = (KILL_PAUSE_MIN, None, BTreeSet::new());
        Self { why, reason, term_at, kill_at, kill_pause, killing_since, killed }
    }

    /// Another reason to end came: the earlier end counts, the sooner KILL is taken. An order that finds only
    /// stragglers of a step that is over changes nothing but the time.
    pub fn hasten(&mut self, why: Why, reason: String, now: Instant, grace: Duration) {
        self.kill_at = self.kill_at.min(now + grace);
        // A grace that is shorter now leaves less time to wait before TERM as well.
        self.term_at = self.term_at.map(|at| at.min(now + grace / 2));
        if self.reason.is_empty() && self.why == why {
            self.reason = reason;
        }
    }

    /// How the attempt is said to have ended.
    pub fn ending(&self) -> Ending {
        match self.why {
            Why::Done => Ending::Own,
            Why::Limit => Ending::Limit,
            Why::Told(cause) => Ending::Stopped(cause),
        }
    }

    /// When there is something to do next.
    pub fn next_at(&self) -> Instant {
        self.term_at.map_or(self.kill_at, |term_at| term_at.min(self.kill_at))
    }

    /// Whether what was killed so long ago is still there.
    pub fn is_given_up(&self, now: Instant, patience: Duration) -> bool {
        self.killing_since.is_some_and(|since| now.duration_since(since) >= patience)
    }

    /// Does what is due.
    pub fn act(&mut self, now: Instant, grip: &Grip) {
        if self.kill_at <= now {
            self.term_at = None;
            self.kill(now, grip);
        } else if self.term_at.is_some_and(|at| at <= now) {
            // A stopped process cannot obey.
            let told = signal_all([Signal::SIGTERM, Signal::SIGCONT], grip);
            // Who could not be found is asked again soon.
            self.term_at = told.is_err().then(|| now + KILL_PAUSE_MAX);
        }
    }

    /// One round; the next one comes soon as long as there is something that the last one had not found.
    fn kill(&mut self, now: Instant, grip: &Grip) {
        let own = getpid().as_raw();
        self.killing_since.get_or_insert(now);
        grip.kill();
        let found = tree::kill_all(|| tree::descendants(own)).unwrap_or_default();
        let fresh = found.iter().any(|process| !self.killed.contains(process));
        self.kill_pause = match fresh {
            true => KILL_PAUSE_MIN,
            false => (self.kill_pause * 2).min(KILL_PAUSE_MAX),
        };
        self.killed = found;
        self.kill_at = now + self.kill_pause;
    }
}

/// Sends the warning signal. Without `batch_only` it goes to everything the attempt runs; a script itself then gets
/// it only if it has a handler, since it would die of the signal otherwise and take the job with it.
pub fn warn(warning: &Warning, script: Option<i32>, grip: &Grip) {
    let Ok(signal) = Signal::try_from(warning.signal) else {
        return;
    };
    if warning.batch_only
        && let Some(script) = script
    {
        tree::signal(script, signal);
        return;
    }
    for process in of_tasks(grip).unwrap_or_default() {
        if Some(process.pid) != script || tree::catches(process.pid, warning.signal) {
            tree::signal(process.pid, signal);
        }
    }
}

fn signal_all(signals: [Signal; 2], grip: &Grip) -> io::Result<()> {
    for process in of_tasks(grip)? {
        signals.into_iter().for_each(|signal| _ = tree::signal(process.pid, signal));
    }
    Ok(())
}

/// Tasks and what they have started. By the cgroup where all are born in one: looking through all processes of the machine
/// at every end costs more than the rest of a short job, and the more jobs a node has the more.
fn of_tasks(grip: &Grip) -> io::Result<Vec<Process>> {
    let mut found = match grip.members() {
        Some(members) => {
            let there = members.into_iter().filter_map(tree::process);
            there.filter(|process| !process.zombie).collect()
        }
        None => tree::descendants(getpid().as_raw())?,
    };
    found.retain(|process| Some(process.pid) != grip.first() && !grip.is_keeper(process.pid));
    Ok(found)
}

/// When its time is over, if ever.
pub fn limit_at(spec: &ShimSpec, start: Instant) -> Option<Instant> {
    (spec.time_limit_ms > 0)
        .then(|| start.checked_add(Duration::from_millis(spec.time_limit_ms)))
        .flatten()
}

/// When it is warned of that. A warning that would come before the start comes at half of the time instead.
pub fn warn_at(spec: &ShimSpec, start: Instant) -> Option<Instant> {
    let warning = spec.warning.as_ref().filter(|_| spec.time_limit_ms > 0)?;
    let after_ms = match spec.time_limit_ms.checked_sub(warning.ahead_ms) {
        Some(after_ms) if after_ms > 0 => after_ms,
        Some(_) | None => spec.time_limit_ms / 2,
    };
    start.checked_add(Duration::from_millis(after_ms))
}
