//! What was said of budgets.

use gotgan_proto::v1;
use serde::Serialize;

use crate::output::time;

/// A part of a budget that was used, or is not any more.
#[derive(Clone, Debug, Serialize)]
pub struct AlertView {
    pub seq: u64,
    pub at_us: Option<i64>,
    pub at: Option<String>,
    pub path: String,
    pub percent: u32,
    /// "passed", "under" or "still".
    pub kind: String,
    pub period: String,
    pub ngh_milli: u64,
    pub carried_ngh_milli: u64,
    pub used_ngh_milli: u64,
}

impl AlertView {
    /// As the API has it.
    #[must_use]
    pub fn of(alert: &v1::QuotaAlert) -> Self {
        Self {
            seq: alert.seq,
            at_us: time::set(alert.at_us),
            at: time::rfc3339(alert.at_us),
            path: alert.path.clone(),
            percent: alert.percent,
            kind: alert.kind.clone(),
            period: alert.period.clone(),
            ngh_milli: alert.ngh_milli,
            carried_ngh_milli: alert.carried_ngh_milli,
            used_ngh_milli: alert.used_ngh_milli,
        }
    }
}
