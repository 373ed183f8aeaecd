//! The starts that a pass plans, and how much more it may.

use std::collections::BTreeMap;

use super::Want;
use crate::amount::GpuMilli;
use crate::ids::JobId;
use crate::planned::PlannedStarts;
use crate::planner::score::ClassIndex;

/// How often one pass looks at every node for the best ones for a start; more are planned by the passes after it.
pub(super) const CHOICES_MAX: u32 = 8;

/// What is planned, and how much more may be.
#[derive(Debug)]
pub(super) struct Plans {
    /// As found so far.
    pub starts: PlannedStarts,
    /// By project: gangs, and others.
    of_project: Vec<[u32; 2]>,
    pub of_class: BTreeMap<Option<ClassIndex>, GpuMilli>,
    pub of_want: BTreeMap<Want, Vec<JobId>>,
    pub choices_left: u32,
}

impl Plans {
    /// Nothing is planned yet.
    pub fn none() -> Self {
        Plans {
            starts: PlannedStarts::default(),
            of_project: Vec::new(),
            of_class: BTreeMap::new(),
            of_want: BTreeMap::new(),
            choices_left: CHOICES_MAX,
        }
    }

    /// From now on nothing more is planned.
    pub fn plan_nothing(&mut self) {
        self.choices_left = 0;
    }

    /// Starts planned for jobs of the project, as far as they are gangs like this one, or not.
    pub fn of_project(&self, want: Want) -> u32 {
        let of = self.of_project.get(want.project.0 as usize);
        of.map_or(0, |counts| counts[usize::from(want.nodes > 1)])
    }

    pub fn count(&mut self, want: Want) {
        let project = want.project.0 as usize;
        if self.of_project.len() <= project {
            self.of_project.resize(project + 1, [0; 2]);
        }
        self.of_project[project][usize::from(want.nodes > 1)] += 1;
    }

    /// Whether a start is planned for a job with that wish, or was until it started.
    pub fn has_any(&self, want: Want) -> bool {
        self.of_want.contains_key(&want)
    }

    /// Jobs with the same wish for which a start is planned.
    pub fn jobs_of(&self, want: Want) -> Vec<JobId> {
        let planned = self.of_want.get(&want).into_iter().flatten();
        planned.copied().filter(|job| self.starts.of(*job).is_some()).collect()
    }
}
