//! A change of one thing in the quota book, whole: what it was, and what it is.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::amount::UnixMicros;
use crate::ids::{ClusterName, GpuClass, LoanName, LotName, ProjectPath, ReservationName};
use crate::quota::approval::ApprovalRule;
use crate::quota::book::{ClassTerms, ClusterTerms, Lot, NodeTerms, QuotaBook};
use crate::quota::dated::Interval;
use crate::quota::diff::differing;
use crate::quota::loan::LoanTerms;
use crate::quota::movement::{Movement, MovementId};
use crate::quota::reserve::ReservationTerms;

/// What the subject of a movement begins with.
pub(crate) const MOVEMENT: &str = "movement ";

/// What a named thing was and is; `None` where it is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms<N, T> {
    /// Its name.
    pub name: N,
    /// What it was.
    pub before: Option<T>,
    /// What it is.
    pub after: Option<T>,
}

/// A change of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edit {
    /// Of the rules of approval.
    Approval {
        /// What they were.
        before: Vec<ApprovalRule>,
        /// What they are.
        after: Vec<ApprovalRule>,
    },
    /// Of a class.
    Class(Terms<GpuClass, ClassTerms>),
    /// Of a cluster.
    Cluster(Terms<ClusterName, ClusterTerms>),
    /// Of a delivery.
    Lot(Terms<LotName, Lot>),
    /// Of a node of the tree.
    Node(Terms<ProjectPath, NodeTerms>),
    /// Budget that was moved, by number.
    Movement(Terms<MovementId, Movement>),
    /// Of a reservation.
    Reservation(Terms<ReservationName, ReservationTerms>),
    /// Of a loan.
    Loan(Terms<LoanName, LoanTerms>),
}

/// Everything that differs between two books, in a fixed order; their revisions are not compared.
#[must_use]
pub fn edits(old: &QuotaBook, new: &QuotaBook) -> Vec<Edit> {
    let mut edits = Vec::new();
    if old.approval != new.approval {
        let (before, after) = (old.approval.clone(), new.approval.clone());
        edits.push(Edit::Approval { before, after });
    }
    edits.extend(terms(&old.classes, &new.classes).map(Edit::Class));
    edits.extend(terms(&old.clusters, &new.clusters).map(Edit::Cluster));
    edits.extend(terms(&old.lots, &new.lots).map(Edit::Lot));
    edits.extend(terms(&old.nodes, &new.nodes).map(Edit::Node));
    // Files speak of no movements, and none is ever taken away.
    let moves = terms(&old.moves, &new.moves).filter(|terms| terms.after.is_some());
    edits.extend(moves.map(Edit::Movement));
    edits.extend(terms(&old.reservations, &new.reservations).map(Edit::Reservation));
    edits.extend(terms(&old.loans, &new.loans).map(Edit::Loan));
    edits
}

fn terms<'a, N: Ord + Clone, T: PartialEq + Clone>(
    old: &'a BTreeMap<N, T>,
    new: &'a BTreeMap<N, T>,
) -> impl Iterator<Item = Terms<N, T>> {
    differing(old, new).into_iter().map(|name| Terms {
        name: name.clone(),
        before: old.get(name).cloned(),
        after: new.get(name).cloned(),
    })
}

impl Edit {
    /// What is changed, as in `node public/nup`, `lot gov26-a`, `approval`.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Edit::Approval { .. } => "approval".to_owned(),
            Edit::Class(terms) => format!("class {}", terms.name),
            Edit::Cluster(terms) => format!("cluster {}", terms.name),
            Edit::Lot(terms) => format!("lot {}", terms.name),
            Edit::Node(terms) => format!("node {}", terms.name),
            Edit::Movement(terms) => format!("{MOVEMENT}{}", terms.name),
            Edit::Reservation(terms) => format!("reservation {}", terms.name),
            Edit::Loan(terms) => format!("loan {}", terms.name),
        }
    }

    /// The document that the thing rests on: in the new book, or in the old one for what is not there any more.
    pub(super) fn decision(&self, old: &QuotaBook, new: &QuotaBook) -> Option<String> {
        match self {
            Edit::Node(terms) => {
                let book = if terms.after.is_some() { new } else { old };
                book.decision(&terms.name).map(str::to_owned)
            }
            Edit::Movement(terms) => terms.after.as_ref().map(|moved| moved.decision.clone()),
            Edit::Reservation(terms) => Some(terms.known()?.decision.clone()),
            Edit::Loan(terms) => terms.known()?.consent.clone(),
            Edit::Approval { .. } | Edit::Class(_) | Edit::Cluster(_) | Edit::Lot(_) => None,
        }
    }

    /// Whether the book has what the edit says was there.
    pub(super) fn matches(&self, book: &QuotaBook) -> bool {
        match self {
            Edit::Approval { before, .. } => book.approval == *before,
            Edit::Class(terms) => book.classes.get(&terms.name) == terms.before.as_ref(),
            Edit::Cluster(terms) => book.clusters.get(&terms.name) == terms.before.as_ref(),
            Edit::Lot(terms) => book.lots.get(&terms.name) == terms.before.as_ref(),
            Edit::Node(terms) => book.nodes.get(&terms.name) == terms.before.as_ref(),
            Edit::Movement(terms) => book.moves.get(&terms.name) == terms.before.as_ref(),
            Edit::Reservation(terms) => book.reservations.get(&terms.name) == terms.before.as_ref(),
            Edit::Loan(terms) => book.loans.get(&terms.name) == terms.before.as_ref(),
        }
    }

    /// Whether this puts back what `earlier`, an edit of the same thing, found.
    #[must_use]
    pub fn undoes(&self, earlier: &Edit) -> bool {
        match (self, earlier) {
            (Edit::Approval { after, .. }, Edit::Approval { before, .. }) => after == before,
            (Edit::Class(now), Edit::Class(then)) => now.undoes(then),
            (Edit::Cluster(now), Edit::Cluster(then)) => now.undoes(then),
            (Edit::Lot(now), Edit::Lot(then)) => now.undoes(then),
            (Edit::Node(now), Edit::Node(then)) => now.undoes(then),
            (Edit::Reservation(now), Edit::Reservation(then)) => now.undoes(then),
            (Edit::Loan(now), Edit::Loan(then)) => now.undoes(then),
            (
                Edit::Approval { .. }
                | Edit::Class(_)
                | Edit::Cluster(_)
                | Edit::Lot(_)
                | Edit::Node(_)
                | Edit::Movement(_)
                | Edit::Reservation(_)
                | Edit::Loan(_),
                _,
            ) => false,
        }
    }

    /// Makes it so.
    pub(super) fn apply(&self, book: &mut QuotaBook) {
        match self {
            Edit::Approval { after, .. } => book.approval.clone_from(after),
            Edit::Class(terms) => put(&mut book.classes, terms),
            Edit::Cluster(terms) => put(&mut book.clusters, terms),
            Edit::Lot(terms) => put(&mut book.lots, terms),
            Edit::Node(terms) => put(&mut book.nodes, terms),
            Edit::Movement(terms) => put(&mut book.moves, terms),
            Edit::Reservation(terms) => put(&mut book.reservations, terms),
            Edit::Loan(terms) => put(&mut book.loans, terms),
        }
    }

    /// The first moment from `now` on at which the edit makes a difference; `now` if it does so only in the past.
    #[must_use]
    pub fn effective_from(&self, now: UnixMicros) -> UnixMicros {
        match self {
            // A reservation counts at once: from then on nothing starts that would be in its way.
            Edit::Approval { .. } | Edit::Cluster(_) | Edit::Movement(_) | Edit::Reservation(_) => {
                now
            }
            Edit::Loan(terms) => {
                let sides = [&terms.before, &terms.after].into_iter().flatten();
                sides.map(|loan| loan.during.from).min().unwrap_or(now).max(now)
            }
            Edit::Class(terms) => terms.first_difference(
                now,
                |class| class.weight_milli.edges().collect(),
                |class, at| (class.title.clone(), class.weight_milli.at(at).copied()),
            ),
            Edit::Lot(terms) => terms.first_difference(now, lot_edges, |lot, at| {
                let batches = lot.batches.iter();
                let batches = batches.map(|batch| {
                    (batch.gpus, batch.spare, batch.accepted.is_some_and(|accepted| accepted <= at))
                });
                (lot.cluster.clone(), lot.due <= at, batches.collect::<Vec<_>>())
            }),
            Edit::Node(terms) => terms.first_difference(
                now,
                |node| node.edges().collect(),
                |node, at| node.valid.contains(at).then(|| (node.undated(), node.at(at))),
            ),
        }
    }
}

fn put<N: Ord + Clone, T: Clone>(map: &mut BTreeMap<N, T>, terms: &Terms<N, T>) {
    match &terms.after {
        Some(after) => {
            map.insert(terms.name.clone(), after.clone());
        }
        None => {
            map.remove(&terms.name);
        }
    }
}

fn lot_edges(lot: &Lot) -> BTreeSet<UnixMicros> {
    lot.batches.iter().filter_map(|batch| batch.accepted).chain([lot.due]).collect()
}

impl<N: PartialEq, T: PartialEq> Terms<N, T> {
    fn undoes(&self, earlier: &Self) -> bool {
        self.name == earlier.name && self.after == earlier.before
    }
}

impl<N, T> Terms<N, T> {
    /// What it is, or was if it is not there any more.
    fn known(&self) -> Option<&T> {
        self.after.as_ref().or(self.before.as_ref())
    }

    fn first_difference<S: PartialEq>(
        &self,
        now: UnixMicros,
        edges: impl Fn(&T) -> BTreeSet<UnixMicros>,
        state: impl Fn(&T, UnixMicros) -> S,
    ) -> UnixMicros {
        let sides = [self.before.as_ref(), self.after.as_ref()];
        let moments: BTreeSet<UnixMicros> = sides.into_iter().flatten().flat_map(edges).collect();
        let later = moments.into_iter().filter(|at| *at > now && *at < Interval::ALWAYS.until);
        let mut candidates = std::iter::once(now).chain(later);
        let differs = |at: &UnixMicros| {
            let [before, after] = sides.map(|side| side.map(|terms| state(terms, *at)));
            before != after
        };
        candidates.find(differs).unwrap_or(now)
    }
}
