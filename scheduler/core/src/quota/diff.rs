//! What differs between two quota trees, for the record and for whoever is about to apply one.

use std::collections::BTreeSet;

use super::{QuotaNode, QuotaTree};
use crate::amount::GpuMilli;
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
    let paths: BTreeSet<&ProjectPath> = old.nodes.keys().chain(new.nodes.keys()).collect();
    paths.into_iter().filter_map(|path| change(path, old.get(path), new.get(path))).collect()
}

fn change(
    path: &ProjectPath,
    old: Option<&QuotaNode>,
    new: Option<&QuotaNode>,
) -> Option<QuotaChange> {
    let (kind, text) = match (old, new) {
        (None, Some(new)) => (QuotaChangeKind::Added, describe(new)),
        (Some(old), None) => (QuotaChangeKind::Removed, describe(old)),
        (Some(old), Some(new)) if old != new => (QuotaChangeKind::Changed, compare(old, new)),
        (Some(_), Some(_)) | (None, None) => return None,
    };
    Some(QuotaChange { path: path.clone(), kind, text })
}

/// Every limit of a node by name, the one over all classes last.
fn limits(node: &QuotaNode) -> impl Iterator<Item = (&str, GpuMilli)> {
    let by_class = node.limits.iter().map(|(class, limit)| (class.as_str(), *limit));
    by_class.chain(node.any_limit.map(|limit| ("any", limit)))
}

fn describe(node: &QuotaNode) -> String {
    let limits: Vec<_> =
        limits(node).map(|(name, limit)| format!("limit {name}: {limit}")).collect();
    if limits.is_empty() { "no limit of its own".to_owned() } else { limits.join(", ") }
}

fn compare(old: &QuotaNode, new: &QuotaNode) -> String {
    let mut parts = Vec::new();
    if old.title != new.title {
        parts.push(format!("title: \"{}\" -> \"{}\"", old.title, new.title));
    }
    let named =
        |node, wanted| limits(node).find(|(name, _)| *name == wanted).map(|(_, limit)| limit);
    let names: BTreeSet<&str> = limits(old).chain(limits(new)).map(|(name, _)| name).collect();
    for name in names {
        let (before, after) = (named(old, name), named(new, name));
        if before != after {
            parts.push(format!("limit {name}: {} -> {}", spell(before), spell(after)));
        }
    }
    parts.join(", ")
}

fn spell(limit: Option<GpuMilli>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}
