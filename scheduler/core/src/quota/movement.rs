//! Budget that was moved within a period, by a command and on a decision.
//!
//! Movements are part of the quota book, so each is an entry of the audit chain, survives a restart, and is in the tree
//! of any past moment. Files do not speak of them: applying files leaves them as they are. A movement is never changed;
//! it can be voided once, by another one that is its opposite.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::ParseIntError;

use serde::{Deserialize, Serialize};

use super::budget::Budget;
use super::dated::Interval;
use super::{QuotaBook, QuotaNode};
use crate::amount::{Ngh, UnixMicros};
use crate::ids::{ProjectPath, UserName};

/// Number of a movement, from 1 and without gaps. Written as digits in quotes, as the names of all other things in the
/// audit chain are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MovementId(pub u64);

impl fmt::Display for MovementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<MovementId> for String {
    fn from(id: MovementId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for MovementId {
    type Error = ParseIntError;

    fn try_from(digits: String) -> Result<Self, Self::Error> {
        digits.parse().map(MovementId)
    }
}

/// Budget that was moved; never changed once written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Movement {
    /// What kind.
    pub kind: MovementKind,
    /// Which node gives; `None`: the office does.
    pub from: Option<ProjectPath>,
    /// Which node gets; `None`: the office does.
    pub to: Option<ProjectPath>,
    /// How much; always positive.
    pub ngh: Ngh,
    /// When it was committed.
    pub at: UnixMicros,
    /// It counts in the period of each node that this moment lies in: for a void, that of the movement it undoes.
    pub counts: UnixMicros,
    /// Who did it.
    pub by: UserName,
    /// The document that decided it.
    pub decision: String,
    /// Why.
    pub reason: String,
    /// What every node's budget is given, or less than nothing where it is taken: the two nodes, and those above only
    /// one of them.
    pub lines: Vec<MovedLine>,
}

/// What kind of movement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MovementKind {
    /// From one node to another.
    Transfer,
    /// A correction, between a node and the office.
    Adjust,
    /// The opposite of an earlier one.
    Void {
        /// Number of that.
        of: MovementId,
    },
}

impl MovementKind {
    /// The word in listings.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            MovementKind::Transfer => "transfer",
            MovementKind::Adjust => "adjust",
            MovementKind::Void { .. } => "void",
        }
    }
}

/// What a movement does to one budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedLine {
    /// Whose budget.
    pub node: ProjectPath,
    /// What it is given.
    pub ngh: Ngh,
}

impl Movement {
    /// Whether what one node gets another gives, so that the tree as a whole has what it had.
    #[must_use]
    pub fn is_between_nodes(&self) -> bool {
        self.from.is_some() && self.to.is_some()
    }

    /// What it does to the budget of that node; nothing for most.
    #[must_use]
    pub fn at_node(&self, node: &str) -> Ngh {
        let lines = self.lines.iter().filter(|line| line.node.as_str() == node);
        lines.map(|line| line.ngh).sum()
    }

    /// One line for a person.
    #[must_use]
    pub fn describe(&self) -> String {
        let name = |node: &Option<ProjectPath>| {
            node.as_ref().map_or_else(|| OFFICE.to_owned(), ProjectPath::to_string)
        };
        let (from, to) = (name(&self.from), name(&self.to));
        format!("{} of {} NGH from {from} to {to}", self.kind.word(), self.ngh)
    }
}

/// Who is on the other side of a correction.
pub const OFFICE: &str = "office";

/// The lines of a movement: each node with all above it, as far as they have a budget and are not above both.
#[must_use]
pub fn lines(
    nodes: &BTreeMap<ProjectPath, QuotaNode>,
    from: Option<&ProjectPath>,
    to: Option<&ProjectPath>,
    ngh: Ngh,
) -> Vec<MovedLine> {
    let side = |side: Option<&ProjectPath>, other: Option<&ProjectPath>, ngh: Ngh| {
        let chain = side.into_iter().flat_map(ProjectPath::self_and_ancestors);
        let own = chain.filter(|path| !other.is_some_and(|other| other.is_within(path)));
        let lines = own.filter_map(|path| {
            let (path, node) = nodes.get_key_value(path)?;
            node.budget.as_ref().map(|_| MovedLine { node: path.clone(), ngh })
        });
        lines.collect::<Vec<_>>()
    };
    let mut lines = side(from, to, Ngh::ZERO - ngh);
    lines.extend(side(to, from, ngh));
    lines
}

impl QuotaBook {
    /// Number of the next movement.
    #[must_use]
    pub fn next_movement(&self) -> MovementId {
        let last = self.moves.last_key_value().map_or(0, |(last, _)| last.0);
        MovementId(last.saturating_add(1))
    }

    /// The movement that voided that one.
    #[must_use]
    pub fn void_of(&self, number: MovementId) -> Option<(MovementId, &Movement)> {
        let mut later = self.moves.range(number..);
        let found = later.find(|(_, later)| later.kind == MovementKind::Void { of: number });
        found.map(|(number, movement)| (*number, movement))
    }

    /// What movements gave to a node in a period, less what they took.
    #[must_use]
    pub fn moved(&self, node: &str, span: Interval) -> Ngh {
        let counted = self.moves.values().filter(|one| span.contains(one.counts));
        counted.map(|one| one.at_node(node)).sum()
    }

    /// The budget of a node at `at`, with what was moved.
    #[must_use]
    pub fn budget_at(&self, path: &ProjectPath, at: UnixMicros) -> Option<Budget> {
        let terms = self.nodes.get(path).filter(|_| self.is_valid(path, at))?;
        let mut budget = terms.at(at).budget?;
        self.add_moved(path.as_str(), &mut budget);
        Some(budget)
    }

    /// Takes over the movements of the book in force: files do not speak of them.
    pub fn keep_moves(&mut self, present: &QuotaBook) {
        let kept = present.moves.iter().filter(|(number, _)| !self.moves.contains_key(number));
        let kept: Vec<_> = kept.map(|(number, one)| (*number, one.clone())).collect();
        self.moves.extend(kept);
    }

    /// Nodes whose budgets were ever moved.
    pub(super) fn moved_nodes(&self) -> BTreeSet<&ProjectPath> {
        let lines = self.moves.values().flat_map(|moved| &moved.lines);
        lines.map(|line| &line.node).collect()
    }

    /// Adds to the budget of `node` what was moved to it in its period and in the one before.
    pub(super) fn add_moved(&self, node: &str, budget: &mut Budget) {
        budget.ngh += self.moved(node, budget.span);
        if let Some(before) = &mut budget.before {
            before.ngh += self.moved(node, before.span);
        }
    }
}
