//! The order in which jobs would have their turns if every one of them found room: who is within a guarantee first, then
//! by use and shares, where each start moves its project back.

use std::collections::BTreeMap;

use crate::amount::UnixMicros;
use crate::ids::JobId;
use crate::planner::fair::{Demand, Fair};
use crate::planner::fit::Machine;
use crate::planner::gather::{Gathered, gather};
use crate::planner::limits::Limits;
use crate::planner::places::Places;
use crate::planner::score::ClassIndex;
use crate::planner::turns::{Fate, Turns};
use crate::planner::unfold::Jobs;
use crate::policy::Policy;
use crate::spec::JobSpec;

/// Most jobs that are looked at; what stands behind them waits so long that nothing can be said of it.
const JOBS_MAX: usize = 250_000;

/// A job that competes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queued<'w> {
    /// Which.
    pub job: JobId,
    /// Since when.
    pub queued: UnixMicros,
    /// What it asks for, and whose it is.
    pub spec: &'w JobSpec,
    /// Whether its project, or one above it, used more than its share and others beside it wait.
    pub behind: bool,
}

/// Every job that competes at `now`, scavengers left out, in the order of turns.
pub(super) fn in_turn<'w>(
    jobs: Jobs<'w>,
    policy: &Policy,
    now: UnixMicros,
    machine: &Machine<'_>,
) -> Vec<Queued<'w>> {
    let world = jobs.world;
    let places = Places::of(world);
    let mut limits = Limits::of(world);
    let cohorts = world.cohorts.iter();
    let Gathered { lines, .. } = gather(jobs, now, cohorts, &places, machine, &mut limits, 0);
    let demands = lines.demands();
    let mut fair = Fair::of(world, places.arena(), machine, &demands, policy.fair_share_rule, now);
    let behind = fair.turns(&machine.classes, &Demand::of_gpus(&demands));
    let mut turns = Turns::of(lines, Some(&fair));
    let (mut queue, mut known) = (Vec::new(), BTreeMap::new());
    while queue.len() < JOBS_MAX
        && let Some(turn) = turns.next(&fair, &mut limits)
    {
        let cohort = turns.cohort(turn.cohort);
        let spec = cohort.common.spec;
        let queued = cohort.members().first().map_or(now, |place| place.queued);
        let behind = *known.entry(turn.cohort).or_insert_with(|| {
            let key = (spec.project.clone(), spec.per_node.gpus.class().cloned());
            behind.get(&key).is_some_and(|standing| standing.available > standing.limit)
        });
        // Nodes of reservations are left out of the look ahead, and so are instances of GPUs that are cut.
        if spec.constraints.reservation.is_none() && spec.per_node.gpus.kind().is_none() {
            queue.push(Queued { job: turn.job, queued, spec, behind });
        }
        if let Some((node, class)) = turn.claim.node.zip(class_of(spec, machine)) {
            fair.take(node, class, spec.total_gpus());
        }
        turns.settle(&turn, Fate::Next);
    }
    queue
}

/// The class of its GPUs; of a job that takes any, the first.
fn class_of(spec: &JobSpec, machine: &Machine<'_>) -> Option<ClassIndex> {
    if spec.per_node.gpus.amount().is_zero() {
        return None;
    }
    match spec.per_node.gpus.class() {
        Some(class) => machine.class(class),
        None => (!machine.classes.is_empty()).then_some(ClassIndex(0)),
    }
}
