//! May this attempt be stopped for that job? By the rules of guarantees, counted anew from attempts.
//!
//! P is what projects hold beyond their guarantees, without what stops. The stop must lower it, and the start it is
//! for must not raise it again: that is what keeps jobs from stopping each other in turn. Scavengers are outside of P:
//! they stop for everybody else, and nothing stops for them.

use std::collections::{BTreeMap, BTreeSet};

use crate::attempt::Attempt;
use crate::ids::{AttemptId, GpuClass, JobId};
use crate::job::{Job, JobState};
use crate::world::World;

use super::reckoning::Reckoning;

/// A stop that is to be judged.
pub(super) struct Stop<'a> {
    pub world: &'a World,
    /// Stopped by earlier decisions of the same plan.
    pub stopped: &'a BTreeSet<AttemptId>,
    /// Given by earlier decisions of the same plan, by path and class.
    pub given: &'a BTreeMap<String, BTreeMap<GpuClass, u64>>,
    /// Without what stops by those.
    pub reckoning: &'a mut Reckoning,
}

impl Stop<'_> {
    /// Everything that forbids it, in words.
    pub fn judge(&mut self, id: AttemptId, for_job: JobId) -> Vec<String> {
        let Some(attempt) = self.world.attempts.get(&id) else {
            return vec!["has ended".to_owned()];
        };
        let Some(job) = self.world.job(for_job) else {
            return vec![format!("stops for job {for_job}, which is not known")];
        };
        let (job, mut wrong): (&Job, _) = (&job, Vec::new());
        if !self.stays(attempt) {
            wrong.push("stops already".to_owned());
        }
        if job.status.state != JobState::Pending || !job.status.waits_for.is_empty() {
            wrong.push(format!("stops for job {for_job}, which does not compete"));
        }
        if job.spec.scavenger {
            wrong.push(format!("stops for job {for_job}, which is a scavenger itself"));
        }
        match &attempt.placement.class {
            None => wrong.push("has no GPUs to give".to_owned()),
            // A scavenger stops for anybody else who asks for GPUs, were it of other ones: it may hold the CPUs beside.
            Some(_) if attempt.scavenges() && !job.spec.total_gpus().is_zero() => {}
            Some(class) => self.judge_claim(attempt, class, job, &mut wrong),
        }
        wrong
    }

    fn judge_claim(
        &mut self,
        attempt: &Attempt,
        class: &GpuClass,
        job: &Job,
        wrong: &mut Vec<String>,
    ) {
        let gpus = job.spec.total_gpus().0;
        let asked = job.spec.per_node.gpus.class();
        if gpus == 0 || asked.is_some_and(|asked| asked != class) {
            wrong.push(format!("has {class} GPUs, which job {} does not ask for", job.id));
        }
        let due = self.reckoning.due(self.world, class);
        let scaled = |path: &str| due.arena().find(path).map_or(0, |n| due.scaled_guarantee(n).0);
        let full = |path: &str| due.arena().find(path).map_or(0, |node| due.guarantee(node).0);
        let project = job.spec.project.as_str();
        let given = self.given.get(project).and_then(|given| given.get(class)).copied();
        let held = self.world.usage.held(project, class).0 + given.unwrap_or_default();
        if held + gpus > scaled(project) {
            wrong.push(format!("stops for job {}, which is beyond its guarantee", job.id));
        }
        let active = self.reckoning.active(self.world, class);
        for path in attempt.project.self_and_ancestors().filter(|path| !is_above(path, project)) {
            let given = self.given.get(path).and_then(|given| given.get(class)).copied();
            if active.at(path) + given.unwrap_or_default() <= full(path) {
                wrong.push(format!("belongs to {path}, which holds no more than its guarantee"));
            }
        }
        let own = attempt.project.as_str();
        if active.up_to(own, attempt.place_in_line()) <= full(own) {
            wrong.push("is within its project's guarantee".to_owned());
        }
        let excess = |held: u64| held.saturating_sub(full(own));
        let before = active.at(own);
        if excess(before.saturating_sub(attempt.gpus().0)) >= excess(before) {
            wrong.push("would free nothing that is borrowed".to_owned());
        }
    }

    fn stays(&self, attempt: &Attempt) -> bool {
        attempt.stop.is_none() && !self.stopped.contains(&attempt.id)
    }
}

/// Whether `path` is `project` or lies above it.
pub(super) fn is_above(path: &str, project: &str) -> bool {
    project.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
