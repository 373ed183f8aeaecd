//! Keeping the gauges of the metrics page in step with the world.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gotgan_core::job::JobState;
use gotgan_core::world::World;

use crate::api::capacities;
use crate::flow::command::{FlowError, WriterHandle};
use crate::flow::dispatch::Dispatcher;
use crate::metrics::Metrics;

/// How often; a scrape is rarely more frequent.
const EVERY: Duration = Duration::from_secs(5);

/// Looks until the writer is gone.
pub async fn run(writer: WriterHandle, dispatcher: Arc<Dispatcher>, metrics: Arc<Metrics>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let looked = writer.read(|world| (count(world), capacities(world))).await;
        let (jobs, classes) = match looked {
            Ok(found) => found,
            Err(FlowError::NotCommitted) => continue,
            Err(FlowError::NotLeader | FlowError::Stopping) => return,
        };
        metrics.set_jobs(&jobs);
        for (class, capacity) in classes {
            metrics.set_gpus(&class, capacity.free, capacity.allocated, capacity.down);
        }
        metrics.worker_streams.set(i64::try_from(dispatcher.connected()).unwrap_or(i64::MAX));
    }
}

fn count(world: &World) -> BTreeMap<JobState, u64> {
    let mut counts = BTreeMap::new();
    for job in world.jobs.values() {
        *counts.entry(job.status.state).or_default() += 1;
    }
    for tasks in world.arrays.values().filter_map(|array| array.status.tasks.as_deref()) {
        *counts.entry(JobState::Held).or_default() += u64::from(tasks.held.len());
        *counts.entry(JobState::Pending).or_default() += u64::from(tasks.waiting.len());
    }
    counts
}
