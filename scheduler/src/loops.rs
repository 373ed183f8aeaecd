//! Repair loops: driven by time alone, without input, idempotent. They catch what the arrows of the flow miss.

pub mod gauges;
pub mod health;
pub mod idle;
pub mod leadership;
pub mod liveness;
pub mod repair;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::api::Services;
use crate::config::Health;

/// One loop, to be run.
pub type Loop = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Every loop that a leader has beside its writer; what keeps its lease is its own.
#[must_use]
pub fn of_leader(services: &Services, health: &Health) -> Vec<Loop> {
    let (timing, writer) = (services.timing, &services.writer);
    let telemetry = || Arc::clone(&services.telemetry);
    let (dispatcher, policy) =
        (|| Arc::clone(&services.dispatcher), || Arc::clone(&services.policy));
    let metrics = Arc::clone(&services.metrics);
    vec![
        Box::pin(liveness::run(writer.clone(), telemetry(), dispatcher(), timing)),
        Box::pin(repair::run(writer.clone(), timing)),
        Box::pin(health::run(writer.clone(), health.clone(), timing)),
        Box::pin(idle::run(writer.clone(), telemetry(), policy())),
        Box::pin(gauges::run(writer.clone(), dispatcher(), policy(), metrics)),
    ]
}
