//! The quota tree: who may hold how many GPUs at once, and who is sure of how many.
//!
//! A node's limit covers everything below it. No limit at a node means only those above it bind; a limit of zero
//! means zero.

mod approval;
pub mod audit;
mod book;
pub mod bounds;
pub mod budget;
mod check;
mod dated;
mod diff;
pub mod duration;
pub mod entitle;
pub mod import;
pub mod loan;
mod moment;
mod movement;
mod parse;
mod proposal;
mod recall;
pub mod reserve;
mod sums;
mod thresholds;

use std::collections::BTreeMap;
use std::ops::Bound;

use serde::{Deserialize, Serialize};

use crate::amount::GpuMilli;
use crate::ids::{GpuClass, ProjectPath, ReservationName};
use bounds::Bounds;
use budget::{Budget, WHOLE_MILLI};
use reserve::ReservationTerms;

pub use approval::{Approval, ApprovalRule, ChangeSize};
pub use book::{Batch, Capacity, ClassTerms, ClusterTerms, Lot, NodeTerms, QuotaBook};
pub use dated::{Dated, Interval, Overlap};
pub use diff::{FieldChange, QuotaChange, QuotaChangeKind, changed_between, diff};
pub use moment::{read as read_moment, show as show_moment};
pub use movement::{MovedLine, Movement, MovementId, MovementKind, OFFICE, lines as moved_lines};
pub use parse::{QuotaFault, parse};
pub use proposal::{Consent, Proposal};
pub use recall::Recall;
pub use sums::{ClassSums, Sums};
pub use thresholds::Thresholds;

/// The whole tree at one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaTree {
    /// Grows by one with every change.
    pub revision: u64,
    /// By path; every parent is there.
    pub nodes: BTreeMap<ProjectPath, QuotaNode>,
    /// Normalised GPU-hours for an hour of one GPU, by class, thousandths; 1000 for a class that is absent.
    pub weights: BTreeMap<GpuClass, u32>,
    /// Reservations that are not over.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reservations: BTreeMap<ReservationName, ReservationTerms>,
}

/// A node of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QuotaNode {
    /// For people.
    pub title: String,
    /// GPUs that the node gets whenever it asks for them, by class; a class that is absent has none.
    pub guarantees: BTreeMap<GpuClass, GpuMilli>,
    /// Its part of what is left over among its siblings, at least 1.
    pub weight: u32,
    /// Most GPUs at once, by class; a class that is absent is bound only by the nodes above.
    pub limits: BTreeMap<GpuClass, GpuMilli>,
    /// Most GPUs at once over all classes together; `None`: bound only by the nodes above.
    pub any_limit: Option<GpuMilli>,
    /// How much GPU time it may use in a period; `None`: bound only by the nodes above.
    pub budget: Option<Budget>,
    /// At which parts of the budget people are told.
    pub alert: Thresholds,
    /// What it keeps, lends and may borrow, how large and how many its jobs may be, and its labels.
    #[serde(skip_serializing_if = "Bounds::is_empty")]
    pub bounds: Bounds,
}

impl Default for QuotaNode {
    /// No guarantee, no limit of its own, the weight of one.
    fn default() -> Self {
        QuotaNode {
            title: String::new(),
            guarantees: BTreeMap::new(),
            weight: 1,
            limits: BTreeMap::new(),
            any_limit: None,
            budget: None,
            alert: Thresholds::default(),
            bounds: Bounds::default(),
        }
    }
}

impl QuotaTree {
    /// The node of that path.
    #[must_use]
    pub fn get(&self, path: &ProjectPath) -> Option<&QuotaNode> {
        self.nodes.get(path)
    }

    /// The weight of a class, thousandths.
    #[must_use]
    pub fn weight_milli(&self, class: &GpuClass) -> u32 {
        self.weights.get(class).copied().unwrap_or(WHOLE_MILLI)
    }

    /// Whether any node has a budget.
    #[must_use]
    pub fn has_budgets(&self) -> bool {
        self.nodes.values().any(|node| node.budget.is_some())
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
