//! Events of jobs, and why a job waits.

use gotgan_proto::v1;
use serde::Serialize;

use crate::{
    output::time,
    view::{starts::StartView, word},
};

/// An event of a job.
#[derive(Clone, Debug, Serialize)]
pub struct EventView {
    pub seq: u64,
    pub at_us: Option<i64>,
    pub at: Option<String>,
    pub job_id: u64,
    pub attempt: u32,
    pub kind: String,
    pub text: String,
    pub state: String,
}

impl EventView {
    /// As the API has it.
    #[must_use]
    pub fn of(event: &v1::JobEvent) -> Self {
        Self {
            seq: event.seq,
            at_us: time::set(event.at_us),
            at: time::rfc3339(event.at_us),
            job_id: event.job_id,
            attempt: event.attempt,
            kind: event.kind.clone(),
            text: event.text.clone(),
            state: word::job_state(event.state),
        }
    }
}

/// Why a job waits.
#[derive(Clone, Debug, Serialize)]
pub struct ExplanationView {
    pub job_id: u64,
    pub state: String,
    pub summary: String,
    pub jobs_ahead: u64,
    pub planned_us: Option<i64>,
    pub planned: Option<String>,
    pub blockers: Vec<BlockerView>,
    pub start: Option<StartView>,
}

/// One thing it waits for.
#[derive(Clone, Debug, Serialize)]
pub struct BlockerView {
    pub kind: String,
    pub subject: String,
    pub text: String,
    pub needed: i64,
    pub available: i64,
    pub limit: i64,
    pub unit: Option<String>,
    pub hint: Option<String>,
}

impl ExplanationView {
    /// As the API has it.
    #[must_use]
    pub fn of(explanation: &v1::Explanation) -> Self {
        Self {
            job_id: explanation.job_id,
            state: word::job_state(explanation.state),
            summary: explanation.summary.clone(),
            jobs_ahead: explanation.jobs_ahead,
            planned_us: time::set(explanation.planned_us),
            planned: time::rfc3339(explanation.planned_us),
            blockers: explanation.blockers.iter().map(BlockerView::of).collect(),
            start: explanation.start.as_ref().map(StartView::of),
        }
    }
}

impl BlockerView {
    /// As the API has it.
    #[must_use]
    pub fn of(blocker: &v1::Blocker) -> Self {
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        Self {
            kind: word::blocker_kind(blocker.kind),
            subject: blocker.subject.clone(),
            text: blocker.text.clone(),
            needed: blocker.needed,
            available: blocker.available,
            limit: blocker.limit,
            unit: some(&blocker.unit),
            hint: some(&blocker.hint),
        }
    }
}
