//! How large a change of the quota book is, and how many people must approve it beside whoever asks for it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::audit::{Edit, Terms};
use super::book::{Lot, NodeTerms};
use super::dated::{Dated, Interval};
use super::movement::{Movement, MovementId};
use crate::amount::{GpuMilli, UnixMicros};
use crate::digest::Digest;
use crate::ids::{GpuClass, ProjectPath, UserName};

/// From which size on how many must approve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ApprovalRule {
    /// Changes that move more GPUs than this.
    pub above_gpus: GpuMilli,
    /// People beside whoever asks for it and whoever applies it.
    pub approvers: u32,
}

/// Somebody stands for a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Digest of the plan; a plan that differs in anything has another.
    pub plan: Digest,
    /// Revision of the book that the plan was made for. Once there is another, the approval counts no more.
    pub base_revision: u64,
    /// Who approves.
    pub by: UserName,
    /// The document that says so.
    pub document: String,
    /// When.
    pub at: UnixMicros,
}

/// How large a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeSize {
    /// It moves so many GPUs, at the moment at which it moves most and at the level of the tree that moves most.
    Gpus(GpuMilli),
    /// It changes who decides, what things are worth, or a budget, or takes a limit away or sets the first one: no
    /// number of GPUs says how much that is.
    Unbounded,
}

impl ChangeSize {
    /// Of all edits together.
    #[must_use]
    pub fn of(edits: &[Edit]) -> Self {
        let mut levels: BTreeMap<usize, GpuMilli> = BTreeMap::new();
        for edit in edits {
            let (level, size) = match edit {
                Edit::Approval { .. } | Edit::Class(_) | Edit::Cluster(_) => {
                    return ChangeSize::Unbounded;
                }
                Edit::Lot(terms) => (0, lot_size(terms)),
                Edit::Node(terms) => (level(&terms.name), node_size(terms)),
                Edit::Movement(terms) => (0, movement_size(terms)),
                Edit::Reservation(terms) => (0, grant_size(terms, |terms| terms.gpus)),
                // What one node loses and another one gains.
                Edit::Loan(terms) => (1, grant_size(terms, |loan| loan.gpus.times(2))),
            };
            match size {
                ChangeSize::Unbounded => return size,
                ChangeSize::Gpus(gpus) => *levels.entry(level).or_default() += gpus,
            }
        }
        ChangeSize::Gpus(levels.into_values().max().unwrap_or_default())
    }

    /// How many must approve it.
    #[must_use]
    pub fn approvers(self, rules: &[ApprovalRule]) -> u32 {
        let binding = rules.iter().filter(|rule| match self {
            ChangeSize::Gpus(gpus) => gpus > rule.above_gpus,
            ChangeSize::Unbounded => true,
        });
        binding.map(|rule| rule.approvers).max().unwrap_or(0)
    }
}

/// 1 for a root. Lots are the level above.
fn level(path: &ProjectPath) -> usize {
    path.self_and_ancestors().count()
}

fn lot_size(terms: &Terms<crate::ids::LotName, Lot>) -> ChangeSize {
    let accepted = |lot: Option<&Lot>| -> GpuMilli {
        let batches = lot.into_iter().flat_map(|lot| &lot.batches);
        batches.filter(|batch| batch.accepted.is_some()).map(|batch| batch.gpus).sum()
    };
    let all = |lot: Option<&Lot>| -> GpuMilli {
        lot.into_iter().flat_map(|lot| &lot.batches).map(|batch| batch.gpus).sum()
    };
    let (before, after) = (terms.before.as_ref(), terms.after.as_ref());
    let moved = distance(accepted(before), accepted(after));
    ChangeSize::Gpus(moved.max(distance(all(before), all(after))))
}

/// What one node gives another makes the tree as a whole no larger; what the office gives does, by no number of GPUs.
fn movement_size(terms: &Terms<MovementId, Movement>) -> ChangeSize {
    match &terms.after {
        Some(moved) if moved.is_between_nodes() => ChangeSize::Gpus(GpuMilli::ZERO),
        Some(_) | None => ChangeSize::Unbounded,
    }
}

/// All that it takes away or gives, before and after.
fn grant_size<N, T>(terms: &Terms<N, T>, gpus: impl Fn(&T) -> GpuMilli) -> ChangeSize {
    let sides = [&terms.before, &terms.after].into_iter().flatten();
    ChangeSize::Gpus(sides.map(gpus).sum())
}

/// Guarantees and limits of an added or removed node count from or to nothing.
fn node_size(terms: &Terms<ProjectPath, NodeTerms>) -> ChangeSize {
    let nothing = NodeTerms::default();
    let (before, after) = (&terms.before, &terms.after);
    let allocator =
        |node: &Option<NodeTerms>| node.as_ref().and_then(|node| node.allocator.clone());
    if allocator(before) != allocator(after) {
        return ChangeSize::Unbounded;
    }
    let both = before.is_some() && after.is_some();
    let (before, after) = (before.as_ref().unwrap_or(&nothing), after.as_ref().unwrap_or(&nothing));
    let others = |node: &NodeTerms| (node.budget.clone(), node.overuse_milli, node.bounds.clone());
    if both && (others(before) != others(after) || loosens_a_limit(before, after)) {
        return ChangeSize::Unbounded;
    }
    let edges = before.edges().chain(after.edges());
    let moments = std::iter::once(Interval::ALWAYS.from).chain(edges);
    ChangeSize::Gpus(moments.map(|at| moved_at(before, after, at)).max().unwrap_or_default())
}

/// Whether at any time there is a limit on one side only.
fn loosens_a_limit(before: &NodeTerms, after: &NodeTerms) -> bool {
    let edges = before.edges().chain(after.edges());
    let mut moments = std::iter::once(Interval::ALWAYS.from).chain(edges);
    moments.any(|at| {
        let [before, after] =
            [before, after].map(|node| (node.at(at).limits, limit_of_all(node, at)));
        before.0.keys().ne(after.0.keys()) || before.1.is_some() != after.1.is_some()
    })
}

fn limit_of_all(node: &NodeTerms, at: UnixMicros) -> Option<GpuMilli> {
    node.any_limit.at(at).copied().flatten()
}

/// GPUs by which guarantees differ at that moment over all classes, or limits if those differ by more.
fn moved_at(before: &NodeTerms, after: &NodeTerms, at: UnixMicros) -> GpuMilli {
    let guarantees = moved(&before.guarantees, &after.guarantees, |dated| {
        dated.at(at).copied().unwrap_or_default()
    });
    let limits = moved(&before.limits, &after.limits, |dated: &Dated<Option<GpuMilli>>| {
        dated.at(at).copied().flatten().unwrap_or_default()
    });
    let of_all = [before, after].map(|node| limit_of_all(node, at).unwrap_or_default());
    guarantees.max(limits).max(distance(of_all[0], of_all[1]))
}

fn moved<T>(
    before: &BTreeMap<GpuClass, T>,
    after: &BTreeMap<GpuClass, T>,
    amount: impl Fn(&T) -> GpuMilli,
) -> GpuMilli {
    let of = |map: &BTreeMap<GpuClass, T>, class: &GpuClass| {
        map.get(class).map_or(GpuMilli::ZERO, &amount)
    };
    let fresh = after.keys().filter(|class| !before.contains_key(*class));
    let classes = before.keys().chain(fresh);
    classes.map(|class| distance(of(before, class), of(after, class))).sum()
}

fn distance(one: GpuMilli, other: GpuMilli) -> GpuMilli {
    GpuMilli(one.0.abs_diff(other.0))
}
