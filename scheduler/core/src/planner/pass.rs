//! One pass over the queue: who starts where. Why the others wait is found afterwards, by what is left.
//!
//! Jobs come in the order of [`Turns`].

mod arrays;
mod backfill;
mod beforehand;
mod beyond;
mod cohorts;
mod elastic;
mod event;
mod plans;
mod powered;
mod promised;
mod recalled;
mod recorded;
mod report;
mod reserved;
mod scavenge;
mod spot;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use beforehand::Known;
use event::FreshRoom;
pub(super) use event::{Reach, Started};
use plans::Plans;
use recorded::{Entry, Recorder};
pub(super) use report::Ended;
use spot::Spot;

use super::blocks::ranked;
use super::budgets::Budgets;
use super::fair::{Demand, Fair, Tier};
use super::fit::{Extent, Machine};
use super::gang::Pick;
use super::gather::{Gathered, gather};
use super::horizon::Horizon;
use super::lending::Lending;
use super::limits::{Asked, Limits, ProjectIndex};
use super::order::Order;
use super::places::Places;
use super::recall::Recalls;
use super::request::{Families, FamilyId};
use super::score::{ClassIndex, SlotId};
use super::turns::{Claim, CohortId, Lines, Name, Turns};
use super::unfold::Jobs;
use super::whole::Whole;
use crate::account::Standing;
use crate::amount::{GpuMilli, UnixMicros};
use crate::attempt::Placement;
use crate::fragmentation::Mix;
use crate::ids::{JobId, NodeName};
use crate::job::Job;
use crate::plan::{Blocker, Decision};
use crate::planned::PlannedStarts;
use crate::policy::Policy;
use crate::quota::entitle::NodeIndex;
use crate::world::{CohortNumber, World};

/// A pass under way.
#[derive(Debug)]
pub(super) struct Pass<'w> {
    world: &'w World,
    jobs: Jobs<'w>,
    policy: &'w Policy,
    now: UnixMicros,
    scope: Scope,
    whole: Arc<Whole>,
    machine: Machine<'w>,
    limits: Limits<'w>,
    budgets: Budgets<'w>,
    families: Families<'w>,
    horizon: Horizon<'w>,
    plans: Plans,
    /// Jobs as they come, for choosing among places.
    mix: Mix,
    /// Where projects stand in the quota tree; `None` until jobs are in line.
    places: Option<Arc<Places>>,
    /// `None` until jobs are in line.
    fair: Option<Fair>,
    /// `None` where no node keeps anything from others.
    lending: Option<Lending<'w>>,
    /// What was asked for at the beginning, by project and class.
    demands: Vec<Demand>,
    /// `None` until somebody within a guarantee did not fit.
    recalls: Option<Recalls<'w>>,
    /// In a pass for an event, starts that are planned: those jobs wait for their nodes and look for no others.
    stand_by: Arc<PlannedStarts>,
    /// Nodes that were kept for jobs which started elsewhere.
    given_up: BTreeSet<NodeName>,
    /// Room that there was not when the last pass had looked, in a pass for an event that goes by that.
    fresh: Option<FreshRoom>,
    /// Classes of which somebody within a guarantee waits for room.
    contested: BTreeSet<ClassIndex>,
    /// Jobs that others stop for, by project and class.
    expecting: BTreeMap<(NodeIndex, ClassIndex), JobId>,
    /// Elastic jobs that started with fewer nodes than they could use.
    small: Vec<elastic::Small<'w>>,
    /// Jobs that started on nodes reserved for them, before all others.
    started: BTreeSet<JobId>,
    /// Tasks that start in this pass, of arrays that say how many may run at once.
    array_starts: BTreeMap<JobId, u32>,
    /// Jobs that take what all others leave.
    scavengers: Vec<&'w Job>,
    /// Cohorts beyond a budget, whose turn comes after all others'.
    beyond: VecDeque<(CohortId, Claim)>,
    /// Jobs looked at.
    considered: usize,
    /// Classes that a job within its budgets waits for, once it is their turn.
    wanted: BTreeMap<Option<ClassIndex>, JobId>,
    decisions: Vec<Decision>,
    /// What is written down of the starts.
    recorder: Recorder,
    waiting: Vec<Waiting>,
    /// Cohorts that wait whatever the turns bring.
    known: Vec<Known>,
    lists: Vec<(JobId, Arc<Vec<Blocker>>)>,
    /// Cohorts that do not compete.
    outside: Vec<(Name, Arc<Vec<Blocker>>)>,
}

/// What a pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Everything: who starts, for whom a start is planned, who stops for whom, and why everybody else waits.
    Full,
    /// Who starts in the room that there is, and nothing else.
    Event,
}

/// Jobs that competed and did not start; those with equal wants and orders wait for the same reasons.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    /// Which.
    pub who: Who,
    /// The first of them.
    pub job: JobId,
    /// For what.
    pub want: Want,
    /// Behind whom.
    pub order: Order,
}

impl Waiting {
    /// Whether it is about one job.
    pub fn is_alone(&self) -> bool {
        matches!(self.who, Who::Job)
    }
}

/// Which jobs wait.
#[derive(Debug, Clone)]
pub(super) enum Who {
    /// The one.
    Job,
    /// Every job of the cohort of which nothing else is said.
    Cohort(CohortId),
    /// The same of a cohort of the world that was set aside.
    Known(CohortNumber),
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
    /// Whether it is a scavenger.
    pub scavenges: bool,
    /// Seconds to be set aside for it; 0 where no budget binds its project.
    pub slice_s: i64,
    /// Its time limit, seconds.
    pub limit_s: i64,
}

/// What came of looking at a job.
pub(super) enum Finding {
    /// It starts, or others stop for it.
    Decided,
    /// It cannot start within a guarantee, and may still borrow.
    Later,
    /// It is beyond a budget, and its turn comes after all others'.
    Beyond,
    /// It waits, and the order of jobs bears on that like this.
    Waits(Order),
}

impl<'w> Pass<'w> {
    /// A pass that has not looked at any job yet.
    pub fn of(jobs: Jobs<'w>, policy: &'w Policy, now: UnixMicros) -> Self {
        Pass::on(jobs, policy, now, (Scope::Full, Extent::All), Whole::of(jobs.world))
    }

    fn on(
        jobs: Jobs<'w>,
        policy: &'w Policy,
        now: UnixMicros,
        (scope, extent): (Scope, Extent),
        whole: Arc<Whole>,
    ) -> Self {
        let world = jobs.world;
        let machine = Machine::of(world, &whole, extent);
        Pass {
            world,
            jobs,
            policy,
            now,
            scope,
            whole,
            mix: spot::mix_of(world, &machine),
            horizon: Horizon::of(world, now, &machine),
            machine,
            limits: Limits::of(world),
            budgets: Budgets::of(world),
            families: match scope {
                Scope::Full => Families::default(),
                Scope::Event => Families::always_avoiding(),
            },
            plans: Plans::none(),
            places: None,
            fair: None,
            lending: None,
            demands: Vec::new(),
            recalls: None,
            stand_by: Arc::default(),
            given_up: BTreeSet::new(),
            fresh: None,
            contested: BTreeSet::new(),
            expecting: BTreeMap::new(),
            small: Vec::new(),
            started: BTreeSet::new(),
            array_starts: BTreeMap::new(),
            scavengers: Vec::new(),
            beyond: VecDeque::new(),
            considered: 0,
            wanted: BTreeMap::new(),
            decisions: Vec::new(),
            recorder: Recorder::default(),
            waiting: Vec::new(),
            known: Vec::new(),
            lists: Vec::new(),
            outside: Vec::new(),
        }
    }

    /// Looks at jobs until enough is decided, and says what came of it.
    pub fn run(mut self, before: &PlannedStarts) -> Ended {
        let places = Places::of(self.world);
        let starts_max = self.policy.max_starts_per_pass;
        let (cohorts, machine) = (self.world.cohorts.iter(), &self.machine);
        let gathered =
            gather(self.jobs, self.now, cohorts, &places, machine, &mut self.limits, starts_max);
        let Gathered { lines, scavengers, not_yet } = gathered;
        self.outside = not_yet.cohorts;
        (self.scavengers, self.considered) = (scavengers, not_yet.jobs);
        (self.demands, self.lists) = (lines.demands(), not_yet.lists);
        let (demands, rule) = (&self.demands, self.policy.fair_share_rule);
        let fair = Fair::of(self.world, places.arena(), &self.machine, demands, rule, self.now);
        self.lending = Lending::of(&self.world.quota, &fair, &self.machine);
        (self.places, self.fair) = (Some(places), Some(fair));
        let mut turns = self.decide(lines, |pass| pass.take_over(before));
        self.run_beyond_budgets(&mut turns);
        self.give_rest();
        self.run_scavengers();
        self.report(&turns)
    }

    /// Starts what can start, in its order: what is reserved, what is planned, and everybody in line. What was planned
    /// before is taken over in its turn.
    fn decide(&mut self, lines: Lines<'w>, take_over: impl FnOnce(&mut Self)) -> Turns<'w> {
        if self.anything_reserved() {
            self.recorder.entry = Entry::Reserved;
            self.start_reserved(&lines);
        }
        self.recorder.entry = Entry::Planned;
        take_over(self);
        self.take_turns(lines)
    }

    /// Everybody in line.
    fn take_turns(&mut self, mut lines: Lines<'w>) -> Turns<'w> {
        self.recorder.entry = Entry::Turn;
        self.set_aside(&mut lines);
        let mut turns = Turns::of(lines, self.fair.as_ref());
        self.run_turns(&mut turns);
        turns
    }

    fn has_decided_enough(&self) -> bool {
        self.decisions.len() >= self.policy.max_starts_per_pass
    }

    /// Starts the job if some class serves it now.
    pub(super) fn consider(&mut self, job: &'w Job, claim: Claim, want: Want) -> Finding {
        if self.stand_by_promise(job, claim, want) {
            return Finding::Decided;
        }
        let mut order = Order::Free;
        let (mut must_wait, mut best) = (false, None::<Spot>);
        for place in 0..self.families.get(want.family).tries.len() {
            if !self.claims(job, claim, want, place) {
                must_wait = true;
                continue;
            }
            if self.is_left_to_full(claim, want, place) {
                continue;
            }
            match self.attempt(job, claim, want, place) {
                Ok(spot) if job.spec.is_elastic() => {
                    let spot = self.enlarge(job, claim, want, spot);
                    best = Some(best.map_or(spot.clone(), |best| best.larger(spot)));
                }
                Ok(spot) if want.nodes > 1 => {
                    best = Some(spot);
                    break;
                }
                Ok(spot) => best = Some(best.map_or(spot.clone(), |best| best.min(spot))),
                Err(found) => order = order.max(found),
            }
        }
        if let Some(Spot { place, picks, .. }) = best {
            self.start(job, claim, want, place, picks);
            return Finding::Decided;
        }
        if must_wait {
            // Its turn in a worse tier comes later; after the borrowers, that is after all others.
            let comes_last = claim.tier != Tier::Guaranteed;
            return if comes_last { Finding::Beyond } else { Finding::Later };
        }
        self.note_contested(claim, want);
        if self.recall(job, claim, want, order) {
            let order = Order::Freeing;
            self.waiting.push(Waiting { who: Who::Job, job: job.id, want, order });
            return Finding::Decided;
        }
        Finding::Waits(order)
    }

    /// Whether a start on nodes of that class is in the tier that the job has its turn in.
    fn claims(&self, job: &Job, claim: Claim, want: Want, place: usize) -> bool {
        let class = self.families.get(want.family).tries[place].class;
        match (claim, class) {
            (Claim { tier: Tier::Overuse | Tier::Scavenger, .. }, _) => true,
            (Claim { tier: Tier::Guaranteed, node: Some(node) }, Some(class)) => {
                self.is_guaranteed(job, want, node, class)
            }
            (Claim { tier: Tier::Guaranteed | Tier::Borrowed, .. }, _) => {
                self.standing(want, class) != Standing::Overuse
            }
        }
    }

    /// Places for the job on nodes of one class; else how the order of the queue bears on that.
    fn attempt(
        &mut self,
        job: &Job,
        claim: Claim,
        want: Want,
        place: usize,
    ) -> Result<Spot, Order> {
        let class = self.families.get(want.family).tries[place].class;
        if let Some(ahead) = self.own_ahead(job, claim, want, class) {
            return Err(Order::BehindOwn(ahead));
        }
        if !self.allowed(want, class) {
            return Err(Order::Free);
        }
        if let Some(ahead) = self.own_later(claim, want, class) {
            return Err(Order::Later(ahead));
        }
        // What is planned for itself is not in its way, so what others could not have it may.
        let planned = self.plans.starts.of(job.id).is_some();
        let failed = &self.families.get(want.family).tries[place].failed;
        if planned || !failed.cover(want.nodes, want.limit_s) {
            let ask = self.ask(job, claim, want, class);
            if let Some(spot) = self.search(want, place, &ask) {
                return Ok(spot);
            }
            let seconds = if self.horizon.is_open() { 0 } else { want.limit_s };
            self.families.get_mut(want.family).tries[place].failed.note(want.nodes, seconds);
        }
        Err(self.why_no_place(want, place))
    }

    /// Whether there is room but for what is planned.
    fn why_no_place(&mut self, want: Want, place: usize) -> Order {
        let family = self.families.get_mut(want.family);
        let open = self.horizon.is_open();
        let planned = !open && family.has_room(place, want.nodes, &self.machine);
        if planned { Order::Planned } else { Order::Free }
    }

    fn allowed(&self, want: Want, class: Option<ClassIndex>) -> bool {
        self.within_bounds(want, class) && self.lent(want, class, Lending::allows)
    }

    /// Whether what others keep leaves room for it, by one of the measures of [`Lending`].
    fn lent(
        &self,
        want: Want,
        class: Option<ClassIndex>,
        measure: impl Fn(&Lending<'w>, &Fair, NodeIndex, ClassIndex, GpuMilli) -> bool,
    ) -> bool {
        let (Some(lending), Some(fair), Some(class)) = (&self.lending, &self.fair, class) else {
            return true;
        };
        let Some(node) = fair.find(self.limits.path(want.project)) else { return true };
        let gpus = self.families.gpus(want);
        measure(lending, fair, node, class, gpus)
    }

    /// Whether limits, budgets and other terms of the nodes above leave room for it.
    fn within_bounds(&self, want: Want, class: Option<ClassIndex>) -> bool {
        self.limits.allow(want.project, self.families.asked(&self.machine, want, class))
            && self.limits.allow_walltime(want.project, want.limit_s)
            && self.standing(want, class) != Standing::Exhausted
    }

    fn start(&mut self, job: &'w Job, claim: Claim, want: Want, place: usize, picks: Vec<Pick>) {
        let want = want.of_nodes(picks.len());
        let family = self.families.get(want.family);
        let (need, class) = (family.need, family.tries[place].class);
        let picks = ranked(&self.machine, &family.territory.constraints.blocks, picks);
        self.record_start(job, claim);
        self.budgets.take(want.project, self.hold(want, class));
        let slots: Vec<SlotId> = picks.iter().map(|pick| pick.slot).collect();
        let placement = self.machine.take(class, &need, picks);
        self.begin(job, &slots, &placement);
        let gpus = placement.gpus();
        self.limits.take_job(want.project);
        let asked = Asked { class: placement.class.as_ref(), gpus, scavenges: want.scavenges };
        self.limits.take(want.project, asked);
        self.take_share(want, claim, class, gpus);
        self.note_task(job);
        let placement = Arc::new(placement);
        self.note_small(job, claim, (want, place), &placement);
        self.decisions.push(Decision::Start { job: job.id, placement });
    }

    /// Counts what the project has of its share from now on; of a scavenger only that it is gone.
    fn take_share(&mut self, want: Want, claim: Claim, class: Option<ClassIndex>, gpus: GpuMilli) {
        if let (Some(node), Some(class), false) = (claim.node, class, want.scavenges) {
            self.record_take(node, class, gpus);
        }
        match (&mut self.fair, &mut self.lending, class) {
            (_, Some(lending), Some(class)) if want.scavenges => lending.take_free(class, gpus),
            (Some(fair), lending, Some(class)) if !want.scavenges => {
                if let Some(node) = claim.node {
                    fair.take(node, class, gpus);
                    if let Some(lending) = lending {
                        lending.take(fair, &self.machine, node, class, gpus);
                    }
                }
            }
            (_, _, Some(_) | None) => {}
        }
    }

    /// What is started is held from now on, and no longer planned.
    fn begin(&mut self, job: &Job, slots: &[SlotId], placement: &Placement) {
        let until = self.now.plus_seconds(job.spec.longest_s());
        for (slot, held) in slots.iter().zip(&placement.nodes) {
            let cap_watts = placement.gpu_cap_watts;
            self.horizon.begin(&self.machine, *slot, (held.clone(), until), cap_watts);
        }
        // What was kept for it elsewhere stays kept for the rest of the pass, in which room only shrinks.
        let elsewhere = self.plans.starts.take(job.id);
        self.given_up.extend(elsewhere.into_iter().flat_map(|start| start.nodes));
    }

    /// The job of the same project that others stop for, if this one would use up the guarantee that it counts on.
    fn own_ahead(
        &self,
        job: &Job,
        claim: Claim,
        want: Want,
        class: Option<ClassIndex>,
    ) -> Option<JobId> {
        let (node, class) = claim.node.zip(class)?;
        let ahead = self.expecting.get(&(node, class)).copied()?;
        (!self.is_guaranteed(job, want, node, class)).then_some(ahead)
    }

    /// Whether a start is within its project's guarantee, and within its budgets too: what has none left is no claim
    /// to other people's GPUs.
    fn is_guaranteed(&self, job: &Job, want: Want, node: NodeIndex, class: ClassIndex) -> bool {
        let gpus = job.spec.per_node.gpus.amount().times(want.nodes.into());
        let tier = self.fair.as_ref().map(|fair| fair.tier(node, class, gpus));
        tier == Some(Tier::Guaranteed) && self.standing(want, Some(class)) == Standing::Within
    }
}
