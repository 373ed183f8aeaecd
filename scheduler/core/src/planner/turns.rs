//! Whose turn it is, where the tree gives guarantees: jobs within one before those that borrow, and of the former
//! those first that others have stopped for; then by priority,
//! by how far their project is above its share, level by level from the top, by age, and the larger one first.
//!
//! Jobs of one project that want the same class stand in one line, so that only the heads of lines are compared. A
//! start moves its line, and those near it in the tree, back and never forward; so a line is looked at again only
//! when it comes to the front.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;

use super::fair::{Fair, Ratio, Tier};
use super::fit::Machine;
use super::score::ClassIndex;
use crate::amount::{GpuMilli, UnixMicros};
use crate::ids::{JobId, ProjectPath};
use crate::job::Job;
use crate::quota::entitle::NodeIndex;
use crate::spec::GpuRequest;

/// What a line wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted {
    /// No GPUs.
    Nothing,
    /// GPUs of this class; `None`: no node has it.
    Class(Option<ClassIndex>),
    /// GPUs of any class.
    Any,
}

/// Jobs of one project that want the same.
#[derive(Debug)]
struct Line<'w> {
    /// `None` for a project that the tree has not; it starts nothing.
    node: Option<NodeIndex>,
    wanted: Wanted,
    jobs: VecDeque<&'w Job>,
    /// Those that must borrow, in the same order.
    later: VecDeque<&'w Job>,
    ratios: Arc<[Ratio]>,
    /// What had been taken when they were found.
    taken: u64,
}

/// Place of the head of a line. Its derived order is the order of turns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    /// Within a guarantee, those that others have stopped for go first: what was freed is theirs.
    promised: Reverse<bool>,
    priority: Reverse<i32>,
    ratios: Arc<[Ratio]>,
    queued: UnixMicros,
    gpus: Reverse<GpuMilli>,
    job: JobId,
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

/// A job whose turn it is.
#[derive(Debug)]
pub(super) struct Turn<'w> {
    /// Which.
    pub job: &'w Job,
    /// With what.
    pub claim: Claim,
    line: usize,
}

/// All lines.
#[derive(Debug)]
pub(super) struct Turns<'w> {
    lines: Vec<Line<'w>>,
    heap: BinaryHeap<Reverse<Head>>,
    tier: Tier,
}

impl<'w> Turns<'w> {
    /// Lines of jobs that come in the order of the queue.
    pub fn of(jobs: impl Iterator<Item = &'w Job>, machine: &Machine<'_>, fair: &Fair) -> Self {
        let mut known: BTreeMap<(&ProjectPath, Wanted), usize> = BTreeMap::new();
        let mut lines: Vec<Line<'w>> = Vec::new();
        for job in jobs {
            let key = (&job.spec.project, wanted(job, machine));
            let line = *known.entry(key).or_insert_with(|| {
                lines.push(Line::of(fair.find(key.0), key.1));
                lines.len() - 1
            });
            lines[line].jobs.push_back(job);
        }
        for line in &mut lines {
            line.jobs.make_contiguous().sort_by_key(|job| place_in_line(job));
            line.refresh(fair);
        }
        let mut turns = Turns { lines, heap: BinaryHeap::new(), tier: Tier::Guaranteed };
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
            let Some((line, job)) = self.pop(fair) else {
                if self.tier == Tier::Borrowed {
                    return None;
                }
                self.begin_borrowing();
                continue;
            };
            let of = &mut self.lines[line];
            if self.tier == Tier::Borrowed || of.tier(fair, job) == Tier::Guaranteed {
                let claim = Claim { tier: self.tier, node: of.node };
                return Some(Turn { job, claim, line });
            }
            of.later.push_back(job);
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
        self.lines[turn.line].later.push_back(turn.job);
    }

    /// Takes the head of the line that is first.
    fn pop(&mut self, fair: &Fair) -> Option<(usize, &'w Job)> {
        loop {
            let mut first = self.heap.peek_mut()?;
            let line = first.0.line;
            let of = &mut self.lines[line];
            if of.refresh(fair) {
                first.0.ratios = Arc::clone(&of.ratios);
                continue;
            }
            let job = of.jobs.pop_front()?;
            match of.head(line, self.tier) {
                Some(next) => first.0 = next,
                None => drop(PeekMut::pop(first)),
            }
            return Some((line, job));
        }
    }
}

impl Line<'_> {
    fn of(node: Option<NodeIndex>, wanted: Wanted) -> Self {
        let (jobs, later) = (VecDeque::new(), VecDeque::new());
        // Found when the line is looked at first.
        Line { node, wanted, jobs, later, ratios: Arc::new([]), taken: u64::MAX }
    }

    fn head(&self, line: usize, tier: Tier) -> Option<Head> {
        let job = self.jobs.front()?;
        Some(Head {
            promised: Reverse(!job.status.promised.is_empty() && tier == Tier::Guaranteed),
            priority: Reverse(job.spec.priority),
            ratios: Arc::clone(&self.ratios),
            queued: job.status.queued,
            gpus: Reverse(job.spec.total_gpus()),
            job: job.id,
            line,
        })
    }

    /// Finds the ratios again if something was taken since; whether they changed.
    fn refresh(&mut self, fair: &Fair) -> bool {
        if self.taken == fair.taken {
            return false;
        }
        self.taken = fair.taken;
        let before = std::mem::replace(&mut self.ratios, ratios(self.node, self.wanted, fair));
        before != self.ratios
    }

    /// The best tier the job may start in; one without GPUs takes nothing from anybody's guarantee.
    fn tier(&self, fair: &Fair, job: &Job) -> Tier {
        let gpus = job.spec.total_gpus();
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

fn ratios(node: Option<NodeIndex>, wanted: Wanted, fair: &Fair) -> Arc<[Ratio]> {
    match (wanted, node) {
        (Wanted::Nothing | Wanted::Class(None), _) | (_, None) => Arc::new([]),
        (Wanted::Class(class), Some(node)) => fair.ratios(node, class),
        (Wanted::Any, Some(node)) => fair.ratios(node, None),
    }
}

fn wanted(job: &Job, machine: &Machine<'_>) -> Wanted {
    match (&job.spec.per_node.gpus, job.spec.per_node.gpus.class()) {
        (GpuRequest::None, _) => Wanted::Nothing,
        (_, Some(class)) => Wanted::Class(machine.class(class)),
        (_, None) => Wanted::Any,
    }
}

fn place_in_line(job: &Job) -> (Reverse<bool>, Reverse<i32>, UnixMicros, Reverse<GpuMilli>, JobId) {
    let (priority, gpus) = (Reverse(job.spec.priority), Reverse(job.spec.total_gpus()));
    (Reverse(!job.status.promised.is_empty()), priority, job.status.queued, gpus, job.id)
}
