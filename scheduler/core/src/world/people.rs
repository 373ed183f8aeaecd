//! Jobs by who submitted them for which project, so that those of a name are found without looking at all.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{JobId, ProjectPath, UserName};
use crate::job::Job;

/// Jobs and arrays that are not terminal, without the tasks of arrays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct People {
    jobs: BTreeMap<(UserName, ProjectPath), BTreeSet<JobId>>,
}

impl People {
    /// Of all these jobs.
    pub fn of<'a>(jobs: impl IntoIterator<Item = &'a Job>) -> Self {
        let mut people = People::default();
        jobs.into_iter().for_each(|job| people.enter(job));
        people
    }

    /// What that person has submitted for that project and has not ended.
    pub fn jobs(
        &self,
        owner: &UserName,
        project: &ProjectPath,
    ) -> impl Iterator<Item = JobId> + use<'_> {
        self.jobs.get(&(owner.clone(), project.clone())).into_iter().flatten().copied()
    }

    /// Enters a job that was submitted.
    pub(super) fn enter(&mut self, job: &Job) {
        if job.array.is_none() {
            let person = (job.owner.clone(), job.spec.project.clone());
            self.jobs.entry(person).or_default().insert(job.id);
        }
    }

    /// Takes out a job that has ended.
    pub(super) fn leave(&mut self, job: &Job) {
        let person = (job.owner.clone(), job.spec.project.clone());
        let Some(jobs) = self.jobs.get_mut(&person) else { return };
        jobs.remove(&job.id);
        if jobs.is_empty() {
            self.jobs.remove(&person);
        }
    }
}
