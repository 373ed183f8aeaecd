//! The account of a node for a period as a bookkeeper reads it: lines that add up to its balance.
//!
//! What was used and set aside are entries of the ledger. What was granted, carried, forfeited and moved is not stored
//! a second time: it follows from the quota book and its audit chain, and is derived whenever somebody reads. The
//! balance is what the planner decides by: budget and what was carried, less what was used, less what is set aside.

use crate::account::Accounts;
use crate::amount::{Ngh, UnixMicros};
use crate::ids::ProjectPath;
use crate::ledger::{LedgerEntry, LedgerKind};
use crate::quota::audit::{AuditBody, Edit};
use crate::quota::budget::Budget;
use crate::quota::{Interval, Movement, MovementId, NodeTerms, OFFICE, QuotaBook};

/// What kind of line that is no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenKind {
    /// The office grants a budget, or more of it, or less.
    Grant,
    /// What was left goes on from one period to the next.
    Carry,
    /// What was left lapses.
    Forfeit,
    /// A movement, by its number.
    Moved {
        /// Which.
        number: MovementId,
        /// Transfer, adjust or void.
        word: &'static str,
    },
}

impl GivenKind {
    /// The word in listings.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            GivenKind::Grant => "grant",
            GivenKind::Carry => "carry",
            GivenKind::Forfeit => "forfeit",
            GivenKind::Moved { word, .. } => word,
        }
    }
}

/// A line that is no entry of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// When it counts from.
    pub at: UnixMicros,
    /// What kind.
    pub kind: GivenKind,
    /// What it adds to the balance.
    pub ngh: Ngh,
    /// Who is on the other side: a node, a period, or the office.
    pub counter: String,
}

/// The lines of a period beside the entries of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The budget it is about, as it is now, or was at the end of its period.
    pub budget: Budget,
    /// By time.
    pub given: Vec<Given>,
    /// After everything else, once the period is over.
    pub closing: Vec<Given>,
}

/// A line, of either kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatementLine {
    /// Derived from the quota book.
    Given(Given),
    /// An entry of the ledger.
    Entry(LedgerEntry),
}

impl StatementLine {
    /// What it adds to the balance.
    #[must_use]
    pub fn ngh(&self) -> Ngh {
        match self {
            StatementLine::Given(given) => given.ngh,
            StatementLine::Entry(entry) => effect(entry),
        }
    }
}

/// What an entry adds to the balance of its project and of all nodes above.
#[must_use]
pub fn effect(entry: &LedgerEntry) -> Ngh {
    match entry.kind {
        LedgerKind::Release | LedgerKind::Refund => entry.ngh(),
        LedgerKind::Hold | LedgerKind::Charge | LedgerKind::Overuse => Ngh::ZERO - entry.ngh(),
    }
}

/// Terms of a node and from when they were in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastTerms {
    /// When they were applied.
    pub at: UnixMicros,
    /// What they were; `None` where the node was taken away.
    pub terms: Option<NodeTerms>,
}

/// The terms of a node over time, by the entries of the audit chain about it. Without any, those in force always held.
#[must_use]
pub fn history<'a>(
    entries: impl IntoIterator<Item = &'a AuditBody>,
    present: Option<&NodeTerms>,
) -> Vec<PastTerms> {
    let mut history = Vec::new();
    for body in entries {
        let Edit::Node(edit) = &body.edit else { continue };
        if history.is_empty() {
            history.push(PastTerms { at: Interval::ALWAYS.from, terms: edit.before.clone() });
        }
        history.push(PastTerms { at: body.at, terms: edit.after.clone() });
    }
    if history.is_empty() {
        history.push(PastTerms { at: Interval::ALWAYS.from, terms: present.cloned() });
    }
    history
}

/// The statement of `path` for the period that `at` lies in, as far as `now`; `None` if it has no budget then.
#[must_use]
pub fn statement(
    book: &QuotaBook,
    accounts: &Accounts,
    path: &ProjectPath,
    past: &[PastTerms],
    at: UnixMicros,
    now: UnixMicros,
) -> Option<Statement> {
    let span = book.budget_at(path, at)?.span;
    let last = UnixMicros(span.until.0.saturating_sub(1)).min(now.max(span.from));
    let budget = book.budget_at(path, last)?;
    let mut given = grants(past, span, now);
    given.extend(carried(&budget, accounts, path));
    given.extend(moved(book, path, span));
    given.sort_by_key(|given| given.at);
    let over = now >= span.until;
    let closing = if over { closing(book, accounts, path, &budget) } else { Vec::new() };
    Some(Statement { budget, given, closing })
}

impl Statement {
    /// Puts the next entries among the lines of which `told` were told already; answers how many are told then.
    #[must_use]
    pub fn merge(
        &self,
        entries: Vec<LedgerEntry>,
        mut told: usize,
        last: bool,
    ) -> (Vec<StatementLine>, usize) {
        let mut lines = Vec::new();
        for entry in entries {
            while let Some(given) = self.given.get(told).filter(|given| given.at <= entry.at) {
                lines.push(StatementLine::Given(given.clone()));
                told += 1;
            }
            lines.push(StatementLine::Entry(entry));
        }
        if last {
            let rest = self.given.iter().skip(told).chain(&self.closing);
            lines.extend(rest.cloned().map(StatementLine::Given));
        }
        (lines, told)
    }
}

/// What the office granted for the period, and when it came to be another amount: by a new revision of the book, or by a
/// date in it. What a revision says of a period that is over counts for its last moment.
fn grants(past: &[PastTerms], span: Interval, now: UnixMicros) -> Vec<Given> {
    let last = UnixMicros(span.until.0.saturating_sub(1));
    let granted = |moment: UnixMicros| {
        let terms = past.iter().rev().find(|past| past.at <= moment)?.terms.as_ref()?;
        let budget = terms.at(moment.min(last)).budget?;
        (budget.span == span).then_some(budget.ngh)
    };
    let mut moments: Vec<UnixMicros> = past.iter().map(|past| past.at).collect();
    let terms = past.iter().filter_map(|past| past.terms.as_ref());
    let budgets = terms.filter_map(|terms| terms.budget.as_ref());
    moments.extend(budgets.flat_map(|budget| budget.ngh.edges()).filter(|at| span.contains(*at)));
    moments.push(span.from);
    moments.retain(|at| span.from <= *at && *at <= now);
    moments.sort_unstable();
    moments.dedup();
    let mut before = Ngh::ZERO;
    let lines = moments.into_iter().filter_map(|at| {
        let ngh = granted(at).unwrap_or_default() - before;
        before += ngh;
        let counter = OFFICE.to_owned();
        (ngh != Ngh::ZERO).then_some(Given { at, kind: GivenKind::Grant, ngh, counter })
    });
    lines.collect()
}

fn carried(budget: &Budget, accounts: &Accounts, path: &ProjectPath) -> Option<Given> {
    let before = budget.before.as_ref()?;
    let ngh = budget.carried(path.as_str(), accounts);
    let counter = budget.period.name(before.span.from);
    let (at, kind) = (budget.span.from, GivenKind::Carry);
    (ngh != Ngh::ZERO).then_some(Given { at, kind, ngh, counter })
}

fn moved(book: &QuotaBook, path: &ProjectPath, span: Interval) -> Vec<Given> {
    let counted = book.moves.iter().filter(|(_, moved)| span.contains(moved.counts));
    let lines = counted.filter_map(|(number, moved)| {
        let ngh = moved.at_node(path.as_str());
        let kind = GivenKind::Moved { number: *number, word: moved.kind.word() };
        let counter = other_side(moved, path);
        (ngh != Ngh::ZERO).then_some(Given { at: moved.at, kind, ngh, counter })
    });
    lines.collect()
}

/// Who gave it to the node, or got it from there.
fn other_side(moved: &Movement, path: &ProjectPath) -> String {
    let gives = moved.from.as_ref().is_some_and(|from| from.is_within(path.as_str()));
    let other = if gives { moved.to.as_ref() } else { moved.from.as_ref() };
    other.map_or_else(|| OFFICE.to_owned(), ProjectPath::to_string)
}

/// What goes on to the next period, and what lapses. A balance below nothing stays: nobody owes it to the next period.
fn closing(
    book: &QuotaBook,
    accounts: &Accounts,
    path: &ProjectPath,
    budget: &Budget,
) -> Vec<Given> {
    let at = budget.span.until;
    let next = book.budget_at(path, at);
    let goes_on = next.and_then(|next| {
        let continues = next.before.as_ref().is_some_and(|before| before.span == budget.span);
        continues.then(|| (next.carried(path.as_str(), accounts), next.period_name()))
    });
    let (carried, period) = goes_on.unwrap_or_default();
    let used = accounts.used(path.as_str(), budget.span);
    let left = budget.ngh + budget.carried(path.as_str(), accounts) - used;
    let minus = |ngh: Ngh| Ngh::ZERO - ngh.or_zero();
    let lines = [
        Given { at, kind: GivenKind::Carry, ngh: minus(carried), counter: period },
        Given {
            at,
            kind: GivenKind::Forfeit,
            ngh: minus(left - carried),
            counter: OFFICE.to_owned(),
        },
    ];
    lines.into_iter().filter(|line| line.ngh != Ngh::ZERO).collect()
}
