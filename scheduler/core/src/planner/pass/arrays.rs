//! Jobs in the pass that may not start whatever is free: of arrays more tasks than may run at once, and jobs that could
//! not end by their deadlines any more.

use std::sync::Arc;

use super::Pass;
use crate::array::ArrayTasks;
use crate::explain::deadline;
use crate::ids::JobId;
use crate::job::Job;
use crate::planner::order::array_limit;

impl Pass<'_> {
    /// Whether the job may not start at all. Says so in the report.
    pub(super) fn is_kept_back(&mut self, job: &Job) -> bool {
        let why = if self.is_late(job) {
            Some(Arc::new(deadline::blocker(job).into_iter().collect()))
        } else {
            let at_limit = self.tasks_at_limit(job);
            at_limit.map(|(array, limit, active)| array_limit(array, limit, active))
        };
        let Some(why) = why else { return false };
        self.considered += 1;
        self.lists.push((job.id, why));
        true
    }

    /// Whether it could not end by its deadline if it started now; it is about to be cancelled.
    pub(super) fn is_late(&self, job: &Job) -> bool {
        job.starts_by().is_some_and(|start| start < self.now)
    }

    /// The array of the task, of which as many as may run at once do, or will after this pass; with that number.
    pub(super) fn tasks_at_limit(&self, job: &Job) -> Option<(JobId, u32, u32)> {
        let (array, limit) = job.array_limit()?;
        let active = self.active_tasks(array);
        (active >= limit).then_some((array, limit, active))
    }

    /// Notes that a task of an array starts.
    pub(super) fn note_task(&mut self, job: &Job) {
        if let Some((array, _)) = job.array_limit() {
            *self.array_starts.entry(array).or_default() += 1;
        }
    }

    fn active_tasks(&self, array: JobId) -> u32 {
        let tasks = self.world.arrays.get(&array).and_then(|array| array.status.tasks.as_deref());
        let started = self.array_starts.get(&array).copied().unwrap_or_default();
        tasks.map_or(0, ArrayTasks::active).saturating_add(started)
    }
}
