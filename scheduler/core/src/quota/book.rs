//! The quota book: everything that was decided, the quota tree and the capacity behind it, over all time.
//!
//! People write it down once, with dates; what holds now follows from the clock. [`QuotaBook::at`] is the tree in
//! force at one moment, and [`QuotaBook::breakpoints`] are all moments at which anything changes.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::approval::ApprovalRule;
use super::bounds::BoundTerms;
use super::budget::{BudgetTerms, Period, WHOLE_MILLI, month_around};
use super::dated::{Dated, Interval};
use super::diff::differing;
use super::loan::LoanTerms;
use super::reserve::ReservationTerms;
use super::{Movement, MovementId, QuotaNode, QuotaTree, Thresholds};
use crate::amount::{GpuMilli, UnixMicros};
use crate::digest::Digest;
use crate::ids::{
    ClusterName, GpuClass, LoanName, LotName, ProjectPath, ReservationName, UserName,
};

/// Everything that was decided, at one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaBook {
    /// Grows by one with every change.
    pub revision: u64,
    /// How many must approve a change, by its size; without any rule nobody must.
    #[serde(default)]
    pub approval: Vec<ApprovalRule>,
    /// Classes of GPUs; if none is named, any is allowed.
    pub classes: BTreeMap<GpuClass, ClassTerms>,
    /// Clusters, each one fabric with GPUs of one class.
    pub clusters: BTreeMap<ClusterName, ClusterTerms>,
    /// Deliveries; without any, nothing is known of capacity and nothing is checked against it.
    pub lots: BTreeMap<LotName, Lot>,
    /// The tree, by path; every parent is there.
    pub nodes: BTreeMap<ProjectPath, NodeTerms>,
    /// Budget that was moved by commands, by number. Files do not speak of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub moves: BTreeMap<MovementId, Movement>,
    /// Parts of clusters that are for one node alone for a while.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reservations: BTreeMap<ReservationName, ReservationTerms>,
    /// Guarantees that are lent for a while.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub loans: BTreeMap<LoanName, LoanTerms>,
}

/// A class of GPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassTerms {
    /// For people.
    pub title: String,
    /// Normalised GPU-hours for an hour of one GPU, thousandths; 1000 where nothing is said.
    pub weight_milli: Dated<u32>,
}

/// A cluster: the largest gang is one that fits it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterTerms {
    /// For people.
    pub title: String,
    /// Class of all of its GPUs.
    pub class: GpuClass,
}

/// A delivery, in batches that are accepted one by one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lot {
    /// Where it goes.
    pub cluster: ClusterName,
    /// When all of it is to be there.
    pub due: UnixMicros,
    /// In their order.
    pub batches: Vec<Batch>,
}

/// Part of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// GPUs that count for quotas.
    pub gpus: GpuMilli,
    /// GPUs beside them: spares, tests, operation.
    pub spare: GpuMilli,
    /// When it was accepted; until then it is a promise, and nothing is ever placed on a promise.
    pub accepted: Option<UnixMicros>,
}

/// A node of the tree with its terms over time. What is as usual is not written: the audit chain has every node whole, before
/// and after each change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeTerms {
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// Sort of programme, for reports.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Who may change what lies below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocator: Option<UserName>,
    /// The document that decided it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    /// When the node is there at all.
    #[serde(skip_serializing_if = "Interval::is_always")]
    pub valid: Interval,
    /// GPUs it is sure of, by class.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub guarantees: BTreeMap<GpuClass, Dated<GpuMilli>>,
    /// Most GPUs at once, by class; `None`: no limit of its own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<GpuClass, Dated<Option<GpuMilli>>>,
    /// The same over all classes together.
    #[serde(skip_serializing_if = "Dated::is_empty")]
    pub any_limit: Dated<Option<GpuMilli>>,
    /// Its part of what is left over among its siblings.
    #[serde(skip_serializing_if = "Dated::is_empty")]
    pub weight: Dated<u32>,
    /// How much GPU time it may use in a period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetTerms>,
    /// How much it may use in all where others want nothing, thousandths of its budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overuse_milli: Option<u32>,
    /// At which parts of its budget people are told; `None`: at the usual ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert: Option<Thresholds>,
    /// What it keeps, lends and may borrow, how large and how many its jobs may be, and its labels.
    #[serde(skip_serializing_if = "BoundTerms::is_empty")]
    pub bounds: BoundTerms,
}

impl Default for NodeTerms {
    fn default() -> Self {
        NodeTerms {
            title: String::new(),
            kind: String::new(),
            allocator: None,
            decision: None,
            valid: Interval::ALWAYS,
            guarantees: BTreeMap::new(),
            limits: BTreeMap::new(),
            any_limit: Dated::default(),
            weight: Dated::default(),
            budget: None,
            overuse_milli: None,
            alert: None,
            bounds: BoundTerms::default(),
        }
    }
}

/// GPUs of a class at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Accepted and in service: these can be given out.
    pub accepted: GpuMilli,
    /// Due by now and not accepted.
    pub promised: GpuMilli,
    /// Accepted, but kept out of quotas.
    pub spare: GpuMilli,
}

impl QuotaBook {
    /// The tree in force at `at`. A node is there while it and all nodes above it are; the root may hold no more than
    /// what was accepted, so that nothing is placed on a promise.
    #[must_use]
    pub fn at(&self, at: UnixMicros) -> QuotaTree {
        let nodes = self.nodes.iter().filter(|(path, _)| self.is_valid(path, at));
        let mut nodes: BTreeMap<_, _> =
            nodes.map(|(path, terms)| (path.clone(), terms.at(at))).collect();
        for path in self.moved_nodes() {
            if let Some(budget) = nodes.get_mut(path).and_then(|node| node.budget.as_mut()) {
                self.add_moved(path.as_str(), budget);
            }
        }
        self.lend(&mut nodes, at);
        let capacity = self.capacity(at);
        for (_, root) in nodes.iter_mut().filter(|(path, _)| path.parent().is_none()) {
            for (class, there) in &capacity {
                let limit = root.limits.entry(class.clone()).or_insert(there.accepted);
                *limit = there.accepted.min(*limit);
            }
        }
        let (weights, reservations) = (self.weights(at), self.reservations_at(at));
        QuotaTree { revision: self.revision, nodes, weights, reservations }
    }

    /// Paths at which terms differ from those of `other`, and whether anything else does: classes, clusters, lots,
    /// reservations. A loan is a term of both of its sides.
    #[must_use]
    pub fn differs_from(&self, other: &QuotaBook) -> (Vec<ProjectPath>, bool) {
        let changed = differing(&self.nodes, &other.nodes).into_iter().cloned();
        let fleet = (&self.classes, &self.clusters, &self.lots, &self.reservations)
            != (&other.classes, &other.clusters, &other.lots, &other.reservations);
        let loans = differing(&self.loans, &other.loans).into_iter();
        let loans = loans.flat_map(|name| [self.loans.get(name), other.loans.get(name)]);
        let sides = loans.flatten().flat_map(|loan| [loan.lender.clone(), loan.borrower.clone()]);
        (changed.chain(sides).collect(), fleet)
    }

    /// SHA-256 over the book as JSON.
    #[must_use]
    pub fn digest(&self) -> Digest {
        // A book always can be written as JSON; if it could not, its digest would match no other.
        Digest::of(&[&serde_json::to_vec(self).unwrap_or_default()])
    }

    /// Whether `who` may change the terms at `path`: a node above it names them as its allocator.
    #[must_use]
    pub fn may_change(&self, who: &UserName, path: &ProjectPath) -> bool {
        let above = path.self_and_ancestors().skip(1);
        let mut allocators = above.filter_map(|above| self.nodes.get(above)?.allocator.as_ref());
        allocators.any(|allocator| allocator == who)
    }

    /// Whether any node names an allocator. Where none does, everybody with the role may change everything.
    #[must_use]
    pub fn names_allocators(&self) -> bool {
        self.nodes.values().any(|node| node.allocator.is_some())
    }

    /// Whether the node and all above it are there at `at`.
    #[must_use]
    pub fn is_valid(&self, path: &ProjectPath, at: UnixMicros) -> bool {
        let mut chain = path.self_and_ancestors();
        chain.all(|above| self.nodes.get(above).is_some_and(|node| node.valid.contains(at)))
    }

    /// The first moment after `at` at which something changes; the end of time if nothing does.
    #[must_use]
    pub fn next_change(&self, at: UnixMicros) -> UnixMicros {
        let after = (std::ops::Bound::Excluded(at), std::ops::Bound::Unbounded);
        let dated = self.breakpoints().range(after).next().copied();
        dated.unwrap_or(Interval::ALWAYS.until).min(self.next_period(at))
    }

    /// The first moment after `at` at which the account of some node begins anew.
    fn next_period(&self, at: UnixMicros) -> UnixMicros {
        let budgets = self.nodes.values().filter_map(|node| node.budget.as_ref());
        let periods: BTreeSet<Period> = budgets.map(|budget| budget.period).collect();
        let ends = periods.into_iter().map(|period| period.around(at, Interval::ALWAYS).until);
        ends.min().unwrap_or(Interval::ALWAYS.until)
    }

    /// Every moment at which something changes, in order.
    #[must_use]
    pub fn breakpoints(&self) -> BTreeSet<UnixMicros> {
        let nodes = self.nodes.values().flat_map(NodeTerms::edges);
        let lots = self
            .lots
            .values()
            .flat_map(|lot| lot.batches.iter().filter_map(|batch| batch.accepted).chain([lot.due]));
        let weights = self.classes.values().flat_map(|class| class.weight_milli.edges());
        nodes.chain(lots).chain(weights).chain(self.lending_edges()).collect()
    }

    /// What there is of every class at `at`, by the lots.
    #[must_use]
    pub fn capacity(&self, at: UnixMicros) -> BTreeMap<GpuClass, Capacity> {
        let mut by_class: BTreeMap<GpuClass, Capacity> = BTreeMap::new();
        for lot in self.lots.values() {
            let Some(cluster) = self.clusters.get(&lot.cluster) else {
                continue;
            };
            let capacity = by_class.entry(cluster.class.clone()).or_default();
            for batch in &lot.batches {
                if batch.accepted.is_some_and(|accepted| accepted <= at) {
                    capacity.accepted += batch.gpus;
                    capacity.spare += batch.spare;
                } else if lot.due <= at {
                    capacity.promised += batch.gpus;
                }
            }
        }
        by_class
    }

    /// Normalised GPU-hours for an hour of one GPU of the class at `at`, thousandths.
    #[must_use]
    pub fn weight_milli(&self, class: &GpuClass, at: UnixMicros) -> u32 {
        let terms = self.classes.get(class);
        terms.and_then(|terms| terms.weight_milli.at(at)).copied().unwrap_or(WHOLE_MILLI)
    }

    fn weights(&self, at: UnixMicros) -> BTreeMap<GpuClass, u32> {
        let weighted = self.classes.iter().filter_map(|(class, terms)| {
            terms.weight_milli.at(at).map(|weight| (class.clone(), *weight))
        });
        weighted.collect()
    }

    /// The stretch around `at` over which use by a project is one sum in its account: of one month, and of one grant
    /// of the project and of each node above it.
    #[must_use]
    pub fn account_span(&self, project: &ProjectPath, at: UnixMicros) -> Interval {
        let grants = project.self_and_ancestors().filter_map(|path| self.nodes.get(path));
        let grants = grants.filter(|node| node.has_grant()).flat_map(|node| node.valid.edges());
        grants.fold(month_around(at), |span, edge| span.cut(edge, at))
    }

    /// The stretch around `at` over which the class has one weight, within `span`.
    #[must_use]
    pub fn weight_span(&self, class: &GpuClass, span: Interval, at: UnixMicros) -> Interval {
        let edges =
            self.classes.get(class).into_iter().flat_map(|terms| terms.weight_milli.edges());
        edges.fold(span, |span, edge| span.cut(edge, at))
    }

    /// The decision that a node rests on: its own, or that of the nearest node above.
    #[must_use]
    pub fn decision(&self, path: &ProjectPath) -> Option<&str> {
        let mut chain = path.self_and_ancestors();
        chain.find_map(|above| self.nodes.get(above)?.decision.as_deref())
    }
}

impl From<QuotaTree> for QuotaBook {
    /// Limits, guarantees and shares of the tree, at all times, and its reservations.
    fn from(tree: QuotaTree) -> Self {
        let nodes = tree.nodes.into_iter().map(|(path, node)| (path, NodeTerms::from(node)));
        let (revision, nodes, reservations) = (tree.revision, nodes.collect(), tree.reservations);
        QuotaBook { revision, nodes, reservations, ..QuotaBook::default() }
    }
}

impl From<QuotaNode> for NodeTerms {
    fn from(node: QuotaNode) -> Self {
        let always = |(class, gpus)| (class, Dated::always(gpus));
        let limits =
            node.limits.into_iter().map(|(class, gpus)| (class, Dated::always(Some(gpus))));
        NodeTerms {
            title: node.title,
            guarantees: node.guarantees.into_iter().map(always).collect(),
            limits: limits.collect(),
            any_limit: node.any_limit.map_or_else(Dated::default, |gpus| Dated::always(Some(gpus))),
            weight: Dated::always(node.weight),
            bounds: node.bounds.into(),
            ..NodeTerms::default()
        }
    }
}

impl NodeTerms {
    /// What it is sure of at `at`; nothing where no guarantee holds.
    pub(super) fn guarantee(&self, class: &GpuClass, at: UnixMicros) -> GpuMilli {
        self.guarantees.get(class).and_then(|dated| dated.at(at)).copied().unwrap_or_default()
    }

    /// What holds at `at`.
    #[must_use]
    pub fn at(&self, at: UnixMicros) -> QuotaNode {
        let guarantees = self.guarantees.iter();
        let guarantees =
            guarantees.filter_map(|(class, dated)| Some((class.clone(), *dated.at(at)?)));
        let limits = self.limits.iter();
        let limits = limits.filter_map(|(class, dated)| Some((class.clone(), (*dated.at(at)?)?)));
        QuotaNode {
            title: self.title.clone(),
            guarantees: guarantees.filter(|(_, gpus)| !gpus.is_zero()).collect(),
            weight: self.weight.at(at).copied().unwrap_or(1),
            limits: limits.collect(),
            any_limit: self.any_limit.at(at).copied().flatten(),
            budget: self.budget.as_ref().and_then(|terms| {
                terms.at(at, self.valid, self.overuse_milli.unwrap_or(WHOLE_MILLI))
            }),
            alert: self.alert.clone().unwrap_or_default(),
            bounds: self.bounds.at(at),
        }
    }

    fn has_grant(&self) -> bool {
        self.budget.as_ref().is_some_and(|budget| budget.period == Period::Grant)
    }

    /// What holds as long as the node is there.
    pub(super) fn undated(&self) -> impl PartialEq + use<> {
        let NodeTerms { title, kind, allocator, decision, budget, alert, .. } = self.clone();
        let promises_beyond = budget.is_some_and(|budget| budget.promises_beyond);
        (title, kind, allocator, decision, promises_beyond, alert)
    }

    /// Every moment at which something changes.
    pub(super) fn edges(&self) -> impl Iterator<Item = UnixMicros> {
        let guarantees = self.guarantees.values().flat_map(Dated::edges);
        let limits = self.limits.values().flat_map(Dated::edges);
        let budget = self.budget.iter().flat_map(|budget| budget.ngh.edges());
        let others = self.any_limit.edges().chain(self.weight.edges()).chain(budget);
        let others = others.chain(self.bounds.edges());
        self.valid.edges().chain(guarantees).chain(limits).chain(others)
    }
}
