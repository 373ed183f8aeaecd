//! Repair loops: driven by time alone, without input, idempotent. They catch what the arrows of the flow miss.

pub mod gauges;
pub mod health;
pub mod idle;
pub mod leadership;
pub mod liveness;
pub mod repair;
