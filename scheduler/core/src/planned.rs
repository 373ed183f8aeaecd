//! Starts that are planned for jobs that wait: by when, and on which nodes.
//!
//! A planned start is firm: as long as it stands, nobody else may start on its nodes who would still be there then, but
//! for those who have a better right to the GPUs altogether (a project within its guarantee goes before one that
//! borrows, and a reservation before both). It is kept from pass to pass and never put off by what comes after it, but
//! that a start planned for a gang puts off one for a job of one node. What ends before its time limit brings it
//! forward. It is given up when its job no longer waits or may no longer start, and made anew when a node of it is gone.
//!
//! Nothing of it is stored: after a restart the first passes plan anew, from the same jobs and the same time limits.

use std::collections::BTreeMap;

use crate::amount::UnixMicros;
use crate::ids::{GpuClass, JobId, NodeName};

/// Where and by when a job is going to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStart {
    /// Of which class its GPUs are; `None` if it asks for none.
    pub class: Option<GpuClass>,
    /// Nodes that are kept for it, each once.
    pub nodes: Vec<NodeName>,
    /// When the last of them is free, if everything there takes as long as it may.
    pub at: UnixMicros,
    /// When it was planned first.
    pub since: UnixMicros,
    /// By when it was said to start then; `at` is earlier once something ended before its time.
    pub promised: UnixMicros,
    /// When all nodes were looked at last, for better ones than these.
    pub chosen: UnixMicros,
}

/// Planned starts, in the order in which they were planned: each was planned beside those before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlannedStarts {
    order: Vec<JobId>,
    by_job: BTreeMap<JobId, PlannedStart>,
}

impl PlannedStarts {
    /// That of a job.
    #[must_use]
    pub fn of(&self, job: JobId) -> Option<&PlannedStart> {
        self.by_job.get(&job)
    }

    /// All, in the order in which they were planned.
    pub fn iter(&self) -> impl Iterator<Item = (JobId, &PlannedStart)> {
        self.order.iter().filter_map(|job| Some((*job, self.by_job.get(job)?)))
    }

    /// Those of jobs with numbers from the first to the last.
    pub fn between(
        &self,
        first: JobId,
        last: JobId,
    ) -> impl Iterator<Item = (JobId, &PlannedStart)> {
        self.by_job.range(first..=last).map(|(job, start)| (*job, start))
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_job.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_job.is_empty()
    }

    /// Takes out that of a job.
    pub fn take(&mut self, job: JobId) -> Option<PlannedStart> {
        let start = self.by_job.remove(&job)?;
        self.order.retain(|other| *other != job);
        Some(start)
    }

    /// Adds one after all others; one that the job had is replaced.
    pub fn push(&mut self, job: JobId, start: PlannedStart) {
        if self.by_job.insert(job, start).is_some() {
            self.order.retain(|other| *other != job);
        }
        self.order.push(job);
    }
}
