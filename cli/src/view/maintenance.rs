//! Maintenance of nodes.

use gotgan_proto::v1;
use serde::Serialize;

use crate::{output::time, view::word};

/// Names that are written out; the rest is counted.
const NAMED_MAX: usize = 3;

/// Maintenance as listings have it.
#[derive(Clone, Debug, Serialize)]
pub struct MaintenanceView {
    pub id: u64,
    pub state: String,
    pub nodes: Vec<String>,
    pub from_us: Option<i64>,
    pub from: Option<String>,
    pub until_us: Option<i64>,
    pub until: Option<String>,
    pub reason: String,
    pub by: String,
    pub stop_running: bool,
    pub created_us: Option<i64>,
    pub created: Option<String>,
    /// Attempts that may still be there at its beginning.
    pub staying: u32,
}

/// An attempt that may still run when it begins.
#[derive(Clone, Debug, Serialize)]
pub struct StayingView {
    pub job_id: u64,
    pub attempt: String,
    pub owner: String,
    pub project: String,
    pub nodes: u32,
    pub ends_us: Option<i64>,
    pub ends: Option<String>,
}

/// What was planned.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedView {
    #[serde(flatten)]
    pub maintenance: MaintenanceView,
    /// Who runs past the beginning.
    #[serde(rename = "staying_attempts")]
    pub staying: Vec<StayingView>,
}

/// All there is.
#[derive(Clone, Debug, Serialize)]
pub struct Listing {
    pub maintenance: Vec<MaintenanceView>,
}

impl MaintenanceView {
    /// As the API has it.
    #[must_use]
    pub fn of(it: v1::Maintenance) -> Self {
        Self {
            id: it.id,
            state: word::maintenance_state(it.state),
            nodes: it.nodes,
            from_us: time::set(it.from_us),
            from: time::rfc3339(it.from_us),
            until_us: time::set(it.until_us),
            until: time::rfc3339(it.until_us),
            reason: it.reason,
            by: it.by,
            stop_running: it.stop_running,
            created_us: time::set(it.created_us),
            created: time::rfc3339(it.created_us),
            staying: it.staying,
        }
    }
}

impl PlannedView {
    /// As the API has it.
    #[must_use]
    pub fn of(answer: v1::PlanMaintenanceResponse) -> Self {
        let maintenance = MaintenanceView::of(answer.maintenance.unwrap_or_default());
        Self { maintenance, staying: answer.staying.into_iter().map(StayingView::of).collect() }
    }
}

impl StayingView {
    /// As the API has it.
    #[must_use]
    pub fn of(it: v1::StayingAttempt) -> Self {
        Self {
            job_id: it.job_id,
            attempt: it.attempt,
            owner: it.owner,
            project: it.project,
            nodes: it.nodes,
            ends_us: time::set(it.ends_us),
            ends: time::rfc3339(it.ends_us),
        }
    }
}

/// The first few names, and how many more.
#[must_use]
pub fn nodes_short(nodes: &[String]) -> String {
    let named = nodes.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    match nodes.len().saturating_sub(NAMED_MAX) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}
