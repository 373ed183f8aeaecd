//! Planned starts in the pass: those of the pass before that still stand, new ones for jobs that have their turn and do
//! not fit, and what may start beside them.
//!
//! ```text
//!   planned before ──► still waits, still allowed, nodes still there? ── no ──► given up; planned anew in its turn
//!                            │ yes: by when, as things are now?
//!                            ├── now ──► starts, before all turns
//!                            └── later ─► its nodes are held from then on
//!   a turn that finds no place ──► is a start left for its project? ──► the soonest moment at which enough nodes are free
//! ```

use std::collections::BTreeSet;

use super::plans::CHOICES_MAX;
use super::{Pass, Scope, Want};
use crate::account::Standing;
use crate::amount::{GpuMilli, UnixMicros};
use crate::ids::{JobId, NodeName};
use crate::job::{Job, JobState};
use crate::planned::{PlannedStart, PlannedStarts};
use crate::planner::fair::Tier;
use crate::planner::gang::Pick;
use crate::planner::horizon::{Ask, Who};
use crate::planner::lending::Lending;
use crate::planner::order::{DependencyLists, competes_since};
use crate::planner::power::Asked;
use crate::planner::score::{ClassIndex, SlotId};
use crate::planner::turns::{Claim, Cohort, Turn};
use crate::profile::FOREVER;

/// Better nodes are looked for again after so many seconds: what ended early elsewhere may be free sooner than what was
/// chosen by time limits.
const CHOOSE_AGAIN_S: i64 = 10;

/// A plan that cannot be kept to the minute is made anew.
const SLIP_MAX_S: i64 = 120;

/// Looks for one moment at which all nodes of a gang are free; each finds a later one, and this many are plenty.
const LOOKS_MAX: usize = 32;

/// A start planned before that may still be kept.
pub(super) struct Standby<'w> {
    /// For whom.
    pub job: &'w Job,
    /// For what.
    pub want: Want,
    /// In whose name.
    pub claim: Claim,
    place: usize,
    /// Its nodes.
    pub slots: Vec<SlotId>,
    /// As it was planned.
    pub before: PlannedStart,
}

/// Where a start could be planned.
struct Chance {
    at: UnixMicros,
    place: usize,
    slots: Vec<SlotId>,
}

impl<'w> Pass<'w> {
    /// What a job asks of each of its nodes if it starts in that tier on nodes of that class.
    pub(super) fn ask(
        &self,
        job: &'w Job,
        claim: Claim,
        want: Want,
        class: Option<ClassIndex>,
    ) -> Ask<'w> {
        Ask {
            who: Who { job: job.id, guaranteed: claim.tier == Tier::Guaranteed, plans_gang: false },
            project: &job.spec.project,
            class,
            need: self.families.get(want.family).need,
            seconds: want.limit_s.saturating_add(self.policy.default_grace_s.into()),
        }
    }

    /// Takes over what was planned in the pass before, and starts what can start now.
    pub(super) fn take_over(&mut self, before: &PlannedStarts) {
        if self.plans_nothing() {
            return;
        }
        let mut standing = Vec::new();
        for (job, start) in before.iter() {
            standing.extend(self.still_stands(job, start));
        }
        let again = self.to_choose_again(&standing);
        standing.sort_by_key(Standby::goes_first);
        for one in &standing {
            let ask = self.ask_of(one);
            self.keep_nodes(&ask, &one.slots, one.before.at.max(self.now));
        }
        for one in standing {
            let choose = again.contains(&one.job.id);
            self.renew(one, choose);
        }
    }

    pub(super) fn ask_of(&self, one: &Standby<'w>) -> Ask<'w> {
        let class = self.families.get(one.want.family).tries[one.place].class;
        self.ask(one.job, one.claim, one.want, class).ahead(one.want.nodes)
    }

    pub(super) fn keep_nodes(&mut self, ask: &Ask<'_>, slots: &[SlotId], from: UnixMicros) {
        for slot in slots {
            self.horizon.hold(&self.machine, *slot, ask, from);
        }
    }

    /// Jobs for which better nodes are looked for now: those first for which they were not for the longest time. Half of
    /// the looks are left to jobs that have no nodes yet.
    fn to_choose_again(&self, standing: &[Standby<'w>]) -> BTreeSet<JobId> {
        let latest = self.now.plus_seconds(-CHOOSE_AGAIN_S);
        let due = standing.iter().filter(|one| one.before.chosen <= latest);
        let mut due: Vec<_> = due.map(|one| (one.before.chosen, one.job.id)).collect();
        due.sort_unstable();
        due.into_iter().take(CHOICES_MAX as usize / 2).map(|(_, job)| job).collect()
    }

    /// Whether the site wants no starts to be planned.
    fn plans_nothing(&self) -> bool {
        self.policy.planned_gangs_per_project == 0
    }

    /// Whether the job still waits, may still start, and still has its nodes.
    fn still_stands(&mut self, job: JobId, start: &PlannedStart) -> Option<Standby<'w>> {
        let one = self.still_stands_here(job, start)?;
        (one.slots.len() == one.want.nodes as usize).then_some(one)
    }

    /// The same with those of its nodes that the pass looks at, which may be fewer than it needs.
    pub(super) fn still_stands_here(
        &mut self,
        job: JobId,
        start: &PlannedStart,
    ) -> Option<Standby<'w>> {
        let job = self.jobs.get(job).filter(|job| self.competes(job))?;
        let class = match &start.class {
            Some(name) => Some(self.machine.class(name)?),
            None => None,
        };
        let project = self.limits.project(&job.spec.project);
        let want = self.want(&job.spec, &job.status.avoid, project);
        let tries = &self.families.get(want.family).tries;
        let place = tries.iter().position(|attempt| attempt.class == class)?;
        let claim = self.claim_of(job, want, class);
        let slots = self.slots_of(&start.nodes, want, place)?;
        let may = claim.tier != Tier::Overuse && self.could_start(want, class);
        may.then(|| Standby { job, want, claim, place, slots, before: start.clone() })
    }

    /// Whether the job waits for its turn and for nothing else.
    fn competes(&self, job: &Job) -> bool {
        let not_yet = || DependencyLists::default().not_yet(self.world, job, self.now).is_some();
        job.status.state == JobState::Pending
            && !job.spec.scavenger
            && !not_yet()
            && !self.is_late(job)
            && self.tasks_at_limit(job).is_none()
    }

    /// The tier that a start on nodes of that class would be in.
    fn claim_of(&self, job: &Job, want: Want, class: Option<ClassIndex>) -> Claim {
        let node = self.fair.as_ref().and_then(|fair| fair.find(&job.spec.project));
        let guaranteed = node.zip(class).is_some_and(|(node, class)| {
            self.is_guaranteed(job, want, node, class)
                && self.fair.as_ref().is_some_and(|fair| fair.has_tiers)
        });
        let tier = match (guaranteed, self.standing(want, class)) {
            (_, Standing::Overuse) => Tier::Overuse,
            (true, _) => Tier::Guaranteed,
            (false, _) => Tier::Borrowed,
        };
        Claim { tier, node }
    }

    /// Whether nothing but room keeps such a job from starting.
    fn could_start(&self, want: Want, class: Option<ClassIndex>) -> bool {
        self.within_bounds(want, class) && self.lent(want, class, Lending::could_allow)
    }

    /// Whether as many nodes as the gang asks for would serve if all were free.
    pub(super) fn can_ever_fit(&mut self, want: Want, place: usize) -> bool {
        let family = self.families.get_mut(want.family);
        family.will_be_capable(place, &self.machine) >= want.nodes
    }

    /// Those of the nodes that the pass looks at, if all of them would serve once they are free.
    fn slots_of(&self, names: &[NodeName], want: Want, place: usize) -> Option<Vec<SlotId>> {
        let family = self.families.get(want.family);
        let serves = |id: &SlotId| family.would_serve(place, &self.machine, *id);
        let found: Vec<SlotId> = names.iter().filter_map(|name| self.machine.find(name)).collect();
        // A pass for an event does not see all of them, and the last full pass did.
        let serve = self.scope == Scope::Event || found.iter().all(serves);
        serve.then_some(found)
    }

    /// Finds by when a start can be, beside all others that are planned: as things end it comes nearer, and nobody's
    /// coming nearer puts another off.
    fn renew(&mut self, one: Standby<'w>, choose: bool) {
        let ask = self.ask_of(&one);
        one.slots.iter().for_each(|slot| self.horizon.release(*slot, one.job.id));
        let found = self.all_free(&one.slots, &ask);
        let Some(at) = self.no_later(&one, &ask, found) else { return };
        if at > one.before.promised.plus_seconds(SLIP_MAX_S) {
            return;
        }
        if at <= self.now && self.start_planned(&one, ask.class) {
            self.considered += 1;
            return;
        }
        let better = choose.then(|| self.choose(one.job, one.claim, one.want, one.place)).flatten();
        let one = Standby {
            before: PlannedStart {
                at,
                chosen: if choose { self.now } else { one.before.chosen },
                ..one.before
            },
            ..one
        };
        match better.filter(|better| better.at < at) {
            Some(better) => self.change_over(one, better),
            None => self.enter(one.job, one.want, &ask, &one.slots, one.before),
        }
    }

    /// Plans it on better nodes, or starts it there if that can be now: later it could be in another's way.
    fn change_over(&mut self, one: Standby<'w>, better: Chance) {
        let before = PlannedStart { at: better.at, nodes: self.names(&better.slots), ..one.before };
        if self.start_or_plan(Standby { slots: better.slots, before, ..one }) {
            self.considered += 1;
        }
    }

    /// Starts it if it is planned for now and may start; else plans it. Whether it starts.
    fn start_or_plan(&mut self, one: Standby<'w>) -> bool {
        let ask = self.ask_of(&one);
        if one.before.at <= self.now && self.start_planned(&one, ask.class) {
            return true;
        }
        self.enter(one.job, one.want, &ask, &one.slots, one.before);
        false
    }

    fn names(&self, slots: &[SlotId]) -> Vec<NodeName> {
        slots.iter().map(|slot| self.machine.slot(*slot).name.clone()).collect()
    }

    /// The first moment at which all of these nodes have room; `None` if that never comes.
    pub(super) fn all_free(&self, slots: &[SlotId], ask: &Ask<'_>) -> Option<UnixMicros> {
        let mut at = self.now;
        for _ in 0..LOOKS_MAX {
            let before = at;
            for slot in slots {
                at = self.horizon.earliest(&self.machine, *slot, ask, at)?;
            }
            at = self.powered_from(slots, ask, at)?;
            if at == before {
                return Some(at);
            }
        }
        None
    }

    /// Starts a job on the nodes that are kept for it, before all turns: its own has come.
    pub(super) fn start_planned(&mut self, one: &Standby<'w>, class: Option<ClassIndex>) -> bool {
        if self.has_decided_enough() || !self.allowed(one.want, class) {
            return false;
        }
        let family = self.families.get(one.want.family);
        let names = one.before.nodes.iter();
        let places = self.machine.places_among(names, class, &family.need).into_iter();
        let inside = |pick: &Pick| family.territory.contains(self.machine.slot(pick.slot));
        let places = places.filter(inside);
        let ask = self.ask_of(one);
        let purse = self.horizon.purse_now(&self.machine, &ask);
        let asked = Asked { class, need: &family.need, nodes: one.want.nodes };
        let (territory, machine) = (&family.territory, &self.machine);
        let Some(picks) = territory.choose_powered(machine, purse.as_ref(), asked, places) else {
            return false;
        };
        self.start(one.job, one.claim, one.want, one.place, picks);
        self.started.insert(one.job.id);
        true
    }

    fn enter(
        &mut self,
        job: &Job,
        want: Want,
        ask: &Ask<'_>,
        slots: &[SlotId],
        start: PlannedStart,
    ) {
        self.keep_nodes(ask, slots, start.at);
        let gpus = self.families.gpus(want);
        *self.plans.of_class.entry(ask.class).or_default() += gpus;
        self.plans.count(want);
        self.plans.of_want.entry(want).or_default().push(job.id);
        self.plans.starts.push(job.id, start);
    }

    /// Plans starts for the first jobs of a cohort that could not start; whether the one whose turn it is starts so.
    pub(super) fn plan_cohort(&mut self, cohort: &Cohort<'w>, turn: &Turn, want: Want) -> bool {
        let (jobs, most) = (self.jobs, self.policy.planned_gangs_per_project as usize);
        let members = cohort.members().iter(most.max(1)).filter_map(|id| jobs.get(id));
        for job in members {
            // One that has started before its turn is still among them.
            if self.started.contains(&job.id) {
                continue;
            }
            if !self.may_plan(competes_since(job), turn.claim, want) {
                return false;
            }
            if self.plan_start(job, turn.claim, want) && job.id == turn.job {
                return true;
            }
        }
        false
    }

    /// Whether a start may be planned for one more job of that kind, which competes since that moment.
    pub(super) fn may_plan(&self, since: UnixMicros, claim: Claim, want: Want) -> bool {
        let most = match want.nodes > 1 {
            true => self.policy.planned_gangs_per_project,
            false => self.policy.planned_jobs_per_project,
        };
        !self.plans_nothing()
            && self.plans.choices_left > 0
            && self.plans.of_project(want) < most
            && self.plans.starts.len() < self.policy.planned_starts_max as usize
            && matches!(claim.tier, Tier::Guaranteed | Tier::Borrowed)
            && since.plus_seconds(self.patience_s(want)) <= self.now
    }

    /// How long a job waits before a start is planned for it. Of those of one node the smaller the longer, since it
    /// finds a place sooner, and since what is kept for many small ones leaves little room to choose.
    fn patience_s(&self, want: Want) -> i64 {
        if want.nodes > 1 {
            return self.policy.planned_gangs_after_s;
        }
        let family = self.families.get(want.family);
        let classes = family.tries.iter().filter_map(|attempt| attempt.class);
        let most = classes.map(|class| self.machine.node_gpus(class)).max().unwrap_or(1);
        let whole = GpuMilli::whole(most).0;
        let times = whole.div_ceil(family.need.gpu_milli().0.clamp(1000, whole.max(1000)));
        self.policy.planned_after_s.saturating_mul(i64::try_from(times).unwrap_or(i64::MAX))
    }

    /// Plans a start for a job that waits for room and for nothing else; whether that is now. It may be: plans for jobs of
    /// one node are in the way of a gang that starts, and not in that of one for which a start is planned.
    pub(super) fn plan_start(&mut self, job: &'w Job, claim: Claim, want: Want) -> bool {
        // What is planned could be after the end of the reservation that it asks for.
        if job.spec.constraints.reservation.is_some()
            || self.plans.starts.of(job.id).is_some()
            || !self.may_plan(competes_since(job), claim, want)
        {
            return false;
        }
        let places = 0..self.families.get(want.family).tries.len();
        let chances = places.filter_map(|place| self.choose(job, claim, want, place));
        let chances: Vec<Chance> = chances.collect();
        let Some(best) = chances.into_iter().min_by_key(|chance| (chance.at, chance.place)) else {
            return false;
        };
        let before = self.planned_at(&best, want);
        let Chance { place, slots, .. } = best;
        self.start_or_plan(Standby { job, want, claim, place, slots, before })
    }

    /// A start planned by this pass.
    fn planned_at(&self, chance: &Chance, want: Want) -> PlannedStart {
        let class = self.families.get(want.family).tries[chance.place].class;
        PlannedStart {
            class: class.map(|class| self.machine.class_name(class).clone()),
            nodes: self.names(&chance.slots),
            at: chance.at,
            since: self.now,
            promised: chance.at,
            chosen: self.now,
        }
    }

    /// The soonest start on nodes of one class.
    fn choose(&mut self, job: &'w Job, claim: Claim, want: Want, place: usize) -> Option<Chance> {
        let class = self.families.get(want.family).tries[place].class;
        if !self.could_plan(want, class) || !self.can_ever_fit(want, place) {
            return None;
        }
        self.plans.choices_left = self.plans.choices_left.checked_sub(1)?;
        let ask = self.ask(job, claim, want, class).ahead(want.nodes);
        let family = self.families.get(want.family);
        let serves = |id: &SlotId| family.would_serve(place, &self.machine, *id);
        let at = |id: SlotId| Some((self.horizon.earliest(&self.machine, id, &ask, self.now)?, id));
        let ready: Vec<_> = self.machine.ids_of(class).filter(serves).filter_map(at).collect();
        let (at, slots) = match self.machine.power {
            None => self.gather_nodes(ready, want, &ask)?,
            Some(_) => self.gather_powered(&ready, want, &ask)?,
        };
        Some(Chance { at, place, slots })
    }

    /// Whether such a job could have a start planned on nodes of the class, as far as limits go.
    pub(super) fn could_plan(&self, want: Want, class: Option<ClassIndex>) -> bool {
        self.leaves_enough(want, class) && self.could_start(want, class)
    }

    /// Whether enough of the class stays without a plan; the first is planned whatever it needs.
    fn leaves_enough(&self, want: Want, class: Option<ClassIndex>) -> bool {
        let planned = self.plans.of_class.get(&class).copied().unwrap_or_default();
        let Some(class) = class.filter(|_| !planned.is_zero()) else { return true };
        let percent = u64::from(self.policy.planned_percent_max);
        let most = self.machine.capacity(class).0.saturating_mul(percent) / 100;
        planned.0.saturating_add(self.families.gpus(want).0) <= most
    }

    /// The first moment at which a whole gang has room, with its nodes.
    fn gather_nodes(
        &self,
        mut ready: Vec<(UnixMicros, SlotId)>,
        want: Want,
        ask: &Ask<'_>,
    ) -> Option<(UnixMicros, Vec<SlotId>)> {
        for _ in 0..LOOKS_MAX {
            ready.retain(|(at, _)| *at < FOREVER);
            ready.sort_unstable();
            let (at, slots) = self.first_gang(&ready, want)?;
            let (mut waits, chosen) = (false, slots.iter().copied().collect::<BTreeSet<_>>());
            for (since, slot) in ready.iter_mut().filter(|(_, slot)| chosen.contains(slot)) {
                let free = self.horizon.earliest(&self.machine, *slot, ask, at);
                waits |= free != Some(at);
                *since = if free == Some(at) { *since } else { free.unwrap_or(FOREVER) };
            }
            if !waits {
                return Some((at, slots));
            }
        }
        None
    }

    /// Of nodes in the order in which they are free, the first that make a gang.
    fn first_gang(
        &self,
        ready: &[(UnixMicros, SlotId)],
        want: Want,
    ) -> Option<(UnixMicros, Vec<SlotId>)> {
        let territory = &self.families.get(want.family).territory;
        let gang = |count: usize| {
            let picks = ready.get(..count)?.iter().map(|(_, slot)| Pick { slot: *slot, gpu: None });
            let picks = territory.choose(&self.machine, picks, want.nodes)?;
            Some(picks.into_iter().map(|pick| pick.slot).collect::<Vec<_>>())
        };
        let least = want.nodes as usize;
        if let Some(slots) = gang(least) {
            return Some((ready[least - 1].0, slots));
        }
        let counts: Vec<usize> = (least + 1..=ready.len()).collect();
        let count = *counts.get(counts.partition_point(|count| gang(*count).is_none()))?;
        Some((ready[count - 1].0, gang(count)?))
    }
}
