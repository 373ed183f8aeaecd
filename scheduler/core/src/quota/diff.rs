//! What differs between two books, for the record and for whoever is about to apply one.

use std::collections::{BTreeMap, BTreeSet};

use super::QuotaTree;
use super::book::{ClassTerms, ClusterTerms, Lot, NodeTerms, QuotaBook};
use super::dated::{Dated, Interval};
use super::moment;
use crate::amount::GpuMilli;
use crate::ids::ProjectPath;

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaChange {
    /// Path of a node, or `class NAME`, `cluster NAME`, `lot NAME`.
    pub path: String,
    /// How.
    pub kind: QuotaChangeKind,
    /// One line, as in `limit b200: 16 -> 32`.
    pub text: String,
}

/// How a thing differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum QuotaChangeKind {
    /// Only in the new one.
    Added,
    /// Only in the old one.
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

/// Terms of one thing in words: what each is called, and what it says.
type Words = BTreeMap<String, String>;

/// Everything that differs, the capacity first, then the nodes by path; revisions are not compared.
#[must_use]
pub fn diff(old: &QuotaBook, new: &QuotaBook) -> Vec<QuotaChange> {
    let mut changes = Vec::new();
    changes.extend(compare(&old.classes, &new.classes, "class ", class_words));
    changes.extend(compare(&old.clusters, &new.clusters, "cluster ", cluster_words));
    changes.extend(compare(&old.lots, &new.lots, "lot ", lot_words));
    changes.extend(compare(&old.nodes, &new.nodes, "", node_words));
    changes
}

/// Nodes that differ between two trees.
#[must_use]
pub fn changed_between(old: &QuotaTree, new: &QuotaTree) -> Vec<ProjectPath> {
    differing(&old.nodes, &new.nodes).into_iter().cloned().collect()
}

/// Names under which two maps do not have the same, in order.
pub(super) fn differing<'a, N: Ord, T: PartialEq>(
    old: &'a BTreeMap<N, T>,
    new: &'a BTreeMap<N, T>,
) -> Vec<&'a N> {
    let names: BTreeSet<&N> = old.keys().chain(new.keys()).collect();
    names.into_iter().filter(|name| old.get(*name) != new.get(*name)).collect()
}

fn compare<N: Ord + ToString, T: PartialEq>(
    old: &BTreeMap<N, T>,
    new: &BTreeMap<N, T>,
    prefix: &str,
    words: fn(&T) -> Words,
) -> Vec<QuotaChange> {
    let changed = differing(old, new).into_iter().filter_map(|name| {
        let (kind, text) = match (old.get(name), new.get(name)) {
            (None, Some(new)) => (QuotaChangeKind::Added, describe(&words(new))),
            (Some(old), None) => (QuotaChangeKind::Removed, describe(&words(old))),
            (Some(old), Some(new)) => {
                (QuotaChangeKind::Changed, differences(&words(old), &words(new)))
            }
            (None, None) => return None,
        };
        Some(QuotaChange { path: format!("{prefix}{}", name.to_string()), kind, text })
    });
    changed.collect()
}

fn describe(words: &Words) -> String {
    let said = words.iter().filter(|(name, _)| name.as_str() != "title");
    let said: Vec<String> = said.map(|(name, value)| format!("{name}: {value}")).collect();
    if said.is_empty() { "no terms of its own".to_owned() } else { said.join(", ") }
}

fn differences(old: &Words, new: &Words) -> String {
    let parts: Vec<String> = differing(old, new)
        .into_iter()
        .map(|name| {
            format!("{name}: {} -> {}", spell(name, old.get(name)), spell(name, new.get(name)))
        })
        .collect();
    parts.join(", ")
}

/// What a term says where it is not written down.
fn spell<'a>(name: &str, value: Option<&'a String>) -> &'a str {
    match value {
        Some(value) => value,
        None if name.starts_with("limit") => "unlimited",
        None if name == "title" => "\"\"",
        None if name == "weight" => "1",
        None if name == "weight_milli" => "1000",
        None => "none",
    }
}

fn node_words(node: &NodeTerms) -> Words {
    let mut words = titled(&node.title);
    let mut say = |name: &str, value: String| {
        words.insert(name.to_owned(), value);
    };
    if !node.kind.is_empty() {
        say("kind", node.kind.clone());
    }
    if let Some(allocator) = &node.allocator {
        say("allocator", allocator.to_string());
    }
    if let Some(decision) = &node.decision {
        say("decision", decision.clone());
    }
    if node.valid != Interval::ALWAYS {
        say("valid", stretch(node.valid));
    }
    for (class, dated) in &node.guarantees {
        say(&format!("guarantee {class}"), dated_words(dated, GpuMilli::to_string));
    }
    for (class, dated) in &node.limits {
        say(&format!("limit {class}"), dated_words(dated, limit_word));
    }
    if !node.any_limit.is_empty() {
        say("limit any", dated_words(&node.any_limit, limit_word));
    }
    if !node.weight.is_empty() {
        say("weight", dated_words(&node.weight, u32::to_string));
    }
    words
}

fn class_words(class: &ClassTerms) -> Words {
    let mut words = titled(&class.title);
    if !class.weight_milli.is_empty() {
        let weight = dated_words(&class.weight_milli, u32::to_string);
        words.insert("weight_milli".to_owned(), weight);
    }
    words
}

fn cluster_words(cluster: &ClusterTerms) -> Words {
    let mut words = titled(&cluster.title);
    words.insert("class".to_owned(), cluster.class.to_string());
    words
}

/// The title, if there is one.
fn titled(title: &str) -> Words {
    let words = (!title.is_empty()).then(|| ("title".to_owned(), format!("\"{title}\"")));
    words.into_iter().collect()
}

fn lot_words(lot: &Lot) -> Words {
    let mut words = Words::from([
        ("cluster".to_owned(), lot.cluster.to_string()),
        ("due".to_owned(), moment::show(lot.due)),
    ]);
    for (number, batch) in (1..).zip(&lot.batches) {
        let accepted = match batch.accepted {
            Some(at) => format!("accepted {}", moment::show(at)),
            None => "not accepted".to_owned(),
        };
        let text = format!("{} and {} spare, {accepted}", batch.gpus, batch.spare);
        words.insert(format!("batch {number:03}"), text);
    }
    words
}

fn limit_word(limit: &Option<GpuMilli>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}

/// `16`, or `16 from 2027-01-04, 32 from 2028-06-01`.
fn dated_words<T>(dated: &Dated<T>, word: impl Fn(&T) -> String) -> String {
    let stretches = dated.iter().collect::<Vec<_>>();
    let ends = stretches.iter().skip(1).map(|(next, _)| next.from);
    let ends = ends.chain([Interval::ALWAYS.until]);
    let words = stretches.iter().zip(ends).map(|((interval, value), next)| {
        let mut text = word(value);
        if interval.from > Interval::ALWAYS.from {
            text.push_str(&format!(" from {}", moment::show(interval.from)));
        }
        // An end is said where it is not simply the next beginning.
        if interval.until != next {
            text.push_str(&format!(" until {}", moment::show(interval.until)));
        }
        text
    });
    words.collect::<Vec<_>>().join(", ")
}

fn stretch(interval: Interval) -> String {
    format!("from {} until {}", moment::show(interval.from), moment::show(interval.until))
}
