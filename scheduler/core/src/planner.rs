//! Which waiting jobs start now and where, and why all others wait.
//!
//! One synchronous function of a world, a policy and a moment; the same three give the same plan, byte for byte.

use crate::amount::UnixMicros;
use crate::plan::{Plan, Report};
use crate::policy::Policy;
use crate::world::World;

/// Plans one pass over the queue of `world` at the moment `now`.
pub fn plan(world: &World, policy: &Policy, now: UnixMicros) -> Plan {
    let _ = policy;
    Plan { base: world.version, planned: now, decisions: Vec::new(), report: Report::default() }
}
