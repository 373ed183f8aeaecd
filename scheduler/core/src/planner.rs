//! Which waiting jobs start now and where, and why all others wait.
//!
//! One synchronous function of a world, a policy and a moment; the same three give the same plan, byte for byte.
//!
//! ```text
//!   queue ──► order ──► request ──► limits ──► gang over fit, best score first ──► decision
//!  (world)   (whose turn) (seen one (project   (all nodes or none)
//!                        like it?)  and above)        │ too few
//!                                                     └──────► reasons, from what is left at the end
//! ```
//!
//! Who is within a guarantee comes before who borrows, and among those whoever used least for their share (`turns`); of
//! one project the queue's order decides. Jobs that nothing but that tells apart are one cohort, of which the first
//! stands for all.
//!
//! For gangs that find no room, and for others that have waited long, a start is planned on chosen nodes, beside which
//! only that starts which is over by then (`pass/backfill`).
//!
//! Of the places that serve a job of one node, the one is taken that costs typical jobs least (`pass/spot`).
//!
//! Within a pass resources only shrink and limits only fill. So what was refused once stays refused, and the reason
//! found at the end, by what is left then, is right for every job that was passed over on the way.

mod bearings;
mod blocks;
pub(crate) mod budgets;
mod burden;
mod ceiling;
mod closed;
mod fair;
mod fit;
mod foresee;
pub(crate) mod gang;
mod gather;
mod horizon;
mod lending;
pub(crate) mod limits;
pub(crate) mod order;
mod pass;
mod places;
mod power;
mod reasons;
mod recall;
mod request;
mod reservations;
mod score;
mod shares;
mod slot;
pub(crate) mod standing;
pub(crate) mod terms;
mod turns;
mod unfold;
mod whole;

use std::collections::BTreeMap;

pub use bearings::Bearings;
pub use foresee::foresee;
pub use shares::Shares;
use unfold::{Jobs, MadeJobs};

use crate::amount::UnixMicros;
use crate::fairshare::OrderRule;
use crate::ids::GpuClass;
use crate::plan::{Plan, Report};
use crate::planned::PlannedStarts;
use crate::policy::Policy;
use crate::quota::entitle::Entitlements;
use crate::world::World;

/// Plans one pass over the queue of `world` at the moment `now`, with no start planned before.
pub fn plan(world: &World, policy: &Policy, now: UnixMicros) -> Plan {
    plan_after(&PlannedStarts::default(), world, policy, now)
}

/// Plans one pass over the queue of `world` at the moment `now`, after one that planned these starts.
pub fn plan_after(before: &PlannedStarts, world: &World, policy: &Policy, now: UnixMicros) -> Plan {
    plan_full(before, world, policy, now).0
}

/// The same with what it leaves behind for passes that follow events.
pub fn plan_full(
    before: &PlannedStarts,
    world: &World,
    policy: &Policy,
    now: UnixMicros,
) -> (Plan, Bearings) {
    let made = MadeJobs::default();
    let pass = pass::Pass::of(Jobs::new(world, &made), policy, now);
    let pass::Ended { decisions, report, turns, bearings } = pass.run(before);
    (Plan { base: world.version, planned: now, decisions, report, turns }, bearings)
}

/// Who starts in the room that there is now, by the bearings of the last full pass, which must have seen every change of
/// the world since. It costs what there is room for, not what waits. Nothing is planned, nobody is stopped and no reasons
/// are found: its report says no more than how many jobs it looked at. `None` where only a full pass will do.
pub fn plan_event(
    bearings: &mut Bearings,
    world: &World,
    policy: &Policy,
    now: UnixMicros,
) -> Option<Plan> {
    plan_event_in(pass::Reach::Room, bearings, world, policy, now)
}

/// What [`plan_event`] decides, found the long way: everybody comes into line, on the whole machine. The two must agree.
pub fn plan_event_in_full(
    bearings: &Bearings,
    world: &World,
    policy: &Policy,
    now: UnixMicros,
) -> Option<Plan> {
    plan_event_in(pass::Reach::Everything, &mut bearings.clone(), world, policy, now)
}

fn plan_event_in(
    reach: pass::Reach,
    bearings: &mut Bearings,
    world: &World,
    policy: &Policy,
    now: UnixMicros,
) -> Option<Plan> {
    // Power that is freed in a hall lets jobs start on nodes on which nothing was freed.
    if !world.power.limits.is_empty() {
        return None;
    }
    let kept = bearings.put_right(world)?;
    let made = MadeJobs::default();
    let pass = pass::Pass::for_event(Jobs::new(world, &made), policy, now, kept, reach);
    let pass::Started { decisions, turns, considered, has_more } = pass.run_event(kept, reach);
    let report = Report { considered, deferred: usize::from(has_more), ..Report::default() };
    Some(Plan { base: world.version, planned: now, decisions, report, turns })
}

/// What a pass over `world` at the moment `now` would find each node of the quota tree entitled to, by class: from what
/// is in service, held, and asked for by jobs that compete.
#[must_use]
pub fn entitlements(world: &World, now: UnixMicros) -> BTreeMap<GpuClass, Entitlements> {
    let machine = fit::Machine::of(world, &whole::Whole::of(world), fit::Extent::All);
    let (places, mut limits) = (places::Places::of(world), limits::Limits::of(world));
    let (made, starts_max) = (MadeJobs::default(), 0);
    let (jobs, cohorts) = (Jobs::new(world, &made), world.cohorts.iter());
    let gathered = gather::gather(jobs, now, cohorts, &places, &machine, &mut limits, starts_max);
    let rule = OrderRule::default();
    let demands = gathered.lines.demands();
    let fair = fair::Fair::of(world, places.arena(), &machine, &demands, rule, now);
    fair.into_entitlements(&machine)
}
