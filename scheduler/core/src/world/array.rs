//! Arrays in the world: their tasks count and compete like jobs long before they are any.

use std::borrow::Cow;
use std::sync::Arc;

use super::World;
use super::apply::start_of;
use crate::array::{self, ArrayTasks, Behind};
use crate::ids::JobId;
use crate::job::{Job, JobState};
use crate::spec::TaskName;

impl World {
    /// The record of that number: a job, a task that is one, or an array.
    #[must_use]
    pub fn record(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id).or_else(|| self.arrays.get(&id)).map(Arc::as_ref)
    }

    /// A job of that number, or a task of an array that waits, as the job it would be.
    #[must_use]
    pub fn job(&self, id: JobId) -> Option<Cow<'_, Job>> {
        let folded = || self.array_over(id)?.folded_task(id);
        self.jobs
            .get(&id)
            .map(|job| Cow::Borrowed(job.as_ref()))
            .or_else(|| folded().map(Cow::Owned))
    }

    /// The array among whose numbers this one is, whatever has become of the task.
    #[must_use]
    pub fn array_over(&self, id: JobId) -> Option<&Job> {
        let (_, array) = self.arrays.range(..id).next_back()?;
        (id <= array.last_id()).then_some(array)
    }

    /// How people name the task of that number; `None` if it is none of an array that lives.
    #[must_use]
    pub fn task_name(&self, id: JobId) -> Option<TaskName> {
        let array = self.array_over(id)?;
        let index = array.spec.array.as_ref()?.index_at(array::place_of(array.id, id)?)?;
        Some(TaskName { array: array.id, index })
    }

    /// The state of whatever has that number; `None` if it is terminal or unknown.
    #[must_use]
    pub fn state_of(&self, id: JobId) -> Option<JobState> {
        let folded = || {
            let array = self.array_over(id)?;
            array.status.tasks.as_ref()?.folded_state(array::place_of(array.id, id)?)
        };
        self.record(id).map(|job| job.status.state).or_else(folded)
    }

    /// Tasks of an array that are jobs of their own and have not ended.
    pub fn tasks_of(&self, array: &Job) -> impl Iterator<Item = &Job> {
        self.jobs.range(array.id..=array.last_id()).map(|(_, job)| job.as_ref())
    }

    /// Jobs that wait to start, with tasks of arrays that are no jobs of their own; held ones left out.
    #[must_use]
    pub fn waiting_jobs(&self) -> u64 {
        let arrays = self.arrays.values().filter_map(|array| array.status.tasks.as_ref());
        let tasks: u64 = arrays.map(|tasks| u64::from(tasks.waiting.len())).sum();
        tasks.saturating_add(self.queue.len() as u64)
    }

    /// Enters an array that has not ended, with all its tasks that are no jobs of their own.
    pub(super) fn link_array(&mut self, array: &Job) {
        let folded = folded(array);
        self.folded = self.folded.saturating_add(folded);
        self.usage.count_waiting(&array.spec.project, folded, true);
        self.requests.count(array, folded, true);
        if array.spec.scavenger {
            self.scavengers = self.scavengers.saturating_add(folded);
        }
        self.cohorts.insert_array(array);
        if folded > 0 {
            self.deadlines.extend(start_of(array));
        }
        self.link_dependencies(array);
        if let Some(behind) = behind(array) {
            self.behind.entry(behind.array).or_default().insert(array.id);
        }
    }

    /// Takes out an array that was entered like this.
    pub(super) fn unlink_array(&mut self, array: &Job) {
        let folded = folded(array);
        self.folded = self.folded.saturating_sub(folded);
        self.usage.count_waiting(&array.spec.project, folded, false);
        self.requests.count(array, folded, false);
        if array.spec.scavenger {
            self.scavengers = self.scavengers.saturating_sub(folded);
        }
        self.cohorts.remove_array(array);
        self.drop_deadline(array);
        self.unlink_dependencies(array);
        if let Some(behind) = behind(array)
            && let Some(arrays) = self.behind.get_mut(&behind.array)
        {
            arrays.remove(&array.id);
            if arrays.is_empty() {
                self.behind.remove(&behind.array);
            }
        }
    }
}

fn behind(array: &Job) -> Option<&Behind> {
    array.status.tasks.as_ref()?.behind.as_ref()
}

fn folded(array: &Job) -> u64 {
    array.status.tasks.as_deref().map_or(0, |tasks: &ArrayTasks| u64::from(tasks.folded()))
}
