//! Jobs that wait, by project and by what they want: who competes, before it is known whose turn it is.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Claim, Cohort, Common, Line, Members, Name};
use crate::amount::{GpuMilli, UnixMicros};
use crate::fairshare::order::Burden;
use crate::ids::ProjectPath;
use crate::planner::fair::{Demand, Fair, Tier, Wanted};
use crate::planner::fit::Machine;
use crate::planner::limits::{Limits, ProjectIndex};
use crate::quota::entitle::{Arena, NodeIndex};
use crate::spec::{GpuRequest, JobSpec};
use crate::world::{self, CohortNumber, Cohorts};

/// Jobs that wait, by project and by what they want.
#[derive(Debug)]
pub(in crate::planner) struct Lines<'w> {
    world: &'w Cohorts,
    arena: Arc<Arena>,
    lines: Vec<Line<'w>>,
    /// By the numbers of projects in the world's cohorts.
    of_project: Vec<OfProject>,
    /// What each kind of request asks for, by its number there.
    of_kind: Vec<Option<Wanted>>,
    /// Cohorts as the world has them. There are a hundred thousand, so what a turn needs is only made for those that get
    /// one.
    plain: Vec<Plain<'w>>,
    /// Cohorts that have more members than the world says, or are none of its.
    cohorts: Vec<Cohort<'w>>,
    /// Those of the world among them.
    joined: BTreeSet<CohortNumber>,
}

/// In the limits, where a line has not been entered yet.
const NOWHERE: ProjectIndex = ProjectIndex(u32::MAX);

/// Lines of a project.
#[derive(Debug, Clone, Default)]
struct OfProject {
    lines: Vec<usize>,
    /// Its place in the tree, once it has a line.
    node: Option<Option<NodeIndex>>,
}

/// A cohort as the world has it.
#[derive(Debug, Clone, Copy)]
pub(in crate::planner) struct Plain<'w> {
    /// Its number there.
    pub number: CohortNumber,
    /// What the world knows of it.
    pub of: &'w world::Cohort,
    line: u32,
}

impl Plain<'_> {
    /// Number of its line.
    pub fn line(&self) -> u32 {
        self.line
    }
}

impl<'w> Lines<'w> {
    /// No lines yet, of projects in that tree and cohorts of that world.
    pub fn new(arena: Arc<Arena>, cohorts: &'w Cohorts) -> Self {
        let [most, kinds, projects] = cohorts.sizes();
        Lines {
            world: cohorts,
            arena,
            lines: Vec::new(),
            of_project: vec![OfProject::default(); projects],
            of_kind: vec![None; kinds],
            plain: Vec::with_capacity(most),
            cohorts: Vec::new(),
            joined: BTreeSet::new(),
        }
    }

    /// Adds a cohort as the world has it.
    pub fn add_plain(
        &mut self,
        (number, of): (CohortNumber, &'w world::Cohort),
        machine: &Machine<'_>,
        limits: &mut Limits<'w>,
    ) {
        let spec = of.key.spec();
        let line = self.line_of((of.kind, of.project), (spec, &spec.project), machine);
        self.enter_limits(line, limits);
        self.plain.push(Plain { number, of, line: u32::try_from(line).unwrap_or(u32::MAX) });
    }

    /// Adds a cohort with these members. What is none of the world's comes after all others.
    pub fn add(
        &mut self,
        common: Common<'w>,
        members: Members<'w>,
        machine: &Machine<'_>,
        limits: &mut Limits<'w>,
    ) {
        let line = match common.name {
            Name::World { number, kind, project } => {
                self.joined.insert(number);
                let path = &common.spec.project;
                self.line_of((kind, project), (common.spec, path), machine)
            }
            Name::Apart(_) => {
                let (wanted, path) = (wanted(common.spec, machine), &common.spec.project);
                let alike = |line: &Line<'_>| line.wanted == wanted && line.path == path;
                let known = self.lines.iter().position(alike);
                let node = self.arena.find(path.as_str());
                known.unwrap_or_else(|| self.begin_line(path, wanted, node))
            }
        };
        let project = self.enter_limits(line, limits);
        // Its moment has come by the clock, whatever was freed.
        self.lines[line].roams = true;
        self.cohorts.push(Cohort { common, project, want: None, line, members });
    }

    /// Adds a cohort of that kind and project by its number alone; what it is is looked at once the turn of its line comes.
    /// One that `roams` may find room where those that waited before did not.
    pub fn add_number(
        &mut self,
        number: CohortNumber,
        (kind, project): (u32, u32),
        spec: &'w JobSpec,
        machine: &Machine<'_>,
        roams: bool,
    ) {
        let Some(path) = self.world.project(project).filter(|_| !self.joined.contains(&number))
        else {
            return;
        };
        let line = self.line_of((kind, project), (spec, path), machine);
        self.lines[line].unopened.push(number);
        self.lines[line].roams |= roams;
    }

    /// The line of jobs of that kind and project, which the world's cohorts have numbers for.
    fn line_of(
        &mut self,
        (kind, project): (u32, u32),
        (spec, path): (&'w JobSpec, &'w ProjectPath),
        machine: &Machine<'_>,
    ) -> usize {
        let wanted = *self.of_kind[kind as usize].get_or_insert_with(|| wanted(spec, machine));
        let known = &mut self.of_project[project as usize];
        let alike = |line: &&usize| self.lines[**line].wanted == wanted;
        if let Some(line) = known.lines.iter().find(alike) {
            return *line;
        }
        known.lines.push(self.lines.len());
        let node = *known.node.get_or_insert_with(|| self.arena.find(path.as_str()));
        self.begin_line(path, wanted, node)
    }

    fn begin_line(
        &mut self,
        path: &'w ProjectPath,
        wanted: Wanted,
        node: Option<NodeIndex>,
    ) -> usize {
        self.lines.push(Line::of(node, path, wanted));
        self.lines.len() - 1
    }

    /// The project of a line in the limits.
    fn enter_limits(&mut self, line: usize, limits: &mut Limits<'w>) -> ProjectIndex {
        let Line { project, path, .. } = &mut self.lines[line];
        *project.get_or_insert_with(|| limits.project(path))
    }

    /// What each line asks for.
    pub fn demands(&self) -> Vec<Demand> {
        let none = |line: &Line<'_>| {
            let (gpus, since) = (GpuMilli::ZERO, UnixMicros(i64::MAX));
            Demand { node: line.node, wanted: line.wanted, gpus, since }
        };
        let mut demands: Vec<Demand> = self.lines.iter().map(none).collect();
        let mut ask = |line: usize, gpus: GpuMilli, jobs: usize, since: UnixMicros| {
            let demand = &mut demands[line];
            demand.gpus += gpus.times(jobs as u64);
            demand.since = demand.since.min(since);
        };
        for Plain { of, line, .. } in &self.plain {
            ask(*line as usize, of.wish.gpus, of.jobs.len(), of.jobs.oldest());
        }
        for Cohort { common, line, members, .. } in &self.cohorts {
            ask(*line, common.wish.gpus, members.len(), members.oldest());
        }
        demands
    }

    /// Cohorts as the world has them.
    pub fn plain(&self) -> &[Plain<'w>] {
        &self.plain
    }

    /// In whose name such a cohort competes, with the project in the limits.
    pub fn claim(&self, plain: &Plain<'_>, fair: &Fair) -> (Claim, ProjectIndex) {
        let line = &self.lines[plain.line as usize];
        let tier =
            if fair.has_tiers { line.tier(fair, plain.of.wish.gpus) } else { Tier::Borrowed };
        (Claim { tier, node: line.node }, line.project.unwrap_or(NOWHERE))
    }

    /// Keeps the cohorts as the world has them of which this says that they need a turn.
    pub fn keep(&mut self, mut needs_turn: impl FnMut(&Self, &Plain<'w>) -> bool) {
        let mut all = std::mem::take(&mut self.plain);
        all.retain(|plain| needs_turn(self, plain));
        self.plain = all;
    }

    /// Takes back a cohort that was not kept.
    pub fn take_back(&mut self, plain: Plain<'w>) {
        self.plain.push(plain);
    }

    /// How far such a cohort is from its turn.
    pub fn burdens(&self, plain: &Plain<'_>, fair: &Fair) -> Arc<[Burden]> {
        match self.lines[plain.line as usize].compared_by() {
            Some((table, node)) => fair.burdens(node, table),
            None => Arc::new([]),
        }
    }

    /// What the jobs of every cohort have in common, and who they are.
    pub fn cohorts(&self) -> impl Iterator<Item = (&'w JobSpec, Members<'w>)> + '_ {
        let plain =
            self.plain.iter().map(|plain| (plain.of.key.spec(), Members::of(&plain.of.jobs)));
        let others = self.cohorts.iter().map(|one| (one.common.spec, one.members.clone()));
        plain.chain(others)
    }

    /// The lines, and all cohorts that are to have their turns.
    pub(super) fn into_parts(mut self) -> (&'w Cohorts, Vec<Line<'w>>, Vec<Cohort<'w>>) {
        for Plain { number, of, line } in std::mem::take(&mut self.plain) {
            let project = self.lines[line as usize].project.unwrap_or(NOWHERE);
            self.cohorts.push(Cohort::open(number, of, (line as usize, project)));
        }
        (self.world, self.lines, self.cohorts)
    }
}

impl<'w> Cohort<'w> {
    /// A cohort of the world in a line of a project.
    pub(super) fn open(
        number: CohortNumber,
        of: &'w world::Cohort,
        (line, project): (usize, ProjectIndex),
    ) -> Self {
        let name = Name::World { number, kind: of.kind, project: of.project };
        let (spec, avoid, wish) = (of.key.spec(), of.key.avoid(), of.wish);
        let common = Common { name, spec, avoid, wish };
        Cohort { common, project, want: None, line, members: Members::of(&of.jobs) }
    }
}

/// What jobs of that specification want.
pub(in crate::planner) fn wanted(spec: &JobSpec, machine: &Machine<'_>) -> Wanted {
    match (&spec.per_node.gpus, spec.per_node.gpus.class()) {
        (GpuRequest::None, _) => Wanted::Nothing,
        (_, Some(class)) => Wanted::Class(machine.class(class)),
        (_, None) => Wanted::Any,
    }
}
