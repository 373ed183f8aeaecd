//! What is learnt from, taken out of what was committed.

use std::collections::BTreeMap;

use crate::amount::UnixMicros;
use crate::attempt::{Attempt, AttemptState, Cause};
use crate::change::Change;
use crate::ids::{AttemptId, JobId};
use crate::job::JobState;
use crate::world::World;

/// Something that an estimator learns from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A job was given its resources.
    Started {
        /// Which.
        job: JobId,
        /// When.
        at: UnixMicros,
    },
    /// A job waits no longer and did not start.
    Left {
        /// Which.
        job: JobId,
    },
    /// An attempt ended by itself.
    Ran {
        /// The time limit of its job, seconds.
        limit_s: i64,
        /// How long it ran, seconds.
        ran_s: i64,
    },
}

/// Sees what was committed, and remembers the time limits of what runs: the end of an attempt does not tell it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watcher {
    /// Seconds.
    limits: BTreeMap<AttemptId, i64>,
}

impl Watcher {
    /// Takes in a world of which it saw no changes.
    pub fn reset(&mut self, world: &World) {
        self.limits.clear();
        world.attempts.values().for_each(|attempt| self.expect_end(world, attempt));
    }

    /// What can be learnt from what was committed; `world` has it already.
    pub fn see(&mut self, world: &World, changes: &[Change]) -> Vec<Outcome> {
        changes.iter().filter_map(|change| self.outcome(world, change)).collect()
    }

    fn outcome(&mut self, world: &World, change: &Change) -> Option<Outcome> {
        match change {
            Change::AttemptLeased(attempt) => {
                self.expect_end(world, attempt);
                Some(Outcome::Started { job: attempt.id.job, at: attempt.leased })
            }
            Change::AttemptMoved(attempt) if attempt.state == AttemptState::Ended => {
                self.ended(attempt)
            }
            Change::JobMoved { id, status } if !is_pending(status.state) => {
                Some(Outcome::Left { job: *id })
            }
            Change::AttemptMoved(_)
            | Change::JobMoved { .. }
            | Change::JobSubmitted(_)
            | Change::StepCreated(_)
            | Change::TaskMoved { .. }
            | Change::Booked(_)
            | Change::NodeRegistered(_)
            | Change::NodeAdministered { .. }
            | Change::NodeHealth { .. }
            | Change::BreakerMoved(_)
            | Change::NodeHeard { .. }
            | Change::NodeLeftovers { .. }
            | Change::QuotaApplied { .. }
            | Change::QuotaTurned { .. }
            | Change::QuotaAudited(_)
            | Change::QuotaApproved(_)
            | Change::QuotaAlerted(_)
            | Change::PassRecorded(_)
            | Change::WindowMoved(_)
            | Change::Happened(_) => None,
        }
    }

    fn expect_end(&mut self, world: &World, attempt: &Attempt) {
        if let Some(job) = world.jobs.get(&attempt.id.job) {
            self.limits.insert(attempt.id, job.spec.time_limit_s);
        }
    }

    fn ended(&mut self, attempt: &Attempt) -> Option<Outcome> {
        let limit_s = self.limits.remove(&attempt.id)?;
        let cause = attempt.outcome.as_ref().map(|outcome| outcome.cause);
        let by_itself = matches!(cause, Some(Cause::User | Cause::Limit | Cause::OutOfMemory));
        let (started, ended) = attempt.started.zip(attempt.ended).filter(|_| by_itself)?;
        Some(Outcome::Ran { limit_s, ran_s: ended.millis_since(started).max(0) / 1000 })
    }
}

fn is_pending(state: JobState) -> bool {
    match state {
        JobState::Pending => true,
        JobState::Held
        | JobState::Starting
        | JobState::Running
        | JobState::Completed
        | JobState::Failed
        | JobState::Cancelled
        | JobState::TimedOut => false,
    }
}
