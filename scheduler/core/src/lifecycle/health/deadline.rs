//! A GPU that is to be reset once nothing is on it is so within a time: its node closes then to what would run on beyond, by
//! maintenance that is planned when that is known and goes when the reset is done. What runs is left alone.
//!
//! No more nodes of a hall close at a time than the circuit breaker lets go at once: the others have their turn when
//! those are done.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::draft::Draft;
use super::super::window::{cancel_repair, put_repair};
use super::name_of;
use crate::amount::UnixMicros;
use crate::health::State;
use crate::health::breaker::{nodes_of, scope_of};
use crate::ids::{GpuUuid, NodeName};
use crate::quota::Interval;
use crate::window::{WINDOWS_MAX, Window};
use crate::world::World;

/// Windows for repairs at a time; the rest is for people.
const REPAIRS_MAX: usize = WINDOWS_MAX / 2;

/// Plans, or takes back, what the health of a node calls for now.
pub(in crate::lifecycle) fn keep(draft: &mut Draft<'_>, node: &NodeName) {
    let planned = repair_of(draft.world, node).cloned();
    match (due(draft.world, node), planned) {
        (Some(due), None) => plan(draft, node, &due),
        (None, Some(window)) => {
            cancel_repair(draft, &window);
            next_of_its_hall(draft, node);
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
}

/// One that was put off since enough of its hall was to close has its turn.
fn next_of_its_hall(draft: &mut Draft<'_>, node: &NodeName) {
    let Some(known) = draft.world.nodes.get(node) else { return };
    let scope = scope_of(&known.registered);
    let open = |name: &NodeName| repair_of(draft.world, name).is_none();
    let waiting = nodes_of(draft.world, &scope).filter(|(name, _)| open(name));
    let waiting = waiting.filter_map(|(name, _)| Some((due(draft.world, name)?, name.clone())));
    if let Some((due, name)) = waiting.min_by_key(|(due, name)| (due.since, name.clone())) {
        plan(draft, &name, &due);
    }
}

/// What is to be reset once idle.
struct Due {
    since: UnixMicros,
    gpu: Option<GpuUuid>,
    reason: String,
}

/// What of a node has waited longest for its reset.
fn due(world: &World, node: &NodeName) -> Option<Due> {
    let health = &world.nodes.get(node)?.health;
    let waits = health.places().filter_map(|gpu| {
        let standing = health.standing(gpu)?;
        let State::Suspect { repair: Some(_), held_back: false } = standing.state else {
            return None;
        };
        let (since, reason) = (standing.since, standing.reason.clone());
        Some(Due { since, gpu: gpu.cloned(), reason })
    });
    waits.min_by(|a, b| (a.since, &a.gpu).cmp(&(b.since, &b.gpu)))
}

fn repair_of<'w>(world: &'w World, node: &NodeName) -> Option<&'w Arc<Window>> {
    world.windows.maintenance_of(node).find(|window| window.for_repair)
}

fn plan(draft: &mut Draft<'_>, node: &NodeName, due: &Due) {
    let within_s = draft.policy.health.reset_within_s;
    if within_s == 0 || !may_close(draft, node) {
        return;
    }
    let from = due.since.plus_seconds(within_s).max(draft.now);
    let during = Interval { from, until: from.plus_seconds(draft.policy.max_window_s) };
    let name = name_of(draft, node, due.gpu.as_ref());
    let reason = format!("{name} is to be reset once nothing is on it: {}", due.reason);
    put_repair(draft, BTreeSet::from([node.clone()]), during, reason);
}

/// Whether one more node of its hall may be closed so.
fn may_close(draft: &Draft<'_>, node: &NodeName) -> bool {
    let (world, terms) = (&*draft.world, &draft.policy.health);
    if world.windows.iter().filter(|window| window.for_repair).count() >= REPAIRS_MAX {
        return false;
    }
    let Some(known) = world.nodes.get(node) else { return false };
    let scope = scope_of(&known.registered);
    let (mut closed, mut all) = (0, 0);
    for (name, _) in nodes_of(world, &scope) {
        all += 1;
        closed += u64::from(repair_of(world, name).is_some());
    }
    closed < terms.breaker_lets_go(all)
}
