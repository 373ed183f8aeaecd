//! Commands and reports in, changes out.
//!
//! Everything that happens to jobs, attempts and nodes passes through here: a function of the world, the policy
//! and the present, that refuses or drafts changes. A [`Draft`] applies each change to the leader's world as it
//! is drafted, so what follows in the same round sees it; the round is then written to the store, and if that
//! fails the world is dropped and rebuilt. What a worker must be told is not drafted but derived from the state
//! ([`orders`]), so an order that was lost is simply derived again.

mod action;
mod alert;
mod array;
mod behind;
mod deadline;
mod draft;
mod end;
mod health;
mod idle;
mod mig;
mod movement;
mod node;
pub mod orders;
mod quota;
mod record;
mod report;
mod reservation;
mod settle;
mod start;
mod step;
mod submit;
#[cfg(test)]
mod tests;
mod window;

pub use action::{Action, ActionRefusal, Actor, Changed, act, act_on_indexes};
pub use alert::tell_alerts;
pub use deadline::end_overdue;
pub use draft::Draft;
pub use health::{
    Check, Checked, Finding, HealthRefusal, Place, Repaired, begin_repair, check_due, checked,
    due_repairs, find, look, repaired, reset_breaker, settle_verified, tells_news, verify,
};
pub use idle::tell_idle;
pub use mig::{CutRefusal, CutRequest, cut_failed, cut_gpu, cuts_due};
pub use movement::{Grounds, Move, MoveRefusal, move_budget};
pub use node::{drain, give_up, hear, miss, register, resume};
pub use quota::{
    QuotaRefusal, accept_batch, apply_quota, approve_quota, approvers_needed, check_revision,
    turn_quota, undone,
};
pub use record::commit_plan;
pub use report::{Folded, MemberEvent, Report, fold, fold_measured};
pub use reservation::{
    NodesWish, ReservationRefusal, ReservationWish, cancel_reservation, extend_reservation,
    prepare_reservation, reserve,
};
pub use settle::settle_due;
pub use start::{commit, commit_each, stop_unconfirmed};
pub use step::{StepRefusal, StepRequest, start_step};
pub use submit::{Submission, SubmitRefusal, check_reservation, submit};
pub use window::{
    DerateWish, MaintenanceWish, WindowRefusal, cancel_maintenance, derate, plan_maintenance,
    turn_windows,
};
