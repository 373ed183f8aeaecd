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
use crate::planner::places::Places;
use crate::quota::entitle::NodeIndex;
use crate::spec::{GpuRequest, JobSpec};
use crate::world::{self, CohortNumber, Cohorts, Wants};

/// Jobs that wait, by project and by what they want.
#[derive(Debug)]
pub(in crate::planner) struct Lines<'w> {
    world: &'w Cohorts,
    places: Arc<Places>,
    lines: Vec<Line<'w>>,
    /// By the numbers of projects in the world's cohorts, and by what is wanted.
    of_project: Vec<u32>,
    /// Classes of the machine.
    classes: usize,
    /// What each kind of request asks for, by its number there.
    of_kind: Vec<Option<Wanted>>,
    /// Cohorts as the world has them. There are a hundred thousand, so what a turn needs is only made for those that get
    /// one.
    plain: Vec<Plain<'w>>,
    /// Cohorts that have more members than the world says, or are none of its.
    cohorts: Vec<Cohort<'w>>,
    unopened: Unopened,
}

/// In the limits, where a line has not been entered yet.
const NOWHERE: ProjectIndex = ProjectIndex(u32::MAX);

/// Up to so many cohorts of a kind it is faster to add them one by one than to look into every line for them.
const FEW: usize = 64;

/// No line yet.
const NO_LINE: u32 = u32::MAX;

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
    /// No lines yet, of projects in that tree and cohorts of that world, for a machine with so many classes. There is
    /// place for `plain` cohorts as the world has them.
    pub fn new(places: Arc<Places>, cohorts: &'w Cohorts, classes: usize, plain: usize) -> Self {
        let [_, kinds, projects] = cohorts.sizes();
        Lines {
            world: cohorts,
            places,
            lines: Vec::new(),
            of_project: vec![NO_LINE; projects * Wanted::kinds(classes)],
            classes,
            of_kind: vec![None; kinds],
            plain: Vec::with_capacity(plain),
            cohorts: Vec::new(),
            unopened: Unopened::default(),
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
                self.unopened.joined.insert(number);
                let path = &common.spec.project;
                self.line_of((kind, project), (common.spec, path), machine)
            }
            Name::Apart(_) => {
                let (wanted, path) = (wanted(common.spec, machine), &common.spec.project);
                let alike = |line: &Line<'_>| line.wanted == wanted && line.path == path;
                let known = self.lines.iter().position(alike);
                let node = self.places.arena().find(path.as_str());
                known.unwrap_or_else(|| self.begin_line(path, wanted, node))
            }
        };
        let project = self.enter_limits(line, limits);
        // Its moment has come by the clock, whatever was freed.
        self.lines[line].roams = true;
        self.cohorts.push(Cohort { common, project, want: None, line, members });
    }

    /// Adds the cohorts of that kind whose jobs may take no longer than so many seconds. If they are many, which they are is
    /// looked up once the turn of their lines comes.
    pub fn add_kind(&mut self, kind: u32, limit_s: i64, spec: &'w JobSpec, machine: &Machine<'_>) {
        let mut within = self.world.within(kind, limit_s);
        let few: Vec<_> = within.by_ref().take(FEW).collect();
        if within.next().is_some() {
            return self.add_whole_kind(kind, limit_s, spec, machine);
        }
        for (number, of) in few {
            self.add_number(number, of, machine);
        }
    }

    fn add_whole_kind(
        &mut self,
        kind: u32,
        limit_s: i64,
        spec: &'w JobSpec,
        machine: &Machine<'_>,
    ) {
        let wanted = self.wanted_by((kind, spec), machine);
        let is_first = self.unopened.kinds.iter().all(|other| other.wanted != wanted);
        self.unopened.kinds.push(OpenKind { wanted, kind, limit_s });
        let world = self.world;
        for project in world.projects_wanting(&Wants::of(&spec.per_node.gpus)).filter(|_| is_first)
        {
            let Some(path) = world.project(project) else { continue };
            let line = self.line_of((kind, project), (spec, path), machine);
            self.lines[line].is_unopened = true;
        }
    }

    /// Adds a cohort that may find room where those that waited before did not.
    pub fn add_roaming(
        &mut self,
        number: CohortNumber,
        of: &'w world::Cohort,
        machine: &Machine<'_>,
    ) {
        let line = self.add_number(number, of, machine);
        self.lines[line].roams = true;
    }

    /// Adds a cohort that is looked at once the turn of its line comes; returns the line.
    fn add_number(
        &mut self,
        number: CohortNumber,
        of: &'w world::Cohort,
        machine: &Machine<'_>,
    ) -> usize {
        let spec = of.key.spec();
        let line = self.line_of((of.kind, of.project), (spec, &spec.project), machine);
        self.lines[line].is_unopened = true;
        self.unopened.numbers.insert((line, number));
        line
    }

    /// The line of jobs of that kind and project, which the world's cohorts have numbers for.
    fn line_of(
        &mut self,
        (kind, project): (u32, u32),
        (spec, path): (&'w JobSpec, &'w ProjectPath),
        machine: &Machine<'_>,
    ) -> usize {
        let wanted = self.wanted_by((kind, spec), machine);
        let place = project as usize * Wanted::kinds(self.classes) + wanted.number();
        if self.of_project[place] == NO_LINE {
            self.of_project[place] = u32::try_from(self.lines.len()).unwrap_or(NO_LINE);
            let node = self.places.find(project, path);
            let line = self.begin_line(path, wanted, node);
            self.lines[line].number = Some(project);
        }
        self.of_project[place] as usize
    }

    fn wanted_by(&mut self, (kind, spec): (u32, &JobSpec), machine: &Machine<'_>) -> Wanted {
        *self.of_kind[kind as usize].get_or_insert_with(|| wanted(spec, machine))
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
    pub(super) fn into_parts(mut self) -> Parts<'w> {
        for Plain { number, of, line } in std::mem::take(&mut self.plain) {
            let project = self.lines[line as usize].project.unwrap_or(NOWHERE);
            self.cohorts.push(Cohort::open(number, of, (line as usize, project)));
        }
        let Lines { world, lines, cohorts, unopened, .. } = self;
        Parts { world, lines, cohorts, unopened }
    }
}

/// What turns are made from.
pub(super) struct Parts<'w> {
    pub world: &'w Cohorts,
    pub lines: Vec<Line<'w>>,
    /// All cohorts that are to have their turns, but for those below.
    pub cohorts: Vec<Cohort<'w>>,
    /// Cohorts that nobody has looked at.
    pub unopened: Unopened,
}

/// Cohorts that are looked at once the turn of their lines comes.
#[derive(Debug, Default)]
pub(super) struct Unopened {
    kinds: Vec<OpenKind>,
    /// Others, each with its line.
    numbers: BTreeSet<(usize, CohortNumber)>,
    /// Cohorts that are in line already.
    joined: BTreeSet<CohortNumber>,
}

/// All cohorts of a kind up to a time limit.
#[derive(Debug, Clone, Copy)]
struct OpenKind {
    wanted: Wanted,
    kind: u32,
    limit_s: i64,
}

impl Unopened {
    /// Those of a line.
    pub fn of_line(&self, at: usize, line: &Line<'_>, world: &Cohorts) -> BTreeSet<CohortNumber> {
        let numbers = (at, CohortNumber(0))..=(at, CohortNumber(u32::MAX));
        let numbers = self.numbers.range(numbers).map(|(_, number)| *number);
        let kinds = self.kinds.iter().filter(|kind| kind.wanted == line.wanted);
        let kinds = kinds.flat_map(|of| {
            let project = line.number.into_iter();
            project.flat_map(|project| world.of_project_within((of.kind, project), of.limit_s))
        });
        numbers.chain(kinds).filter(|number| !self.joined.contains(number)).collect()
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
