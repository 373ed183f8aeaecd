//! All nodes of a gang or none: what each must give, where it may be, and the best places for it.

use std::collections::{BTreeMap, BTreeSet};

use super::fit::Machine;
use super::score::{ClassIndex, SlotId};
use super::slot::Slot;
use crate::amount::{CpuMilli, GpuMilli, MemoryMib};
use crate::fabric::ReservationSet;
use crate::ids::NodeName;
use crate::spec::{Constraints, GpuRequest, NodeRequest};

/// What each node of a gang gives, without the class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    /// GPUs.
    pub gpus: GpuNeed,
    /// CPUs.
    pub cpu_milli: CpuMilli,
    /// Memory.
    pub memory_mib: MemoryMib,
}

/// GPUs each node of a gang gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GpuNeed {
    /// None.
    None,
    /// Whole ones.
    Whole(u32),
    /// A share of one.
    Share(GpuMilli),
}

impl Need {
    /// What a request asks of each node.
    pub fn of(request: &NodeRequest) -> Self {
        let gpus = match &request.gpus {
            GpuRequest::None => GpuNeed::None,
            GpuRequest::Whole { count, .. } => GpuNeed::Whole(*count),
            GpuRequest::Share { milli, .. } => GpuNeed::Share(GpuMilli(u64::from(*milli))),
        };
        Need { gpus, cpu_milli: request.cpu_milli, memory_mib: request.memory_mib }
    }

    /// The same GPUs with nothing beside them.
    pub fn gpus_alone(&self) -> Self {
        Need { gpus: self.gpus, cpu_milli: CpuMilli::ZERO, memory_mib: MemoryMib::ZERO }
    }

    /// Thousandths on each node.
    pub fn gpu_milli(&self) -> GpuMilli {
        match self.gpus {
            GpuNeed::None => GpuMilli::ZERO,
            GpuNeed::Whole(wanted) => GpuMilli::whole(wanted),
            GpuNeed::Share(milli) => milli,
        }
    }
}

/// A chosen place: a node, and for a share the GPU on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pick {
    /// Which node.
    pub slot: SlotId,
    /// Which GPU, by position in the inventory; only for shares.
    pub gpu: Option<u32>,
}

/// Where a gang may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Territory<'w> {
    /// As asked.
    pub constraints: &'w Constraints,
    /// Nodes it lost an attempt on; `None` if they are not avoided.
    pub avoid: Option<&'w BTreeSet<NodeName>>,
    /// Reservations that it must stay out of.
    pub closed: ReservationSet,
}

impl Territory<'_> {
    /// Whether the node belongs to it.
    pub fn contains(&self, slot: &Slot<'_>) -> bool {
        !slot.reserved.meets(self.closed) && self.would_contain(slot)
    }

    /// Whether the node would belong to it if nothing were reserved.
    pub fn would_contain(&self, slot: &Slot<'_>) -> bool {
        let Constraints { nodes, exclude_nodes, labels, same_cluster } = self.constraints;
        let own = &slot.node.inventory.labels;
        (nodes.is_empty() || nodes.contains(slot.name))
            && !exclude_nodes.contains(slot.name)
            && labels.iter().all(|(key, value)| own.get(key) == Some(value))
            && (!same_cluster || slot.cluster.is_some())
            && !self.avoid.is_some_and(|avoid| avoid.contains(slot.name))
    }

    /// Whether it is the whole machine.
    pub fn is_everywhere(&self) -> bool {
        let Constraints { nodes, exclude_nodes, labels, same_cluster } = self.constraints;
        let avoids = self.avoid.is_some_and(|avoid| !avoid.is_empty());
        let asks = !nodes.is_empty() || !exclude_nodes.is_empty() || !labels.is_empty();
        !asks && !same_cluster && !avoids && self.closed.is_empty()
    }

    /// Of these nodes, which serve, as many as can be of one gang: all, or those of the cluster that has the most.
    pub fn together(
        &self,
        machine: &Machine<'_>,
        slots: impl Iterator<Item = SlotId>,
    ) -> BTreeSet<SlotId> {
        let slots: BTreeSet<SlotId> = slots.collect();
        if !self.constraints.same_cluster {
            return slots;
        }
        let mut clusters: BTreeMap<Option<&str>, BTreeSet<SlotId>> = BTreeMap::new();
        for id in slots {
            clusters.entry(machine.slot(id).cluster).or_default().insert(id);
        }
        let most = clusters.into_values().rev().max_by_key(BTreeSet::len);
        most.unwrap_or_default()
    }

    /// The best places for a gang of `nodes` distinct nodes among `places`, which come in their order, in the order of
    /// names; `None` if there are too few.
    pub fn choose(
        &self,
        machine: &Machine<'_>,
        places: impl Iterator<Item = Pick>,
        nodes: u32,
    ) -> Option<Vec<Pick>> {
        if self.constraints.same_cluster {
            choose_in_one(machine, places, nodes)
        } else {
            choose(places, nodes)
        }
    }

    /// Every place inside that serves one node of a gang now, best first.
    pub fn places<'a>(
        &'a self,
        machine: &'a Machine<'_>,
        class: Option<ClassIndex>,
        need: &Need,
    ) -> Box<dyn Iterator<Item = Pick> + 'a> {
        if self.is_everywhere() {
            return machine.places(class, need);
        }
        let inside = move |pick: &Pick| self.contains(machine.slot(pick.slot));
        if self.constraints.nodes.is_empty() {
            return Box::new(machine.places(class, need).filter(inside));
        }
        let among = machine.places_among(self.constraints.nodes.iter(), class, need);
        Box::new(among.into_iter().filter(inside))
    }
}

/// All of one cluster: of those with enough places the one that has the fewest, so that larger ones stay open for
/// larger gangs; then the first by name.
fn choose_in_one(
    machine: &Machine<'_>,
    places: impl Iterator<Item = Pick>,
    nodes: u32,
) -> Option<Vec<Pick>> {
    let mut clusters: BTreeMap<&str, Vec<Pick>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for pick in places {
        if let Some(cluster) = machine.slot(pick.slot).cluster.filter(|_| seen.insert(pick.slot)) {
            clusters.entry(cluster).or_default().push(pick);
        }
    }
    let fitting = clusters.into_values().filter(|picks| picks.len() >= nodes as usize);
    choose(fitting.min_by_key(Vec::len)?.into_iter(), nodes)
}

/// The first `nodes` distinct nodes of `places`, in the order of names; `None` if there are too few.
fn choose(places: impl Iterator<Item = Pick>, nodes: u32) -> Option<Vec<Pick>> {
    let mut chosen = BTreeMap::new();
    for pick in places {
        chosen.entry(pick.slot).or_insert(pick);
        if chosen.len() == nodes as usize {
            return Some(chosen.into_values().collect());
        }
    }
    None
}
