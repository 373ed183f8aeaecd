//! Where projects stand in the quota tree, found once for as long as the tree stays.

use std::sync::Arc;

use crate::ids::ProjectPath;
use crate::quota::entitle::{Arena, NodeIndex};
use crate::world::World;

/// The tree, and where the projects of the world's cohorts stand in it.
#[derive(Debug)]
pub(super) struct Places {
    arena: Arc<Arena>,
    /// By the numbers of projects in the world's cohorts as they were then.
    of_project: Vec<Option<NodeIndex>>,
}

impl Places {
    /// As the world has them.
    pub fn of(world: &World) -> Arc<Self> {
        let arena = Arc::new(Arena::of(&world.quota));
        let [_, _, projects] = world.cohorts.sizes();
        let numbers = 0..u32::try_from(projects).unwrap_or(u32::MAX);
        let find = |number| arena.find(world.cohorts.project(number)?.as_str());
        let of_project = numbers.map(find).collect();
        Arc::new(Places { arena, of_project })
    }

    /// The shape of the tree.
    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// The place of a project, which may have another number by now.
    pub fn find(&self, number: u32, path: &ProjectPath) -> Option<NodeIndex> {
        let known = self.of_project.get(number as usize).copied().flatten();
        let same = known.filter(|node| self.arena.path(*node) == path);
        same.or_else(|| self.arena.find(path.as_str()))
    }
}
