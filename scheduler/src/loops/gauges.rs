//! Keeping the gauges of the metrics page in step with the world.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gotgan_core::health::alarm::facility;
use gotgan_core::health::{Signal, Standing, State, Terms};
use gotgan_core::job::JobState;
use gotgan_core::policy::Policy;
use gotgan_core::world::World;

use crate::api::capacities;
use crate::clock;
use crate::flow::command::{FlowError, WriterHandle};
use crate::flow::dispatch::Dispatcher;
use crate::metrics::{HealthCount, Metrics};

/// How often; a scrape is rarely more frequent.
const EVERY: Duration = Duration::from_secs(5);

/// Looks until the writer is gone.
pub async fn run(
    writer: WriterHandle,
    dispatcher: Arc<Dispatcher>,
    policy: Arc<Policy>,
    metrics: Arc<Metrics>,
) {
    let mut ticks = clock::every(EVERY);
    loop {
        ticks.tick().await;
        let terms = policy.health.clone();
        let look = move |world: &World| (count(world), capacities(world), health(world, &terms));
        let (jobs, classes, health) = match writer.read(look).await {
            Ok(found) => found,
            Err(FlowError::NotCommitted) => continue,
            Err(FlowError::NotLeader | FlowError::Stopping) => return,
        };
        metrics.set_jobs(&jobs);
        metrics.set_health(health);
        for (class, capacity) in classes {
            metrics.set_gpus(&class, capacity.free, capacity.allocated, capacity.down);
        }
        metrics.worker_streams.set(i64::try_from(dispatcher.connected()).unwrap_or(i64::MAX));
    }
}

/// Hardware that is not sound, and alarms.
fn health(world: &World, terms: &Terms) -> HealthCount {
    let mut count = HealthCount {
        breakers: world.breakers.values().filter(|it| it.broken.is_some()).count() as u64,
        facility: facility(world, terms).len() as u64,
        ..HealthCount::default()
    };
    for health in world.nodes.values().map(|node| &node.health) {
        count.nodes.add(health.node.state);
        count.lemons += u64::from(is_lemon(&health.node));
        health.gpus.values().for_each(|gpu| count.gpus.add(gpu.standing.state));
    }
    count
}

/// Watched or out since jobs of several users failed there.
fn is_lemon(node: &Standing) -> bool {
    node.state != State::Ok && node.signal == Some(Signal::Lemon)
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
