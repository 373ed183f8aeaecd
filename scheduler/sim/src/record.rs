//! What happened to every job, for those who ask afterwards.

use std::collections::{BTreeMap, BTreeSet};

use gotgan_core::alert::Alert;
use gotgan_core::amount::UnixMicros;
use gotgan_core::attempt::Cause;
use gotgan_core::ids::{JobId, ProjectPath};
use gotgan_core::job::JobState;

use crate::replay::Told;
use crate::replay::estimates::Estimated;

/// Where a job comes from; the same in a run and in its counterfactual.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// An event submitted it under this name.
    Named(String),
    /// A stream brought it.
    Stream {
        /// Name of the stream.
        stream: String,
        /// Whose job.
        project: ProjectPath,
        /// Which of that stream and project, from 1.
        number: u64,
    },
}

/// What is known of a job.
#[derive(Debug, Clone)]
pub struct JobFacts {
    /// Where it comes from.
    pub origin: Origin,
    /// Who pays.
    pub project: ProjectPath,
    /// Whole GPUs of the gang.
    pub gpus: u64,
    /// When.
    pub submitted: UnixMicros,
    /// First processes of its attempts.
    pub starts: Vec<UnixMicros>,
    /// Ends of its attempts.
    pub ends: Vec<AttemptEnd>,
    /// Number of the latest attempt that started, 0 before the first.
    pub last_started: u32,
    /// How it stands.
    pub state: JobState,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy)]
pub struct AttemptEnd {
    /// When.
    pub at: UnixMicros,
    /// Why.
    pub cause: Cause,
    /// Work that was done and not saved, milliseconds.
    pub lost_ms: i64,
}

impl AttemptEnd {
    /// Whether it was not the job's own doing.
    #[must_use]
    pub fn is_stop(&self) -> bool {
        match self.cause {
            Cause::User | Cause::Limit | Cause::OutOfMemory => false,
            Cause::Hardware | Cause::Node | Cause::Network | Cause::Site | Cause::Preempted => true,
        }
    }
}

impl JobFacts {
    /// From the submission to the first process, milliseconds; as long as it has waited if there is none.
    #[must_use]
    pub fn start_delay_ms(&self, now: UnixMicros) -> i64 {
        self.starts.first().copied().unwrap_or(now).millis_since(self.submitted)
    }

    /// From each end that was not its own doing to the next start, milliseconds; to now if it waits.
    pub fn restart_delays_ms(&self, now: UnixMicros) -> impl Iterator<Item = (UnixMicros, i64)> {
        let waits = !self.state.is_terminal();
        self.ends.iter().filter(|end| end.is_stop()).filter_map(move |end| {
            let next = self.starts.iter().copied().find(|start| *start >= end.at);
            let next = next.or(waits.then_some(now))?;
            Some((end.at, next.millis_since(end.at)))
        })
    }
}

/// A submission that the scheduler's own admission refused.
#[derive(Debug, Clone)]
pub struct RefusedSubmission {
    /// When.
    pub at: UnixMicros,
    /// Whose.
    pub project: ProjectPath,
    /// What is wrong, in a sentence.
    pub reason: String,
}

/// Everything that happened.
#[derive(Debug, Default)]
pub struct Record {
    /// Every job that was stored.
    pub jobs: BTreeMap<JobId, JobFacts>,
    /// Jobs by the name their event gave them.
    pub named: BTreeMap<String, JobId>,
    /// Submissions that were not.
    pub refused: Vec<RefusedSubmission>,
    /// Streams that brought a job at all.
    pub brought: BTreeSet<String>,
    /// Things that were changed by events that apply quota files, by their places.
    pub changed: BTreeMap<usize, usize>,
    /// What people were told of budgets.
    pub alerts: Vec<Alert>,
    /// Decisions that came too late.
    pub late_decisions: u64,
    /// By when those jobs were told first that they would start for which a start was planned, and when.
    pub told: BTreeMap<JobId, Told>,
    /// Between which moments jobs that wait were told that they would start, in the order of telling.
    pub estimated: Vec<(JobId, Estimated)>,
    /// Passes of the planner.
    pub passes: u64,
    /// Moments at which something happened.
    pub moments: u64,
    /// What must never be.
    pub violations: Vec<String>,
}
