//! Less power for a part of the machine.

use gotgan_proto::v1;
use serde::Serialize;

use super::maintenance::{MaintenanceView, StayingView};

/// What was done, or would be.
#[derive(Clone, Debug, Serialize)]
pub struct DerateView {
    pub dry_run: bool,
    /// Of the nodes that stand idle; absent in a dry run.
    pub maintenance: Option<MaintenanceView>,
    pub idle_nodes: Vec<String>,
    pub gpus: u64,
    pub gpus_idle: u64,
    /// The most that the part draws, as the site says of its GPUs.
    pub full_watts: u64,
    /// The most that it draws with those nodes idle.
    pub watts: u64,
    /// How many attempts stop.
    pub stopped: u32,
    /// Who they are; at most 1,000.
    pub stopped_attempts: Vec<StayingView>,
}

impl DerateView {
    /// As the API has it.
    #[must_use]
    pub fn of(it: v1::DerateResponse) -> Self {
        Self {
            dry_run: it.maintenance.is_none(),
            maintenance: it.maintenance.map(MaintenanceView::of),
            idle_nodes: it.idle_nodes,
            gpus: it.gpus,
            gpus_idle: it.gpus_idle,
            full_watts: it.full_watts,
            watts: it.watts,
            stopped: it.stopped_count,
            stopped_attempts: it.stopped.into_iter().map(StayingView::of).collect(),
        }
    }
}
