//! Tests of the simulator, in one binary.

#![allow(clippy::unwrap_used)]

mod pack;
mod planner;
mod queue_reference;
mod replay;
mod scenarios;
