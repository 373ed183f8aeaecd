//! Which waiting jobs start now and where, and why all others wait.
//!
//! One synchronous function of a world, a policy and a moment; the same three give the same plan, byte for byte.
//!
//! ```text
//!   queue ──► order ──► request ──► limits ──► gang over fit, best score first ──► decision
//!  (world)   (not yet?) (seen one   (project   (all nodes or none)
//!                        like it?)  and above)        │ too few
//!                                                     └──────► reasons, from what is left at the end
//! ```
//!
//! Where the quota tree gives guarantees or jobs of several projects wait, `order` is not the queue's alone: who is
//! within a guarantee comes before who borrows, and among those whoever used least for their share (`turns`).
//!
//! Within a pass resources only shrink and limits only fill. So what was refused once stays refused, and the reason
//! found at the end, by what is left then, is right for every job that was passed over on the way.

mod burden;
mod fair;
mod fit;
mod gang;
pub(crate) mod limits;
pub(crate) mod order;
mod pass;
mod reasons;
mod recall;
mod request;
mod score;
mod slot;
pub(crate) mod standing;
mod turns;

use crate::amount::UnixMicros;
use crate::plan::Plan;
use crate::policy::Policy;
use crate::world::World;

/// Plans one pass over the queue of `world` at the moment `now`.
pub fn plan(world: &World, policy: &Policy, now: UnixMicros) -> Plan {
    let (decisions, report) = pass::Pass::of(world, policy, now).run();
    Plan { base: world.version, planned: now, decisions, report }
}
