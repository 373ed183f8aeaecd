//! Checks the book at every moment at which something changes: what fits today and not next year is refused
//! today.
//!
//! The rules: guarantees of siblings fit the guarantee of the node above them, class by class; a limit is no lower
//! than the guarantee beside it; guarantees of the roots fit what was delivered or is due by then; a guarantee rests
//! on a decision; budgets of siblings for one kind of period fit that of the node above them; no value of a
//! label has too much of what is guaranteed. What is due and not accepted makes guarantees shrink for a while, but
//! does not refuse them.

mod bounds;
mod reserve;

use std::collections::{BTreeMap, BTreeSet};

use super::book::{NodeTerms, QuotaBook};
use super::dated::Interval;
use super::loan::Shifts;
use super::moment;
use super::parse::{Places, QuotaFault, node_field};
use crate::amount::{GpuMilli, Ngh, UnixMicros};
use crate::ids::{GpuClass, ProjectPath};

/// Every fault, each at the first moment at which it shows.
pub(super) fn check(book: &QuotaBook, places: &Places) -> Vec<QuotaFault> {
    let (shifts, told, faults) = (Shifts::default(), BTreeSet::new(), Vec::new());
    let mut checker = Checker { book, places, shifts, told, faults };
    checker.check_decisions();
    checker.check_consents();
    checker.check_fabrics();
    checker.check_bounds();
    let families = Families::of(book);
    checker.check_roots(&families.roots);
    let moments = std::iter::once(Interval::ALWAYS.from).chain(book.breakpoints());
    for at in moments {
        checker.check_at(&families, at);
    }
    checker.faults
}

/// Children of every node, and the roots.
struct Families<'a> {
    children: BTreeMap<&'a str, Vec<&'a ProjectPath>>,
    roots: Vec<&'a ProjectPath>,
}

impl<'a> Families<'a> {
    fn of(book: &'a QuotaBook) -> Self {
        let mut families = Families { children: BTreeMap::new(), roots: Vec::new() };
        for path in book.nodes.keys() {
            match path.parent() {
                Some(parent) => families.children.entry(parent).or_default().push(path),
                None => families.roots.push(path),
            }
        }
        families
    }
}

struct Checker<'a> {
    book: &'a QuotaBook,
    places: &'a Places,
    /// What loans with consent move at the moment that is looked at.
    shifts: Shifts<'a>,
    /// Fields that were found faulty at an earlier moment.
    told: BTreeSet<String>,
    faults: Vec<QuotaFault>,
}

impl<'a> Checker<'a> {
    fn check_decisions(&mut self) {
        for (path, node) in &self.book.nodes {
            if !node.guarantees.is_empty() && self.book.decision(path).is_none() {
                let message = "a guarantee rests on a decision: name the document here or at a node \
                               above, as in decision = \"GPU-2026-014\"";
                self.tell(format!("{}.decision", node_field(path)), message.to_owned());
            }
        }
    }

    fn check_at(&mut self, families: &Families<'_>, at: UnixMicros) {
        self.shifts = self.book.shifts(at, |loan| loan.consent.is_some());
        self.check_loans(at);
        self.check_reservations(at);
        for (path, node) in &self.book.nodes {
            if self.book.is_valid(path, at) {
                self.check_limits(path, node, at);
                self.check_concentration(path, node, at);
            }
        }
        for (parent, children) in &families.children {
            self.check_nesting(parent, children, at);
            self.check_budgets(parent, children, at);
        }
        self.check_capacity(&families.roots, at);
    }

    fn check_limits(&mut self, path: &ProjectPath, node: &'a NodeTerms, at: UnixMicros) {
        let mut sum = GpuMilli::ZERO;
        for (class, guarantee) in self.guarantees(path, node, at) {
            sum += guarantee;
            let limit = node.limits.get(class).and_then(|limit| limit.at(at).copied().flatten());
            if let Some(limit) = limit.filter(|limit| *limit < guarantee) {
                let message = format!(
                    "from {} the limit of {limit} {class} is under the guarantee of {guarantee}: raise it \
                     by {} or lower the guarantee",
                    moment::show(at),
                    guarantee - limit
                );
                self.tell(format!("{}.limit.{class}", node_field(path)), message);
            }
        }
        let any = node.any_limit.at(at).copied().flatten();
        if let Some(limit) = any.filter(|limit| *limit < sum) {
            let message = format!(
                "from {} the limit of {limit} over all classes is under the guarantees, which sum to {sum}: \
                 raise it by {} or lower them",
                moment::show(at),
                sum - limit
            );
            self.tell(format!("{}.limit.any", node_field(path)), message);
        }
    }

    fn check_nesting(&mut self, parent: &str, children: &[&ProjectPath], at: UnixMicros) {
        for (class, sum) in self.sums(children, at) {
            let Some((path, _)) = self.book.nodes.get_key_value(parent) else {
                continue;
            };
            let own = self.guaranteed(path, &class, at);
            if sum > own {
                let message = format!(
                    "from {} the nodes right below are guaranteed {sum} {class} and it has {own} itself: \
                     raise it by {} or lower them",
                    moment::show(at),
                    sum - own
                );
                self.tell(format!("{}.guarantee.{class}", node_field(path)), message);
            }
        }
    }

    /// Budgets of the nodes right below for the same period fit the node's own, unless it promises beyond it.
    fn check_budgets(&mut self, parent: &str, children: &[&ProjectPath], at: UnixMicros) {
        let Some((path, node)) = self.book.nodes.get_key_value(parent) else {
            return;
        };
        let terms = node.budget.as_ref().filter(|_| self.book.is_valid(path, at));
        let Some((terms, own)) = terms.and_then(|terms| Some((terms, *terms.ngh.at(at)?))) else {
            return;
        };
        let valid = children.iter().filter(|path| self.book.is_valid(path, at));
        let budgets = valid.filter_map(|path| self.book.nodes.get(*path)?.budget.as_ref());
        let same = budgets.filter(|budget| budget.period == terms.period);
        let sum: Ngh = same.filter_map(|budget| budget.ngh.at(at).copied()).sum();
        if sum > own && !terms.promises_beyond {
            let message = format!(
                "from {} the nodes right below have {sum} NGH a {} together and it has {own} itself: raise it by {}, \
                 lower them, or add promise = \"beyond\"",
                moment::show(at),
                terms.period.word(),
                sum - own
            );
            self.tell(format!("{}.budget.ngh", node_field(path)), message);
        }
    }

    /// Capacity belongs to the root, so there must be one.
    fn check_roots(&mut self, roots: &[&ProjectPath]) {
        let [first, others @ ..] = roots else {
            return;
        };
        for other in others.iter().filter(|_| !self.book.lots.is_empty()) {
            let message = format!(
                "lots are given out from one root, and {first} is one already: put this node below it"
            );
            self.tell(node_field(other), message);
        }
    }

    fn check_capacity(&mut self, roots: &[&ProjectPath], at: UnixMicros) {
        if self.book.lots.is_empty() {
            return;
        }
        let capacity = self.book.capacity(at);
        for (class, sum) in self.sums(roots, at) {
            let there = capacity.get(&class).copied().unwrap_or_default();
            let most = there.accepted + there.promised;
            let Some(root) = roots.iter().find(|root| !self.guaranteed(root, &class, at).is_zero())
            else {
                continue;
            };
            if sum > most {
                let message = format!(
                    "from {} {sum} {class} are guaranteed, and {} were accepted and {} are due by then, {most} \
                     in all: lower the guarantees by {} or add a lot",
                    moment::show(at),
                    there.accepted,
                    there.promised,
                    sum - most
                );
                self.tell(format!("{}.guarantee.{class}", node_field(root)), message);
            }
        }
    }

    /// Guarantees of some nodes together, by class.
    fn sums(&self, paths: &[&ProjectPath], at: UnixMicros) -> BTreeMap<GpuClass, GpuMilli> {
        let mut sums: BTreeMap<GpuClass, GpuMilli> = BTreeMap::new();
        for path in paths.iter().filter(|path| self.book.is_valid(path, at)) {
            let Some(node) = self.book.nodes.get(*path) else {
                continue;
            };
            for (class, guarantee) in self.guarantees(path, node, at) {
                *sums.entry(class.clone()).or_default() += guarantee;
            }
        }
        sums
    }

    fn guaranteed(&self, path: &ProjectPath, class: &GpuClass, at: UnixMicros) -> GpuMilli {
        let node = self.book.nodes.get(path).filter(|_| self.book.is_valid(path, at));
        let own = node.map_or(GpuMilli::ZERO, |node| node.guarantee(class, at));
        self.shifts.apply(path.as_str(), class, own)
    }

    /// What a node is sure of, with what loans move.
    fn guarantees(
        &self,
        path: &ProjectPath,
        node: &'a NodeTerms,
        at: UnixMicros,
    ) -> Vec<(&'a GpuClass, GpuMilli)> {
        let moved = self.shifts.classes(path.as_str());
        let moved = moved.filter(|class| !node.guarantees.contains_key(*class));
        let of = |class: &'a GpuClass| {
            (class, self.shifts.apply(path.as_str(), class, node.guarantee(class, at)))
        };
        node.guarantees.keys().chain(moved).map(of).collect()
    }

    fn tell(&mut self, field: String, message: String) {
        if self.told.insert(field.clone()) {
            self.faults.push(self.places.fault(&field, message));
        }
    }
}
