//! Getting a guarantee back: which attempts that borrow stop, so that a job within its guarantee can start.
//!
//! A victim is a whole attempt that has run for the promised minimum (or less, where the job was promised its guarantee
//! by a moment that its own time to end just reaches), of a project that holds more than its guarantee
//! of the class, as has every node above it up to where both projects meet; of such a project, the latest leased
//! attempts that make up what is beyond the guarantee. The project furthest above its entitlement gives first, and of
//! its attempts the one with the least work to lose. What is found this way is cut down again to a set of which every
//! member is needed. Where it is not enough because a large victim took a node above it to its guarantee, so that
//! nothing else below that node may be stopped, the search is repeated and spares that victim. Attempts that started
//! beyond a budget count as leased after all others, and are stopped first. What already stops counts as free soon,
//! so a pass after this one asks for no more; and the nodes the job will have are written into its status and kept
//! for it, both what is free there and what will be.
//!
//! Why this ends: let P be the GPUs that projects hold beyond their guarantees, without what stops. Each victim lowers
//! P, for its project is above its guarantee; the job it stops for adds nothing to P, for afterwards its project is
//! not above. And a job that started within a guarantee is no victim as long as the tree stays: whatever takes its
//! project above was leased later and alone makes up the excess. So each recall trades borrowed GPUs for GPUs that
//! cannot be recalled, and there is no ring of them. The check of decisions asserts that P falls, by its own count.
//!
//! Scavengers are beside all that: what they hold counts in no guarantee and in no P, nothing keeps them from being
//! stopped, and any other job may have them stopped. They go first, the latest leased before the others. No ring comes
//! of it either: nothing stops for a scavenger, and one starts only where no other job can, even with all of them gone.

mod aim;
mod search;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use super::fair::Fair;
use super::limits::ProjectIndex;
use super::pass::Want;
use super::request::FamilyId;
use super::score::{ClassIndex, SlotId};
use crate::amount::{GpuMilli, UnixMicros};
use crate::attempt::Attempt;
use crate::ids::{AttemptId, NodeName};
use crate::meter::Footing;
use crate::policy::Policy;
use crate::quota::Recall;
use crate::quota::entitle::NodeIndex;
use crate::world::{NodeFree, World};

pub(super) use search::Scene;
use search::{Lack, Room, Search, add, held_on, least, nothing, subtract};

/// Searches for victims in one pass; those that find none cost the most, and the next pass comes soon.
const SEARCHES_MAX: u32 = 256;

/// Repeated searches in one pass. They have a bound of their own, so that nobody's first search is lost to them.
const REPEATS_MAX: u32 = 256;

/// Victims spared for one job: few stop so much that they are in the way, and each costs a search.
const SPARED_MAX: usize = 8;

/// What stops, and what may be stopped.
#[derive(Debug)]
pub(super) struct Recalls<'w> {
    world: &'w World,
    now: UnixMicros,
    /// What was leased after this is safe from jobs that were promised nothing sooner.
    safe_after: UnixMicros,
    /// What will be free on nodes beside what is, and is not promised to anybody.
    soon: BTreeMap<SlotId, NodeFree>,
    /// What stops, by class and node of the tree.
    leaving: Vec<Vec<u64>>,
    /// What the pass counts as held already for jobs that wait for it, likewise.
    promised: Vec<Vec<u64>>,
    /// Attempts that hold GPUs and do not stop, without scavengers.
    staying: BTreeMap<(ClassIndex, NodeIndex), Line<'w>>,
    /// What they hold together, line by line: nearly every search finds with that alone that nobody may be stopped.
    held: BTreeMap<(ClassIndex, NodeIndex), u64>,
    /// Lines all of which are safe from jobs that were promised nothing sooner.
    young: BTreeSet<(ClassIndex, NodeIndex)>,
    /// Scavengers that do not stop, in the order of their leases: of any class, since on nodes of several classes those
    /// of one may hold the CPUs that another needs.
    scavengers: Line<'w>,
    /// No victims were found for so many nodes, or more.
    failed: BTreeMap<(FamilyId, ClassIndex, ProjectIndex, Option<Recall>), u32>,
    /// Not even with all scavengers gone there was room for so many nodes, or more.
    crowded: BTreeMap<(FamilyId, ClassIndex), u32>,
    searches_left: u32,
    repeats_left: u32,
}

/// Attempts of one project and class in the order of their leases, those beyond a budget last.
type Line<'w> = Vec<&'w Arc<Attempt>>;

/// The attempt of a line that would be stopped next. The greatest is stopped first, by the order of the fields.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    /// It is beyond a budget; such go before all others.
    overuse: bool,
    /// How far its project is above its entitlement.
    above: u64,
    /// The later, the less work is lost. Work is counted from the lease; what a checkpoint saved would be counted off.
    leased: UnixMicros,
    id: Reverse<AttemptId>,
    project: NodeIndex,
    /// Position in its line.
    at: usize,
    /// What it and those leased before it hold.
    held: u64,
}

/// Who may be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Givers {
    /// Scavengers, and what borrows.
    Borrowers,
    /// Scavengers alone.
    Scavengers {
        /// What must be freed beside the room for the job itself, so that others have what they keep.
        short: GpuMilli,
    },
}

/// What frees enough for a job.
#[derive(Debug)]
pub(super) struct Found {
    /// To be stopped; none if enough stops already.
    pub victims: Vec<AttemptId>,
    /// Of what is free now on each node, the part that is kept for the job.
    pub kept: Vec<(SlotId, NodeFree)>,
}

impl<'w> Recalls<'w> {
    /// What stops in the world, and what does not.
    pub fn of(world: &'w World, policy: &Policy, now: UnixMicros, scene: Scene<'_, 'w>) -> Self {
        let Scene { machine, fair, .. } = scene;
        let mut recalls = Recalls {
            world,
            now,
            safe_after: now.plus_seconds(-policy.min_runtime_before_preemption_s),
            soon: BTreeMap::new(),
            leaving: vec![vec![0; fair.nodes()]; machine.classes.len()],
            promised: vec![vec![0; fair.nodes()]; machine.classes.len()],
            staying: BTreeMap::new(),
            held: BTreeMap::new(),
            young: BTreeSet::new(),
            scavengers: Line::new(),
            failed: BTreeMap::new(),
            crowded: BTreeMap::new(),
            searches_left: SEARCHES_MAX,
            repeats_left: REPEATS_MAX,
        };
        for attempt in world.attempts.values() {
            let class = attempt.placement.class.as_ref().and_then(|class| machine.class(class));
            let place = class.zip(fair.find(&attempt.project)).filter(|_| !attempt.scavenges());
            match place {
                _ if attempt.stop.is_some() => recalls.leave(scene, place, attempt),
                Some(place) => recalls.staying.entry(place).or_default().push(attempt),
                None if attempt.scavenges() => recalls.scavengers.push(attempt),
                None => {}
            }
        }
        for attempts in recalls.staying.values_mut().chain([&mut recalls.scavengers]) {
            attempts.sort_by_key(|attempt| attempt.place_in_line());
        }
        let lines = recalls.staying.iter();
        let young =
            |line: &Line<'w>| line.iter().all(|attempt| attempt.leased > recalls.safe_after);
        let all_young = lines.clone().filter(|(_, line)| young(line)).map(|(place, _)| *place);
        recalls.young = all_young.collect();
        recalls.held = lines.map(|(place, line)| (*place, sum_of(line.iter()))).collect();
        recalls
    }

    /// What frees enough for a job that does not fit now; `None` if nothing does.
    pub fn find(
        &mut self,
        scene: Scene<'_, 'w>,
        want: Want,
        (own, class): (NodeIndex, ClassIndex),
        promise: Option<Recall>,
        givers: Givers,
    ) -> Option<Found> {
        // Those whose promise has as good as come all may stop the same.
        let due = promise.filter(|promise| !promise.is_due(0, self.now));
        let key = (want.family, class, want.project, due);
        let failed = match givers {
            Givers::Borrowers => self.failed.get(&key),
            Givers::Scavengers { .. } => self.crowded.get(&(want.family, class)),
        };
        if failed.is_some_and(|nodes| *nodes <= want.nodes) || self.searches_left == 0 {
            return None;
        }
        let family = scene.families.get(want.family);
        let (aim, fitting, spared) = (None, BTreeSet::new(), BTreeSet::new());
        let mut search =
            Search { scene, family, want, own, class, promise, givers, aim, fitting, spared };
        let victims = self.collect_aiming(&mut search);
        match victims {
            Some(victims) => {
                let kept = self.promise(&search);
                let victims = victims.into_iter().map(|victim| victim.id).collect();
                Some(Found { victims, kept })
            }
            None => {
                self.searches_left -= 1;
                match givers {
                    Givers::Borrowers => self.failed.insert(key, want.nodes),
                    Givers::Scavengers { .. } => {
                        self.crowded.insert((want.family, class), want.nodes)
                    }
                };
                None
            }
        }
    }

    /// What is kept for a job on the nodes that were promised to it; `None` if it no longer has room there, even once
    /// all that stops has gone.
    pub fn stand_by(
        &mut self,
        scene: Scene<'_, 'w>,
        want: Want,
        own: NodeIndex,
        class: ClassIndex,
        promised: &BTreeSet<NodeName>,
    ) -> Option<Found> {
        let family = scene.families.get(want.family);
        let (aim, fitting, spared) = (None, BTreeSet::new(), BTreeSet::new());
        let (promise, givers) = (None, Givers::Borrowers);
        let mut search =
            Search { scene, family, want, own, class, promise, givers, aim, fitting, spared };
        for slot in promised.iter().filter_map(|name| scene.machine.find(name)) {
            search.look_at(self.room(), slot);
        }
        let stands = search.is_enough(self.room());
        stands.then(|| Found { victims: Vec::new(), kept: self.promise(&search) })
    }

    /// Victims; where some were in the way of others, those that suffice without them.
    fn collect_sparing(&mut self, search: &mut Search<'_, 'w>) -> Option<Line<'w>> {
        for _ in 0..=SPARED_MAX {
            match self.collect(search) {
                Ok(victims) => return Some(victims),
                Err(Some(in_the_way)) if self.repeats_left > 0 => {
                    self.repeats_left -= 1;
                    search.spared.insert(in_the_way);
                }
                Err(_) => return None,
            }
        }
        None
    }

    /// Victims in the order they are to be stopped, which then count as stopping. If they are not enough, the one
    /// that was in the way of others, if any was.
    fn collect(&mut self, search: &mut Search<'_, 'w>) -> Result<Line<'w>, Option<AttemptId>> {
        let mut victims: Line<'w> = self.clear_scavengers(search);
        let mut gone = BTreeSet::new();
        let mut closed = BTreeSet::new();
        // First those that free nodes; only then those that are in the way of a limit.
        let phases: &[Lack] = match search.givers {
            Givers::Borrowers => &[Lack::Nodes, Lack::Limit],
            Givers::Scavengers { .. } => &[],
        };
        for _ in phases {
            // What stops already is enough for most.
            if search.is_enough(self.room()) {
                break;
            }
            let lack = search.lack();
            let mut candidates = self.candidates(search, &gone);
            while !search.is_enough(self.room()) && search.lack() == lack {
                let Some(Candidate { project, at, held, .. }) = candidates.pop() else { break };
                if let Some(node) = self.within_guarantee(search, project) {
                    closed.insert(node);
                    continue;
                }
                let victim = self.staying[&(search.class, project)][at];
                if search.helps(victim) {
                    gone.insert(victim.id);
                    victims.push(victim);
                    self.stop(search, victim);
                }
                let rest = held - victim.gpus().0;
                candidates.extend(self.candidate(search, &gone, project, at, rest));
            }
        }
        if !search.is_enough(self.room()) {
            let in_the_way = in_the_way(search, &victims, &closed);
            victims.into_iter().for_each(|victim| self.take_back(search, victim));
            return Err(in_the_way);
        }
        Ok(self.cut_down(search, victims))
    }

    /// Stops scavengers, the latest leased first, until there is room or none is left that helps.
    fn clear_scavengers(&mut self, search: &mut Search<'_, 'w>) -> Line<'w> {
        let mut victims = Vec::new();
        for scavenger in self.scavengers.clone().into_iter().rev() {
            if search.is_enough(self.room()) {
                break;
            }
            if search.is_cleared_by(scavenger) {
                victims.push(scavenger);
                self.stop(search, scavenger);
            }
        }
        victims
    }

    /// Takes back those that turn out not to be needed, the last chosen first.
    fn cut_down(&mut self, search: &mut Search<'_, 'w>, mut victims: Line<'w>) -> Line<'w> {
        let mut needed = Vec::new();
        while let Some(victim) = victims.pop() {
            self.take_back(search, victim);
            if !search.is_enough(self.room()) {
                self.stop(search, victim);
                needed.push(victim);
            }
        }
        for victim in &needed {
            let line = match search.place_of(victim) {
                Some(place) => {
                    let held = self.held.entry(place).or_default();
                    *held = held.saturating_sub(victim.gpus().0);
                    self.staying.get_mut(&place)
                }
                None => Some(&mut self.scavengers),
            };
            if let Some(line) = line {
                line.retain(|attempt| attempt.id != victim.id);
            }
        }
        needed.reverse();
        needed
    }

    /// The first candidate of every line, without those that are victims already.
    fn candidates(
        &self,
        search: &Search<'_, 'w>,
        gone: &BTreeSet<AttemptId>,
    ) -> BinaryHeap<Candidate> {
        let lines = self.staying.iter().filter(|((class, _), _)| *class == search.class);
        let first = |(place, line): (&(ClassIndex, NodeIndex), &Line<'w>)| {
            if search.promise.is_none() && self.young.contains(place) {
                return None;
            }
            let held = if gone.is_empty() {
                self.held.get(place).copied().unwrap_or_default()
            } else {
                sum_of(line.iter().filter(|attempt| !gone.contains(&attempt.id)))
            };
            self.candidate(search, gone, place.1, line.len(), held)
        };
        lines.filter_map(first).collect()
    }

    /// Of the attempts before `end` in a project's line, which hold so much together without the victims among them,
    /// the last leased one that may be stopped for the search's job and would help it, if it is beyond the guarantee.
    fn candidate(
        &self,
        search: &Search<'_, 'w>,
        gone: &BTreeSet<AttemptId>,
        project: NodeIndex,
        end: usize,
        mut held: u64,
    ) -> Option<Candidate> {
        let fair = search.scene.fair;
        let guarantee = fair.full_guarantee(project, search.class).0;
        let line = &self.staying[&(search.class, project)];
        let before = line[..end].iter().enumerate().rev();
        for (at, attempt) in before.filter(|(_, attempt)| !gone.contains(&attempt.id)) {
            if held <= guarantee {
                return None;
            }
            if self.may_stop(attempt, search.promise) && search.helps(attempt) {
                let active = self.active(fair, search.class, project);
                let above = active.saturating_sub(fair.due(project, search.class).0);
                let (leased, id) = (attempt.leased, Reverse(attempt.id));
                let overuse = attempt.meter.footing == Footing::Overuse;
                return Some(Candidate { overuse, above, leased, id, project, at, held });
            }
            held -= attempt.gpus().0;
        }
        None
    }

    /// Whether it has run for as long as it is safe from a job that was promised so much.
    fn may_stop(&self, attempt: &Attempt, promise: Option<Recall>) -> bool {
        let grace_s = || self.world.jobs.get(&attempt.id.job).map_or(0, |job| job.spec.grace_s);
        attempt.leased <= self.safe_after
            || promise.is_some_and(|promise| promise.is_due(grace_s(), self.now))
    }

    /// The first of the project and the nodes above it, up to where they are above the job's own too, that holds no
    /// more than its guarantee.
    fn within_guarantee(&self, search: &Search<'_, 'w>, project: NodeIndex) -> Option<NodeIndex> {
        let fair = search.scene.fair;
        fair.branch(project, search.own).find(|node| {
            self.active(fair, search.class, *node) <= fair.full_guarantee(*node, search.class).0
        })
    }

    fn room(&self) -> Room<'_> {
        Room { soon: &self.soon, leaving: &self.leaving }
    }

    /// What a node of the tree holds without what stops and what is only promised.
    fn active(&self, fair: &Fair, class: ClassIndex, node: NodeIndex) -> u64 {
        let at = usize::from(class.0);
        let out = self.leaving[at][node.get()] + self.promised[at][node.get()];
        fair.guaranteed(node, class).1.0.saturating_sub(out)
    }

    fn stop(&mut self, search: &mut Search<'_, 'w>, victim: &'w Arc<Attempt>) {
        self.leave(search.scene, search.place_of(victim), victim);
        search.look_again(self.room(), victim);
    }

    fn take_back(&mut self, search: &mut Search<'_, 'w>, victim: &'w Arc<Attempt>) {
        if let Some((class, node)) = search.place_of(victim) {
            let leaving = &mut self.leaving[usize::from(class.0)];
            for node in search.scene.fair.self_and_ancestors(node) {
                leaving[node.get()] = leaving[node.get()].saturating_sub(victim.gpus().0);
            }
        }
        for (slot, held) in held_on(search.scene.machine, victim) {
            if let Some(soon) = self.soon.get_mut(&slot) {
                subtract(soon, &held);
            }
        }
        search.look_again(self.room(), victim);
    }

    fn leave(
        &mut self,
        scene: Scene<'_, 'w>,
        place: Option<(ClassIndex, NodeIndex)>,
        attempt: &Attempt,
    ) {
        if let Some((class, node)) = place {
            for node in scene.fair.self_and_ancestors(node) {
                self.leaving[usize::from(class.0)][node.get()] += attempt.gpus().0;
            }
        }
        for (slot, held) in held_on(scene.machine, attempt) {
            let gpus = held.gpus.len();
            add(self.soon.entry(slot).or_insert_with(|| nothing(gpus)), &held);
        }
    }

    /// Promises the best of the fitting nodes to the job: those it would be given if all that stops had gone.
    fn promise(&mut self, search: &Search<'_, 'w>) -> Vec<(SlotId, NodeFree)> {
        let Search { scene, class, family, .. } = *search;
        let slots = search.chosen(&self.soon);
        let gpus = family.need.gpu_milli().times(u64::from(search.want.nodes));
        for node in scene.fair.self_and_ancestors(search.own) {
            self.promised[usize::from(class.0)][node.get()] += gpus.0;
        }
        let mut kept = Vec::new();
        for slot in slots {
            let free = &scene.machine.slot(slot).free;
            let mut whole = search.need_on(slot, self.soon.get(&slot));
            let now = least(&whole, free);
            subtract(&mut whole, &now);
            if let Some(soon) = self.soon.get_mut(&slot) {
                subtract(soon, &whole);
            }
            kept.push((slot, now));
        }
        kept
    }
}

fn sum_of<'a>(attempts: impl Iterator<Item = &'a &'a Arc<Attempt>>) -> u64 {
    attempts.map(|attempt| attempt.gpus().0).sum()
}

/// The largest victim below nodes of which nothing more may be stopped: without it the most others could be.
fn in_the_way(
    search: &Search<'_, '_>,
    victims: &[&Arc<Attempt>],
    closed: &BTreeSet<NodeIndex>,
) -> Option<AttemptId> {
    let fair = search.scene.fair;
    let is_below = |victim: &&&Arc<Attempt>| {
        let node = fair.find(&victim.project);
        node.is_some_and(|node| fair.self_and_ancestors(node).any(|above| closed.contains(&above)))
    };
    let largest = victims.iter().filter(is_below).max_by_key(|victim| victim.gpus());
    largest.map(|victim| victim.id)
}
