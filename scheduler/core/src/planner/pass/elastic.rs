//! Elastic jobs in the pass: how many nodes a job gets that can do with different numbers of them.
//!
//! A job waits, is planned for and has others stopped for it as one of its fewest nodes. When it starts in its turn it
//! gets as many as the largest job of its kind would that starts now, in the tier that it has its turn in: within its
//! guarantee it takes no more than that before others that are within theirs. What is left when all have had their turns
//! goes to those that could use more of it.
//!
//! Whatever fits with more nodes fits with fewer, so the number is found by halving.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::spot::Spot;
use super::{Pass, Standing, Tier, Want};
use crate::amount::Ngh;
use crate::attempt::{NodeAllocation, Placement};
use crate::ids::JobId;
use crate::job::Job;
use crate::plan::Decision;
use crate::planner::blocks::ranked;
use crate::planner::gang::Pick;
use crate::planner::lending::Lending;
use crate::planner::limits::Asked;
use crate::planner::power::Asked as PowerAsked;
use crate::planner::score::{ClassIndex, SlotId};
use crate::planner::turns::Claim;
use crate::spec::JobSpec;

/// Numbers of nodes that a job can do with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// The fewest.
    pub least: u32,
    /// The most.
    pub most: u32,
    /// From one number to the next.
    pub step: u32,
}

/// An elastic job that the pass started with fewer nodes than it could use.
#[derive(Debug)]
pub(super) struct Small<'w> {
    job: &'w Job,
    /// With what it started.
    claim: Claim,
    /// With the nodes that it has.
    want: Want,
    /// In which class of its family.
    place: usize,
    placement: Arc<Placement>,
}

impl Want {
    /// The same with so many nodes.
    pub fn of_nodes(self, nodes: usize) -> Self {
        Want { nodes: u32::try_from(nodes).unwrap_or(u32::MAX), ..self }
    }
}

impl Sizes {
    /// Those of a job; gangs of segments have whole ones.
    pub fn of(spec: &JobSpec) -> Self {
        let step = spec.constraints.blocks.segment_nodes();
        Sizes { least: spec.nodes, most: spec.most_nodes(), step }
    }

    /// What `fits` says of the largest number that fits beyond the least; `None` if none does.
    pub fn largest<T>(self, mut fits: impl FnMut(u32) -> Option<T>) -> Option<T> {
        let Sizes { least, most, step } = self;
        let steps = most.saturating_sub(least) / step.max(1);
        let (mut best, mut fitting, mut too_many) = (None, 0, steps.saturating_add(1));
        // The most first: often there is room for it.
        let mut next = steps;
        while too_many - fitting > 1 {
            match fits(least.saturating_add(next.saturating_mul(step))) {
                Some(found) => (best, fitting) = (Some(found), next),
                None => too_many = next,
            }
            next = fitting + (too_many - fitting) / 2;
        }
        best
    }
}

impl<'w> Pass<'w> {
    /// Places for as many nodes as the job can have now of the class in which it found places for the fewest.
    pub(super) fn enlarge(&mut self, job: &'w Job, claim: Claim, want: Want, least: Spot) -> Spot {
        let place = least.place;
        let larger = Sizes::of(&job.spec).largest(|nodes| {
            let want = Want { nodes, ..want };
            let claims = self.claims(job, claim, want, place);
            if claims { self.attempt(job, claim, want, place).ok() } else { None }
        });
        larger.unwrap_or(least)
    }

    /// Notes a start with fewer nodes than the job could use. A scavenger has taken what there is.
    pub(super) fn note_small(
        &mut self,
        job: &'w Job,
        claim: Claim,
        (want, place): (Want, usize),
        placement: &Arc<Placement>,
    ) {
        if want.nodes < job.spec.most_nodes() && !want.scavenges {
            let placement = Arc::clone(placement);
            self.small.push(Small { job, claim, want, place, placement });
        }
    }

    /// Gives what is left after all turns to elastic jobs that the pass has started. While others are stopped for
    /// somebody nothing is given: what is free may be a part of what that one needs.
    pub(super) fn give_rest(&mut self) {
        let stops = |decision: &Decision| matches!(decision, Decision::Preempt { .. });
        if self.has_decided_enough() || self.decisions.iter().any(stops) {
            return;
        }
        let mut grown = BTreeMap::new();
        for small in std::mem::take(&mut self.small) {
            if let Some(placement) = self.grow(&small) {
                grown.insert(small.job.id, Arc::new(placement));
            }
        }
        self.replace(grown);
    }

    /// The larger starts come after all others, as they are judged.
    fn replace(&mut self, grown: BTreeMap<JobId, Arc<Placement>>) {
        self.decisions.retain(|decision| match decision {
            Decision::Start { job, .. } => !grown.contains_key(job),
            Decision::Preempt { .. } => true,
        });
        let starts = grown.into_iter();
        self.decisions.extend(starts.map(|(job, placement)| Decision::Start { job, placement }));
    }

    /// What the job holds with as many more nodes as are left for it. One that must keep together has what its turn gave.
    fn grow(&mut self, small: &Small<'w>) -> Option<Placement> {
        let Small { want, place, .. } = *small;
        let family = self.families.get(want.family);
        let class = family.tries[place].class;
        if family.territory.constraints.blocks.is_binding() || self.must_leave(small, class) {
            return None;
        }
        let free = self.free_beside(small, class);
        let most = want.nodes.saturating_add(u32::try_from(free.len()).unwrap_or(u32::MAX));
        let sizes = Sizes { least: want.nodes, most, step: 1 };
        let nodes = sizes.largest(|nodes| self.may_have(small, class, nodes).then_some(nodes))?;
        let picks = free.into_iter().take((nodes - want.nodes) as usize).collect();
        Some(self.add_nodes(small, class, picks))
    }

    /// Whether the class is left to another job that waits for it.
    fn must_leave(&self, small: &Small<'w>, class: Option<ClassIndex>) -> bool {
        let expected =
            small.claim.node.zip(class).is_some_and(|at| self.expecting.contains_key(&at));
        expected || (small.claim.tier == Tier::Overuse && self.wanted.contains_key(&class))
    }

    /// Places for the further nodes that the job could use, beside what is planned for others.
    fn free_beside(&self, small: &Small<'w>, class: Option<ClassIndex>) -> Vec<Pick> {
        let Small { job, want, ref placement, .. } = *small;
        let family = self.families.get(want.family);
        let claim = Claim { tier: Tier::Borrowed, ..small.claim };
        let ask = self.ask(job, claim, want, class);
        let wanted = job.spec.most_nodes().saturating_sub(want.nodes) as usize;
        let own = placement.nodes.iter().filter_map(|held| self.machine.find(&held.node));
        let mut seen: BTreeSet<SlotId> = own.collect();
        let places = family.territory.places(&self.machine, class, &family.need);
        let open = |pick: &Pick| self.horizon.leaves_planned(&self.machine, *pick, &ask);
        let places = places.filter(|pick| open(pick) && seen.insert(pick.slot));
        match (&self.machine.power, self.horizon.purse_now(&self.machine, &ask)) {
            (Some(power), Some(purse)) => {
                let nodes = u32::try_from(wanted).unwrap_or(u32::MAX);
                let asked = PowerAsked { class, need: &family.need, nodes };
                self.machine.powered(power, &purse, places, asked)
            }
            (_, _) => places.take(wanted).collect(),
        }
    }

    /// Whether limits, budgets and what others keep let the job have so many nodes in all.
    fn may_have(&self, small: &Small<'w>, class: Option<ClassIndex>, nodes: u32) -> bool {
        let Small { claim, want, .. } = *small;
        let (all, more) = (Want { nodes, ..want }, Want { nodes: nodes - want.nodes, ..want });
        let standing = self.budgets.standing(want.project, self.further_hold(want, all, class));
        let within = match claim.tier {
            Tier::Overuse => standing != Standing::Exhausted,
            Tier::Guaranteed | Tier::Borrowed | Tier::Scavenger => standing == Standing::Within,
        };
        let asked = self.families.asked(&self.machine, more, class);
        within
            && self.limits.allow_more(want.project, asked, self.families.gpus(all))
            && self.lent(more, class, Lending::allows)
    }

    /// What must be set aside beyond what is.
    fn further_hold(&self, has: Want, all: Want, class: Option<ClassIndex>) -> Ngh {
        self.hold(all, class) - self.hold(has, class)
    }

    /// Takes further nodes for a job, and says what it holds then.
    fn add_nodes(
        &mut self,
        small: &Small<'w>,
        class: Option<ClassIndex>,
        picks: Vec<Pick>,
    ) -> Placement {
        let Small { job, claim, want, ref placement, .. } = *small;
        let all = want.of_nodes(placement.nodes.len() + picks.len());
        self.budgets.take(want.project, self.further_hold(want, all, class));
        let need = self.families.get(want.family).need;
        let slots: Vec<SlotId> = picks.iter().map(|pick| pick.slot).collect();
        let more = self.machine.take(class, &need, picks);
        self.begin(job, &slots, &more);
        let gpus = more.gpus();
        let asked = Asked { class: more.class.as_ref(), gpus, scavenges: false };
        self.limits.take(want.project, asked);
        self.take_share(want, claim, class, gpus);
        let Placement { class, nodes, gpu_cap_watts } = more;
        let nodes = self.in_ranks(want, placement.nodes.iter().cloned().chain(nodes));
        Placement { class, nodes, gpu_cap_watts }
    }

    /// The nodes in the order of their ranks.
    fn in_ranks(
        &self,
        want: Want,
        nodes: impl Iterator<Item = NodeAllocation>,
    ) -> Vec<NodeAllocation> {
        let placed = nodes.filter_map(|held| Some((self.machine.find(&held.node)?, held)));
        let mut placed: BTreeMap<SlotId, NodeAllocation> = placed.collect();
        let terms = &self.families.get(want.family).territory.constraints.blocks;
        let picks = placed.keys().map(|slot| Pick { slot: *slot, gpu: None }).collect();
        let ranks = ranked(&self.machine, terms, picks);
        ranks.into_iter().filter_map(|pick| placed.remove(&pick.slot)).collect()
    }
}
