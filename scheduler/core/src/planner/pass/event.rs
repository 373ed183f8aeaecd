//! A pass for an event: who starts in the room that there is. Starts are planned, others are stopped and reasons found by
//! full passes alone.
//!
//! It begins at the other end than a full one, with the room and not with the queue: of a hundred thousand cohorts only
//! those come into line whose kind of request finds any place now, on those nodes alone on which a GPU is left. All others
//! could not start in a full pass either, so who starts, where and in which order is what it would be if everybody had come
//! into line on the whole machine ([`Reach::Everything`]); a test and the scheduler itself hold the two against each
//! other.
//!
//! What is planned stands as the last full pass left it: a job starts on the nodes that are kept for it once all of them
//! are free, and until then nobody may be on them who would put it off. Better nodes are found for it by full passes.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::backfill::Standby;
use super::{Decision, Pass, PassTurns, Scope, Tier, Want};
use crate::amount::UnixMicros;
use crate::ids::{JobId, NodeName};
use crate::planner::bearings::Kept;
use crate::planner::closed::Closed;
use crate::planner::fair::Fair;
use crate::planner::fit::Extent;
use crate::planner::gather::{Gathered, gather};
use crate::planner::lending::Lending;
use crate::planner::score::SlotId;
use crate::planner::turns::Claim;
use crate::planner::unfold::Jobs;
use crate::policy::Policy;
use crate::spec::{GpuRequest, JobSpec};
use crate::world::{Cohort, CohortNumber, World};

/// Who comes into line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::planner) enum Reach {
    /// Those for whose kind of request there is any place now.
    Room,
    /// Everybody, on the whole machine.
    Everything,
}

/// What came of a pass for an event.
pub(in crate::planner) struct Started {
    /// What to do.
    pub decisions: Vec<Decision>,
    /// By what order jobs start.
    pub turns: Option<PassTurns>,
    /// Jobs looked at.
    pub considered: usize,
    /// Whether it stopped since it had decided enough.
    pub has_more: bool,
}

impl<'w> Pass<'w> {
    /// A pass for an event that has not looked at any job yet.
    pub fn for_event(
        jobs: Jobs<'w>,
        policy: &'w Policy,
        now: UnixMicros,
        kept: &Kept,
        reach: Reach,
    ) -> Self {
        let extent = match reach {
            Reach::Room if !asks_for_no_gpus(jobs.world) => Extent::GpusLeft,
            Reach::Room | Reach::Everything => Extent::All,
        };
        Pass::on(jobs, policy, now, (Scope::Event, extent), kept.whole.clone())
    }

    /// Starts what can start.
    pub fn run_event(mut self, kept: &mut Kept, reach: Reach) -> Started {
        let fair = Fair::clone(&kept.fair);
        self.plans.plan_nothing();
        self.contested.clone_from(&kept.contested);
        self.stand_by = Arc::clone(&kept.planned);
        self.demands = std::mem::take(&mut kept.demands);
        let cohorts = self.with_room(reach);
        let (arena, starts_max) = (Arc::clone(fair.shape()), self.policy.max_starts_per_pass);
        let (machine, limits) = (&self.machine, &mut self.limits);
        let cohorts = cohorts.into_iter();
        let gathered = gather(self.jobs, self.now, cohorts, &arena, machine, limits, starts_max);
        let Gathered { lines, .. } = gathered;
        self.lending = Lending::of(&self.world.quota, &fair, &self.machine);
        self.fair = Some(fair);
        let planned = kept.planned_on(&self.machine);
        self.decide(lines, |pass| pass.keep_planned(planned));
        self.give_rest();
        let mut turns = self.finish_record();
        if let Some(turns) = &mut turns {
            // Why the others were passed over is for full passes to find.
            let waiting = self.world.waiting_jobs();
            turns.sheet.passed_more = u32::try_from(waiting).unwrap_or(u32::MAX);
        }
        kept.demands = std::mem::take(&mut self.demands);
        kept.note(&self.decisions, |job| self.jobs.get(job));
        let has_more = self.has_decided_enough();
        Started { decisions: self.decisions, turns, considered: self.considered, has_more }
    }

    /// Cohorts that come into line.
    fn with_room(&mut self, reach: Reach) -> Vec<(CohortNumber, &'w Cohort)> {
        let cohorts = &self.world.cohorts;
        if reach == Reach::Everything {
            return cohorts.iter().collect();
        }
        let mut all = Vec::new();
        for (kind, key) in cohorts.kinds() {
            let nodes = self.nodes_for(kind, (key.spec(), key.avoid()));
            if nodes > 0 {
                let of_kind = cohorts.of_kind(kind);
                all.extend(of_kind.filter(|(_, cohort)| cohort.wish.nodes <= nodes));
            }
        }
        all
    }

    /// On how many nodes a request of that kind finds a place now, whatever is reserved or planned there.
    fn nodes_for(
        &mut self,
        kind: u32,
        of: (&'w JobSpec, &'w BTreeSet<NodeName>),
    ) -> u32 {
        let family = self.families.of_kind(kind, of, Closed::default(), &self.machine);
        let family = self.families.get(family);
        let nodes = family.tries.iter().map(|attempt| {
            let places = family.territory.places(&self.machine, attempt.class, &family.need);
            let slots: BTreeSet<SlotId> = places.map(|pick| pick.slot).collect();
            u32::try_from(slots.len()).unwrap_or(u32::MAX)
        });
        nodes.max().unwrap_or(0)
    }

    /// Keeps nodes for those for whom a start is planned, and starts those whose nodes are all free.
    fn keep_planned(&mut self, planned: Vec<JobId>) {
        let (mut standing, starts): (Vec<Standby<'w>>, _) = (Vec::new(), Arc::clone(&self.stand_by));
        for job in planned {
            let start = starts.of(job);
            standing.extend(start.and_then(|start| self.still_stands_here(job, start)));
        }
        standing.sort_by_key(Standby::goes_first);
        for one in &standing {
            let ask = self.ask_of(one);
            self.keep_nodes(&ask, &one.slots, one.before.at.max(self.now));
        }
        for one in standing {
            self.start_if_free(&one);
        }
    }

    fn start_if_free(&mut self, one: &Standby<'w>) {
        let ask = self.ask_of(one);
        one.slots.iter().for_each(|slot| self.horizon.release(*slot, one.job.id));
        let is_whole = one.slots.len() == one.before.nodes.len();
        let is_free = is_whole && self.all_free(&one.slots, &ask) == Some(self.now);
        if !is_free || !self.start_planned(one, ask.class) {
            self.keep_nodes(&ask, &one.slots, one.before.at.max(self.now));
        }
    }

    /// Whether a job that borrows must leave a class to those within a guarantee: only a full pass can say whether others
    /// stop for them, and what is free may be a part of what they need.
    pub(super) fn is_left_to_full(&self, claim: Claim, want: Want, place: usize) -> bool {
        if self.scope == Scope::Full || claim.tier == Tier::Guaranteed {
            return false;
        }
        let class = self.families.get(want.family).tries[place].class;
        class.is_some_and(|class| self.contested.contains(&class))
    }

    /// Notes that somebody within a guarantee waits for room. Only a full pass sees everybody who does.
    pub(super) fn note_contested(&mut self, claim: Claim, want: Want) {
        if self.scope == Scope::Full && claim.tier == Tier::Guaranteed {
            let tries = &self.families.get(want.family).tries;
            self.contested.extend(tries.iter().filter_map(|attempt| attempt.class));
        }
    }

    /// Whether nothing but room decides who starts, as far as a full pass saw.
    pub(super) fn is_calm(&self) -> bool {
        let stops = |decision: &Decision| matches!(decision, Decision::Preempt { .. });
        self.expecting.is_empty()
            && !self.recorder.has_promised()
            && !self.decisions.iter().any(stops)
    }
}

impl Standby<'_> {
    /// Who is within a guarantee does not give way to who borrows, nor a gang to a job of one node, so their moments are
    /// found first.
    pub(super) fn goes_first(&self) -> Reverse<(bool, bool)> {
        Reverse((self.claim.tier == Tier::Guaranteed, self.want.nodes > 1))
    }
}

/// Whether any job that waits asks for no GPUs, and may so find a place where none is left.
fn asks_for_no_gpus(world: &World) -> bool {
    let none = |spec: &JobSpec| spec.per_node.gpus == GpuRequest::None;
    let mut beside = world.cohorts.beside().filter_map(|id| world.record(id));
    world.cohorts.kinds().any(|(_, key)| none(key.spec())) || beside.any(|job| none(&job.spec))
}
