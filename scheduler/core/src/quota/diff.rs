//! What differs between two books, for the record and for whoever is about to apply one.

use std::collections::{BTreeMap, BTreeSet};

use super::QuotaTree;
use super::approval::ApprovalRule;
use super::audit::{Edit, Terms, edits};
use super::book::{ClassTerms, ClusterTerms, Lot, NodeTerms, QuotaBook};
use super::dated::{Dated, Interval};
use super::loan::LoanTerms;
use super::moment;
use super::movement::Movement;
use super::reserve::ReservationTerms;
use crate::amount::GpuMilli;
use crate::ids::ProjectPath;

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaChange {
    /// Path of a node, or `class NAME`, `cluster NAME`, `lot NAME`, `approval`.
    pub path: String,
    /// How.
    pub kind: QuotaChangeKind,
    /// One line, as in `limit b200: 16 -> 32`.
    pub text: String,
}

/// One term that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldChange {
    /// What it is called, as in `limit b200`.
    pub name: String,
    /// What it said, `none` where it said nothing.
    pub before: String,
    /// What it says.
    pub after: String,
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
    edits(old, new).iter().map(Edit::describe).collect()
}

impl Edit {
    /// The edit for a person.
    #[must_use]
    pub fn describe(&self) -> QuotaChange {
        let (kind, text) = match self.words() {
            (None, None) => (QuotaChangeKind::Changed, String::new()),
            (None, Some(after)) => (QuotaChangeKind::Added, describe(&after)),
            (Some(before), None) => (QuotaChangeKind::Removed, describe(&before)),
            (Some(before), Some(after)) => {
                let fields = fields(&before, &after).into_iter();
                let parts = fields
                    .map(|field| format!("{}: {} -> {}", field.name, field.before, field.after));
                (QuotaChangeKind::Changed, parts.collect::<Vec<_>>().join(", "))
            }
        };
        let subject = self.subject();
        let path = subject.strip_prefix("node ").unwrap_or(&subject).to_owned();
        QuotaChange { path, kind, text }
    }

    /// Every term that it changes.
    #[must_use]
    pub fn fields(&self) -> Vec<FieldChange> {
        let (before, after) = self.words();
        fields(&before.unwrap_or_default(), &after.unwrap_or_default())
    }

    /// The terms in words, before and after.
    fn words(&self) -> (Option<Words>, Option<Words>) {
        match self {
            Edit::Approval { before, after } => {
                (Some(approval_words(before)), Some(approval_words(after)))
            }
            Edit::Class(terms) => terms.both(class_words),
            Edit::Cluster(terms) => terms.both(cluster_words),
            Edit::Lot(terms) => terms.both(lot_words),
            Edit::Node(terms) => terms.both(node_words),
            Edit::Movement(terms) => terms.both(movement_words),
            Edit::Reservation(terms) => terms.both(reservation_words),
            Edit::Loan(terms) => terms.both(loan_words),
        }
    }
}

impl<N, T> Terms<N, T> {
    fn both(&self, words: fn(&T) -> Words) -> (Option<Words>, Option<Words>) {
        (self.before.as_ref().map(words), self.after.as_ref().map(words))
    }
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

fn describe(words: &Words) -> String {
    let said = words.iter().filter(|(name, _)| name.as_str() != "title");
    let said: Vec<String> = said.map(|(name, value)| format!("{name}: {value}")).collect();
    if said.is_empty() { "no terms of its own".to_owned() } else { said.join(", ") }
}

fn fields(before: &Words, after: &Words) -> Vec<FieldChange> {
    let change = |name: &String| FieldChange {
        name: name.clone(),
        before: spell(name, before.get(name)).to_owned(),
        after: spell(name, after.get(name)).to_owned(),
    };
    differing(before, after).into_iter().map(change).collect()
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

/// One word a rule: `above 64 GPUs: 1`.
fn approval_words(rules: &[ApprovalRule]) -> Words {
    let words = |rule: &ApprovalRule| {
        (format!("above {} GPUs", rule.above_gpus), rule.approvers.to_string())
    };
    rules.iter().map(words).collect()
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
    if let Some(budget) = &node.budget {
        let ngh = dated_words(&budget.ngh, |ngh| format!("{ngh} NGH"));
        say("budget", format!("{ngh} a {}", budget.period.word()));
        say("carry", budget.carry.to_string());
        if budget.promises_beyond {
            say("promise", "beyond".to_owned());
        }
    }
    if let Some(milli) = node.overuse_milli {
        say("overuse", GpuMilli(u64::from(milli)).to_string());
    }
    if let Some(alert) = &node.alert {
        say("alert", alert.to_string());
    }
    words.extend(node.bounds.words(&|dated| dated_words(dated, String::clone)));
    words
}

fn reservation_words(terms: &ReservationTerms) -> Words {
    let cluster = terms.fabric.cluster().map_or_else(|| "any".to_owned(), ToString::to_string);
    Words::from([
        ("node".to_owned(), terms.holder.to_string()),
        ("gpus".to_owned(), format!("{} {}", terms.gpus, terms.class)),
        ("cluster".to_owned(), cluster),
        ("during".to_owned(), stretch(terms.during)),
        ("decision".to_owned(), terms.decision.clone()),
    ])
}

fn loan_words(loan: &LoanTerms) -> Words {
    let mut words = Words::from([
        ("lender".to_owned(), loan.lender.to_string()),
        ("borrower".to_owned(), loan.borrower.to_string()),
        ("gpus".to_owned(), format!("{} {}", loan.gpus, loan.class)),
        ("during".to_owned(), stretch(loan.during)),
    ]);
    words.extend(loan.consent.iter().map(|document| ("consent".to_owned(), document.clone())));
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

fn movement_words(moved: &Movement) -> Words {
    Words::from([
        (moved.kind.word().to_owned(), moved.describe()),
        ("reason".to_owned(), moved.reason.clone()),
    ])
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
