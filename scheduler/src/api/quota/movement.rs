//! Moving budget by command, as the API asks for it.

use gotgan_core::amount::Ngh;
use gotgan_core::ids::ProjectPath;
use gotgan_core::lifecycle::{Grounds, Move, MoveRefusal, move_budget};
use gotgan_core::quota::{Movement, QuotaBook};
use gotgan_proto::v1;
use tonic::{Code, Status};

use super::proposal;
use crate::api::error;
use crate::auth::{Principal, Role};
use crate::flow::round::RoundDraft;

/// The transfer that a request asks for.
pub(super) fn transfer(
    who: &Principal,
    request: &v1::TransferBudgetRequest,
) -> Result<Move, Status> {
    if request.ngh_milli == 0 {
        return Err(error::invalid("ngh_milli", "OUT_OF_RANGE", "must be more than 0"));
    }
    if request.overdraw && who.role != Role::Admin {
        let message = "only an administrator may take more than is free";
        return Err(error::invalid("overdraw", "NOT_ALLOWED", message));
    }
    Ok(Move::Transfer {
        from: path("from", &request.from)?,
        to: path("to", &request.to)?,
        ngh: Ngh::thousandths(request.ngh_milli),
        overdraw: request.overdraw,
    })
}

/// The correction that a request asks for.
pub(super) fn adjust(request: &v1::AdjustBudgetRequest) -> Result<Move, Status> {
    if request.ngh_milli == 0 {
        return Err(error::invalid("ngh_milli", "OUT_OF_RANGE", "must not be 0"));
    }
    let amount = Ngh::thousandths(request.ngh_milli.unsigned_abs());
    let ngh = if request.ngh_milli < 0 { Ngh::ZERO - amount } else { amount };
    Ok(Move::Adjust { node: path("path", &request.path)?, ngh })
}

/// On which grounds.
pub(super) fn grounds(
    who: &Principal,
    decision: String,
    reason: String,
) -> Result<Grounds, Status> {
    Ok(Grounds {
        by: who.subject.clone(),
        decision: proposal::document_in("decision", decision)?,
        reason: proposal::reason(reason)?,
    })
}

/// Moves it, if it is the caller's to move.
pub(super) fn carry_out(
    round: &mut RoundDraft<'_>,
    who: &Principal,
    wish: &Move,
    grounds: Grounds,
) -> Result<v1::MovedBudgetResponse, Status> {
    check_allocator(who, &round.draft.world.book, wish)?;
    let moved = move_budget(&mut round.draft, wish, grounds);
    let movement = moved.map_err(|refused| refusal(&refused))?;
    Ok(v1::MovedBudgetResponse { movement: movement.0, revision: round.draft.world.book.revision })
}

/// Refuses an allocator who moves what is not below a node that names them, or undoes a correction.
fn check_allocator(who: &Principal, book: &QuotaBook, wish: &Move) -> Result<(), Status> {
    if who.role != Role::Allocator {
        return Ok(());
    }
    let sides: Vec<Option<&ProjectPath>> = match wish {
        Move::Transfer { from, to, .. } => vec![Some(from), Some(to)],
        Move::Adjust { .. } => vec![None],
        Move::Void { number } => book.moves.get(number).map(sides).unwrap_or_default(),
    };
    let named = book.names_allocators();
    let may = |side: &Option<&ProjectPath>| {
        side.is_some_and(|path| !named || book.may_change(&who.subject, path))
    };
    if sides.iter().all(may) {
        return Ok(());
    }
    let message = format!(
        "{} moves budget between nodes below those that name them; leave that as it is or ask an administrator",
        who.subject
    );
    Err(error::status(Code::PermissionDenied, "NOT_YOUR_SUBTREE", message))
}

fn sides(movement: &Movement) -> Vec<Option<&ProjectPath>> {
    vec![movement.from.as_ref(), movement.to.as_ref()]
}

fn refusal(refused: &MoveRefusal) -> Status {
    let text = refused.to_string();
    match refused {
        MoveRefusal::UnknownNode { field, .. } => error::invalid(field, "UNKNOWN_PROJECT", text),
        MoveRefusal::NoBudget { field, .. } => error::invalid(field, "NO_BUDGET", text),
        MoveRefusal::OtherPeriod { .. } => error::invalid("to", "OTHER_PERIOD", text),
        MoveRefusal::Nested { .. } => error::invalid("to", "NESTED", text),
        MoveRefusal::TooMuch { .. } | MoveRefusal::BelowNothing { .. } => {
            error::status(Code::FailedPrecondition, "TOO_MUCH", text)
        }
        MoveRefusal::UnknownMovement(_) => error::status(Code::NotFound, "UNKNOWN_MOVEMENT", text),
        MoveRefusal::AlreadyVoid { .. } => {
            error::status(Code::FailedPrecondition, "ALREADY_VOID", text)
        }
        MoveRefusal::Quota(refused) => proposal::refusal(refused),
    }
}

fn path(field: &str, text: &str) -> Result<ProjectPath, Status> {
    ProjectPath::new(text).map_err(|bad| error::bad_name(field, &bad))
}
