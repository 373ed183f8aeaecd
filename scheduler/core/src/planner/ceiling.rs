//! How much nodes of the quota tree that may borrow only so much may hold in all.
//!
//! Counted from what is left of their guarantee while less is in service than was guaranteed: what goes beyond that is
//! borrowed. Where no node has such a term, nothing here costs anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::amount::GpuMilli;
use crate::ids::GpuClass;
use crate::quota::entitle::{Arena, Entitlements};
use crate::world::World;

/// What a node may hold of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ceiling {
    /// What is left of its guarantee.
    pub guarantee: GpuMilli,
    /// What it may borrow.
    pub borrow: GpuMilli,
}

impl Ceiling {
    /// Both together.
    pub fn most(self) -> GpuMilli {
        self.guarantee + self.borrow
    }
}

/// Ceilings by path and class.
#[derive(Debug, Default)]
pub(super) struct Ceilings {
    by_path: BTreeMap<String, BTreeMap<GpuClass, Ceiling>>,
}

impl Ceilings {
    /// By the tree in force and what is in service.
    pub fn of(world: &World) -> Self {
        let mut ceilings = Ceilings::default();
        let tree = &world.quota;
        if tree.nodes.values().all(|node| node.bounds.borrow_max.is_none()) {
            return ceilings;
        }
        let arena = Arc::new(Arena::of(tree));
        for (class, in_service) in world.in_service() {
            let due =
                Entitlements::new(Arc::clone(&arena), tree, &class, in_service, |_| GpuMilli::ZERO);
            for node in arena.indexes() {
                let path = arena.path(node);
                let terms = tree.get(path).and_then(|node| node.bounds.borrow_max.as_ref());
                if let Some(borrow) = terms.and_then(|terms| terms.of(&class)) {
                    let guarantee = due.scaled_guarantee(node);
                    let of = ceilings.by_path.entry(path.to_string()).or_default();
                    of.insert(class.clone(), Ceiling { guarantee, borrow });
                }
            }
        }
        ceilings
    }

    /// Those of a node.
    pub fn at(&self, path: &str) -> BTreeMap<GpuClass, Ceiling> {
        self.by_path.get(path).cloned().unwrap_or_default()
    }
}
