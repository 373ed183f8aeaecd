//! May this job start by what nodes of the quota tree say beside limits and budgets? Counted anew, with everything that
//! the plan has given so far.

use crate::attempt::Placement;
use crate::ids::{AttemptId, GpuClass, JobId};
use crate::job::Job;

use super::preempt::is_above;
use super::start::Shadow;

impl Shadow<'_> {
    /// How large, how long and how many jobs may be, and how much may be borrowed.
    pub(super) fn judge_terms(
        &mut self,
        job: &Job,
        placement: &Placement,
        wrong: &mut Vec<String>,
    ) {
        let held = placement.nodes.iter().flat_map(|node| &node.gpus);
        let gpus: u64 = held.map(|gpu| gpu.milli.0).sum();
        let project = job.spec.project.as_str();
        for (path, node) in &self.world.quota.nodes {
            if !is_above(path.as_str(), project) || node.bounds.is_empty() {
                continue;
            }
            if node.bounds.max_walltime_s.is_some_and(|most| job.spec.time_limit_s > most) {
                wrong.push(format!("may take longer than {path} allows"));
            }
            if node.bounds.max_jobs.is_some_and(|most| self.jobs_at(path.as_str()) > most) {
                wrong.push(format!("{path} would have more jobs than it may"));
            }
            let Some(class) = &placement.class else { continue };
            let gang = node.bounds.max_gang.as_ref().and_then(|most| most.of(class));
            if gang.is_some_and(|most| gpus > most.0) {
                wrong.push(format!("is larger than {path} allows"));
            }
            let borrow = node.bounds.borrow_max.as_ref().filter(|_| !job.spec.scavenger);
            let borrow = borrow.and_then(|most| most.of(class));
            if borrow.is_some_and(|most| self.borrowed(path.as_str(), class) > most.0) {
                wrong.push(format!("{path} would borrow more than it may"));
            }
        }
    }

    /// Jobs with an attempt that has not ended, and those that the plan started.
    fn jobs_at(&mut self, path: &str) -> u64 {
        let is_below = |job: &JobId| {
            self.world.job(*job).is_some_and(|job| is_above(path, job.spec.project.as_str()))
        };
        let holds = |job: &JobId| {
            let all =
                AttemptId { job: *job, number: 0 }..=AttemptId { job: *job, number: u32::MAX };
            self.world.attempts.range(all).next().is_some()
        };
        let started = self.started.iter().filter(|job| is_below(job) && !holds(job));
        let started = started.count() as u64;
        self.reckoning.attempts(self.world, path) + started
    }

    /// What a node would hold beyond what is left of its guarantee.
    fn borrowed(&mut self, path: &str, class: &GpuClass) -> u64 {
        let due = self.reckoning.due(self.world, class);
        let sure = due.arena().find(path).map_or(0, |node| due.scaled_guarantee(node).0);
        self.held_with_given(path, class).saturating_sub(sure)
    }

    /// What a node holds of a class, with what the plan has given.
    pub(super) fn held_with_given(&self, path: &str, class: &GpuClass) -> u64 {
        let given = self.held.get(path).and_then(|given| given.get(class)).copied();
        self.world.usage.held(path, class).0 + given.unwrap_or_default()
    }
}
