//! Signs of bad health come in; hardware goes out, and comes back once it has been well for a while.
//!
//! What a sign calls for is said by the site's rules. Here it is done: the GPU or the node stands otherwise, attempts on
//! it are told to stop or are not blamed for what follows, and everything is told.

mod back;
mod blame;
mod check;
mod deadline;
mod mark;
mod sign;
mod take_out;

use std::collections::BTreeSet;
use std::sync::Arc;

use super::draft::Draft;
use crate::amount::UnixMicros;
use crate::change::{Change, EventKind};
use crate::health::alarm::{self, FacilityAlarm};
use crate::health::{Condition, GpuLook, Journal, NodeHealth, Signal, Standing};
use crate::ids::{AttemptId, GpuUuid, NodeName};
use crate::node::{Gpu, Inventory};

pub use back::{
    HealthRefusal, Place, Repaired, begin_repair, due_repairs, repaired, reset_breaker,
    settle_verified, verify,
};
pub(super) use blame::{is_to_blame, nothing_is_on, put_down_to_hardware};
pub use check::{Check, Checked, check_due, checked};
pub(super) use deadline::keep as keep_deadline;
pub(super) use mark::mark;
use sign::Sign;

/// Something that a worker saw once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// On which node.
    pub node: NodeName,
    /// Where it stands in the worker's journal.
    pub journal: Journal,
    /// What it is.
    pub signal: Signal,
    /// The GPU it is about; `None` if the driver does not say.
    pub gpu: Option<GpuUuid>,
    /// Attempts that had the GPU then.
    pub attempts: Vec<AttemptId>,
    /// In words, as the driver or the kernel put it; may be empty.
    pub detail: String,
}

/// Takes a finding in; one that is known already changes nothing. Either way it may be acknowledged once the draft is
/// durable.
pub fn find(draft: &mut Draft<'_>, finding: &Finding) {
    let Some(node) = draft.world.nodes.get(&finding.node) else { return };
    let seen = &node.health.journal;
    if seen.id == finding.journal.id && finding.journal.seq <= seen.seq {
        return;
    }
    change(draft, &finding.node, |health| health.journal = finding.journal.clone());
    let Finding { signal, gpu, detail, .. } = finding;
    sign::take_in(
        draft,
        &Sign {
            node: &finding.node,
            gpu: gpu.as_ref(),
            signal: *signal,
            detail,
            attempts: Some(&finding.attempts),
        },
    );
}

/// Whether a look at the GPUs of a node tells anything that is not known.
#[must_use]
pub fn tells_news(health: &NodeHealth, looks: &[GpuLook]) -> bool {
    looks.iter().any(|look| match health.gpus.get(&look.uuid) {
        Some(known) => !known.conditions.keys().eq(look.conditions.iter()),
        None => !look.conditions.is_empty(),
    })
}

/// Takes in what lasts on the GPUs of a node. GPUs that were not looked at stay as they are.
pub fn look(draft: &mut Draft<'_>, node: &NodeName, looks: &[GpuLook]) {
    let Some(known) = draft.world.nodes.get(node) else { return };
    if !tells_news(&known.health, looks) {
        return;
    }
    let (mut begun, mut over) = (Vec::new(), Vec::new());
    for look in looks.iter().filter(|look| has(&known.registered, &look.uuid)) {
        let before = known.health.gpus.get(&look.uuid).map(|gpu| &gpu.conditions);
        let before: BTreeSet<Condition> = before.into_iter().flatten().map(|(c, _)| *c).collect();
        begun.extend(look.conditions.difference(&before).map(|c| (look.uuid.clone(), *c)));
        over.extend(before.difference(&look.conditions).map(|c| (look.uuid.clone(), *c)));
    }
    // Alarms come only of what begins.
    let slowed = begun.iter().any(|(_, condition)| condition.is_of_the_facility());
    let alarms = slowed.then(|| alarm::facility(draft.world, &draft.policy.health));
    note(draft, node, &begun, &over);
    // What began first: where one thing took the place of another, nothing came back in between.
    for (gpu, condition) in &begun {
        sign::take_in(draft, &Sign::lasting(node, gpu, *condition));
    }
    for (gpu, condition) in &over {
        back::is_over(draft, node, gpu, *condition);
    }
    if let Some(before) = alarms {
        tell_new_alarms(draft, node, &before);
    }
}

/// A node registered: it may have been rebooted, and GPUs may be gone or there again.
pub(super) fn registered(draft: &mut Draft<'_>, node: &NodeName, before: &Inventory) {
    let Some(known) = draft.world.nodes.get(node) else { return };
    let now: BTreeSet<&GpuUuid> = known.registered.gpus.iter().map(|gpu| &gpu.uuid).collect();
    let simulated = known.registered.simulated;
    let rebooted = known.registered.boot_id != before.boot_id;
    let gone = before.gpus.iter().map(|gpu| &gpu.uuid).filter(|uuid| !now.contains(uuid));
    let had = known.health.missing.iter().filter(|uuid| !now.contains(uuid));
    let missing: BTreeSet<GpuUuid> = gone.chain(had).cloned().collect();
    let (was_missing, all) = (known.health.missing.clone(), now.len() + missing.len());
    if rebooted {
        back::rebooted(draft, node);
    }
    if missing == was_missing || simulated {
        return;
    }
    change(draft, node, |health| health.missing.clone_from(&missing));
    if missing.is_empty() {
        back::all_there(draft, node);
        return;
    }
    let names: Vec<&str> = missing.iter().map(GpuUuid::as_str).collect();
    let detail = format!("{} of {all} GPUs: {}", missing.len(), names.join(", "));
    let signal = Signal::MissingGpus;
    let attempts = Some(&[][..]);
    sign::take_in(draft, &Sign { node, gpu: None, signal, detail: &detail, attempts });
}

fn has(inventory: &Inventory, uuid: &GpuUuid) -> bool {
    inventory.gpus.iter().any(|gpu| gpu.uuid == *uuid)
}

/// Writes down what lasts from now on, and what does not any more.
fn note(
    draft: &mut Draft<'_>,
    node: &NodeName,
    begun: &[(GpuUuid, Condition)],
    over: &[(GpuUuid, Condition)],
) {
    let now = draft.now;
    change(draft, node, |health| {
        for (gpu, condition) in over {
            if let Some(gpu) = health.gpus.get_mut(gpu) {
                gpu.conditions.remove(condition);
            }
        }
        for (gpu, condition) in begun {
            health.gpus.entry(gpu.clone()).or_default().conditions.insert(*condition, now);
        }
    });
}

/// Drafts a node's health changed by `change`, if that changes it.
pub(super) fn change(draft: &mut Draft<'_>, node: &NodeName, change: impl FnOnce(&mut NodeHealth)) {
    let Some(known) = draft.world.nodes.get(node) else { return };
    let mut health = NodeHealth::clone(&known.health);
    change(&mut health);
    health.gpus.retain(|_, gpu| !gpu.is_empty());
    if health != *known.health {
        let (was, health) = (&known.health, Arc::new(health));
        let other = |gpu: &Gpu| was.offers(&gpu.uuid) != health.offers(&gpu.uuid);
        let changes_room = known.registered.gpus.iter().any(other)
            || was.node.state.takes_work() != health.node.state.takes_work();
        draft.push(Change::NodeHealth { node: node.clone(), health, changes_room });
    }
}

/// Writes down how a GPU, or the node as a whole, stands from now on.
fn put(draft: &mut Draft<'_>, node: &NodeName, gpu: Option<&GpuUuid>, standing: Standing) {
    change(draft, node, |health| match gpu {
        Some(gpu) => health.gpus.entry(gpu.clone()).or_default().standing = standing,
        None => health.node = standing,
    });
    deadline::keep(draft, node);
}

/// A GPU as people call it: by its number on the node.
pub(super) fn name_of(draft: &Draft<'_>, node: &NodeName, gpu: Option<&GpuUuid>) -> String {
    let registered = draft.world.nodes.get(node).map(|node| &node.registered.gpus);
    let index = gpu.and_then(|uuid| registered?.iter().find(|gpu| gpu.uuid == *uuid));
    match (index, gpu) {
        (Some(gpu), _) => format!("GPU {}", gpu.index),
        (None, Some(uuid)) => format!("GPU {uuid}"),
        (None, None) => "the node".to_owned(),
    }
}

fn tell_new_alarms(draft: &mut Draft<'_>, node: &NodeName, before: &[FacilityAlarm]) {
    for alarm in alarm::facility(draft.world, &draft.policy.health) {
        if !before.iter().any(|known| known.is_about(&alarm)) {
            draft.tell_node(node, EventKind::FacilityAlarm, alarm.describe());
        }
    }
}

/// The moment before which something in the past is too long ago.
fn long_ago(now: UnixMicros, within_s: i64) -> UnixMicros {
    now.plus_seconds(within_s.saturating_neg())
}
