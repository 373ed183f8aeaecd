//! Loans: a node of the quota tree lends a part of its guarantee to another one, with its consent, for a while.
//!
//! While a loan holds, the lender and the nodes above it are sure of less, the borrower and the nodes above it of
//! more; nodes above both keep what they have. So the guarantees of the whole stay what they were. Who pays for use
//! does not change: whoever uses the GPUs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::QuotaNode;
use super::book::QuotaBook;
use super::dated::Interval;
use super::reserve::ReservationTerms;
use crate::amount::{GpuMilli, GpuMilliSeconds, UnixMicros};
use crate::ids::{GpuClass, LoanName, ProjectPath, ReservationName};

/// What is lent, by whom, to whom and when.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LoanTerms {
    /// Whose guarantee becomes less.
    pub lender: ProjectPath,
    /// Whose becomes more.
    pub borrower: ProjectPath,
    /// Class of the GPUs.
    pub class: GpuClass,
    /// How many.
    pub gpus: GpuMilli,
    /// When.
    pub during: Interval,
    /// The document with which the lender consents. Files without it are refused, so it is never missing in force.
    pub consent: Option<String>,
}

impl LoanTerms {
    /// GPU time that is lent: GPUs for as long as the loan holds.
    #[must_use]
    pub fn gpu_time(&self) -> GpuMilliSeconds {
        gpu_time(self.gpus, self.during)
    }

    /// Nodes that are sure of less: the lender and those above it that are not above the borrower too.
    pub fn lending(&self) -> impl Iterator<Item = &str> {
        let chain = self.lender.self_and_ancestors();
        chain.take_while(|path| !self.borrower.is_within(path))
    }

    /// Nodes that are sure of more: the borrower and those above it that are not above the lender too.
    pub fn borrowing(&self) -> impl Iterator<Item = &str> {
        let chain = self.borrower.self_and_ancestors();
        chain.take_while(|path| !self.lender.is_within(path))
    }
}

impl ReservationTerms {
    /// GPU time that is reserved: GPUs for as long as the reservation holds.
    #[must_use]
    pub fn gpu_time(&self) -> GpuMilliSeconds {
        gpu_time(self.gpus, self.during)
    }
}

fn gpu_time(gpus: GpuMilli, during: Interval) -> GpuMilliSeconds {
    let micros = i128::from(during.until.0) - i128::from(during.from.0);
    let exact = i128::from(gpus.0) * micros.max(0) / 1_000_000;
    GpuMilliSeconds(i64::try_from(exact).unwrap_or(i64::MAX))
}

/// By how much loans move guarantees at one moment.
#[derive(Debug, Default)]
pub(super) struct Shifts<'b>(BTreeMap<&'b str, BTreeMap<&'b GpuClass, Shift>>);

/// By how much loans move one guarantee.
#[derive(Debug, Clone, Copy, Default)]
struct Shift {
    lent: GpuMilli,
    borrowed: GpuMilli,
}

impl Shift {
    fn apply(self, own: GpuMilli) -> GpuMilli {
        (own + self.borrowed).saturating_sub(self.lent)
    }
}

impl<'b> Shifts<'b> {
    /// Of these loans.
    pub fn of(loans: impl Iterator<Item = &'b LoanTerms>) -> Self {
        let mut shifts = Shifts::default();
        for loan in loans {
            for path in loan.lending() {
                shifts.entry(path, &loan.class).lent += loan.gpus;
            }
            for path in loan.borrowing() {
                shifts.entry(path, &loan.class).borrowed += loan.gpus;
            }
        }
        shifts
    }

    fn entry(&mut self, path: &'b str, class: &'b GpuClass) -> &mut Shift {
        self.0.entry(path).or_default().entry(class).or_default()
    }

    /// What a guarantee becomes.
    pub fn apply(&self, path: &str, class: &GpuClass, own: GpuMilli) -> GpuMilli {
        let shift = self.0.get(path).and_then(|shifts| shifts.get(class));
        shift.map_or(own, |shift| shift.apply(own))
    }

    /// Classes of which the guarantee of the node is moved.
    pub fn classes(&self, path: &str) -> impl Iterator<Item = &'b GpuClass> + '_ {
        self.0.get(path).into_iter().flat_map(|shifts| shifts.keys().copied())
    }

    /// Moves the guarantees of a tree's nodes.
    fn apply_all(&self, nodes: &mut BTreeMap<ProjectPath, QuotaNode>) {
        for (path, shifts) in &self.0 {
            let Some(node) = nodes.get_mut(*path) else { continue };
            for (class, shift) in shifts {
                let own = node.guarantees.get(*class).copied().unwrap_or_default();
                node.guarantees.insert((*class).clone(), shift.apply(own));
            }
            node.guarantees.retain(|_, gpus| !gpus.is_zero());
        }
    }
}

/// A loan as one of its sides sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoanView<'b> {
    /// Which.
    pub name: &'b LoanName,
    /// What it says.
    pub terms: &'b LoanTerms,
    /// Whether the node lends; else it borrows.
    pub lends: bool,
}

impl QuotaBook {
    /// Moves what is lent at `at` with consent.
    pub(super) fn lend(&self, nodes: &mut BTreeMap<ProjectPath, QuotaNode>, at: UnixMicros) {
        self.shifts(at, |loan| loan.consent.is_some()).apply_all(nodes);
    }

    /// What the loans that hold at `at` move, of those that `counts` picks.
    pub(super) fn shifts(&self, at: UnixMicros, counts: impl Fn(&LoanTerms) -> bool) -> Shifts<'_> {
        let loans = self.loans.values().filter(|loan| loan.during.contains(at));
        Shifts::of(loans.filter(|loan| counts(loan)))
    }

    /// Reservations that are not over at `at`.
    pub(super) fn reservations_at(
        &self,
        at: UnixMicros,
    ) -> BTreeMap<ReservationName, ReservationTerms> {
        let coming = self.reservations.iter().filter(|(_, terms)| terms.during.until > at);
        coming.map(|(name, terms)| (name.clone(), terms.clone())).collect()
    }

    /// Every moment at which a loan or a reservation begins or ends.
    pub(super) fn lending_edges(&self) -> impl Iterator<Item = UnixMicros> {
        let loans = self.loans.values().flat_map(|loan| loan.during.edges());
        loans.chain(self.reservations.values().flat_map(|terms| terms.during.edges()))
    }

    /// GPU time of a reservation that is its holder's own: what is reserved without what is lent to the holder
    /// meanwhile.
    #[must_use]
    pub fn own_gpu_time(&self, terms: &ReservationTerms) -> GpuMilliSeconds {
        let holder = terms.holder.as_str();
        let loans = self.loans.values().filter(|loan| {
            loan.class == terms.class
                && loan.borrower.is_within(holder)
                && !loan.lender.is_within(holder)
        });
        let lent: GpuMilliSeconds =
            loans.map(|loan| gpu_time(loan.gpus, loan.during.both(terms.during))).sum();
        GpuMilliSeconds(terms.gpu_time().0.saturating_sub(lent.0).max(0))
    }

    /// Loans that the node, or a node below it, gives or takes beyond itself, and that are not over at `at`.
    #[must_use]
    pub fn loans_of(&self, path: &ProjectPath, at: UnixMicros) -> Vec<LoanView<'_>> {
        let coming = self.loans.iter().filter(|(_, terms)| terms.during.until > at);
        let sided = coming.filter_map(|(name, terms)| {
            let sides = [&terms.lender, &terms.borrower];
            let [lends, borrows] = sides.map(|side| side.is_within(path.as_str()));
            (lends != borrows).then_some(LoanView { name, terms, lends })
        });
        sided.collect()
    }
}
