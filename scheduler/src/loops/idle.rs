//! Telling owners of attempts whose GPUs do nothing, by what the latest beats tell. What is told is decided by the core.

use std::sync::Arc;
use std::time::Duration;

use gotgan_core::lifecycle;
use gotgan_core::policy::Policy;

use crate::clock;
use crate::flow::command::{FlowError, WriterHandle};
use crate::flow::telemetry::Telemetry;

/// Between looks, at most: nobody needs to know within seconds. Beats themselves cost nothing by it.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// Looks until the writer is gone.
pub async fn run(writer: WriterHandle, telemetry: Arc<Telemetry>, policy: Arc<Policy>) {
    let warning = Duration::from_secs(policy.idle_warning_s.into());
    if warning.is_zero() {
        return;
    }
    let least_ms = u64::from(policy.idle_warning_s) * 1000;
    let mut ticks = clock::every((warning / 4).min(LOOK_MAX));
    loop {
        ticks.tick().await;
        let beats = telemetry.idle_for(least_ms);
        if beats.is_empty() {
            continue;
        }
        match writer.write(move |round| lifecycle::tell_idle(&mut round.draft, &beats)).await {
            Ok(()) | Err(FlowError::NotCommitted) => {}
            Err(FlowError::NotLeader | FlowError::Stopping) => return,
        }
    }
}
