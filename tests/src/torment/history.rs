//! What a torment has seen: what was asked and answered, how jobs looked from outside, and what really ran.
//!
//! Plain values, so that whoever judges them can be tried with histories that never happened.

use std::collections::BTreeMap;

use gotgan_proto::v1::{Attempt, Job, JobState};

use super::promise::Promise;
use crate::virtual_worker::Run;

/// What became of a request that was sent until somebody answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nobody answered in all that time: it may have been done or not.
    None,
    /// Done, for this job.
    Done(u64),
    /// Refused, with the reason.
    Refused(String),
}

/// A submission. Its key is the job's name as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submit {
    /// Idempotency key.
    pub key: String,
    /// When it was sent first, Unix microseconds.
    pub sent_us: i64,
    /// When the answer came.
    pub answered_us: i64,
    /// What came.
    pub answer: Answer,
    /// Answers to the same request later on; each must be the same job.
    pub again: Vec<u64>,
}

/// Something done to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// Cancel, hold, release or requeue.
    pub verb: &'static str,
    /// To which job.
    pub job_id: u64,
    /// When it was sent first.
    pub sent_us: i64,
    /// What came.
    pub answer: Answer,
}

/// A limit of a project that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The project.
    pub project: String,
    /// Thousandths of GPUs.
    pub gpu_milli: u64,
    /// When it was sent first; it may hold from then on.
    pub sent_us: i64,
    /// When its acknowledgement came, or that of the next one; until then the one before may hold.
    pub answered_us: i64,
}

/// How a job looked at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// When the question was asked.
    pub asked_us: i64,
    /// Its state.
    pub state: JobState,
    /// Its attempt.
    pub attempt: u32,
}

/// GPUs of one class at a moment, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// When the question was asked.
    pub asked_us: i64,
    /// All there are.
    pub capacity: u64,
    /// Nobody's.
    pub free: u64,
    /// Somebody's.
    pub allocated: u64,
    /// On nodes that are not heard.
    pub down: u64,
}

/// A wall clock that was off for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongClock {
    /// Since when.
    pub from_us: i64,
    /// Until when.
    pub until_us: i64,
    /// By how much; above 0: it was ahead.
    pub by_us: i64,
    /// Of this node's worker; absent: of a scheduler.
    pub node: Option<String>,
}

/// A scheduler that was started while its clock was off comes to it four times as slowly as time goes.
const COMES_BACK_TIMES: i64 = 5;
/// Whoever reads a clock tells of it a moment later.
const TOLD_LATER_US: i64 = 2_000_000;

impl WrongClock {
    /// Whether what was written of an attempt on these nodes, and shows this time, may have been written by it.
    #[must_use]
    pub fn may_show(&self, nodes: &[&str], from_us: i64, until_us: i64) -> bool {
        let off_us = self.by_us.abs() + TOLD_LATER_US;
        let (concerns, times) = match &self.node {
            Some(node) => (nodes.contains(&node.as_str()), 1),
            None => (true, COMES_BACK_TIMES),
        };
        concerns && from_us <= self.until_us + times * off_us && until_us >= self.from_us - off_us
    }
}

/// Everything.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Submissions.
    pub submits: Vec<Submit>,
    /// Actions.
    pub actions: Vec<Action>,
    /// Limits, the first in force from the beginning.
    pub limits: Vec<Limit>,
    /// Guarantees of projects, in thousandths of GPUs.
    pub guarantees: BTreeMap<String, u64>,
    /// How jobs looked; only looks that differ from the one before, in the order of asking.
    pub looks: BTreeMap<u64, Vec<Look>>,
    /// Counts of GPUs.
    pub counts: Vec<Count>,
    /// When some scheduler said that it leads.
    pub led_us: Vec<i64>,
    /// What really ran.
    pub runs: Vec<Run>,
    /// All jobs with their attempts, when all was over; of arrays their tasks.
    pub jobs: Vec<Job>,
    /// What whoever looks at the books found, when all was over.
    pub books: Vec<String>,
    /// What programs have said that they never should.
    pub said: Vec<String>,
    /// What was different after a restart when nothing happened.
    pub replayed: Vec<String>,
    /// Jobs that had not ended in time after the last fault, with what was said of them.
    pub stuck: Vec<(u64, String)>,
    /// What was promised when all was calm.
    pub promise: Option<Promise>,
    /// When nodes did not say what ran on them, or were said to be sound and were not: by node, from and until.
    pub apart: BTreeMap<String, Vec<(i64, i64)>>,
    /// Clocks that were off, by which times of attempts may have been written. Everything else here is by a clock that was right.
    pub wrong_clocks: Vec<WrongClock>,
}

impl History {
    /// When nobody led, as far as was asked: longer than this between two that said so.
    #[must_use]
    pub fn leaderless(&self, longer_us: i64) -> Vec<(i64, i64)> {
        let pairs = self.led_us.iter().zip(self.led_us.iter().skip(1));
        pairs.filter(|(from, until)| *until - *from > longer_us).map(|(a, b)| (*a, *b)).collect()
    }

    /// Whether times of an attempt may have been written by a clock that was off.
    #[must_use]
    pub fn has_doubtful_times(&self, attempt: &Attempt) -> bool {
        let nodes: Vec<&str> = attempt.allocation.iter().map(|part| part.node.as_str()).collect();
        let mut clocks = self.wrong_clocks.iter();
        clocks.any(|clock| clock.may_show(&nodes, attempt.leased_us, attempt.ended_us))
    }

    /// Notes how a job looked.
    pub fn note(&mut self, job_id: u64, look: Look) {
        let looks = self.looks.entry(job_id).or_default();
        let same = |last: &&Look| (last.state, last.attempt) == (look.state, look.attempt);
        if looks.last().filter(same).is_none() {
            looks.push(look);
        }
    }
}
