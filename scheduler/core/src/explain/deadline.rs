//! Deadlines in words.

use crate::job::Job;
use crate::plan::{Blocker, BlockerKind, Unit};
use crate::quota::show_moment;

/// By when it must start, for a job with a deadline.
pub(crate) fn blocker(job: &Job) -> Option<Blocker> {
    let (deadline, start) = job.deadline().zip(job.starts_by())?;
    Some(Blocker {
        kind: BlockerKind::Deadline,
        subject: show_moment(start),
        needed: 0,
        available: 0,
        limit: 0,
        unit: Unit::None,
        note: show_moment(deadline),
    })
}

/// The subject is when it must start, the note its deadline.
pub(super) fn sentence(blocker: &Blocker) -> String {
    format!(
        "must start before {} to end by its deadline {}; else it is cancelled",
        blocker.subject, blocker.note
    )
}
