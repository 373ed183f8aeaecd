//! Job arrays: one submission of many tasks, which are one record until each of them starts.
//!
//! An array has a number of its own, and the numbers right behind it belong to its tasks, in the order of their
//! indexes. So a task has its job number from the beginning, and becomes a job of its own without a new one when it
//! starts. Where only the order counts a task is named by its place, from 0; people name it by its index.

mod set;
mod tasks;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::JobId;

pub use set::TaskSet;
pub use tasks::{ArrayTasks, Behind};

/// Most tasks of an array that a site can allow: what a set of places and the numbers of jobs are made for.
pub const ARRAY_TASKS_MAX: u32 = 1_000_000;

/// Pieces that the waiting tasks of an array may be cut into by holding or cancelling some of them: the record of the
/// array has all pieces, and it is written with each start.
pub const PIECES_MAX: usize = 1_000;

/// What tasks an array has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArraySpec {
    /// Indexes of the tasks, ascending.
    runs: Vec<IndexRun>,
    /// At most so many of them starting or running at once; `None`: as many as fit.
    pub at_once: Option<u32>,
}

/// Indexes at equal distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct IndexRun {
    first: u32,
    step: u32,
    count: u32,
}

impl IndexRun {
    fn last(self) -> u32 {
        self.first.saturating_add(self.step.saturating_mul(self.count.saturating_sub(1)))
    }

    fn place_of(self, index: u32) -> Option<u32> {
        let distance = index.checked_sub(self.first)?;
        let place = distance.checked_div(self.step).filter(|_| distance % self.step == 0)?;
        (place < self.count).then_some(place)
    }
}

impl ArraySpec {
    /// An array of these indexes, which must ascend.
    #[must_use]
    pub fn new(indexes: impl IntoIterator<Item = u32>, at_once: Option<u32>) -> Self {
        let mut runs: Vec<IndexRun> = Vec::new();
        for index in indexes {
            match runs.last_mut() {
                Some(run) if run.count == 1 && index > run.first => {
                    (run.step, run.count) = (index - run.first, 2);
                }
                Some(run) if run.last().checked_add(run.step) == Some(index) => run.count += 1,
                // Two that are apart make no run yet: the second may begin one with what follows.
                Some(run) if run.count == 2 && run.step > 1 && index > run.last() => {
                    let first = run.last();
                    run.count = 1;
                    runs.push(IndexRun { first, step: index - first, count: 2 });
                }
                Some(_) | None => runs.push(IndexRun { first: index, step: 1, count: 1 }),
            }
        }
        ArraySpec { runs, at_once }
    }

    /// How many tasks it has.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.runs.iter().map(|run| run.count).sum()
    }

    /// Whether it has none; no array that was admitted has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The index of the task at a place.
    #[must_use]
    pub fn index_at(&self, place: u32) -> Option<u32> {
        let mut rest = place;
        for run in &self.runs {
            if rest < run.count {
                return run.first.checked_add(run.step.checked_mul(rest)?);
            }
            rest -= run.count;
        }
        None
    }

    /// The place of the task of that index.
    #[must_use]
    pub fn place_of(&self, index: u32) -> Option<u32> {
        let mut before = 0;
        for run in &self.runs {
            if let Some(place) = run.place_of(index) {
                return Some(before + place);
            }
            before += run.count;
        }
        None
    }

    /// The places of the tasks with an index in this range, ends included.
    #[must_use]
    pub fn places_between(&self, least: u32, most: u32) -> TaskSet {
        let (mut before, mut ranges) = (0, Vec::new());
        for run in &self.runs {
            let below = |bound: u32| {
                let distance = u64::from(bound).saturating_sub(u64::from(run.first));
                let below = distance.div_ceil(u64::from(run.step.max(1)));
                u32::try_from(below).unwrap_or(u32::MAX).min(run.count)
            };
            let (from, until) = (below(least), below(most.saturating_add(1)));
            ranges.extend((from < until).then(|| (before + from, before + until - 1)));
            before += run.count;
        }
        TaskSet::of(ranges)
    }

    /// The lowest index.
    #[must_use]
    pub fn min(&self) -> u32 {
        self.runs.first().map_or(0, |run| run.first)
    }

    /// The highest index.
    #[must_use]
    pub fn max(&self) -> u32 {
        self.runs.iter().map(|run| run.last()).max().unwrap_or(0)
    }

    /// The indexes of these places, as people write them: `0-4,7`.
    #[must_use]
    pub fn show(&self, places: &TaskSet) -> String {
        let index = |place| self.index_at(place).unwrap_or_default();
        let mut runs = Vec::new();
        for (first, last) in places.ranges() {
            let whole = index(last).saturating_sub(index(first)) == last - first;
            if whole {
                runs.push(IndexRun { first: index(first), step: 1, count: last - first + 1 });
            } else {
                runs.extend(ArraySpec::new((first..=last).map(index), None).runs);
            }
        }
        show_runs(&runs)
    }
}

/// As it is written at a submission.
impl fmt::Display for ArraySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show_runs(&self.runs))?;
        self.at_once.map_or(Ok(()), |most| write!(f, "%{most}"))
    }
}

fn show_runs(runs: &[IndexRun]) -> String {
    let show = |run: &IndexRun| match (run.count, run.step) {
        (0 | 1, _) => run.first.to_string(),
        (2, step) if step > 1 => format!("{},{}", run.first, run.last()),
        (_, 1) => format!("{}-{}", run.first, run.last()),
        (_, step) => format!("{}-{}:{step}", run.first, run.last()),
    };
    runs.iter().map(show).collect::<Vec<_>>().join(",")
}

/// The job number of an array's task at a place.
#[must_use]
pub fn task_id(array: JobId, place: u32) -> JobId {
    JobId(array.0.saturating_add(1).saturating_add(u64::from(place)))
}

/// The place in an array of the task with that job number.
#[must_use]
pub fn place_of(array: JobId, task: JobId) -> Option<u32> {
    u32::try_from(task.0.checked_sub(array.0)?.checked_sub(1)?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn indexes_are_shown_as_they_are_written() {
        let shown = |indexes: &[u32]| ArraySpec::new(indexes.iter().copied(), None).to_string();
        assert_eq!(shown(&[0, 1, 2, 3]), "0-3");
        assert_eq!(shown(&[0, 2, 4, 6]), "0-6:2");
        assert_eq!(shown(&[1, 5, 9]), "1-9:4");
        assert_eq!(shown(&[7]), "7");
        assert_eq!(shown(&[1, 4]), "1,4");
        assert_eq!(ArraySpec::new(0..10, Some(2)).to_string(), "0-9%2");
    }

    #[test]
    fn every_index_has_its_place_and_every_place_its_index() {
        let indexes = [1, 2, 3, 10, 20, 30, 31];
        let array = ArraySpec::new(indexes, None);
        assert_eq!(array.len(), 7);
        for (place, index) in (0..).zip(indexes) {
            assert_eq!(array.index_at(place), Some(index));
            assert_eq!(array.place_of(index), Some(place), "{index}");
        }
        assert_eq!(array.index_at(7), None);
        assert_eq!(array.places_between(2, 20), TaskSet::of([(1, 4)]));
        assert_eq!(array.places_between(4, 9), TaskSet::default());
        assert_eq!(array.places_between(0, u32::MAX - 1), TaskSet::all(7));
        for other in [0, 4, 11, 25, 32] {
            assert_eq!(array.place_of(other), None, "{other}");
        }
        assert_eq!((array.min(), array.max()), (1, 31));
    }

    #[test]
    fn places_are_shown_by_their_indexes() {
        let array = ArraySpec::new((0..100).step_by(2), None);
        assert_eq!(array.show(&TaskSet::all(5)), "0-8:2");
        let wide = ArraySpec::new(10..20, None);
        assert_eq!(wide.show(&TaskSet::all(10).minus(&TaskSet::one(3))), "10-12,14-19");
    }

    #[test]
    fn a_task_has_the_number_behind_its_array() {
        assert_eq!(task_id(JobId(7), 0), JobId(8));
        assert_eq!(place_of(JobId(7), JobId(8)), Some(0));
        assert_eq!(place_of(JobId(7), JobId(7)), None);
    }
}
