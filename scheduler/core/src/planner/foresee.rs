//! A look ahead: when jobs that wait would start if nobody came after them, once with what runs ending as such jobs do
//! end, and once with everything taking as long as it may.
//!
//! It is no decision and binds nobody. It takes milliseconds for a thousand jobs and seconds for a hundred thousand, so
//! it is made beside the passes and never in one.

mod caps;
mod floor;
mod lines;
mod play;
mod queue;

use std::collections::BTreeMap;

use super::fit::{Extent, Machine};
use super::unfold::{Jobs, MadeJobs};
use super::whole::Whole;
use crate::amount::UnixMicros;
use crate::estimate::lengths::{Ends, RunLengths};
use crate::estimate::{Foreseen, Foresight, Size, Standing};
use crate::ids::JobId;
use crate::planned::PlannedStarts;
use crate::policy::Policy;
use crate::spec::JobSpec;
use crate::world::World;
use play::Play;
use queue::Queued;

/// Looks ahead from `now`, with the starts that the last pass planned and the lengths that jobs were seen to have.
#[must_use]
pub fn foresee(
    world: &World,
    policy: &Policy,
    planned: &PlannedStarts,
    lengths: &RunLengths,
    now: UnixMicros,
) -> Foresight {
    let machine = Machine::of(world, &Whole::of(world), Extent::All);
    let made = MadeJobs::default();
    let queue = queue::in_turn(Jobs::new(world, &made), policy, now, &machine);
    let play = |ends| Play::new(world, policy, &queue, planned, ends, now).run();
    let (likely, latest) = (play(Ends::Likely(lengths)), play(Ends::Limits));
    let found = queue.iter().zip(likely.into_iter().zip(latest));
    let foreseen = |(job, (likely, latest)): (&Queued<'_>, (Option<UnixMicros>, _))| {
        let by = planned.of(job.job).map(|start| start.at.max(now));
        let standing = match (by, job.behind) {
            (Some(_), _) => Standing::Planned,
            (None, true) => Standing::Behind,
            (None, false) => Standing::First,
        };
        let (queued, size) = (job.queued, size_of(job.spec, &machine));
        Some((job.job, Foreseen { queued, likely: likely?, latest, size, standing, by }))
    };
    let jobs: BTreeMap<JobId, Foreseen> = found.filter_map(foreseen).collect();
    Foresight { at: now, jobs }
}

/// How much of the machine a job takes.
fn size_of(spec: &JobSpec, machine: &Machine<'_>) -> Size {
    let each = spec.per_node.gpus.amount();
    if each.is_zero() {
        return Size::NoGpus;
    }
    if spec.nodes > 1 {
        return Size::Gang;
    }
    let class = spec.per_node.gpus.class().and_then(|class| machine.class(class));
    let node = class.map_or(1, |class| machine.node_gpus(class));
    match u64::from(node).saturating_mul(1000) / each.0 {
        0..2 => Size::Node,
        2..4 => Size::Half,
        4.. => Size::Part,
    }
}
