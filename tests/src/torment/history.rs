//! What a torment has seen: what was asked and answered, how jobs looked from outside, and what really ran.
//!
//! Plain values, so that whoever judges them can be tried with histories that never happened.

use std::collections::BTreeMap;

use gotgan_proto::v1::{Job, JobState};

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
}

impl History {
    /// When nobody led, as far as was asked: longer than this between two that said so.
    #[must_use]
    pub fn leaderless(&self, longer_us: i64) -> Vec<(i64, i64)> {
        let pairs = self.led_us.iter().zip(self.led_us.iter().skip(1));
        pairs.filter(|(from, until)| *until - *from > longer_us).map(|(a, b)| (*a, *b)).collect()
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
