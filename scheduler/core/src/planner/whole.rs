//! What goes for all nodes together, and is the same for every pass until a node comes, goes or is taken out: so that a
//! pass that looks at a few nodes need not look at all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use super::reservations;
use super::score::ClassIndex;
use crate::fabric::{self, ReservationSet};
use crate::ids::{GpuClass, NodeName};
use crate::node::Gpu;
use crate::topology::Level;
use crate::world::{Node, World};

/// What goes for all nodes together.
#[derive(Debug, Default)]
pub(super) struct Whole {
    /// Every class there is, in the order of names.
    pub classes: Vec<GpuClass>,
    /// Spare nodes that stand by.
    pub standby: BTreeSet<NodeName>,
    /// Reservations that take them, of nodes that any takes.
    pub reserved: BTreeMap<NodeName, ReservationSet>,
    /// By level, nodes that take work in each block; those of a level are counted once somebody asks.
    in_use: [OnceLock<BTreeMap<String, u32>>; Level::ALL.len()],
}

impl Whole {
    /// As the world has it.
    pub fn of(world: &World) -> Arc<Self> {
        let standby = fabric::standby(world);
        let reserved = reservations::by_node(world, &standby);
        Arc::new(Whole {
            classes: classes_of(world),
            reserved: reserved.into_iter().map(|(name, set)| (name.clone(), set)).collect(),
            standby: standby.into_iter().cloned().collect(),
            in_use: Default::default(),
        })
    }

    /// Nodes that take work, by the blocks of a level.
    pub fn in_use(&self, world: &World, level: Level) -> &BTreeMap<String, u32> {
        self.in_use[level as usize].get_or_init(|| {
            let mut in_use = BTreeMap::new();
            let takes_work =
                |name: &NodeName, node: &Node| node.takes_work() && !self.standby.contains(name);
            for (_, node) in world.nodes.iter().filter(|(name, node)| takes_work(name, node)) {
                let Some(block) = node.inventory.block(level) else { continue };
                match in_use.get_mut(block) {
                    Some(nodes) => *nodes += 1,
                    None => _ = in_use.insert(block.to_owned(), 1),
                }
            }
            in_use
        })
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
