//! GPUs that are out for their health as a reason for waiting: with them the machine would serve.

use super::{Machine, NAMED_MAX, Slot};
use crate::ids::GpuClass;
use crate::node::Gpu;
use crate::plan::{Blocker, BlockerKind, Unit, spelled};
use crate::planner::request::Family;
use crate::spec::GpuRequest;

/// What keeps a gang from ever starting, unless that is only so because GPUs are out: then those.
pub(super) fn or_hurt(
    blockers: Vec<Blocker>,
    machine: &Machine<'_>,
    family: &Family<'_>,
    nodes: u32,
) -> Vec<Blocker> {
    if blockers.iter().any(|blocker| blocker.kind != BlockerKind::Constraints) {
        return blockers;
    }
    let most = blockers.iter().map(|blocker| blocker.available).max().unwrap_or(0);
    let hurt: Vec<&Slot<'_>> =
        machine.slots.iter().filter(|slot| would_serve(slot, family)).collect();
    let all = most.saturating_add(hurt.len() as u64);
    if blockers.is_empty() || hurt.is_empty() || all < u64::from(nodes) {
        return blockers;
    }
    let names = hurt.iter().take(NAMED_MAX).map(|slot| slot.name.to_string());
    vec![Blocker {
        kind: BlockerKind::NodesUnavailable,
        subject: names.collect::<Vec<_>>().join(", "),
        needed: nodes.into(),
        available: 0,
        limit: all,
        unit: Unit::Nodes,
        note: spelled(hurt.iter().map(|slot| words(slot)), NAMED_MAX),
    }]
}

/// Whether a node would serve if none of its GPUs were out, and does not as it is.
fn would_serve(slot: &Slot<'_>, family: &Family<'_>) -> bool {
    if slot.node.gpus_out().next().is_none() || !family.territory.contains(slot) {
        return false;
    }
    let need = &family.need;
    let beside = slot.cpu_milli >= need.cpu_milli && slot.memory_mib >= need.memory_mib;
    let (wanted, class) = match &family.per_node.gpus {
        GpuRequest::None => return false,
        GpuRequest::Whole { count, class } => (*count as usize, class.as_ref()),
        GpuRequest::Share { class, .. } => (1, class.as_ref()),
        GpuRequest::Mig { count, class, .. } => (*count as usize, class.as_ref()),
    };
    let classes: Vec<&GpuClass> = match class {
        Some(class) => vec![class],
        None => slot.node.registered.gpus.iter().map(|gpu| &gpu.class).collect(),
    };
    let kind = need.gpus.kind();
    let has = |of: &&GpuClass| {
        let of_class = slot.node.registered.gpus.iter().filter(|gpu| gpu.class == **of);
        let serving = of_class.flat_map(Gpu::given_out).filter(|one| one.kind() == kind);
        serving.count() >= wanted
    };
    beside && classes.iter().any(has)
}

/// How many of its GPUs are out, and why the first of them.
fn words(slot: &Slot<'_>) -> String {
    let out: Vec<_> = slot.node.gpus_out().collect();
    let health = &slot.node.health;
    let why = out.first().map(|gpu| health.why_not_offered(&gpu.uuid)).unwrap_or_default();
    let (name, all) = (slot.name, slot.node.registered.gpus.len());
    format!("{name} ({} of {all} GPUs out; {why})", out.len())
}
