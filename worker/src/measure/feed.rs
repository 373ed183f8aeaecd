//! Brings looks at the GPUs to the supervisor, which knows whose they are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gotgan_proto::v1::GpuReading;

use crate::clock::boot_ms;
use crate::handle::{Handle, Input, Stopped};
use crate::inventory::Inventory;

/// Looks are taken twice as often as they are made, so that none is missed; but not more often than this.
const TAKE_MIN: Duration = Duration::from_millis(50);

/// Looks until the supervisor has ended; for ever where there are no GPUs. `interval`: how often GPUs are read.
pub async fn feed(inventory: Arc<Inventory>, handle: Handle, interval: Duration) -> Stopped {
    if inventory.node.gpus.is_empty() {
        return std::future::pending().await;
    }
    let mut ticks = tokio::time::interval((interval / 2).max(TAKE_MIN));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(stopped) = handle.tell(Input::Looked(looks(&inventory))).await {
            return stopped;
        }
    }
}

/// Each look with when it was, by the clock of [`boot_ms`].
fn looks(inventory: &Inventory) -> Vec<(u64, GpuReading)> {
    let (now, now_ms) = (Instant::now(), boot_ms());
    let looks = inventory.looks().into_iter().map(|seen| {
        let age = now.saturating_duration_since(seen.at).as_millis();
        (now_ms.saturating_sub(u64::try_from(age).unwrap_or(u64::MAX)), seen.reading)
    });
    looks.collect()
}
