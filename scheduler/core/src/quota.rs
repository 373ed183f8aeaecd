//! The quota tree: who may hold how many GPUs at once.
//!
//! A node's limit covers everything below it. No limit at a node means only those above it bind; a limit of zero
//! means zero.

mod diff;
mod parse;

use std::collections::BTreeMap;
use std::ops::Bound;

use serde::{Deserialize, Serialize};

use crate::amount::GpuMilli;
use crate::ids::{GpuClass, ProjectPath};

pub use diff::{QuotaChange, QuotaChangeKind, diff};
pub use parse::{QuotaFault, parse};

/// The whole tree at one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaTree {
    /// Grows by one with every change.
    pub revision: u64,
    /// By path; every parent is there.
    pub nodes: BTreeMap<ProjectPath, QuotaNode>,
}

/// A node of the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaNode {
    /// For people.
    pub title: String,
    /// Most GPUs at once, by class; a class that is absent is bound only by the nodes above.
    pub limits: BTreeMap<GpuClass, GpuMilli>,
    /// Most GPUs at once over all classes together; `None`: bound only by the nodes above.
    pub any_limit: Option<GpuMilli>,
}

impl QuotaTree {
    /// The node of that path.
    #[must_use]
    pub fn get(&self, path: &ProjectPath) -> Option<&QuotaNode> {
        self.nodes.get(path)
    }

    /// Whether nothing lies below `path`.
    #[must_use]
    pub fn is_leaf(&self, path: &ProjectPath) -> bool {
        let below = format!("{path}/");
        let from = (Bound::Included(below.as_str()), Bound::Unbounded);
        let next = self.nodes.range::<str, _>(from).next();
        !next.is_some_and(|(other, _)| other.as_str().starts_with(&below))
    }
}
