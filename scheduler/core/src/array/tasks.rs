//! How the tasks of an array stand: which of them are no jobs of their own yet, and how many of the others are in
//! each state.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{TaskSet, task_id};
use crate::ids::JobId;
use crate::job::JobState;

/// Tasks of an array. Every one of them is in exactly one of the three.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrayTasks {
    /// Wait to start, and are no jobs of their own yet.
    pub waiting: TaskSet,
    /// The same, kept from starting.
    pub held: TaskSet,
    /// How many others there are in each state: jobs of their own, and those cancelled before they were. None is zero.
    pub counts: BTreeMap<JobState, u32>,
    /// Of those that are no jobs of their own, which still wait for a task of another array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<Behind>,
}

/// Tasks that each wait for the task at the same place of another array to complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// The other array, which has the same indexes.
    pub array: JobId,
    /// Places of those that wait; never empty.
    pub places: TaskSet,
}

impl ArrayTasks {
    /// So many tasks, none of which has started.
    #[must_use]
    pub fn new(count: u32, hold: bool) -> Self {
        let (all, none) = (TaskSet::all(count), TaskSet::default());
        let (waiting, held) = if hold { (none, all) } else { (all, none) };
        ArrayTasks { waiting, held, counts: BTreeMap::new(), behind: None }
    }

    /// Those of the tasks that wait to start which wait for no task of another array.
    #[must_use]
    pub fn ready(&self) -> Cow<'_, TaskSet> {
        match &self.behind {
            Some(behind) => Cow::Owned(self.waiting.minus(&behind.places)),
            None => Cow::Borrowed(&self.waiting),
        }
    }

    /// The task of another array that the one at this place waits for.
    #[must_use]
    pub fn counterpart(&self, place: u32) -> Option<JobId> {
        let behind = self.behind.as_ref().filter(|behind| behind.places.contains(place))?;
        Some(task_id(behind.array, place))
    }

    /// These tasks wait for no task of another array any more.
    pub fn catch_up(&mut self, places: &TaskSet) {
        let Some(behind) = &mut self.behind else { return };
        behind.places = behind.places.minus(places);
        if behind.places.is_empty() {
            self.behind = None;
        }
    }

    /// Takes out tasks that are jobs of their own from now on, or gone; which of them were here.
    pub fn take(&mut self, places: &TaskSet) -> TaskSet {
        let taken = self.waiting.join(&self.held).meet(places);
        self.waiting = self.waiting.minus(&taken);
        self.held = self.held.minus(&taken);
        self.catch_up(&taken);
        taken
    }

    /// Tasks that are no jobs of their own yet.
    #[must_use]
    pub fn folded(&self) -> u32 {
        self.waiting.len().saturating_add(self.held.len())
    }

    /// Tasks that hold resources.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.in_state(JobState::Starting).saturating_add(self.in_state(JobState::Running))
    }

    /// Tasks in that state, however they are kept.
    #[must_use]
    pub fn in_state(&self, state: JobState) -> u32 {
        let folded = match state {
            JobState::Pending => self.waiting.len(),
            JobState::Held => self.held.len(),
            JobState::Starting
            | JobState::Running
            | JobState::Completed
            | JobState::Failed
            | JobState::Cancelled
            | JobState::TimedOut => 0,
        };
        folded.saturating_add(self.counts.get(&state).copied().unwrap_or_default())
    }

    /// The state of a task that is no job of its own.
    #[must_use]
    pub fn folded_state(&self, place: u32) -> Option<JobState> {
        if self.waiting.contains(place) {
            return Some(JobState::Pending);
        }
        self.held.contains(place).then_some(JobState::Held)
    }

    /// The state of the whole array: that of its furthest task while any lives, and then that of the worst end.
    #[must_use]
    pub fn state(&self) -> JobState {
        use JobState as S;
        let living = [S::Running, S::Starting, S::Pending, S::Held];
        let ends = [S::Failed, S::TimedOut, S::Cancelled];
        let found = living.into_iter().chain(ends).find(|state| self.in_state(*state) > 0);
        found.unwrap_or(S::Completed)
    }

    /// Counts tasks that are in another state now.
    pub fn count(&mut self, from: Option<JobState>, to: JobState, tasks: u32) {
        if let Some(count) = from.and_then(|from| self.counts.get_mut(&from)) {
            *count = count.saturating_sub(tasks);
        }
        *self.counts.entry(to).or_default() += tasks;
        self.counts.retain(|_, count| *count > 0);
    }

    /// One line: how many are in which state.
    #[must_use]
    pub fn summary(&self) -> String {
        let counted = JobState::ALL.into_iter().filter_map(|state| {
            let count = self.in_state(state);
            (count > 0).then(|| format!("{count} {}", state.word().replace('_', " ")))
        });
        counted.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_as_its_furthest_task_until_the_last_has_ended() {
        let mut tasks = ArrayTasks::new(3, false);
        assert_eq!(tasks.state(), JobState::Pending);
        tasks.waiting = TaskSet::default();
        tasks.count(None, JobState::Running, 1);
        tasks.count(None, JobState::Failed, 1);
        tasks.count(None, JobState::Completed, 1);
        assert_eq!(tasks.state(), JobState::Running);
        tasks.count(Some(JobState::Running), JobState::Completed, 1);
        assert_eq!(tasks.state(), JobState::Failed);
        assert_eq!(tasks.summary(), "2 completed, 1 failed");
    }

    #[test]
    fn an_array_of_which_all_completed_has_completed() {
        let mut tasks = ArrayTasks::default();
        tasks.count(None, JobState::Completed, 4);
        assert_eq!(tasks.state(), JobState::Completed);
    }

    #[test]
    fn an_array_that_is_held_waits_for_a_release() {
        let tasks = ArrayTasks::new(5, true);
        assert_eq!((tasks.state(), tasks.folded(), tasks.active()), (JobState::Held, 5, 0));
        assert_eq!(tasks.folded_state(4), Some(JobState::Held));
        assert_eq!(tasks.folded_state(5), None);
    }
}
