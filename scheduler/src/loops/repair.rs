//! Taking back leases that a worker which is heard does not confirm.

use std::time::Duration;

use gotgan_core::lifecycle;

use crate::clock;
use crate::config::Timing;
use crate::flow::command::{FlowError, WriterHandle};

/// Looks until the writer is gone.
pub async fn run(writer: WriterHandle, timing: Timing) {
    let mut ticks = clock::every(Duration::from_millis(timing.repair_every_ms));
    loop {
        ticks.tick().await;
        let patience = timing.confirm_within_ms;
        let looked =
            writer.write(move |round| lifecycle::stop_unconfirmed(&mut round.draft, patience));
        match looked.await {
            // A round that failed was answered so to everybody in it; the next look comes soon.
            Ok(()) | Err(FlowError::NotCommitted) => {}
            Err(FlowError::NotLeader | FlowError::Stopping) => return,
        }
    }
}
