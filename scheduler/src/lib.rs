//! The scheduler daemon of Gotgan: everything around the decisions of `gotgan-core`.
//!
//! [`api`] answers calls, [`flow`] drives jobs through their steps, [`loops`] repair what the flow missed,
//! [`auth`] knows who calls, [`metrics`] counts, [`assembly`] puts it together, [`app`] runs it. While another leads, [`standby`]
//! answers what only reads.

pub mod admission;
pub mod answers;
pub mod api;
pub mod app;
pub mod assembly;
pub mod auth;
pub mod clock;
pub mod config;
pub mod connections;
pub mod custody;
pub mod flow;
pub mod front;
pub mod limits;
pub mod loops;
pub mod metrics;
pub mod planted;
pub mod standby;
