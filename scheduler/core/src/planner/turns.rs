//! Whose turn it is: jobs within a guarantee before those that borrow, and of the former those first that others have
//! stopped for; then by how far their project is from its turn, level by level from the top; then by priority, by age,
//! and the larger one first. So priority says which of its own jobs a project wants first.
//!
//! Jobs of one project that want the same class stand in one line, so that only the heads of lines are compared. A
//! start moves its line, and those near it in the tree, back and never forward; so a line is looked at again only
//! when it comes to the front.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;

use super::fair::{Demand, Fair, Tier, Wanted};
use super::fit::Machine;
use super::limits::{Limits, ProjectIndex};
use crate::amount::{GpuMilli, UnixMicros};
use crate::fairshare::order::Burden;
use crate::ids::{JobId, ProjectPath};
use crate::job::Job;
use crate::quota::entitle::{Arena, NodeIndex};
use crate::spec::GpuRequest;

/// Jobs of one project that want the same.
#[derive(Debug)]
struct Line<'w> {
    /// `None` for a project that the tree has not; it starts nothing.
    node: Option<NodeIndex>,
    project: ProjectIndex,
    wanted: Wanted,
    jobs: VecDeque<Entry<'w>>,
    /// Those that must borrow, in the same order.
    later: VecDeque<Entry<'w>>,
    burdens: Arc<[Burden]>,
    /// What had been taken when they were found.
    taken: u64,
}

/// A job in its line. Its place is beside it, so that ordering many does not go through all of them.
#[derive(Debug, Clone, Copy)]
struct Entry<'w> {
    place: Place,
    job: &'w Job,
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

impl Place {
    fn of(job: &Job) -> Self {
        Place {
            promised: Reverse(!job.status.promised.is_empty()),
            priority: Reverse(job.spec.priority),
            queued: job.status.queued,
            gpus: Reverse(job.spec.total_gpus()),
            job: job.id,
        }
    }
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
    /// Its project in the limits.
    pub project: ProjectIndex,
}

/// A job whose turn it is.
#[derive(Debug)]
pub(super) struct Turn<'w> {
    /// Which.
    pub job: &'w Job,
    /// With what.
    pub claim: Claim,
    place: Place,
    line: usize,
}

/// Jobs that wait, by project and by what they want.
#[derive(Debug)]
pub(super) struct Lines<'w> {
    arena: Arc<Arena>,
    known: BTreeMap<(&'w ProjectPath, Wanted), usize>,
    lines: Vec<Line<'w>>,
}

impl<'w> Lines<'w> {
    /// No lines yet, of projects in that tree.
    pub fn new(arena: Arc<Arena>) -> Self {
        Lines { arena, known: BTreeMap::new(), lines: Vec::new() }
    }

    /// Adds a job.
    pub fn add(&mut self, job: &'w Job, machine: &Machine<'_>, limits: &mut Limits<'w>) {
        let key = (&job.spec.project, wanted(job, machine));
        let line = *self.known.entry(key).or_insert_with(|| {
            let node = self.arena.find(key.0.as_str());
            self.lines.push(Line::of(node, limits.project(key.0), key.1));
            self.lines.len() - 1
        });
        self.lines[line].jobs.push_back(Entry { place: Place::of(job), job });
    }

    /// Jobs in all.
    pub fn jobs(&self) -> usize {
        self.lines.iter().map(|line| line.jobs.len()).sum()
    }

    /// What each line asks for.
    pub fn demands(&self) -> Vec<Demand> {
        let demand = |line: &Line<'_>| {
            let gpus = line.jobs.iter().map(|entry| entry.place.gpus.0).sum();
            let since = line.jobs.iter().map(|entry| entry.place.queued).min().unwrap_or_default();
            Demand { node: line.node, wanted: line.wanted, gpus, since }
        };
        self.lines.iter().map(demand).collect()
    }
}

/// All lines.
#[derive(Debug)]
pub(super) struct Turns<'w> {
    lines: Vec<Line<'w>>,
    heap: BinaryHeap<Reverse<Head>>,
    tier: Tier,
}

impl<'w> Turns<'w> {
    /// All lines, by what is held and due.
    pub fn of(mut lines: Lines<'w>, fair: &Fair) -> Self {
        for line in &mut lines.lines {
            line.jobs.make_contiguous().sort_by_key(|entry| entry.place);
            line.refresh(fair);
        }
        // Where nothing is guaranteed, all compete alike.
        let tier = if fair.has_tiers { Tier::Guaranteed } else { Tier::Borrowed };
        let mut turns = Turns { lines: lines.lines, heap: BinaryHeap::new(), tier };
        turns.line_up();
        turns
    }

    /// Puts the head of every line into the heap.
    fn line_up(&mut self) {
        let heads = self.lines.iter().enumerate().filter_map(|(line, of)| of.head(line, self.tier));
        self.heap = heads.map(Reverse).collect();
    }

    /// The next job, with the best tier it may start in. After all that are within a guarantee come those that
    /// are not, and those that were put off.
    pub fn next(&mut self, fair: &Fair) -> Option<Turn<'w>> {
        loop {
            let Some((line, Entry { place, job })) = self.pop(fair) else {
                if self.tier == Tier::Borrowed {
                    return None;
                }
                self.begin_borrowing();
                continue;
            };
            let of = &mut self.lines[line];
            if self.tier == Tier::Borrowed || of.tier(fair, place.gpus.0) == Tier::Guaranteed {
                let claim = Claim { tier: self.tier, node: of.node, project: of.project };
                return Some(Turn { job, claim, place, line });
            }
            of.later.push_back(Entry { place, job });
        }
    }

    fn begin_borrowing(&mut self) {
        self.tier = Tier::Borrowed;
        for line in &mut self.lines {
            std::mem::swap(&mut line.jobs, &mut line.later);
        }
        self.line_up();
    }

    /// The job that came last could not start within a guarantee and may still borrow.
    pub fn put_off(&mut self, turn: Turn<'w>) {
        let Turn { job, place, line, .. } = turn;
        self.lines[line].later.push_back(Entry { place, job });
    }

    /// Takes the head of the line that is first.
    fn pop(&mut self, fair: &Fair) -> Option<(usize, Entry<'w>)> {
        loop {
            let mut first = self.heap.peek_mut()?;
            let line = first.0.line;
            let of = &mut self.lines[line];
            if of.refresh(fair) {
                first.0.burdens = Arc::clone(&of.burdens);
                continue;
            }
            let entry = of.jobs.pop_front()?;
            match of.head(line, self.tier) {
                Some(next) => first.0 = next,
                None => drop(PeekMut::pop(first)),
            }
            return Some((line, entry));
        }
    }
}

impl Line<'_> {
    fn of(node: Option<NodeIndex>, project: ProjectIndex, wanted: Wanted) -> Self {
        let (jobs, later) = (VecDeque::new(), VecDeque::new());
        // Found when the line is looked at first.
        Line { node, project, wanted, jobs, later, burdens: Arc::new([]), taken: u64::MAX }
    }

    fn head(&self, line: usize, tier: Tier) -> Option<Head> {
        let front = self.jobs.front()?.place;
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

fn wanted(job: &Job, machine: &Machine<'_>) -> Wanted {
    match (&job.spec.per_node.gpus, job.spec.per_node.gpus.class()) {
        (GpuRequest::None, _) => Wanted::Nothing,
        (_, Some(class)) => Wanted::Class(machine.class(class)),
        (_, None) => Wanted::Any,
    }
}
