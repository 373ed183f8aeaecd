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
    /// Of all these jobs, each counted so many times.
    pub fn of<'a>(jobs: impl IntoIterator<Item = (&'a Job, u64)>) -> Self {
        let mut requests = Requests::default();
        for (job, times) in jobs {
            requests.count(job, times, true);
        }
        requests
    }

    /// Every request with how many jobs ask it; none is zero.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeRequest, u64)> {
        self.jobs.iter().map(|(request, jobs)| (request, *jobs))
    }

    /// Counts so many jobs like this one more or less.
    pub(super) fn count(&mut self, job: &Job, times: u64, more: bool) {
        let request = &job.spec.per_node;
        if job.spec.scavenger || times == 0 {
            return;
        }
        let Some(jobs) = self.jobs.get_mut(request) else {
            if more {
                self.jobs.insert(request.clone(), times);
            }
            return;
        };
        *jobs = if more { jobs.saturating_add(times) } else { jobs.saturating_sub(times) };
        if *jobs == 0 {
            self.jobs.remove(request);
        }
    }
}
