//! Scavengers in the pass: the turn of jobs that take what all others leave, and who may have what they hold.

use std::collections::BTreeMap;

use super::elastic::Sizes;
use super::{Order, Pass, Waiting, Want, Who};
use crate::amount::GpuMilli;
use crate::ids::ProjectPath;
use crate::job::Job;
use crate::planner::fair::Tier;
use crate::planner::gang::Pick;
use crate::planner::recall::Givers;
use crate::planner::request::FamilyId;
use crate::planner::score::ClassIndex;
use crate::planner::turns::Claim;
use crate::quota::entitle::NodeIndex;
use crate::spec::JobSpec;
use crate::world::QueueKey;

/// For so many nodes of a kind of request, or more, scavengers found no place.
type Failed = BTreeMap<(FamilyId, usize), u32>;

impl<'w> Pass<'w> {
    /// Scavengers, after all others.
    pub(super) fn run_scavengers(&mut self) {
        let mut failed = Failed::new();
        for job in self.scavengers_in_turn() {
            if self.has_decided_enough() {
                break;
            }
            if !self.is_kept_back(job) {
                self.considered += 1;
                self.scavenge(job, &mut failed);
            }
        }
    }

    /// Those first whose project scavenges least, each next job of a project behind what the ones before ask for.
    fn scavengers_in_turn(&mut self) -> Vec<&'w Job> {
        let usage = &self.world.usage;
        let scavenged = |project: &ProjectPath| -> GpuMilli {
            let usage = usage.get(project.as_str());
            usage.map(|usage| usage.scavenged.values().copied().sum()).unwrap_or_default()
        };
        let mut before: BTreeMap<&ProjectPath, GpuMilli> = BTreeMap::new();
        let mut turns: Vec<(GpuMilli, &Job)> = Vec::new();
        self.scavengers.sort_by_key(|job| QueueKey::of(job));
        for job in std::mem::take(&mut self.scavengers) {
            let project = &job.spec.project;
            let before = before.entry(project).or_insert_with(|| scavenged(project));
            turns.push((*before, job));
            *before += job.spec.total_gpus();
        }
        // Stable: else the order of the queue.
        turns.sort_by_key(|(before, _)| *before);
        turns.into_iter().map(|(_, job)| job).collect()
    }

    fn scavenge(&mut self, job: &'w Job, failed: &mut Failed) {
        let project = self.limits.project(&job.spec.project);
        let node = self.fair.as_ref().and_then(|fair| fair.find(&job.spec.project));
        let claim = Claim { tier: Tier::Scavenger, node };
        let want = self.want(&job.spec, &job.status.avoid, project);
        for place in 0..self.families.get(want.family).tries.len() {
            let class = self.families.get(want.family).tries[place].class;
            let hopeless = failed.get(&(want.family, place)).is_some_and(|of| *of <= want.nodes);
            if hopeless || !self.within_bounds(want, class) || !self.leaves_kept(want, class) {
                continue;
            }
            if let Some(picks) = self.leftovers(want, class) {
                let picks = self.more_leftovers(&job.spec, want, class).unwrap_or(picks);
                return self.start(job, claim, want, place, picks);
            }
            failed.insert((want.family, place), want.nodes);
        }
        self.waiting.push(Waiting { who: Who::Job, job: job.id, want, order: Order::Free });
    }

    /// Whether others still have what they keep of their guarantees.
    fn leaves_kept(&self, want: Want, class: Option<ClassIndex>) -> bool {
        self.lent(want, class, |lending, fair, node, class, gpus| {
            lending.lacks(fair, node, class, gpus, true).is_zero()
        })
    }

    /// Places among everything that is free: what waits longest gets its nodes back as soon as it can start.
    fn leftovers(&self, want: Want, class: Option<ClassIndex>) -> Option<Vec<Pick>> {
        let family = self.families.get(want.family);
        let places = family.territory.places(&self.machine, class, &family.need);
        let asked = crate::planner::power::Asked { class, need: &family.need, nodes: want.nodes };
        family.territory.choose_now(&self.machine, asked, places)
    }

    /// Places for as many more nodes than the fewest as an elastic job can have.
    fn more_leftovers(
        &self,
        spec: &JobSpec,
        want: Want,
        class: Option<ClassIndex>,
    ) -> Option<Vec<Pick>> {
        Sizes::of(spec).largest(|nodes| {
            let want = Want { nodes, ..want };
            let may = self.within_bounds(want, class) && self.leaves_kept(want, class);
            if may { self.leftovers(want, class) } else { None }
        })
    }

    /// Who may be stopped for the job: what borrows, if the job is within its guarantee; else scavengers, if nothing
    /// but them is in its way.
    pub(super) fn givers(
        &self,
        job: &Job,
        want: Want,
        (node, class): (NodeIndex, ClassIndex),
        order: Order,
    ) -> Option<Givers> {
        if self.is_guaranteed(job, want, node, class) {
            return Some(Givers::Borrowers);
        }
        let only_room = match order {
            Order::Free => true,
            Order::Planned | Order::BehindOwn(_) | Order::Later(_) | Order::Freeing => false,
        };
        let displaces = only_room && self.world.scavengers > 0 && !want.scavenges;
        if !displaces || !self.within_bounds(want, Some(class)) {
            return None;
        }
        let gpus = self.families.gpus(want);
        let short = self.lending.as_ref().zip(self.fair.as_ref());
        let short = short.map(|(lending, fair)| lending.lacks(fair, node, class, gpus, false));
        Some(Givers::Scavengers { short: short.unwrap_or_default() })
    }
}
