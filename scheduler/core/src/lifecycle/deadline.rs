//! Jobs that can no longer end by their deadlines end before they waste a GPU.

use super::array::{cancel_waiting, meet_reached};
use super::draft::Draft;
use super::end::conclude;
use crate::ids::JobId;
use crate::job::{Job, JobEvent};
use crate::quota::show_moment;

/// Jobs ended in one round, so that it stays a short one.
const ENDED_MAX: usize = 1_000;

/// Cancels what waits and could not end by its deadline even if it started now and took its whole time limit.
pub fn end_overdue(draft: &mut Draft<'_>) {
    let overdue: Vec<JobId> = draft.world.overdue(draft.now).take(ENDED_MAX).collect();
    for id in overdue {
        // One may have gone with another.
        if let Some(job) = draft.world.record(id).cloned() {
            end(draft, &job);
        }
    }
}

fn end(draft: &mut Draft<'_>, job: &Job) {
    let detail = words(job);
    if job.is_array() {
        cancel_waiting(draft, job, detail);
        meet_reached(draft);
        return;
    }
    let mut status = job.status.clone();
    status.detail = detail;
    conclude(draft, job, status, JobEvent::Cancelled, None);
}

fn words(job: &Job) -> String {
    let show = |at: Option<_>| at.map(show_moment).unwrap_or_default();
    format!(
        "it can no longer end by its deadline {}: it had to start by {}",
        show(job.deadline()),
        show(job.starts_by())
    )
}
