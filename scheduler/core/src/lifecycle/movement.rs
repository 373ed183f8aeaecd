//! Budget is moved by command: from one node to another, as a correction, or back again.

use super::draft::Draft;
use super::quota::{QuotaRefusal, approvers_needed, check_clock, enter};
use crate::account::Account;
use crate::amount::Ngh;
use crate::ids::{ProjectPath, UserName};
use crate::quota::audit::{Source, Warrant, edits};
use crate::quota::budget::Budget;
use crate::quota::{Movement, MovementId, MovementKind, QuotaBook, moved_lines};

/// On which grounds budget is moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grounds {
    /// Who does it.
    pub by: UserName,
    /// The document that decided it.
    pub decision: String,
    /// Why.
    pub reason: String,
}

/// What is moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// From one node to another.
    Transfer {
        /// Who gives.
        from: ProjectPath,
        /// Who gets.
        to: ProjectPath,
        /// How much; more than nothing.
        ngh: Ngh,
        /// More may be taken than is free.
        overdraw: bool,
    },
    /// A correction: the office gives that much, or takes it where it is less than nothing.
    Adjust {
        /// To whom.
        node: ProjectPath,
        /// How much; not nothing.
        ngh: Ngh,
    },
    /// An earlier movement is undone.
    Void {
        /// Its number.
        number: MovementId,
    },
}

/// Why nothing is moved; each says in which field of the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoveRefusal {
    /// There is no such node.
    #[error("the quota tree has no node {path}; see `gotgan quota show`")]
    UnknownNode {
        /// In which field.
        field: &'static str,
        /// What it says.
        path: ProjectPath,
    },
    /// The node has no budget now.
    #[error(
        "{path} has no budget in force: give it one in the quota files, or name a node with one"
    )]
    NoBudget {
        /// In which field.
        field: &'static str,
        /// What it says.
        path: ProjectPath,
    },
    /// The budgets do not begin and end together.
    #[error(
        "{from} has a budget for {from_period} and {to} for {to_period}: budget moves between nodes with the same \
         period; change both in the quota files"
    )]
    OtherPeriod {
        /// Who would give.
        from: ProjectPath,
        /// Its period.
        from_period: String,
        /// Who would get.
        to: ProjectPath,
        /// Its period.
        to_period: String,
    },
    /// One is the other, or above it.
    #[error(
        "{to} and {from} are one, or one is above the other: its budget covers what lies below it already"
    )]
    Nested {
        /// Who would give.
        from: ProjectPath,
        /// Who would get.
        to: ProjectPath,
    },
    /// It is more than is free.
    #[error("{node} has {free} NGH that are neither used nor set aside: move no more than that")]
    TooMuch {
        /// Who would give.
        node: ProjectPath,
        /// What it has.
        free: Ngh,
    },
    /// A budget would be less than nothing.
    #[error("{node} has a budget of {budget} NGH: take no more than that")]
    BelowNothing {
        /// Whose.
        node: ProjectPath,
        /// How much it is.
        budget: Ngh,
    },
    /// There is no such movement.
    #[error("there is no movement {0}; see `gotgan quota ledger NODE`")]
    UnknownMovement(MovementId),
    /// It is void, or voids another.
    #[error("movement {number} {why}: to move it once more, make a new transfer or adjustment")]
    AlreadyVoid {
        /// Which.
        number: MovementId,
        /// How it was voided.
        why: String,
    },
    /// The change of the book is refused.
    #[error(transparent)]
    Quota(#[from] QuotaRefusal),
}

/// Moves budget; answers the number of the movement.
///
/// # Errors
/// [`MoveRefusal`]; nothing is changed then.
pub fn move_budget(
    draft: &mut Draft<'_>,
    wish: &Move,
    grounds: Grounds,
) -> Result<MovementId, MoveRefusal> {
    check_clock(draft)?;
    let movement = match wish {
        Move::Transfer { from, to, ngh, overdraw } => {
            check_transfer(draft, from, to, *ngh, *overdraw)?;
            fresh(draft, MovementKind::Transfer, (Some(from), Some(to)), *ngh, grounds)
        }
        Move::Adjust { node, ngh } => {
            budget_of(draft, "node", node)?;
            let sides = if *ngh < Ngh::ZERO { (Some(node), None) } else { (None, Some(node)) };
            fresh(draft, MovementKind::Adjust, sides, Ngh(ngh.0.abs()), grounds)
        }
        Move::Void { number } => opposite(draft, *number, grounds)?,
    };
    check_floor(draft, &movement)?;
    write(draft, movement)
}

fn check_transfer(
    draft: &Draft<'_>,
    from: &ProjectPath,
    to: &ProjectPath,
    ngh: Ngh,
    overdraw: bool,
) -> Result<(), MoveRefusal> {
    let giver = budget_of(draft, "from", from)?;
    let getter = budget_of(draft, "to", to)?;
    if from.is_within(to.as_str()) || to.is_within(from.as_str()) {
        return Err(MoveRefusal::Nested { from: from.clone(), to: to.clone() });
    }
    if giver.span != getter.span {
        return Err(MoveRefusal::OtherPeriod {
            from: from.clone(),
            from_period: giver.period_name(),
            to: to.clone(),
            to_period: getter.period_name(),
        });
    }
    let free = Account::of(from.as_str(), giver, &draft.world.accounts).free();
    if ngh > free && !overdraw {
        return Err(MoveRefusal::TooMuch { node: from.clone(), free: free.or_zero() });
    }
    Ok(())
}

fn budget_of<'a>(
    draft: &'a Draft<'_>,
    field: &'static str,
    path: &ProjectPath,
) -> Result<&'a Budget, MoveRefusal> {
    let Some(node) = draft.world.quota.get(path) else {
        return Err(MoveRefusal::UnknownNode { field, path: path.clone() });
    };
    node.budget.as_ref().ok_or_else(|| MoveRefusal::NoBudget { field, path: path.clone() })
}

/// A movement that counts now.
fn fresh(
    draft: &Draft<'_>,
    kind: MovementKind,
    (from, to): (Option<&ProjectPath>, Option<&ProjectPath>),
    ngh: Ngh,
    grounds: Grounds,
) -> Movement {
    Movement {
        kind,
        from: from.cloned(),
        to: to.cloned(),
        ngh,
        at: draft.now,
        counts: draft.now,
        by: grounds.by,
        decision: grounds.decision,
        reason: grounds.reason,
        lines: moved_lines(&draft.world.quota.nodes, from, to, ngh),
    }
}

/// The opposite of a movement, in the periods in which that counts.
fn opposite(
    draft: &Draft<'_>,
    number: MovementId,
    grounds: Grounds,
) -> Result<Movement, MoveRefusal> {
    let book = &draft.world.book;
    let movement = book.moves.get(&number).ok_or(MoveRefusal::UnknownMovement(number))?;
    let why = match (movement.kind, book.void_of(number)) {
        (MovementKind::Void { of }, _) => Some(format!("is itself the void of {of}")),
        (MovementKind::Transfer | MovementKind::Adjust, Some((by, _))) => {
            Some(format!("was voided by movement {by}"))
        }
        (MovementKind::Transfer | MovementKind::Adjust, None) => None,
    };
    if let Some(why) = why {
        return Err(MoveRefusal::AlreadyVoid { number, why });
    }
    let lines = movement.lines.iter().cloned().map(|mut line| {
        line.ngh = Ngh::ZERO - line.ngh;
        line
    });
    Ok(Movement {
        kind: MovementKind::Void { of: number },
        from: movement.to.clone(),
        to: movement.from.clone(),
        ngh: movement.ngh,
        at: draft.now,
        counts: movement.counts,
        by: grounds.by,
        decision: grounds.decision,
        reason: grounds.reason,
        lines: lines.collect(),
    })
}

/// Refuses what would leave a budget below nothing.
fn check_floor(draft: &Draft<'_>, movement: &Movement) -> Result<(), MoveRefusal> {
    for line in movement.lines.iter().filter(|line| line.ngh < Ngh::ZERO) {
        let budget = draft.world.book.budget_at(&line.node, movement.counts);
        let budget = budget.map(|budget| budget.ngh).unwrap_or_default();
        if budget + line.ngh < Ngh::ZERO {
            return Err(MoveRefusal::BelowNothing { node: line.node.clone(), budget });
        }
    }
    Ok(())
}

fn write(draft: &mut Draft<'_>, movement: Movement) -> Result<MovementId, MoveRefusal> {
    let mut book = QuotaBook::clone(&draft.world.book);
    let number = book.next_movement();
    let warrant = Warrant {
        by: movement.by.clone(),
        requester: movement.by.clone(),
        source: Source::Command,
        reason: movement.reason.clone(),
        plan: None,
        approvals: Vec::new(),
    };
    book.moves.insert(number, movement);
    let needed = approvers_needed(&draft.world.book, &edits(&draft.world.book, &book));
    if needed > 0 {
        return Err(QuotaRefusal::NotApproved { needed, given: Vec::new() }.into());
    }
    enter(draft, book, &warrant);
    Ok(number)
}
