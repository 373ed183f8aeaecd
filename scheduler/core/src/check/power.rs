//! Are the GPUs of a start capped as the job asks and the site orders, where that can be done? Is there power for it below every
//! limit? And does what is reserved follow from nodes and attempts?

use std::collections::BTreeMap;

use super::start::Shadow;
use crate::attempt::Placement;
use crate::ids::{GpuClass, GpuUuid};
use crate::job::Job;
use crate::mig::Mig;
use crate::node::{Gpu, Inventory};
use crate::power::PowerLevel;
use crate::power::caps::Caps;
use crate::spec::GpuRequest;
use crate::world::{Node, World};

/// Everything that forbids the start, in words. The cap is found here anew.
pub(super) fn judge_caps(world: &World, job: &Job, placement: &Placement) -> Vec<String> {
    let mut wrong = Vec::new();
    let asked = job.spec.per_node.gpu_cap_watts;
    // What is cut is not capped.
    let is_cut = matches!(job.spec.per_node.gpus, GpuRequest::Mig { .. });
    let class = placement.class.as_ref().filter(|_| !is_cut);
    let ordered = class.and_then(|class| world.power.cap_watts.get(class));
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

/// What a limit is of: its level, and the name.
type Of = (PowerLevel, String);

impl Shadow<'_> {
    /// Whether every limit still holds with what the plan has given so far. Where too much is reserved already, whatever needs
    /// more there is refused.
    pub(super) fn judge_power(&mut self, placement: &Placement, wrong: &mut Vec<String>) {
        if self.world.power.limits.is_empty() {
            return;
        }
        let mut concerned = BTreeMap::new();
        for allocation in &placement.nodes {
            let Some(node) = self.world.nodes.get(&allocation.node) else { continue };
            let mut more = 0;
            for held in &allocation.gpus {
                let Some(class) = class_of(node, &held.uuid) else { continue };
                let watts = watts(self.world, class, Some(placement.gpu_cap_watts));
                let key = (allocation.node.clone(), held.uuid.clone());
                let before = self.gpu_watts.get(&key).copied().unwrap_or(0);
                let before = before.max(watts_now(self.world, node, class, &held.uuid));
                more += watts.saturating_sub(before);
                self.gpu_watts.insert(key, watts.max(before));
            }
            if more > 0 {
                for (of, limit) in limits(self.world, &node.registered) {
                    *self.watts.entry(of.clone()).or_default() += more;
                    concerned.insert(of, limit);
                }
            }
        }
        for (of, limit) in concerned {
            let reserved = self.world.power_budget.get(&of);
            let reserved = reserved.map_or(0, |place| place.reserved_watts);
            let given = self.watts.get(&of).copied().unwrap_or(0);
            if reserved + given > limit {
                let (level, name) = (of.0.word(), of.1);
                wrong.push(format!(
                    "{level} {name} would have {} W reserved, above its limit of {limit} W",
                    reserved + given
                ));
            }
        }
    }
}

/// Everything about reserved power that does not follow from nodes and attempts, with what it is about.
pub(super) fn misreserved(world: &World) -> Vec<(String, String)> {
    let mut counted: BTreeMap<Of, u64> = BTreeMap::new();
    for node in world.nodes.values() {
        let of_gpu = |gpu: &Gpu| match gpu.mig {
            Mig::Off => watts_now(world, node, &gpu.class, &gpu.uuid),
            // As much as it may draw, at any time.
            Mig::Cut(_) | Mig::Instance(_) => watts(world, &gpu.class, Some(None)),
        };
        let gpus: u64 = node.registered.gpus.iter().map(of_gpu).sum();
        for (of, _) in limits(world, &node.registered) {
            *counted.entry(of).or_default() += gpus + u64::from(world.power.node_watts);
        }
    }
    let told = world.power_budget.places();
    let told: BTreeMap<Of, u64> =
        told.map(|(of, place)| (of.clone(), place.reserved_watts)).collect();
    let names: std::collections::BTreeSet<&Of> = counted.keys().chain(told.keys()).collect();
    let differs = names.into_iter().filter(|of| counted.get(*of) != told.get(*of));
    let text = |of: &Of| {
        let subject = format!("power of {} {}", of.0.word(), of.1);
        (subject, format!("reserves {:?} W and counts {:?} W", told.get(of), counted.get(of)))
    };
    differs.map(text).collect()
}

fn class_of<'n>(node: &'n Node, uuid: &GpuUuid) -> Option<&'n GpuClass> {
    node.registered.gpus.iter().find(|gpu| gpu.uuid == *uuid).map(|gpu| &gpu.class)
}

/// What a GPU counts with: held with that cap or none, or, without the outer one, held by nobody.
fn watts(world: &World, class: &GpuClass, held: Option<Option<u32>>) -> u64 {
    let full = world.power.gpu_watts.get(class).copied().unwrap_or(1_000);
    let idle = u64::from(full) * u64::from(world.power.idle_percent.min(100)) / 100;
    let busy =
        held.map(|cap| u64::from(cap.map_or(full, |cap| if cap < full { cap } else { full })));
    busy.map_or(idle, |busy| if busy > idle { busy } else { idle })
}

fn watts_now(world: &World, node: &Node, class: &GpuClass, uuid: &GpuUuid) -> u64 {
    let name = &node.registered.node;
    let holds = |placement: &Placement| {
        let here = placement.nodes.iter().filter(|held| held.node == *name);
        here.flat_map(|held| &held.gpus).any(|gpu| gpu.uuid == *uuid)
    };
    let here = node.attempts.iter().filter_map(|id| world.attempts.get(id));
    let held = here.filter(|attempt| holds(&attempt.placement));
    let held = held.map(|attempt| watts(world, class, Some(attempt.placement.gpu_cap_watts)));
    held.fold(watts(world, class, None), u64::max)
}

/// The limits that a node counts for.
fn limits(world: &World, inventory: &Inventory) -> Vec<(Of, u64)> {
    let limits = &world.power.limits;
    let label = |key: &str| inventory.labels.get(key).cloned().unwrap_or_default();
    let site = limits.site_watts.map(|watts| ((PowerLevel::Site, String::new()), watts));
    let named = [
        (PowerLevel::Hall, label("hall"), &limits.hall_watts),
        (PowerLevel::Rack, label("rack"), &limits.rack_watts),
        (PowerLevel::Node, inventory.node.to_string(), &limits.node_watts),
    ];
    let named = named.into_iter().filter(|(_, name, _)| !name.is_empty());
    let named = named.filter_map(|(level, name, limits)| {
        let watts = limits.get(&name).or_else(|| limits.get("*")).copied()?;
        Some(((level, name), watts))
    });
    site.into_iter().chain(named).collect()
}
