//! Limits of a project and of every node of the quota tree above it, counting what this pass has given away.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::ceiling::{Ceiling, Ceilings};
use super::terms::{borrow_blocker, gang_blocker, jobs_blocker, walltime_blocker};
use crate::amount::GpuMilli;
use crate::ids::{GpuClass, ProjectPath};
use crate::plan::{Blocker, BlockerKind, Unit};
use crate::quota::QuotaNode;
use crate::world::World;

/// What a blocker calls the limit over all classes together.
pub(crate) const ANY_CLASS: &str = "any";

/// A project of the pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProjectIndex(pub u32);

/// Every project that was looked at, with the levels that bind it.
#[derive(Debug)]
pub(super) struct Limits<'w> {
    world: &'w World,
    ceilings: Ceilings,
    projects: Vec<Project>,
    known: BTreeMap<&'w ProjectPath, ProjectIndex>,
    levels: Vec<Level<'w>>,
    level_of: BTreeMap<&'w str, usize>,
}

/// Levels of a project, its own first; `None` if it is not in the tree.
#[derive(Debug)]
struct Project {
    path: ProjectPath,
    levels: Option<Vec<usize>>,
}

/// A node of the quota tree with what is held below it.
#[derive(Debug)]
struct Level<'w> {
    path: &'w str,
    node: &'w QuotaNode,
    held: Held,
    /// What scavengers hold, which counts for scavengers only.
    scavenged: Held,
    /// Jobs that hold a place.
    jobs: u64,
    /// Where it may borrow only so much.
    ceilings: BTreeMap<GpuClass, Ceiling>,
    /// Whether nothing here binds any start.
    is_open: bool,
    /// Whether it has kept anything from anybody. Nothing is decided by that within a pass.
    has_refused: Cell<bool>,
}

/// GPUs by class, and all together.
#[derive(Debug, Default)]
struct Held {
    by_class: BTreeMap<GpuClass, GpuMilli>,
    any: GpuMilli,
}

impl Held {
    fn of(by_class: BTreeMap<GpuClass, GpuMilli>) -> Self {
        let any = by_class.values().copied().sum();
        Held { by_class, any }
    }

    fn class(&self, class: &GpuClass) -> GpuMilli {
        self.by_class.get(class).copied().unwrap_or_default()
    }

    fn take(&mut self, class: &GpuClass, gpus: GpuMilli) {
        *self.by_class.entry(class.clone()).or_default() += gpus;
        self.any += gpus;
    }
}

/// GPUs that somebody asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Of which class; without one only the project and the number of its jobs count.
    pub class: Option<&'a GpuClass>,
    /// How many.
    pub gpus: GpuMilli,
    /// Whether it is a scavenger.
    pub scavenges: bool,
}

/// Something that binds a level.
#[derive(Debug, Clone, Copy)]
struct Binding {
    bound: Bound,
    limit: GpuMilli,
    /// What counts against it.
    held: GpuMilli,
}

/// What binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// The limit of the class.
    Class,
    /// The limit over all classes.
    Any,
    /// How much it may borrow.
    Borrow(Ceiling),
    /// How large a job may be.
    Gang,
}

impl<'w> Level<'w> {
    fn of(
        world: &'w World,
        path: &'w str,
        node: &'w QuotaNode,
        ceilings: BTreeMap<GpuClass, Ceiling>,
    ) -> Self {
        let usage = world.usage.get(path).cloned().unwrap_or_default();
        let (held, scavenged) = (Held::of(usage.held), Held::of(usage.scavenged));
        let QuotaNode { limits, any_limit, bounds, .. } = node;
        let bound = any_limit.is_some() || bounds.max_gang.is_some() || bounds.max_jobs.is_some();
        let is_open = !bound && limits.is_empty() && ceilings.is_empty();
        Level {
            path,
            node,
            held,
            scavenged,
            jobs: usage.active,
            ceilings,
            is_open,
            has_refused: Cell::new(false),
        }
    }

    /// Everything that binds the class, with what counts against it. A scavenger borrows from nobody.
    fn binding<'a>(
        &'a self,
        class: &'a GpuClass,
        scavenges: bool,
    ) -> impl Iterator<Item = Binding> + 'a {
        let also = scavenges.then_some(&self.scavenged);
        let also = |of: &dyn Fn(&Held) -> GpuMilli| also.map(of).unwrap_or_default();
        let held = self.held.class(class) + also(&|held| held.class(class));
        let own = self.node.limits.get(class);
        let own = own.map(|limit| Binding { bound: Bound::Class, limit: *limit, held });
        let all = self.held.any + also(&|held| held.any);
        let any = self.node.any_limit;
        let any = any.map(|limit| Binding { bound: Bound::Any, limit, held: all });
        let borrow = self.ceilings.get(class).filter(|_| !scavenges).map(|ceiling| Binding {
            bound: Bound::Borrow(*ceiling),
            limit: ceiling.most(),
            held,
        });
        let gang = self.node.bounds.max_gang.as_ref().and_then(|max| max.of(class));
        let gang = gang.map(|limit| Binding { bound: Bound::Gang, limit, held: GpuMilli::ZERO });
        own.into_iter().chain(any).chain(borrow).chain(gang)
    }

    fn allows(&self, asked: Asked<'_>) -> bool {
        let Some(class) = asked.class else { return true };
        let mut binding = self.binding(class, asked.scavenges);
        binding.all(|binding| binding.held + asked.gpus <= binding.limit)
    }

    fn allows_job(&self) -> bool {
        self.node.bounds.max_jobs.is_none_or(|max| self.jobs < max)
    }
}

impl<'w> Limits<'w> {
    /// Limits of the tree in force, with what the world holds.
    pub fn of(world: &'w World) -> Self {
        Limits {
            world,
            ceilings: Ceilings::of(world),
            projects: Vec::new(),
            known: BTreeMap::new(),
            levels: Vec::new(),
            level_of: BTreeMap::new(),
        }
    }

    /// The project of that path.
    pub fn project(&mut self, path: &'w ProjectPath) -> ProjectIndex {
        if let Some(index) = self.known.get(path) {
            return *index;
        }
        let levels = path.self_and_ancestors().map(|above| self.level(above)).collect();
        let index = ProjectIndex(u32::try_from(self.projects.len()).unwrap_or(u32::MAX));
        self.projects.push(Project { path: path.clone(), levels });
        self.known.insert(path, index);
        index
    }

    /// The path of a project.
    pub fn path(&self, project: ProjectIndex) -> &ProjectPath {
        &self.projects[project.0 as usize].path
    }

    /// The level of that path, `None` if the tree has no such node.
    fn level(&mut self, path: &'w str) -> Option<usize> {
        if let Some(level) = self.level_of.get(path) {
            return Some(*level);
        }
        let node = self.world.quota.nodes.get(path)?;
        self.levels.push(Level::of(self.world, path, node, self.ceilings.at(path)));
        self.level_of.insert(path, self.levels.len() - 1);
        Some(self.levels.len() - 1)
    }

    /// Whether the project may have another job that asks for so much.
    pub fn allow(&self, project: ProjectIndex, asked: Asked<'_>) -> bool {
        let Some(levels) = &self.projects[project.0 as usize].levels else {
            return false;
        };
        levels.iter().map(|level| &self.levels[*level]).all(|level| {
            let allows = level.is_open || (level.allows_job() && level.allows(asked));
            level.has_refused.set(level.has_refused.get() || !allows);
            allows
        })
    }

    /// Nodes of the tree that kept something from somebody.
    pub fn refusing(&self) -> impl Iterator<Item = &'w str> + '_ {
        self.levels.iter().filter(|level| level.has_refused.get()).map(|level| level.path)
    }

    /// Whether a job that was counted may have so much more, which makes it a job of `whole`.
    pub fn allow_more(&self, project: ProjectIndex, asked: Asked<'_>, whole: GpuMilli) -> bool {
        let Some(class) = asked.class else { return true };
        let fits = |binding: Binding| match binding.bound {
            Bound::Gang => whole <= binding.limit,
            Bound::Class | Bound::Any | Bound::Borrow(_) => {
                binding.held + asked.gpus <= binding.limit
            }
        };
        self.levels_of(project).all(|level| level.binding(class, asked.scavenges).all(fits))
    }

    /// Whether a job of the project may take so long, seconds.
    pub fn allow_walltime(&self, project: ProjectIndex, seconds: i64) -> bool {
        let mut levels = self.levels_of(project);
        levels.all(|level| level.node.bounds.max_walltime_s.is_none_or(|most| seconds <= most))
    }

    fn levels_of(&self, project: ProjectIndex) -> impl Iterator<Item = &Level<'w>> {
        let levels = self.projects[project.0 as usize].levels.iter().flatten();
        levels.map(|level| &self.levels[*level])
    }

    /// Whether the project may hold so much more of the class once what leaves each path has gone: of the class, and
    /// of all together. Nobody is stopped so that there are fewer jobs: what leaves still counts as a job.
    pub fn allow_after(
        &self,
        project: ProjectIndex,
        class: &GpuClass,
        gpus: GpuMilli,
        of_class: &dyn Fn(&str) -> GpuMilli,
        of_any: &dyn Fn(&str) -> GpuMilli,
    ) -> bool {
        let Some(levels) = &self.projects[project.0 as usize].levels else {
            return false;
        };
        levels.iter().map(|level| &self.levels[*level]).all(|level| {
            let fits = |binding: Binding| {
                let leaves = match binding.bound {
                    Bound::Any => of_any(level.path),
                    Bound::Class | Bound::Borrow(_) => of_class(level.path),
                    Bound::Gang => GpuMilli::ZERO,
                };
                binding.held.saturating_sub(leaves) + gpus <= binding.limit
            };
            level.allows_job() && level.binding(class, false).all(fits)
        })
    }

    /// Counts a job that the pass gave a place to.
    pub fn take_job(&mut self, project: ProjectIndex) {
        for level in self.projects[project.0 as usize].levels.iter().flatten() {
            self.levels[*level].jobs += 1;
        }
    }

    /// Counts what the pass gave to the project.
    pub fn take(&mut self, project: ProjectIndex, asked: Asked<'_>) {
        let Some(class) = asked.class else { return };
        for level in self.projects[project.0 as usize].levels.iter().flatten() {
            let level = &mut self.levels[*level];
            let held = if asked.scavenges { &mut level.scavenged } else { &mut level.held };
            held.take(class, asked.gpus);
        }
    }

    /// Every limit that keeps so much more of the class from the project: its own first, then upwards.
    pub fn blockers(
        &self,
        project: ProjectIndex,
        Asked { class, gpus, scavenges }: Asked<'_>,
    ) -> Vec<Blocker> {
        let project = &self.projects[project.0 as usize];
        let Some(levels) = &project.levels else {
            return vec![not_in_tree(&project.path)];
        };
        let mut blockers = Vec::new();
        for level in levels.iter().map(|level| &self.levels[*level]) {
            blockers.extend(level.job_blocker());
            let own = level.path == project.path.as_str();
            if let Some(class) = class {
                let passed = level.binding(class, scavenges);
                let passed = passed.filter(|binding| binding.held + gpus > binding.limit);
                blockers.extend(passed.map(|binding| level.blocker(own, class, gpus, binding)));
            }
        }
        blockers
    }

    /// Every node that forbids the project jobs of so many seconds: its own first, then upwards.
    pub fn walltime_blockers(&self, project: ProjectIndex, seconds: i64) -> Vec<Blocker> {
        let binding = self.levels_of(project).filter_map(|level| {
            let most = level.node.bounds.max_walltime_s.filter(|most| seconds > *most)?;
            Some(walltime_blocker(level.path, seconds, most))
        });
        binding.collect()
    }
}

impl Level<'_> {
    fn job_blocker(&self) -> Option<Blocker> {
        let most = self.node.bounds.max_jobs.filter(|_| !self.allows_job())?;
        Some(jobs_blocker(self.path, self.jobs, most))
    }

    fn blocker(&self, own: bool, class: &GpuClass, gpus: GpuMilli, binding: Binding) -> Blocker {
        let Binding { bound, limit, held } = binding;
        let name = match bound {
            Bound::Class => class.as_str(),
            Bound::Any => ANY_CLASS,
            Bound::Borrow(ceiling) => {
                return borrow_blocker(self.path, class, gpus, held, ceiling);
            }
            Bound::Gang => return gang_blocker(self.path, class, gpus, limit),
        };
        Blocker {
            kind: if own { BlockerKind::ProjectLimit } else { BlockerKind::ParentLimit },
            subject: self.path.to_owned(),
            needed: gpus.0,
            available: limit.saturating_sub(held).0,
            limit: limit.0,
            unit: Unit::GpuMilli,
            note: note(name, limit, held),
        }
    }
}

/// Names the class; says what is held where the limit was lowered below it, since the numbers then do not tell.
fn note(class: &str, limit: GpuMilli, held: GpuMilli) -> String {
    if held > limit { format!("{class} holding {held}") } else { class.to_owned() }
}

fn not_in_tree(project: &ProjectPath) -> Blocker {
    Blocker {
        kind: BlockerKind::ProjectLimit,
        subject: project.to_string(),
        needed: 0,
        available: 0,
        limit: 0,
        unit: Unit::None,
        note: "not in the quota tree".to_owned(),
    }
}
