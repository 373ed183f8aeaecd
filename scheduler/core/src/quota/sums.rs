//! What a book sums to at one moment, by class and by programme: the figures that a reviewer compares with
//! the decision.

use std::collections::{BTreeMap, BTreeSet};

use super::book::{Capacity, QuotaBook};
use crate::amount::{GpuMilli, UnixMicros};
use crate::ids::{GpuClass, ProjectPath};

/// Sums at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    /// Which moment.
    pub at: UnixMicros,
    /// Nodes that have none below them.
    pub leaves: usize,
    /// By class.
    pub classes: BTreeMap<GpuClass, ClassSums>,
}

/// Sums of one class.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClassSums {
    /// Guaranteed to the roots of the tree.
    pub guaranteed: GpuMilli,
    /// What there is by the lots.
    pub capacity: Capacity,
    /// Guaranteed to each node right below a root; those with nothing are left out.
    pub programmes: BTreeMap<ProjectPath, GpuMilli>,
}

impl Sums {
    /// Guaranteed over all classes.
    #[must_use]
    pub fn guaranteed(&self) -> GpuMilli {
        self.classes.values().map(|class| class.guaranteed).sum()
    }

    /// Guarantees that wait for GPUs which are due and not accepted, over all classes; until then they are scaled down.
    #[must_use]
    pub fn waiting(&self) -> GpuMilli {
        let short = |class: &ClassSums| class.guaranteed.saturating_sub(class.capacity.accepted);
        self.classes.values().map(short).sum()
    }

    /// Everything that is there over all classes.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        let mut sum = Capacity::default();
        for class in self.classes.values() {
            sum.accepted += class.capacity.accepted;
            sum.promised += class.capacity.promised;
            sum.spare += class.capacity.spare;
        }
        sum
    }
}

impl QuotaBook {
    /// The sums at `at`.
    #[must_use]
    pub fn sums(&self, at: UnixMicros) -> Sums {
        let tree = self.at(at);
        let parents: BTreeSet<&str> = tree.nodes.keys().filter_map(ProjectPath::parent).collect();
        let leaves = tree.nodes.keys().filter(|path| !parents.contains(path.as_str())).count();
        let mut classes: BTreeMap<GpuClass, ClassSums> = BTreeMap::new();
        for (class, capacity) in self.capacity(at) {
            classes.entry(class).or_default().capacity = capacity;
        }
        for (path, node) in &tree.nodes {
            let depth = path.self_and_ancestors().count();
            for (class, guarantee) in &node.guarantees {
                let sums = classes.entry(class.clone()).or_default();
                match depth {
                    1 => sums.guaranteed += *guarantee,
                    2 => {
                        sums.programmes.insert(path.clone(), *guarantee);
                    }
                    _ => {}
                }
            }
        }
        Sums { at, leaves, classes }
    }
}
