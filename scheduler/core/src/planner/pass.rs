//! One pass over the queue: who starts where. Why the others wait is found afterwards, by what is left.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fit::Machine;
use super::gang::{Pick, choose};
use super::limits::{Limits, ProjectIndex};
use super::order::{DependencyLists, Kept, Order, has_waited};
use super::reasons::Reasons;
use super::request::{Families, FamilyId};
use super::score::ClassIndex;
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
            decisions: Vec::new(),
            waiting: Vec::new(),
            lists: Vec::new(),
        }
    }

    /// Looks at the jobs in the order of the queue until enough is decided, and says what came of it.
    pub fn run(mut self) -> (Vec<Decision>, Report) {
        let mut early = DependencyLists::default();
        let mut considered = 0;
        for key in &self.world.queue {
            if self.decisions.len() >= self.policy.max_starts_per_pass {
                break;
            }
            considered += 1;
            let Some(job) = self.world.jobs.get(&key.job) else {
                continue;
            };
            match early.not_yet(self.world, job, self.now) {
                Some(list) => self.lists.push((job.id, list)),
                None => self.consider(job),
            }
        }
        let deferred = self.world.queue.len() - considered;
        let waiting = self.report();
        (self.decisions, Report { waiting, considered, deferred })
    }

    /// Starts the job if some class serves it now.
    fn consider(&mut self, job: &'w Job) {
        let want = Want {
            family: self.families.of(job, &self.machine),
            nodes: job.spec.nodes,
            project: self.limits.project(&job.spec.project),
        };
        let mut order = Order::Free;
        for place in 0..self.families.get(want.family).tries.len() {
            match self.attempt(job, want, place) {
                Ok(picks) => return self.start(job, want, place, picks),
                Err(found) => order = order.max(found),
            }
        }
        self.keep_if_overdue(job, want);
        self.waiting.push(Waiting { job: job.id, want, order });
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

    fn start(&mut self, job: &Job, want: Want, place: usize, picks: Vec<Pick>) {
        let family = self.families.get(want.family);
        let (need, class) = (family.need, family.tries[place].class);
        let placement = self.machine.take(class, &need, picks);
        if let Some(class) = &placement.class {
            self.limits.take(want.project, class, placement.gpus());
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
        let mut reasons = Reasons::of(&self.machine, &self.limits, &mut self.families);
        let found = self.waiting.iter().map(|waiting| (waiting.job, reasons.list(waiting)));
        self.lists.extend(found);
        std::mem::take(&mut self.lists).into_iter().collect()
    }
}
