//! What the machine has, as far as a request is checked against it; made once for each change of the nodes.

use std::collections::{BTreeMap, BTreeSet};

use crate::amount::{CpuMilli, MemoryMib};
use crate::ids::{GpuClass, NodeName};
use crate::mig::MigKind;
use crate::node::{Gpu, Inventory};
use crate::power::caps::{CapRange, Caps};
use crate::topology::Level;
use crate::world::World;

/// Every node that ever registered, whether it takes work now or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleet {
    /// How many nodes have what of each class.
    classes: BTreeMap<GpuClass, Sizes>,
    /// How many nodes have what of the instances of each kind, by the class of their GPUs.
    instances: BTreeMap<MigKind, BTreeMap<GpuClass, Sizes>>,
    /// How many nodes have what beside GPUs.
    all: Sizes,
    /// Names.
    nodes: BTreeSet<NodeName>,
    /// Labels with the values they have.
    labels: BTreeMap<String, BTreeSet<String>>,
    /// How many nodes each block has, by level.
    blocks: BTreeMap<Level, BTreeMap<String, u32>>,
    /// How many nodes can run jobs with an image.
    images: u32,
    /// What GPUs of each class take, on nodes that can cap them.
    caps: BTreeMap<GpuClass, CapRange>,
}

/// What one node has of one class, or of anything but GPUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeSize {
    /// GPUs of the class that can be had whole; or instances of a kind.
    pub gpus: u32,
    /// CPUs.
    pub cpu_milli: CpuMilli,
    /// Memory.
    pub memory_mib: MemoryMib,
    /// GPUs of the class, those included that are cut.
    pub cards: u32,
}

impl NodeSize {
    /// Whether a node of this size has at least `other`, whatever its GPUs are cut into.
    #[must_use]
    pub fn covers(&self, other: &NodeSize) -> bool {
        self.gpus >= other.gpus
            && self.cpu_milli >= other.cpu_milli
            && self.memory_mib >= other.memory_mib
    }
}

/// How many nodes there are of each size; a machine room has few sizes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sizes(BTreeMap<NodeSize, u32>);

impl Sizes {
    fn add(&mut self, size: NodeSize) {
        *self.0.entry(size).or_default() += 1;
    }

    /// Nodes that have at least `size`, empty.
    #[must_use]
    pub fn covering(&self, size: &NodeSize) -> u32 {
        let counts = self.0.iter().filter(|(own, _)| own.covers(size)).map(|(_, count)| *count);
        counts.fold(0, u32::saturating_add)
    }

    /// The most of each that any node has; not always the same node.
    #[must_use]
    pub fn largest(&self) -> NodeSize {
        self.0.keys().fold(NodeSize::default(), |most, size| NodeSize {
            gpus: most.gpus.max(size.gpus),
            cpu_milli: most.cpu_milli.max(size.cpu_milli),
            memory_mib: most.memory_mib.max(size.memory_mib),
            cards: most.cards.max(size.cards),
        })
    }

    /// Sizes with how many nodes have them, the largest last.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeSize, u32)> {
        self.0.iter().map(|(size, count)| (size, *count))
    }

    /// Whether there is no node.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Fleet {
    /// Summarises the nodes of `world`.
    #[must_use]
    pub fn of(world: &World) -> Self {
        let mut fleet = Fleet::default();
        for (name, node) in &world.nodes {
            fleet.nodes.insert(name.clone());
            fleet.add(&node.registered);
        }
        fleet
    }

    fn add(&mut self, inventory: &Inventory) {
        let size = |gpus, cards| NodeSize {
            gpus,
            cpu_milli: inventory.cpu_milli,
            memory_mib: inventory.memory_mib,
            cards,
        };
        self.all.add(size(0, 0));
        self.images = self.images.saturating_add(u32::from(inventory.runs_images()));
        for gpu in &inventory.gpus {
            if let Some(range) = gpu.cap_range.filter(|_| inventory.caps == Some(Caps::Able)) {
                let of_class = self.caps.entry(gpu.class.clone()).or_insert(range);
                *of_class = of_class.with(range);
            }
        }
        for (class, counts) in counts_of(inventory) {
            let cards = counts.cards;
            self.classes.entry(class.clone()).or_default().add(size(counts.whole, cards));
            for (kind, instances) in counts.instances {
                let classes = self.instances.entry(kind).or_default();
                classes.entry(class.clone()).or_default().add(size(instances, cards));
            }
        }
        for (level, name) in
            Level::ALL.iter().filter_map(|level| Some((*level, inventory.block(*level)?)))
        {
            let blocks = self.blocks.entry(level).or_default();
            *blocks.entry(name.to_owned()).or_default() += 1;
        }
        for (key, value) in &inventory.labels {
            self.labels.entry(key.clone()).or_default().insert(value.clone());
        }
    }

    /// Every class there is with its nodes.
    pub fn classes(&self) -> impl Iterator<Item = (&GpuClass, &Sizes)> {
        self.classes.iter()
    }

    /// Nodes of the class; `None` if there is none.
    #[must_use]
    pub fn class(&self, class: &GpuClass) -> Option<&Sizes> {
        self.classes.get(class)
    }

    /// Every kind of instance there is.
    pub fn kinds(&self) -> impl Iterator<Item = MigKind> {
        self.instances.keys().copied()
    }

    /// Nodes that have instances of the kind, by the class of their GPUs.
    pub fn instances(&self, kind: MigKind) -> impl Iterator<Item = (&GpuClass, &Sizes)> {
        self.instances.get(&kind).into_iter().flatten()
    }

    /// All nodes, without their GPUs.
    #[must_use]
    pub fn all(&self) -> &Sizes {
        &self.all
    }

    /// Names of all nodes.
    #[must_use]
    pub fn nodes(&self) -> &BTreeSet<NodeName> {
        &self.nodes
    }

    /// Every block of the level with how many nodes it has.
    pub fn blocks(&self, level: Level) -> impl Iterator<Item = (&str, u32)> {
        let blocks = self.blocks.get(&level).into_iter().flatten();
        blocks.map(|(name, nodes)| (name.as_str(), *nodes))
    }

    /// How many nodes can run jobs with an image.
    #[must_use]
    pub fn images(&self) -> u32 {
        self.images
    }

    /// What GPUs of each class take, on nodes that can cap them.
    pub fn caps(&self) -> impl Iterator<Item = (&GpuClass, CapRange)> {
        self.caps.iter().map(|(class, range)| (class, *range))
    }

    /// Every label with the values it has somewhere.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<String, BTreeSet<String>> {
        &self.labels
    }
}

/// What a node has of one class.
#[derive(Debug, Default)]
struct Counts {
    whole: u32,
    cards: u32,
    instances: BTreeMap<MigKind, u32>,
}

fn counts_of(inventory: &Inventory) -> BTreeMap<&GpuClass, Counts> {
    let mut classes: BTreeMap<&GpuClass, Counts> = BTreeMap::new();
    for gpu in &inventory.gpus {
        let counts = classes.entry(&gpu.class).or_default();
        counts.cards += 1;
        counts.whole += u32::from(gpu.mig.is_off());
        let given_out = if gpu.mig.is_off() { Vec::new() } else { gpu.given_out() };
        for kind in given_out.iter().filter_map(Gpu::kind) {
            *counts.instances.entry(kind).or_default() += 1;
        }
    }
    classes
}
