//! Whose failure it is when the hardware below an attempt went wrong.

use super::sign::Sign;
use super::{change, long_ago};
use crate::attempt::{Attempt, Cause, Outcome};
use crate::health::Blame;
use crate::ids::{AttemptId, GpuUuid, NodeName};
use crate::lifecycle::Draft;
use crate::world::{Node, World};

/// Remembers for a while which attempts the sign is about.
pub(super) fn note(draft: &mut Draft<'_>, sign: &Sign<'_>, reason: &str) {
    let Some(known) = draft.world.nodes.get(sign.node) else { return };
    let attempts = match sign.attempts {
        Some(named) => named.iter().copied().filter(|id| known.attempts.contains(id)).collect(),
        None => attempts_on(draft.world, known, sign.gpu),
    };
    let (now, live) = (draft.now, known.attempts.clone());
    let long_ago = long_ago(now, draft.policy.health.blame_s);
    change(draft, sign.node, |health| {
        health.blamed.retain(|blame| {
            blame.at > long_ago
                && live.contains(&blame.attempt)
                && !attempts.contains(&blame.attempt)
        });
        let new = attempts.iter().map(|attempt| Blame {
            attempt: *attempt,
            at: now,
            reason: reason.to_owned(),
        });
        health.blamed.extend(new);
    });
}

/// Attempts that have the GPU, or a part of it; of a node all.
pub(in super::super) fn attempts_on(
    world: &World,
    node: &Node,
    gpu: Option<&GpuUuid>,
) -> Vec<AttemptId> {
    let has = |id: &&AttemptId| match (gpu, world.attempts.get(*id)) {
        (Some(gpu), Some(attempt)) => holds(attempt, node, gpu),
        (None, Some(_)) => true,
        (_, None) => false,
    };
    node.attempts.iter().filter(has).copied().collect()
}

/// Whether neither an attempt nor what is left of one is on the GPU; of a node, on all of it.
pub(in super::super) fn nothing_is_on(world: &World, node: &Node, gpu: Option<&GpuUuid>) -> bool {
    node.leftovers.is_empty() && attempts_on(world, node, gpu).is_empty()
}

/// Whether it has the GPU, or a share or an instance of it.
fn holds(attempt: &Attempt, node: &Node, gpu: &GpuUuid) -> bool {
    let name = &node.registered.node;
    let is_of = |held: &GpuUuid| node.card_of(held).is_some_and(|card| card.uuid == *gpu);
    let mut places = attempt.placement.nodes.iter().filter(|place| place.node == *name);
    places.any(|place| place.gpus.iter().any(|held| held.uuid == *gpu || is_of(&held.uuid)))
}

/// Whether something went wrong lately on that node below the attempt.
pub(in super::super) fn is_to_blame(draft: &Draft<'_>, node: &NodeName, id: AttemptId) -> bool {
    blame_on(draft, node, id).is_some()
}

/// The end of an attempt that failed while its hardware went wrong, on whichever of its nodes.
pub(in super::super) fn put_down_to_hardware(
    draft: &Draft<'_>,
    attempt: &Attempt,
) -> Option<Outcome> {
    attempt.placement.nodes.iter().find_map(|place| {
        let blame = blame_on(draft, &place.node, attempt.id)?;
        let detail = format!("{}: {}", place.node, blame.reason);
        Some(Outcome { cause: Cause::Hardware, exit: None, detail })
    })
}

/// What went wrong lately on that node below the attempt.
fn blame_on<'d>(draft: &'d Draft<'_>, node: &NodeName, id: AttemptId) -> Option<&'d Blame> {
    let health = &draft.world.nodes.get(node)?.health;
    health.blame_of(id, draft.now, draft.policy.health.blame_s)
}
