//! How many jobs ask the same of each of their nodes: what the planner takes for the jobs that will come.

use std::collections::BTreeMap;

use crate::job::Job;
use crate::spec::NodeRequest;

/// Jobs that are not terminal by what they ask of a node, scavengers left out: nothing is kept in shape for those.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests {
    jobs: BTreeMap<NodeRequest, u64>,
}

impl Requests {
    /// Of all these jobs.
    pub fn of<'a>(jobs: impl IntoIterator<Item = &'a Job>) -> Self {
        let mut requests = Requests::default();
        for job in jobs {
            requests.count(job, true);
        }
        requests
    }

    /// Every request with how many jobs ask it; none is zero.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeRequest, u64)> {
        self.jobs.iter().map(|(request, jobs)| (request, *jobs))
    }

    /// Counts one job more or less.
    pub(super) fn count(&mut self, job: &Job, more: bool) {
        let request = &job.spec.per_node;
        if job.spec.scavenger {
            return;
        }
        let Some(jobs) = self.jobs.get_mut(request) else {
            if more {
                self.jobs.insert(request.clone(), 1);
            }
            return;
        };
        *jobs = if more { jobs.saturating_add(1) } else { jobs.saturating_sub(1) };
        if *jobs == 0 {
            self.jobs.remove(request);
        }
    }
}
