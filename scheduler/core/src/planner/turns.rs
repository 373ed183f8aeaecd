//! Whose turn it is: jobs within a guarantee before those that borrow, and of the former those first that others have
//! stopped for; then by how far their project is from its turn, level by level from the top; then by priority, by age,
//! and the larger one first. So priority says which of its own jobs a project wants first.
//!
//! Jobs of one project that want the same class stand in one line, so that only the heads of lines are compared; in a
//! line, jobs that nothing but their order tells apart are one [`Cohort`], of which only the first is looked at: where it
//! cannot start, none of them can, since within a pass what there is only shrinks. A
//! start moves its line, and those near it in the tree, back and never forward; so a line is looked at again only
//! when it comes to the front.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeSet, BinaryHeap, btree_set};
use std::sync::Arc;
use std::vec;

use super::fair::{Demand, Fair, Tier, Wanted};
use super::fit::Machine;
use super::limits::{Limits, ProjectIndex};
use super::pass::Want;
use crate::amount::{GpuMilli, UnixMicros};
use crate::fairshare::order::Burden;
use crate::ids::{JobId, NodeName, ProjectPath};
use crate::quota::entitle::{Arena, NodeIndex};
use crate::spec::{GpuRequest, JobSpec};
use crate::world::{CohortJobs, CohortKey, CohortPlace};

/// Jobs of one project that want the same, by cohorts.
#[derive(Debug)]
struct Line<'w> {
    /// `None` for a project that the tree has not; it starts nothing.
    node: Option<NodeIndex>,
    project: ProjectIndex,
    path: &'w ProjectPath,
    wanted: Wanted,
    /// The next job of each cohort whose turn it is in this tier.
    ready: BinaryHeap<Reverse<Front>>,
    /// Cohorts that must borrow.
    later: Vec<CohortId>,
    burdens: Arc<[Burden]>,
    /// What had been taken when they were found.
    taken: u64,
}

/// A cohort of the pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CohortId(usize);

/// What the jobs of a cohort have in common.
#[derive(Debug)]
pub(super) struct Common<'w> {
    /// By which the report names them.
    pub key: CohortKey,
    /// The specification of one of them.
    pub spec: &'w JobSpec,
    /// Nodes they avoid.
    pub avoid: &'w BTreeSet<NodeName>,
}

/// Jobs that the pass cannot tell apart but by their order.
#[derive(Debug)]
pub(super) struct Cohort<'w> {
    /// What they have in common.
    pub common: Common<'w>,
    /// Their project in the limits.
    pub project: ProjectIndex,
    /// What they compete for; found when their turn comes.
    pub want: Option<Want>,
    line: usize,
    gpus: GpuMilli,
    /// Those whose turn has not been, in their order.
    members: Members<'w>,
}

/// Jobs in their order.
#[derive(Debug, Clone)]
pub(super) struct Members<'w> {
    /// Where the next stands, with the run that it begins.
    first: Option<CohortPlace>,
    /// Those behind.
    rest: Rest<'w>,
    left: usize,
}

#[derive(Debug, Clone)]
enum Rest<'w> {
    /// As the world has them.
    Set(btree_set::Iter<'w, CohortPlace>),
    /// With those whose moment has come.
    List(vec::IntoIter<CohortPlace>),
}

impl Rest<'_> {
    fn next(&mut self) -> Option<CohortPlace> {
        match self {
            Rest::Set(places) => places.next().copied(),
            Rest::List(places) => places.next(),
        }
    }
}

impl<'w> Members<'w> {
    /// All of a cohort of the world.
    pub fn of(jobs: &'w CohortJobs) -> Self {
        let mut rest = Rest::Set(jobs.places().iter());
        Members { first: rest.next(), rest, left: jobs.len() }
    }

    /// Those that stand at these places, which must be in their order.
    pub fn list(places: Vec<CohortPlace>) -> Self {
        let left = places.iter().map(CohortPlace::jobs).sum();
        let mut rest = Rest::List(places.into_iter());
        Members { first: rest.next(), rest, left }
    }

    /// Which is next.
    pub fn first(&self) -> Option<CohortPlace> {
        self.first
    }

    /// How many are left.
    pub fn len(&self) -> usize {
        self.left
    }

    /// Goes on to the next.
    fn advance(&mut self) {
        let Some(place) = self.first else { return };
        self.left = self.left.saturating_sub(1);
        self.first = if place.job < place.last {
            Some(CohortPlace { job: JobId(place.job.0 + 1), ..place })
        } else {
            self.rest.next()
        };
    }

    /// Goes on to the last of the run, since all of it are alike; how many were passed over.
    fn advance_to_last(&mut self) -> usize {
        let Some(place) = &mut self.first else { return 0 };
        let passed = place.jobs() - 1;
        place.job = place.last;
        self.left = self.left.saturating_sub(passed);
        passed
    }

    /// Where those stand that are left.
    pub fn places(&self) -> impl Iterator<Item = CohortPlace> + use<'w> {
        let mut rest = self.rest.clone();
        self.first.into_iter().chain(std::iter::from_fn(move || rest.next()))
    }

    /// Those that are left, of each run at most so many.
    pub fn iter(&self, most: usize) -> impl Iterator<Item = JobId> + use<'w> {
        let run = move |place: CohortPlace| (place.job.0..=place.last.0).take(most).map(JobId);
        self.places().flat_map(run)
    }

    /// When the first of them was queued, whatever their priority.
    fn oldest(&self) -> UnixMicros {
        self.places().map(|place| place.queued).min().unwrap_or_default()
    }
}

/// The next job of a cohort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Front {
    place: Place,
    cohort: CohortId,
}

/// A place in a line; the smallest is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// Within a guarantee, those that others have stopped for go first: what was freed is theirs.
    promised: Reverse<bool>,
    priority: Reverse<i32>,
    queued: UnixMicros,
    gpus: Reverse<GpuMilli>,
    job: JobId,
}

/// Place of the head of a line. Its derived order is the order of turns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    promised: Reverse<bool>,
    burdens: Arc<[Burden]>,
    /// By which those with equal burdens are in order.
    place: Place,
    line: usize,
}

/// What a job comes with when it is its turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    /// The best it may start in.
    pub tier: Tier,
    /// Its project in the tree.
    pub node: Option<NodeIndex>,
}

/// A job whose turn it is. Its line stands still until it is settled.
#[derive(Debug)]
pub(super) struct Turn {
    /// Which.
    pub job: JobId,
    /// Of which cohort.
    pub cohort: CohortId,
    /// With what.
    pub claim: Claim,
}

/// What became of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The next of the cohort has its turn.
    Next,
    /// It could not start within a guarantee, and none of its cohort can; they may still borrow.
    Later,
    /// It could not start, and none of its cohort can.
    Done,
}

/// Jobs that wait, by project and by what they want.
#[derive(Debug)]
pub(super) struct Lines<'w> {
    arena: Arc<Arena>,
    lines: Vec<Line<'w>>,
    /// The first line of the project that was added last.
    current: usize,
    cohorts: Vec<Cohort<'w>>,
}

impl<'w> Lines<'w> {
    /// No lines yet, of projects in that tree.
    pub fn new(arena: Arc<Arena>) -> Self {
        Lines { arena, lines: Vec::new(), current: 0, cohorts: Vec::new() }
    }

    /// Adds a cohort. Those of one project must follow each other.
    pub fn add(
        &mut self,
        common: Common<'w>,
        members: Members<'w>,
        machine: &Machine<'_>,
        limits: &mut Limits<'w>,
    ) {
        let line = self.line(common.spec, machine, limits);
        let (project, gpus, want) = (self.lines[line].project, common.spec.total_gpus(), None);
        self.cohorts.push(Cohort { common, project, want, line, gpus, members });
    }

    fn line(&mut self, spec: &'w JobSpec, machine: &Machine<'_>, limits: &mut Limits<'w>) -> usize {
        let wanted = wanted(spec, machine);
        if self.lines.get(self.current).is_none_or(|line| *line.path != spec.project) {
            self.current = self.lines.len();
        }
        let known = self.lines[self.current..].iter().position(|line| line.wanted == wanted);
        if let Some(known) = known {
            return self.current + known;
        }
        let node = self.arena.find(spec.project.as_str());
        let project = limits.project(&spec.project);
        self.lines.push(Line::of(node, project, &spec.project, wanted));
        self.lines.len() - 1
    }

    /// What each line asks for.
    pub fn demands(&self) -> Vec<Demand> {
        let none = |line: &Line<'_>| {
            let (gpus, since) = (GpuMilli::ZERO, UnixMicros(i64::MAX));
            Demand { node: line.node, wanted: line.wanted, gpus, since }
        };
        let mut demands: Vec<Demand> = self.lines.iter().map(none).collect();
        for cohort in &self.cohorts {
            let demand = &mut demands[cohort.line];
            demand.gpus += cohort.gpus.times(cohort.members.len() as u64);
            demand.since = demand.since.min(cohort.members.oldest());
        }
        demands
    }
}

/// All lines.
#[derive(Debug)]
pub(super) struct Turns<'w> {
    lines: Vec<Line<'w>>,
    cohorts: Vec<Cohort<'w>>,
    heap: BinaryHeap<Reverse<Head>>,
    tier: Tier,
}

impl<'w> Turns<'w> {
    /// All lines, by what is held and due.
    pub fn of(lines: Lines<'w>, fair: &Fair) -> Self {
        let Lines { mut lines, cohorts, .. } = lines;
        for (at, cohort) in cohorts.iter().enumerate() {
            lines[cohort.line].ready.extend(cohort.front(CohortId(at)));
        }
        lines.iter_mut().for_each(|line| _ = line.refresh(fair));
        // Where nothing is guaranteed, all compete alike.
        let tier = if fair.has_tiers { Tier::Guaranteed } else { Tier::Borrowed };
        let mut turns = Turns { lines, cohorts, heap: BinaryHeap::new(), tier };
        turns.line_up();
        turns
    }

    /// Puts the head of every line into the heap.
    fn line_up(&mut self) {
        let heads = self.lines.iter().enumerate().filter_map(|(line, of)| of.head(line, self.tier));
        self.heap = heads.map(Reverse).collect();
    }

    /// The next job, with the best tier it may start in. After all that are within a guarantee come those that
    /// are not, and those that were put off. Each must be settled before the next is asked for.
    pub fn next(&mut self, fair: &Fair) -> Option<Turn> {
        loop {
            let Some((line, Front { place, cohort })) = self.pop(fair) else {
                if self.tier == Tier::Borrowed {
                    return None;
                }
                self.begin_borrowing();
                continue;
            };
            let of = &self.lines[line];
            let claim = Claim { tier: self.tier, node: of.node };
            let turn = Turn { job: place.job, cohort, claim };
            if self.tier == Tier::Borrowed || of.tier(fair, place.gpus.0) == Tier::Guaranteed {
                return Some(turn);
            }
            self.settle(&turn, Fate::Later);
        }
    }

    /// Notes what became of a turn, and lets its line go on.
    pub fn settle(&mut self, turn: &Turn, fate: Fate) {
        let cohort = &mut self.cohorts[turn.cohort.0];
        let at = cohort.line;
        match fate {
            Fate::Next => {
                cohort.members.advance();
                let front = cohort.front(turn.cohort);
                self.lines[at].ready.extend(front);
            }
            Fate::Later => self.lines[at].later.push(turn.cohort),
            Fate::Done => {}
        }
        self.heap.extend(self.lines[at].head(at, self.tier).map(Reverse));
    }

    /// All cohorts.
    pub fn cohorts(&self) -> &[Cohort<'w>] {
        &self.cohorts
    }

    /// A cohort.
    pub fn cohort(&self, cohort: CohortId) -> &Cohort<'w> {
        &self.cohorts[cohort.0]
    }

    /// A cohort, to note what it competes for.
    pub fn cohort_mut(&mut self, cohort: CohortId) -> &mut Cohort<'w> {
        &mut self.cohorts[cohort.0]
    }

    fn begin_borrowing(&mut self) {
        self.tier = Tier::Borrowed;
        for line in &mut self.lines {
            for cohort in std::mem::take(&mut line.later) {
                line.ready.extend(self.cohorts[cohort.0].front(cohort));
            }
        }
        self.line_up();
    }

    /// Takes the head of the line that is first, and the line out of the heap.
    fn pop(&mut self, fair: &Fair) -> Option<(usize, Front)> {
        loop {
            let mut first = self.heap.peek_mut()?;
            let line = first.0.line;
            let of = &mut self.lines[line];
            if of.refresh(fair) {
                first.0.burdens = Arc::clone(&of.burdens);
                continue;
            }
            PeekMut::pop(first);
            return self.lines[line].ready.pop().map(|Reverse(front)| (line, front));
        }
    }
}

impl<'w> Cohort<'w> {
    /// Jobs whose turn has not been.
    pub fn members(&self) -> &Members<'w> {
        &self.members
    }

    /// Goes on to the next job.
    pub fn advance(&mut self) {
        self.members.advance();
    }

    /// Goes on to the last of the tasks of an array that are all like the one whose turn it is; how many were passed
    /// over.
    pub fn advance_to_last(&mut self) -> usize {
        self.members.advance_to_last()
    }

    fn front(&self, cohort: CohortId) -> Option<Reverse<Front>> {
        let CohortPlace { promised, priority, queued, job, .. } = self.members.first()?;
        let place = Place { promised, priority, queued, gpus: Reverse(self.gpus), job };
        Some(Reverse(Front { place, cohort }))
    }
}

impl<'w> Line<'w> {
    fn of(
        node: Option<NodeIndex>,
        project: ProjectIndex,
        path: &'w ProjectPath,
        wanted: Wanted,
    ) -> Self {
        let (ready, later) = (BinaryHeap::new(), Vec::new());
        // Found when the line is looked at first.
        let (burdens, taken): (Arc<[Burden]>, u64) = (Arc::new([]), u64::MAX);
        Line { node, project, path, wanted, ready, later, burdens, taken }
    }

    fn head(&self, line: usize, tier: Tier) -> Option<Head> {
        let Reverse(Front { place: front, .. }) = *self.ready.peek()?;
        let promised = Reverse(front.promised.0 && tier == Tier::Guaranteed);
        let place = Place { promised, ..front };
        Some(Head { promised, burdens: Arc::clone(&self.burdens), place, line })
    }

    /// Finds the burdens again if something was taken since; whether they changed.
    fn refresh(&mut self, fair: &Fair) -> bool {
        if self.taken == fair.taken {
            return false;
        }
        self.taken = fair.taken;
        let before = std::mem::replace(&mut self.burdens, burdens(self.node, self.wanted, fair));
        before != self.burdens
    }

    /// The best tier the job may start in; one without GPUs takes nothing from anybody's guarantee.
    fn tier(&self, fair: &Fair, gpus: GpuMilli) -> Tier {
        let tier = |node, class| fair.tier(node, class, gpus);
        match (self.wanted, self.node) {
            (Wanted::Nothing, _) => Tier::Guaranteed,
            (Wanted::Class(None), _) | (_, None) => Tier::Borrowed,
            (Wanted::Class(Some(class)), Some(node)) => tier(node, class),
            (Wanted::Any, Some(node)) => {
                let tiers = fair.class_indexes().map(|class| tier(node, class));
                tiers.min().unwrap_or(Tier::Borrowed)
            }
        }
    }
}

/// Jobs without GPUs have their turn by what their project used of all classes.
fn burdens(node: Option<NodeIndex>, wanted: Wanted, fair: &Fair) -> Arc<[Burden]> {
    match (wanted, node) {
        (Wanted::Class(None), _) | (_, None) => Arc::new([]),
        (Wanted::Class(class), Some(node)) => fair.burdens(node, class),
        (Wanted::Any | Wanted::Nothing, Some(node)) => fair.burdens(node, None),
    }
}

fn wanted(spec: &JobSpec, machine: &Machine<'_>) -> Wanted {
    match (&spec.per_node.gpus, spec.per_node.gpus.class()) {
        (GpuRequest::None, _) => Wanted::Nothing,
        (_, Some(class)) => Wanted::Class(machine.class(class)),
        (_, None) => Wanted::Any,
    }
}
