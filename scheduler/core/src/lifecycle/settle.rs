//! Running attempts are paid a slice at a time. Nothing happens to what runs, whatever its budget has left.

use std::sync::Arc;

use super::draft::Draft;
use crate::attempt::Attempt;
use crate::ids::AttemptId;
use crate::meter;

/// Attempts settled in one round, so that the first moment of a month, at which all are due, stays a short one.
const SETTLED_MAX: usize = 1_000;

/// Settles the attempts that are due.
pub fn settle_due(draft: &mut Draft<'_>) {
    let due: Vec<AttemptId> = draft.world.due_by(draft.now).take(SETTLED_MAX).collect();
    for id in due {
        settle(draft, id);
    }
}

fn settle(draft: &mut Draft<'_>, id: AttemptId) {
    let Some(attempt) = draft.world.attempts.get(&id) else {
        return;
    };
    let mut attempt = Attempt::clone(attempt);
    let Some(class) = attempt.placement.class.clone() else {
        return;
    };
    // A job outlives its attempts in the world; without it nothing more is set aside.
    let limit_s = draft.world.jobs.get(&id.job).map_or(0, |job| job.spec.time_limit_s);
    let book = Arc::clone(&draft.world.book);
    let lines = meter::renew(&mut attempt, &book, &class, limit_s, draft.now);
    draft.book(&attempt, &class, lines);
    draft.move_attempt(attempt);
}
