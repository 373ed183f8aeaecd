//! What is heard of nodes, and what people decide for them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::draft::Draft;
use super::end::lose_node;
use super::{health, mig};
use crate::attempt::Progress;
use crate::change::{Change, EventKind};
use crate::ids::{AttemptId, NodeName, UserName};
use crate::node::{Admin, Inventory, Liveness, LivenessEvent, transition};
use crate::world::World;

/// A worker registered. `held` are the attempts in its journal that it has not been told to forget; those marked
/// true have ended on the node.
///
/// Attempts that the books place there and that it no longer knows are lost; attempts it still runs though they
/// have ended in the books keep the node from new work until they are gone.
pub fn register(draft: &mut Draft<'_>, inventory: Inventory, held: &[(AttemptId, bool)]) {
    let name = inventory.node.clone();
    let before = draft.world.nodes.get(&name).map(|node| Arc::clone(&node.registered));
    let remembers = before.as_deref().is_none_or(|before| remembers(before, &inventory));
    if before.as_deref() != Some(&inventory) {
        let text = format!("{} GPUs, {} CPUs", inventory.gpus.len(), inventory.cpu_milli);
        draft.push(Change::NodeRegistered(Arc::new(inventory)));
        draft.tell_node(&name, EventKind::NodeRegistered, text);
    }
    if let Some(before) = before {
        health::registered(draft, &name, &before);
    }
    mig::registered(draft, &name);
    hear(draft, &name);
    let held_ids: BTreeSet<AttemptId> = held.iter().map(|(id, _)| *id).collect();
    let lost = forgotten_attempts(draft, &name, &held_ids, remembers);
    lose_node(draft, &name, &lost, "the node no longer knows the attempt");
    let leftovers: Vec<AttemptId> = held
        .iter()
        .filter(|(id, ended)| !ended && !is_live_on(draft.world, *id, &name))
        .map(|(id, _)| *id)
        .collect();
    let before = draft.world.nodes.get(&name).map(|node| node.leftovers.clone());
    if before.is_some_and(|before| !before.iter().eq(leftovers.iter())) {
        draft.push(Change::NodeLeftovers { node: name, attempts: leftovers });
    }
}

/// Whether the worker still has the journal that it had. With a new one it may have run what it was told before and not know
/// it: nobody can tell whether that was started, so it is not told again.
fn remembers(before: &Inventory, now: &Inventory) -> bool {
    before.journal_id.is_empty() || before.journal_id == now.journal_id
}

/// Attempts the books place on the node, confirmed by it once, that it does not hold.
fn forgotten_attempts(
    draft: &Draft<'_>,
    node: &NodeName,
    held: &BTreeSet<AttemptId>,
    remembers: bool,
) -> Vec<AttemptId> {
    let Some(known) = draft.world.nodes.get(node) else {
        return Vec::new();
    };
    let confirmed = |id: &AttemptId| {
        let attempt = draft.world.attempts.get(id)?;
        let member = attempt.members.get(attempt.rank_of(node)?)?;
        Some(matches!(member.progress, Progress::Accepted | Progress::Running))
    };
    known
        .attempts
        .iter()
        .filter(|id| !held.contains(*id) && (!remembers || confirmed(id) == Some(true)))
        .copied()
        .collect()
}

/// Whether the attempt, by the books, still has something on the node. A member that was given up has not, though
/// its gang may still be stopping elsewhere.
pub(super) fn is_live_on(world: &World, id: AttemptId, node: &NodeName) -> bool {
    let attempt = world.attempts.get(&id);
    let member = attempt.and_then(|attempt| attempt.members.get(attempt.rank_of(node)?));
    member.is_some_and(|member| !matches!(member.progress, Progress::Ended(_)))
}

/// A beat came.
pub fn hear(draft: &mut Draft<'_>, node: &NodeName) {
    move_liveness(draft, node, LivenessEvent::Heard);
}

/// Beats are missing, or the stream broke.
pub fn miss(draft: &mut Draft<'_>, node: &NodeName) {
    if move_liveness(draft, node, LivenessEvent::Missed) {
        draft.tell_node(node, EventKind::NodeSuspect, "no longer heard");
    }
}

/// Nothing was heard for so long that the attempts there are decided: they end with cause node.
/// Returns whether it was given up now.
pub fn give_up(draft: &mut Draft<'_>, node: &NodeName) -> bool {
    if !move_liveness(draft, node, LivenessEvent::GivenUp) {
        return false;
    }
    draft.tell_node(node, EventKind::NodeLost, "given up; its attempts end with cause node");
    let attempts: Vec<AttemptId> = draft
        .world
        .nodes
        .get(node)
        .map(|node| node.attempts.iter().copied().collect())
        .unwrap_or_default();
    lose_node(draft, node, &attempts, "the node was lost");
    true
}

/// Whether it moved.
fn move_liveness(draft: &mut Draft<'_>, node: &NodeName, event: LivenessEvent) -> bool {
    let Some(known) = draft.world.nodes.get(node) else {
        return false;
    };
    let liveness: Liveness = transition(known.liveness, event);
    if liveness == known.liveness {
        return false;
    }
    draft.push(Change::NodeHeard { node: node.clone(), liveness, at: draft.now });
    true
}

/// No new work on the node. Returns whether that changed anything; `None` if there is no such node.
pub fn drain(draft: &mut Draft<'_>, node: &NodeName, by: &UserName, reason: &str) -> Option<bool> {
    let known = draft.world.nodes.get(node)?;
    if matches!(&known.admin, Admin::Drain { reason: before, .. } if before == reason) {
        return Some(false);
    }
    let since = draft.now;
    let admin = Admin::Drain { by: by.to_string(), reason: reason.to_owned(), since };
    draft.push(Change::NodeAdministered { node: node.clone(), admin });
    draft.tell_node(node, EventKind::NodeDrained, format!("drained by {by}: {reason}"));
    Some(true)
}

/// The node's own worker says that nothing new may start there. What a person has ordered before stays, with the new
/// reason beside the old one.
pub(super) fn drain_unfit(draft: &mut Draft<'_>, node: &NodeName, reason: &str) {
    let Some(known) = draft.world.nodes.get(node) else {
        return;
    };
    let (by, reason) = match &known.admin {
        Admin::Drain { reason: before, .. } if before.contains(reason) => return,
        Admin::Drain { by, reason: before, .. } => (by.clone(), format!("{before}; {reason}")),
        Admin::Active => (BY_WORKER.to_owned(), reason.to_owned()),
    };
    draft.tell_node(node, EventKind::NodeDrained, format!("drained by {BY_WORKER}: {reason}"));
    let admin = Admin::Drain { by, reason, since: draft.now };
    draft.push(Change::NodeAdministered { node: node.clone(), admin });
}

/// Who has drained a node that its own worker says is unfit.
const BY_WORKER: &str = "its worker";

/// New work again. Returns whether that changed anything; `None` if there is no such node.
pub fn resume(draft: &mut Draft<'_>, node: &NodeName, by: &UserName) -> Option<bool> {
    let known = draft.world.nodes.get(node)?;
    if known.admin == Admin::Active {
        return Some(false);
    }
    draft.push(Change::NodeAdministered { node: node.clone(), admin: Admin::Active });
    draft.tell_node(node, EventKind::NodeResumed, format!("resumed by {by}"));
    Some(true)
}
