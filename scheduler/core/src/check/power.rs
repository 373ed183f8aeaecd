//! Are the GPUs of a start capped as the job asks and the site orders, where that can be done?

use crate::attempt::Placement;
use crate::ids::GpuUuid;
use crate::job::Job;
use crate::power::caps::Caps;
use crate::world::World;

/// Everything that forbids the start, in words. The cap is found here anew.
pub(super) fn judge_caps(world: &World, job: &Job, placement: &Placement) -> Vec<String> {
    let mut wrong = Vec::new();
    let asked = job.spec.per_node.gpu_cap_watts;
    let ordered = placement.class.as_ref().and_then(|class| world.power.cap_watts.get(class));
    let cap = match (asked, ordered) {
        (Some(asked), Some(ordered)) => Some(asked.min(*ordered)),
        (asked, ordered) => asked.or(ordered.copied()),
    };
    if placement.gpu_cap_watts != cap {
        let given = placement.gpu_cap_watts;
        wrong.push(format!("is to be capped at {cap:?} W and is at {given:?} W"));
    }
    let Some(cap) = cap else { return wrong };
    for allocation in placement.nodes.iter().filter(|allocation| !allocation.gpus.is_empty()) {
        let Some(node) = world.nodes.get(&allocation.node) else { continue };
        let able = matches!(node.inventory.caps, Some(Caps::Able));
        let takes = |uuid: &GpuUuid| {
            let gpu = node.inventory.gpus.iter().find(|gpu| gpu.uuid == *uuid);
            gpu.and_then(|gpu| gpu.cap_range).is_some_and(|range| cap >= range.min_watts)
        };
        if !able || !allocation.gpus.iter().all(|gpu| takes(&gpu.uuid)) {
            wrong.push(format!("node {} cannot cap its GPUs at {cap} W", allocation.node));
        }
    }
    wrong
}
