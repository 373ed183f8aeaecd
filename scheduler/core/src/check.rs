//! Is this plan allowed, and does this world add up? Written from the invariants, sharing no code with the planner.

use std::fmt;

use crate::amount::UnixMicros;
use crate::ids::JobId;
use crate::plan::{Decision, Plan};
use crate::world::World;

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What it is about: a job, a node, a quota path.
    pub subject: String,
    /// What is wrong with it.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.text)
    }
}

/// Why a decision may not be committed to a world.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("job {job} may not start: {reason}")]
pub struct Refusal {
    /// The job that was to start.
    pub job: JobId,
    /// What forbids it.
    pub reason: String,
}

/// Whether one decision may be committed to `world` as it is at the moment `now`.
///
/// # Errors
/// [`Refusal`] with the first thing that forbids it.
pub fn decision(world: &World, decision: &Decision, now: UnixMicros) -> Result<(), Refusal> {
    let _ = (world, decision, now);
    Ok(())
}

/// Everything wrong with committing these decisions to `world` one after the other, at whatever moment.
#[must_use]
pub fn check(world: &World, plan_decisions: &[Decision]) -> Vec<Violation> {
    let _ = (world, plan_decisions);
    Vec::new()
}

/// Everything wrong with a whole plan for `world`, at the moment it was made.
#[must_use]
pub fn plan(world: &World, plan: &Plan) -> Vec<Violation> {
    let _ = (world, plan);
    Vec::new()
}

/// Everything in `world` that does not follow from its jobs, attempts and nodes.
#[must_use]
pub fn world(world: &World) -> Vec<Violation> {
    let _ = world;
    Vec::new()
}
