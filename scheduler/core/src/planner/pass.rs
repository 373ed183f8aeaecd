//! One pass over the queue: who starts where. Why the others wait is found afterwards, by what is left.
//!
//! Where the quota tree guarantees nothing, jobs come in the order of the queue; else by [`Turns`].

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fair::{Fair, Tier, has_guarantees};
use super::fit::Machine;
use super::gang::{Pick, choose};
use super::limits::{Limits, ProjectIndex};
use super::order::{DependencyLists, Kept, Order, has_waited};
use super::reasons::Reasons;
use super::request::{Families, FamilyId};
use super::score::ClassIndex;
use super::turns::{Claim, Turns};
use crate::amount::UnixMicros;
use crate::ids::JobId;
use crate::job::Job;
use crate::plan::{Blocker, Decision, Report};
use crate::policy::Policy;
use crate::world::World;

/// A pass under way.
#[derive(Debug)]
pub(super) struct Pass<'w> {
    world: &'w World,
    policy: &'w Policy,
    now: UnixMicros,
    machine: Machine<'w>,
    limits: Limits<'w>,
    families: Families<'w>,
    kept: Kept,
    /// `None` where the tree guarantees nothing.
    fair: Option<Fair>,
    decisions: Vec<Decision>,
    waiting: Vec<Waiting>,
    lists: Vec<(JobId, Arc<Vec<Blocker>>)>,
}

/// A job that competed and did not start; jobs with all but the first field equal wait for the same reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Waiting {
    /// Which job.
    pub job: JobId,
    /// For what.
    pub want: Want,
    /// Behind whom.
    pub order: Order,
}

/// What a job competes for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Want {
    /// What each node gives.
    pub family: FamilyId,
    /// Nodes of the gang.
    pub nodes: u32,
    /// Who pays.
    pub project: ProjectIndex,
}

impl<'w> Pass<'w> {
    /// A pass that has not looked at any job yet.
    pub fn of(world: &'w World, policy: &'w Policy, now: UnixMicros) -> Self {
        Pass {
            world,
            policy,
            now,
            machine: Machine::of(world),
            limits: Limits::of(world),
            families: Families::default(),
            kept: Kept::default(),
            fair: None,
            decisions: Vec::new(),
            waiting: Vec::new(),
            lists: Vec::new(),
        }
    }

    /// Looks at jobs until enough is decided, and says what came of it.
    pub fn run(mut self) -> (Vec<Decision>, Report) {
        let considered = if has_guarantees(&self.world.quota) {
            self.run_by_turns()
        } else {
            self.run_in_order()
        };
        let deferred = self.world.queue.len() - considered;
        let waiting = self.report();
        (self.decisions, Report { waiting, considered, deferred })
    }

    /// In the order of the queue; how many were looked at.
    fn run_in_order(&mut self) -> usize {
        let mut early = DependencyLists::default();
        let mut considered = 0;
        for key in &self.world.queue {
            if self.has_decided_enough() {
                break;
            }
            considered += 1;
            if let Some(job) = self.competing(&mut early, key.job) {
                self.consider(job, Claim { tier: Tier::Borrowed, node: None });
            }
        }
        considered
    }

    /// By guarantees and shares; how many were looked at.
    fn run_by_turns(&mut self) -> usize {
        let mut early = DependencyLists::default();
        let queue = self.world.queue.iter();
        let jobs: Vec<&'w Job> =
            queue.filter_map(|key| self.competing(&mut early, key.job)).collect();
        let fair = Fair::of(self.world, &self.machine, jobs.iter().copied());
        let mut considered = self.world.queue.len() - jobs.len();
        let mut turns = Turns::of(jobs.into_iter(), &self.machine, &fair);
        self.fair = Some(fair);
        while !self.has_decided_enough() {
            let Some(turn) = self.fair.as_ref().and_then(|fair| turns.next(fair)) else {
                break;
            };
            if self.consider(turn.job, turn.claim) {
                considered += 1;
            } else {
                turns.put_off(turn);
            }
        }
        considered
    }

    fn has_decided_enough(&self) -> bool {
        self.decisions.len() >= self.policy.max_starts_per_pass
    }

    /// The job if it competes for resources; else why it does not is noted.
    fn competing(&mut self, early: &mut DependencyLists, id: JobId) -> Option<&'w Job> {
        let job = self.world.jobs.get(&id)?;
        match early.not_yet(self.world, job, self.now) {
            Some(list) => {
                self.lists.push((job.id, list));
                None
            }
            None => Some(job),
        }
    }

    /// Starts the job if some class serves it now; false if it did not and may only be looked at again for classes
    /// in which it must borrow.
    fn consider(&mut self, job: &'w Job, claim: Claim) -> bool {
        let want = Want {
            family: self.families.of(job, &self.machine),
            nodes: job.spec.nodes,
            project: self.limits.project(&job.spec.project),
        };
        let mut order = Order::Free;
        let mut must_borrow = false;
        for place in 0..self.families.get(want.family).tries.len() {
            if !self.claims(job, claim, want, place) {
                must_borrow = true;
                continue;
            }
            match self.attempt(job, want, place) {
                Ok(picks) => {
                    self.start(job, claim, want, place, picks);
                    return true;
                }
                Err(found) => order = order.max(found),
            }
        }
        if !must_borrow {
            self.keep_if_overdue(job, want);
            self.waiting.push(Waiting { job: job.id, want, order });
        }
        !must_borrow
    }

    /// Whether a start on nodes of that class is in the tier that the job has its turn in.
    fn claims(&self, job: &Job, claim: Claim, want: Want, place: usize) -> bool {
        let class = self.families.get(want.family).tries[place].class;
        match (claim, &self.fair, class) {
            (Claim { tier: Tier::Guaranteed, node: Some(node) }, Some(fair), Some(class)) => {
                fair.tier(node, class, job.spec.total_gpus()) == Tier::Guaranteed
            }
            _ => true,
        }
    }

    /// Places for the job on nodes of one class; else how the order of the queue bears on that.
    fn attempt(&mut self, job: &Job, want: Want, place: usize) -> Result<Vec<Pick>, Order> {
        let class = self.families.get(want.family).tries[place].class;
        if let Some(ahead) = self.kept.by(class) {
            return Err(Order::Behind(ahead));
        }
        if !self.allowed(job, want.project, class) {
            return Err(Order::Free);
        }
        if want.nodes < self.families.get(want.family).tries[place].failed_nodes {
            if let Some(picks) = self.search(want, class) {
                return Ok(picks);
            }
            self.families.get_mut(want.family).tries[place].failed_nodes = want.nodes;
        }
        Err(self.kept.anybody().map_or(Order::Free, Order::Perhaps))
    }

    fn allowed(&self, job: &Job, project: ProjectIndex, class: Option<ClassIndex>) -> bool {
        let class = class.map(|class| self.machine.class_name(class));
        self.limits.allow(project, class, job.spec.total_gpus())
    }

    fn search(&self, want: Want, class: Option<ClassIndex>) -> Option<Vec<Pick>> {
        let family = self.families.get(want.family);
        let places = family.territory.places(&self.machine, class, &family.need);
        if self.kept.is_empty() {
            return choose(places, want.nodes);
        }
        let open = |pick: &Pick| {
            let classes = self.machine.slot(pick.slot).layout.classes();
            self.kept.node_by(classes).is_none()
        };
        choose(places.filter(open), want.nodes)
    }

    fn start(&mut self, job: &Job, claim: Claim, want: Want, place: usize, picks: Vec<Pick>) {
        let family = self.families.get(want.family);
        let (need, class) = (family.need, family.tries[place].class);
        let placement = self.machine.take(class, &need, picks);
        if let Some(class) = &placement.class {
            self.limits.take(want.project, class, placement.gpus());
        }
        if let (Some(fair), Some(node), Some(class)) = (&mut self.fair, claim.node, class) {
            fair.take(node, class, placement.gpus());
        }
        self.decisions.push(Decision::Start { job: job.id, placement: Arc::new(placement) });
    }

    /// A job that has waited long for capacity, and for nothing else, keeps the first class that could serve it.
    fn keep_if_overdue(&mut self, job: &Job, want: Want) {
        if !has_waited(job, self.policy.drain_after_s, self.now) {
            return;
        }
        for place in 0..self.families.get(want.family).tries.len() {
            let class = self.families.get(want.family).tries[place].class;
            let could = self.families.get_mut(want.family).capable(place, &self.machine);
            if could >= want.nodes && self.allowed(job, want.project, class) {
                return self.kept.keep(class, job.id);
            }
        }
    }

    fn report(&mut self) -> BTreeMap<JobId, Arc<Vec<Blocker>>> {
        let mut reasons =
            Reasons::of(&self.machine, &self.limits, &mut self.families, self.fair.as_ref());
        let found = self.waiting.iter().map(|waiting| (waiting.job, reasons.list(waiting)));
        self.lists.extend(found);
        std::mem::take(&mut self.lists).into_iter().collect()
    }
}
