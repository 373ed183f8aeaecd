//! Recalls in the pass: what is stopped so that a job has room, and what is kept for it from then on.

use std::sync::Arc;

use super::{Order, Pass, Scope, Want};
use crate::ids::JobId;
use crate::job::Job;
use crate::plan::Decision;
use crate::planner::recall::{Found, Givers, Recalls, Scene};
use crate::planner::score::ClassIndex;
use crate::planner::turns::Claim;
use crate::quota::entitle::NodeIndex;

impl<'w> Pass<'w> {
    /// Stops what runs in a worse tier where that makes room, or waits for what stops already: scavengers for any job,
    /// what borrows for one that is within a guarantee of some class. Whether it does; then what it needs is kept for
    /// it and counts as its own.
    pub(super) fn recall(&mut self, job: &Job, claim: Claim, want: Want, order: Order) -> bool {
        let may = self.scope == Scope::Full && order != Order::Planned;
        let Some(node) = claim.node.filter(|_| may) else { return false };
        if !self.limits.allow_walltime(want.project, want.limit_s) {
            return false;
        }
        for place in 0..self.families.get(want.family).tries.len() {
            let class = self.families.get(want.family).tries[place].class;
            let Some(class) = class else { continue };
            let Some(givers) = self.givers(job, want, (node, class), order) else { continue };
            // Where not even the empty machine would do, as on nodes reserved for others, nobody need be asked.
            if self.families.get_mut(want.family).capable(place, &self.machine) < want.nodes {
                continue;
            }
            if let Some(found) = self.find_room(job, want, (node, class), givers) {
                if givers == Givers::Borrowers {
                    self.expecting.entry((node, class)).or_insert(job.id);
                }
                self.make_room(job.id, want, node, class, found);
                return true;
            }
        }
        false
    }

    fn find_room(
        &mut self,
        job: &Job,
        want: Want,
        place: (NodeIndex, ClassIndex),
        givers: Givers,
    ) -> Option<Found> {
        let promise = self.world.quota.recall_of(job);
        self.with_recalls(|recalls, scene| recalls.find(scene, want, place, promise, givers))
    }

    pub(super) fn with_recalls(
        &mut self,
        find: impl FnOnce(&mut Recalls<'w>, Scene<'_, 'w>) -> Option<Found>,
    ) -> Option<Found> {
        let (machine, limits, families) = (&self.machine, &self.limits, &self.families);
        let scene = Scene { machine, limits, families, fair: self.fair.as_ref()? };
        let (world, policy, now) = (self.world, self.policy, self.now);
        let recalls = self.recalls.get_or_insert_with(|| Recalls::of(world, policy, now, scene));
        find(recalls, scene)
    }

    pub(super) fn make_room(
        &mut self,
        job: JobId,
        want: Want,
        node: NodeIndex,
        class: ClassIndex,
        found: Found,
    ) {
        let gpus = self.families.gpus(want);
        let asked = self.families.asked(&self.machine, want, Some(class));
        self.budgets.take(want.project, self.hold(want, Some(class)));
        self.limits.take(want.project, asked);
        let need = self.families.get(want.family).need;
        for (slot, part) in &found.kept {
            self.machine.keep(*slot, part);
            self.machine.keep_power(*slot, class, &need);
        }
        if let Some(lending) = &mut self.lending {
            lending.promise(class, &found.kept);
        }
        self.limits.take_job(want.project);
        self.record_take(node, class, gpus);
        if let Some(fair) = &mut self.fair {
            fair.take(node, class, gpus);
        }
        let names = found.kept.iter().map(|(slot, _)| self.machine.slot(*slot).name.clone());
        let nodes = Arc::new(names.collect());
        let preempt = |attempt| {
            let nodes = Arc::clone(&nodes);
            Decision::Preempt { attempt, for_job: job, nodes }
        };
        self.decisions.extend(found.victims.into_iter().map(preempt));
    }
}
