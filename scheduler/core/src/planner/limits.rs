//! Limits of a project and of every node of the quota tree above it, counting what this pass has given away.

use std::collections::BTreeMap;

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
    held: BTreeMap<GpuClass, GpuMilli>,
    held_any: GpuMilli,
}

impl<'w> Level<'w> {
    fn of(world: &'w World, path: &'w str, node: &'w QuotaNode) -> Self {
        let held = world.usage.get(path).map(|usage| usage.held.clone()).unwrap_or_default();
        let held_any = held.values().copied().sum();
        Level { path, node, held, held_any }
    }

    /// Each limit that binds the class, with what counts against it and what it is called.
    fn binding<'a>(
        &'a self,
        class: &'a GpuClass,
    ) -> impl Iterator<Item = (GpuMilli, GpuMilli, &'a str)> {
        let own = self.node.limits.get(class).map(|limit| {
            let held = self.held.get(class).copied().unwrap_or_default();
            (*limit, held, class.as_str())
        });
        let any = self.node.any_limit.map(|limit| (limit, self.held_any, ANY_CLASS));
        own.into_iter().chain(any)
    }

    fn allows(&self, class: &GpuClass, gpus: GpuMilli) -> bool {
        self.binding(class).all(|(limit, held, _)| held + gpus <= limit)
    }
}

impl<'w> Limits<'w> {
    /// Limits of the tree in force, with what the world holds.
    pub fn of(world: &'w World) -> Self {
        Limits {
            world,
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
        self.levels.push(Level::of(self.world, path, node));
        self.level_of.insert(path, self.levels.len() - 1);
        Some(self.levels.len() - 1)
    }

    /// Whether the project may hold so much more of the class; without a class only whether it exists.
    pub fn allow(&self, project: ProjectIndex, class: Option<&GpuClass>, gpus: GpuMilli) -> bool {
        let Some(levels) = &self.projects[project.0 as usize].levels else {
            return false;
        };
        class.is_none_or(|class| levels.iter().all(|level| self.levels[*level].allows(class, gpus)))
    }

    /// Whether the project may hold so much more of the class once what leaves each path has gone: of the class, and
    /// of all together.
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
            level.binding(class).all(|(limit, held, name)| {
                let leaves = if name == ANY_CLASS { of_any } else { of_class };
                held.saturating_sub(leaves(level.path)) + gpus <= limit
            })
        })
    }

    /// Counts what the pass gave to the project.
    pub fn take(&mut self, project: ProjectIndex, class: &GpuClass, gpus: GpuMilli) {
        for level in self.projects[project.0 as usize].levels.iter().flatten() {
            let level = &mut self.levels[*level];
            *level.held.entry(class.clone()).or_default() += gpus;
            level.held_any += gpus;
        }
    }

    /// Every limit that keeps so much more of the class from the project: its own first, then upwards.
    pub fn blockers(
        &self,
        project: ProjectIndex,
        class: Option<&GpuClass>,
        gpus: GpuMilli,
    ) -> Vec<Blocker> {
        let project = &self.projects[project.0 as usize];
        let Some(levels) = &project.levels else {
            return vec![not_in_tree(&project.path)];
        };
        let Some(class) = class else {
            return Vec::new();
        };
        let mut blockers = Vec::new();
        for level in levels.iter().map(|level| &self.levels[*level]) {
            let kind = if level.path == project.path.as_str() {
                BlockerKind::ProjectLimit
            } else {
                BlockerKind::ParentLimit
            };
            let passed = level.binding(class).filter(|(limit, held, _)| *held + gpus > *limit);
            blockers.extend(passed.map(|(limit, held, name)| Blocker {
                kind,
                subject: level.path.to_owned(),
                needed: gpus.0,
                available: limit.saturating_sub(held).0,
                limit: limit.0,
                unit: Unit::GpuMilli,
                note: note(name, limit, held),
            }));
        }
        blockers
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
