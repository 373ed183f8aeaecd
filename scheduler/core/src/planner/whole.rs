//! What goes for all nodes together, and is the same for every pass until a node comes, goes or is taken out: so that a
//! pass that looks at a few nodes need not look at all of them.

use std::collections::{BTreeMap, BTreeSet};

use super::reservations;
use super::score::ClassIndex;
use crate::fabric::{self, ReservationSet};
use crate::ids::{GpuClass, NodeName};
use crate::node::Gpu;
use crate::world::World;

/// What goes for all nodes together.
#[derive(Debug, Clone, Default)]
pub(super) struct Whole {
    /// Every class there is, in the order of names.
    pub classes: Vec<GpuClass>,
    /// Spare nodes that stand by.
    pub standby: BTreeSet<NodeName>,
    /// Reservations that take them, of nodes that any takes.
    pub reserved: BTreeMap<NodeName, ReservationSet>,
}

impl Whole {
    /// As the world has it.
    pub fn of(world: &World) -> Self {
        let standby = fabric::standby(world);
        let reserved = reservations::by_node(world, &standby);
        Whole {
            classes: classes_of(world),
            reserved: reserved.into_iter().map(|(name, set)| (name.clone(), set)).collect(),
            standby: standby.into_iter().cloned().collect(),
        }
    }

    /// Numbers of the classes.
    pub fn class_indexes(&self) -> BTreeMap<&GpuClass, ClassIndex> {
        self.classes.iter().zip((0..u16::MAX).map(ClassIndex)).collect()
    }
}

/// The number of a class among all there are, which are in the order of names.
pub(super) fn class_of(classes: &[GpuClass], name: &GpuClass) -> Option<ClassIndex> {
    let found = classes.binary_search(name).ok()?;
    u16::try_from(found).ok().map(ClassIndex)
}

/// Every class of the world's nodes.
fn classes_of(world: &World) -> Vec<GpuClass> {
    let mut names = BTreeSet::new();
    for node in world.nodes.values() {
        let mut last: Option<&Gpu> = None;
        for gpu in &node.inventory.gpus {
            // Neighbours are nearly always of one class, and comparing is cheaper than looking up.
            if last.is_none_or(|last| last.class != gpu.class) {
                names.insert(&gpu.class);
            }
            last = Some(gpu);
        }
    }
    names.into_iter().cloned().collect()
}
