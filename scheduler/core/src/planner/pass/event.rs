//! A pass for an event: who starts in the room that there is. Starts are planned, others are stopped and reasons found by
//! full passes alone.
//!
//! It begins at the other end than a full one, with the room and not with the queue: of a hundred thousand cohorts only
//! those come into line that find a place on a node on which something was freed since the last pass, and those that came
//! since. All others waited then for something that has not changed. Where what was freed may have kept somebody from room
//! that there was all along, as a limit of the quota tree does, or where guarantees count, all of those come into line
//! for whose kind of request there is any place at all.
//!
//! So who starts, where and in which order is what it would be if everybody had come into line on the whole machine
//! ([`Reach::Everything`]); tests and the scheduler itself hold the two against each other.
//!
//! What is planned stands as the last full pass left it: a job starts on the nodes that are kept for it once all of them
//! are free, and until then nobody may be on them who would put it off. Better nodes are found for it by full passes.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::backfill::Standby;
use super::report::refusing;
use super::{Decision, Entry, Pass, Scope, Tier, Want};
use crate::amount::UnixMicros;
use crate::ids::JobId;
use crate::job::JobState;
use crate::planner::bearings::{Fresh, Kept, Refusing};
use crate::planner::closed::Closed;
use crate::planner::fit::Extent;
use crate::planner::gang::{GpuNeed, Need};
use crate::planner::gather::gather;
use crate::planner::horizon::{Ask, Who as Asker};
use crate::planner::lending::Lending;
use crate::planner::places::Places;
use crate::planner::request::FamilyId;
use crate::planner::score::{ClassIndex, SlotId};
use crate::planner::turns::{Claim, Lines};
use crate::planner::unfold::Jobs;
use crate::policy::Policy;
use crate::precedence::PassTurns;
use crate::spec::{GpuRequest, JobSpec};
use crate::world::{Cohort, CohortKey, CohortNumber, World};

/// Room that there was not when the last pass had looked.
#[derive(Debug)]
pub(super) struct FreshRoom {
    /// On which nodes.
    nodes: Vec<SlotId>,
    /// For which kinds of requests; those at the end are taken away once nothing is left for them.
    kinds: Vec<FamilyId>,
    /// So many nodes have nothing left for the last of these kinds.
    used_up: usize,
}

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
        Pass::on(jobs, policy, now, (Scope::Event, extent), Arc::clone(&kept.whole))
    }

    /// Starts what can start.
    pub fn run_event(mut self, kept: &mut Kept, reach: Reach) -> Started {
        self.plans.plan_nothing();
        self.contested.clone_from(&kept.contested);
        self.stand_by = Arc::clone(&kept.planned);
        self.demands = std::mem::take(&mut kept.demands);
        self.places = Some(Arc::clone(&kept.places));
        self.fair = kept.fair.take().map(|fair| *fair);
        let lending = |fair| Lending::of(&self.world.quota, fair, &self.machine);
        self.lending = self.fair.as_ref().and_then(lending);
        let planned = kept.planned_on(&self.machine);
        if reach == Reach::Room && self.is_narrow(kept) {
            self.recorder.entry = Entry::Planned;
            self.keep_planned(planned);
            let mut fresh = std::mem::take(&mut kept.fresh);
            // Who starts on nodes that were kept for it is gone from them sooner than was planned.
            let started = self.started.iter().filter_map(|job| kept.planned.of(*job));
            fresh.nodes.extend(started.flat_map(|start| start.nodes.iter().cloned()));
            let lines = self.line_up_fresh(&fresh);
            self.take_turns(lines);
        } else {
            let lines = self.line_up(reach);
            self.decide(lines, |pass| pass.keep_planned(planned));
        }
        self.give_rest();
        self.finish_event(kept)
    }

    /// Whether only what is fresh can start: nothing that is reserved opens and closes by the clock.
    fn is_narrow(&self, kept: &Kept) -> bool {
        self.machine.reservations.is_empty() && kept.is_narrow()
    }

    fn finish_event(mut self, kept: &mut Kept) -> Started {
        let mut turns = self.finish_record();
        if let Some(turns) = &mut turns {
            // Why the others were passed over is for full passes to find.
            let waiting = self.world.waiting_jobs();
            turns.sheet.passed_more = u32::try_from(waiting).unwrap_or(u32::MAX);
        }
        let has_more = self.has_decided_enough();
        kept.demands = std::mem::take(&mut self.demands);
        kept.fair = self.fair.take().map(|mut fair| {
            // It is seen in the world whether what was decided happens.
            fair.rewind(0);
            Box::new(fair)
        });
        kept.begin_anew(has_more);
        kept.note(&self.decisions, |job| self.jobs.get(job));
        let Refusing { paths, by_all } =
            refusing(&self.limits, &self.budgets, self.lending.is_some());
        kept.refusing.paths.extend(paths);
        kept.refusing.by_all |= by_all;
        Started { decisions: self.decisions, turns, considered: self.considered, has_more }
    }

    /// Everybody, or all of those for whose kind of request there is any place.
    fn line_up(&mut self, reach: Reach) -> Lines<'w> {
        let cohorts = &self.world.cohorts;
        match reach {
            Reach::Everything => self.line_up_all(cohorts.iter()),
            Reach::Room => {
                let with_room = self.kinds_with_room();
                let of_kind = |kind| cohorts.of_kind(kind);
                self.line_up_all(with_room.into_iter().flat_map(of_kind))
            }
        }
    }

    /// These cohorts, and those jobs beside all cohorts whose moment has come.
    fn line_up_all(
        &mut self,
        cohorts: impl Iterator<Item = (CohortNumber, &'w Cohort)>,
    ) -> Lines<'w> {
        let places = self.places.get_or_insert_with(|| Places::of(self.world));
        let (machine, limits) = (&self.machine, &mut self.limits);
        let starts_max = self.policy.max_starts_per_pass;
        gather(self.jobs, self.now, cohorts, places, machine, limits, starts_max).lines
    }

    /// Kinds of requests that find a place now, whatever is reserved or planned there.
    fn kinds_with_room(&mut self) -> Vec<u32> {
        let mut with_room = Vec::new();
        for (kind, key) in self.world.cohorts.kinds() {
            let family = self.family_anywhere(kind, key);
            let family = self.families.get(family);
            let mut places = family.tries.iter().filter_map(|attempt| {
                family.territory.places(&self.machine, attempt.class, &family.need).next()
            });
            if places.next().is_some() {
                with_room.push(kind);
            }
        }
        with_room
    }

    /// Requests of a kind, as if nothing were closed to any.
    fn family_anywhere(&mut self, kind: u32, key: &'w CohortKey) -> FamilyId {
        let of = (key.spec(), key.avoid());
        self.families.of_kind(kind, of, Closed::default(), &self.machine)
    }

    /// Those that find a place on a fresh node, as far as their time limits go, and those that are fresh themselves. All
    /// others waited when the last pass had looked, and nothing that kept them from starting has changed.
    fn line_up_fresh(&mut self, fresh: &Fresh) -> Lines<'w> {
        let cohorts = &self.world.cohorts;
        let mut lines = self.line_up_all(std::iter::empty());
        let nodes = fresh.nodes.iter().filter_map(|name| self.machine.find(name)).collect();
        self.fresh = Some(FreshRoom { nodes, kinds: Vec::new(), used_up: 0 });
        for (kind, key) in cohorts.kinds() {
            let family = self.family_anywhere(kind, key);
            let Some(limit_s) = self.longest_s(family, key.spec()) else { continue };
            if let Some(fresh) = &mut self.fresh {
                fresh.kinds.push(family);
            }
            lines.add_kind(kind, limit_s, key.spec(), &self.machine);
        }
        self.line_up_roaming(fresh, &mut lines);
        lines
    }

    /// Cohorts of jobs that are fresh themselves.
    fn line_up_roaming(&self, fresh: &Fresh, lines: &mut Lines<'w>) {
        let records = fresh.jobs.iter().filter_map(|job| self.world.record(*job));
        let keys = records.filter(|job| job.status.state == JobState::Pending).map(CohortKey::of);
        let found = keys.filter_map(|key| self.world.cohorts.find(&key));
        let found: BTreeMap<CohortNumber, &'w Cohort> = found.collect();
        for (number, of) in found {
            lines.add_roaming(number, of, &self.machine);
        }
    }

    /// For how long, seconds, a job of that kind may have a place on a fresh node; `None` if it has none.
    fn longest_s(&self, family: FamilyId, spec: &JobSpec) -> Option<i64> {
        let family = self.families.get(family);
        let nodes = self.fresh.iter().flat_map(|fresh| &fresh.nodes);
        let on_node = |id: &SlotId| {
            let fitting = family.fitting_classes(self.machine.slot(*id));
            fitting.map(|class| self.open_s(*id, class, spec, &family.need)).max()
        };
        nodes.filter_map(on_node).max()
    }

    /// For how long, seconds, a job may be on the node before it puts off what is planned there.
    fn open_s(&self, id: SlotId, class: Option<ClassIndex>, spec: &JobSpec, need: &Need) -> i64 {
        // A share costs nothing where another one stays longer.
        if matches!(need.gpus, GpuNeed::Share(_)) {
            return i64::MAX;
        }
        let who = Asker { job: JobId(0), guaranteed: false, plans_gang: false };
        let ask = Ask { who, project: &spec.project, class, need: *need, seconds: 0 };
        let until = self.horizon.open_until(&self.machine, id, &ask);
        let open_s = until.0.saturating_sub(self.now.0) / 1_000_000;
        open_s.saturating_add(1).saturating_sub(self.policy.default_grace_s.into())
    }

    /// Whether nothing is left on fresh nodes for any kind of request that had a place there. What is gone stays gone: a
    /// pass for an event frees nothing.
    pub(super) fn is_room_gone(&mut self) -> bool {
        let Some(fresh) = &mut self.fresh else { return false };
        while let Some(family) = fresh.kinds.last() {
            let family = self.families.get(*family);
            let has_room =
                |id: &SlotId| family.fitting_classes(self.machine.slot(*id)).next().is_some();
            if let Some(further) = fresh.nodes.iter().skip(fresh.used_up).position(has_room) {
                fresh.used_up += further;
                return false;
            }
            fresh.kinds.pop();
            fresh.used_up = 0;
        }
        true
    }

    /// Keeps nodes for those for whom a start is planned, and starts those whose nodes are all free.
    fn keep_planned(&mut self, planned: Vec<JobId>) {
        let (mut standing, starts): (Vec<Standby<'w>>, _) =
            (Vec::new(), Arc::clone(&self.stand_by));
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
        if is_free && self.start_planned(one, ask.class) {
            self.considered += 1;
        } else {
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
