//! The flow of a job, driven: admitted, committed, planned, dispatched, reported.
//!
//! [`writer`] is the one task that owns the leader's world. Everything that changes it is a command in its queue;
//! commands that arrive while one transaction commits go into the next one together. [`plan`] is a thread with a
//! replica of the world, fed by what was committed; its plans come back to the writer as commands and are checked
//! again there. [`dispatch`] tells workers what the state says they must be told. [`telemetry`] is what is heard
//! of nodes and never stored. [`quarantine`] is what becomes of a worker whose words make the writer fail. [`estimate`] looks ahead from time to time, beside all of it, and tells when jobs that wait will start.
//! [`onlooker`] stands in the writer's place where another leads. [`looks`] is how both let others look at the world.

pub mod command;
pub mod dispatch;
pub mod estimate;
mod gathering;
pub mod logs;
pub mod looks;
pub mod onlooker;
pub mod orders;
mod pace;
pub mod plan;
pub mod quarantine;
mod queue;
mod replica;
pub mod round;
mod submissions;
pub mod telemetry;
pub mod writer;
