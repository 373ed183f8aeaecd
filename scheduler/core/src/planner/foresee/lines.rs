//! Jobs that wait, as a look ahead keeps them: a line for each project and each shape of job. Of a line only the first is
//! looked at, and of a shape only the line that is first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::caps::{CapId, Caps};
use super::queue::Queued;
use crate::amount::GpuMilli;
use crate::ids::{GpuClass, ProjectPath};
use crate::spec::JobSpec;

/// A line, by its number in [`Lines`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LineId(usize);

/// What a job asks of the machine, as far as a look ahead tells one from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape<'w> {
    /// The class of its GPUs; `None`: any.
    pub class: Option<&'w GpuClass>,
    /// GPUs on each node.
    pub each: GpuMilli,
    /// Nodes.
    pub nodes: u32,
}

/// Jobs of one project and shape, in the order of their turns.
#[derive(Debug)]
pub(super) struct Line<'w> {
    /// What they ask for.
    pub shape: Shape<'w>,
    /// What binds their project.
    pub over: Vec<CapId>,
    /// Their places in the order of turns.
    jobs: VecDeque<usize>,
}

/// All lines.
#[derive(Debug, Default)]
pub(super) struct Lines<'w> {
    lines: Vec<Line<'w>>,
    known: BTreeMap<(&'w ProjectPath, Shape<'w>), LineId>,
    /// By shape, the first of each line that is not parked.
    heads: BTreeMap<Shape<'w>, BTreeSet<(usize, LineId)>>,
}

impl<'w> Shape<'w> {
    /// That of a job.
    pub fn of(spec: &'w JobSpec) -> Self {
        let gpus = &spec.per_node.gpus;
        Shape { class: gpus.class(), each: gpus.amount(), nodes: spec.nodes }
    }

    /// All its GPUs.
    pub fn gpus(self) -> GpuMilli {
        self.each.times(self.nodes.into())
    }
}

impl<'w> Lines<'w> {
    /// Puts the job at that place of the order of turns behind all others of its line.
    pub fn push(&mut self, place: usize, job: &Queued<'w>, caps: &Caps<'w>) {
        let (project, shape) = (&job.spec.project, Shape::of(job.spec));
        let id = *self.known.entry((project, shape)).or_insert_with(|| {
            self.lines.push(Line { shape, over: caps.over(project), jobs: VecDeque::new() });
            LineId(self.lines.len() - 1)
        });
        let line = &mut self.lines[id.0];
        line.jobs.push_back(place);
        if line.jobs.len() == 1 {
            self.heads.entry(shape).or_default().insert((place, id));
        }
    }

    /// The line of that number.
    pub fn line(&self, id: LineId) -> &Line<'w> {
        &self.lines[id.0]
    }

    /// Every shape of which some job is not parked.
    pub fn shapes(&self) -> Vec<Shape<'w>> {
        self.heads.iter().filter(|(_, heads)| !heads.is_empty()).map(|(shape, _)| *shape).collect()
    }

    /// The first jobs of the lines of a shape, those that are parked left out.
    pub fn heads(&self, shape: Shape<'w>) -> impl Iterator<Item = (usize, LineId)> + '_ {
        self.heads.get(&shape).into_iter().flatten().copied()
    }

    /// The very first of a shape, with its line.
    pub fn first(&self, shape: Shape<'w>) -> Option<(usize, LineId)> {
        self.heads(shape).next()
    }

    /// Takes a line out as long as its project may hold no more.
    pub fn park(&mut self, id: LineId) {
        let line = &self.lines[id.0];
        if let (Some(first), Some(heads)) = (line.jobs.front(), self.heads.get_mut(&line.shape)) {
            heads.remove(&(*first, id));
        }
    }

    /// Puts a line back.
    pub fn unpark(&mut self, id: LineId) {
        let line = &self.lines[id.0];
        if let Some(first) = line.jobs.front() {
            self.heads.entry(line.shape).or_default().insert((*first, id));
        }
    }

    /// Takes out the first of a line.
    pub fn pop(&mut self, id: LineId) {
        self.park(id);
        self.lines[id.0].jobs.pop_front();
        self.unpark(id);
    }
}
