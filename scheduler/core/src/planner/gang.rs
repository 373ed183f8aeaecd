//! All nodes of a gang or none: what each must give, where it may be, and the best places for it.

use std::collections::{BTreeMap, BTreeSet};

use super::blocks;
use super::closed::Closed;
use super::fit::Machine;
use super::power::{Asked, Purse};
use super::score::{ClassIndex, SlotId};
use super::slot::Slot;
use crate::amount::{CpuMilli, GpuMilli, MemoryMib};
use crate::ids::NodeName;
use crate::mig::MigKind;
use crate::spec::{Constraints, GpuRequest, NodeRequest};

/// For jobs that may not be everywhere.
const WITHIN: &str = " within its constraints";
/// For jobs with an image.
pub(crate) const FOR_IMAGES: &str = " and a runtime for images";
/// For those that are both.
const FOR_IMAGES_WITHIN: &str = " and a runtime for images within its constraints";

/// What each node of a gang gives, without the class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    /// GPUs.
    pub gpus: GpuNeed,
    /// CPUs.
    pub cpu_milli: CpuMilli,
    /// Memory.
    pub memory_mib: MemoryMib,
    /// What its GPUs are to be capped at, watts.
    pub cap_watts: Option<u32>,
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
    /// Instances of a kind, of those that are cut.
    Mig(u32, MigKind),
}

impl GpuNeed {
    /// How many different ones it takes.
    pub fn count(self) -> u32 {
        match self {
            GpuNeed::None => 0,
            GpuNeed::Whole(count) | GpuNeed::Mig(count, _) => count,
            GpuNeed::Share(_) => 1,
        }
    }

    /// What it takes of each.
    pub fn each(self) -> GpuMilli {
        match self {
            GpuNeed::None => GpuMilli::ZERO,
            GpuNeed::Whole(_) => GpuMilli::WHOLE,
            GpuNeed::Share(milli) => milli,
            GpuNeed::Mig(_, kind) => kind.amount(),
        }
    }

    /// The kind of instance it needs, if it does.
    pub fn kind(self) -> Option<MigKind> {
        match self {
            GpuNeed::None | GpuNeed::Whole(_) | GpuNeed::Share(_) => None,
            GpuNeed::Mig(_, kind) => Some(kind),
        }
    }
}

impl Need {
    /// What a request asks of each node.
    pub fn of(request: &NodeRequest) -> Self {
        let gpus = match &request.gpus {
            GpuRequest::None => GpuNeed::None,
            GpuRequest::Whole { count, .. } => GpuNeed::Whole(*count),
            GpuRequest::Share { milli, .. } => GpuNeed::Share(GpuMilli(u64::from(*milli))),
            GpuRequest::Mig { count, profile, milli, .. } => {
                GpuNeed::Mig(*count, MigKind { profile: *profile, milli: *milli })
            }
        };
        let NodeRequest { cpu_milli, memory_mib, gpu_cap_watts: cap_watts, .. } = *request;
        Need { gpus, cpu_milli, memory_mib, cap_watts }
    }

    /// The same GPUs with nothing beside them.
    pub fn gpus_alone(&self) -> Self {
        Need { cpu_milli: CpuMilli::ZERO, memory_mib: MemoryMib::ZERO, ..*self }
    }

    /// Thousandths on each node.
    pub fn gpu_milli(&self) -> GpuMilli {
        self.gpus.each().times(u64::from(self.gpus.count()))
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
    /// What it must stay off.
    pub closed: Closed,
}

impl Territory<'_> {
    /// Whether the node belongs to it.
    pub fn contains(&self, slot: &Slot<'_>) -> bool {
        !self.closed.covers(slot) && self.would_contain(slot)
    }

    /// Whether the node would belong to it if nothing were closed.
    pub fn would_contain(&self, slot: &Slot<'_>) -> bool {
        let Constraints { nodes, exclude_nodes, labels, blocks, reservation: _, images } =
            self.constraints;
        let own = &slot.node.inventory.labels;
        (nodes.is_empty() || nodes.contains(slot.name))
            && !exclude_nodes.contains(slot.name)
            && labels.iter().all(|(key, value)| own.get(key) == Some(value))
            && blocks.admit(&slot.node.inventory)
            && (!images || slot.node.inventory.runs_images())
            && self.closed.admits(slot)
            && !self.avoid.is_some_and(|avoid| avoid.contains(slot.name))
    }

    /// Whether it is the whole machine.
    pub fn is_everywhere(&self) -> bool {
        self.leaves_out_no_node() && !self.constraints.blocks.is_binding()
    }

    /// What is asked of a node beside what it must give, in words behind that.
    pub fn words(&self) -> &'static str {
        let Constraints { nodes, exclude_nodes, labels, blocks, reservation: _, images } =
            self.constraints;
        let names = !nodes.is_empty() || !exclude_nodes.is_empty() || !labels.is_empty();
        let avoids = self.avoid.is_some_and(|avoid| !avoid.is_empty());
        let asks = names || blocks.is_binding() || avoids || !self.closed.is_nothing();
        match (asks, images) {
            (false, false) => "",
            (true, false) => WITHIN,
            (false, true) => FOR_IMAGES,
            (true, true) => FOR_IMAGES_WITHIN,
        }
    }

    /// Whether no node is left out but those that belong to no block.
    fn leaves_out_no_node(&self) -> bool {
        let Constraints { nodes, exclude_nodes, labels, images, .. } = self.constraints;
        let avoids = self.avoid.is_some_and(|avoid| !avoid.is_empty());
        let asks = !nodes.is_empty() || !exclude_nodes.is_empty() || !labels.is_empty() || *images;
        !asks && !avoids && self.closed.is_nothing()
    }

    /// Of these nodes, which serve, as many as can be of one gang: all, unless it is to keep together.
    pub fn together(
        &self,
        machine: &Machine<'_>,
        slots: impl Iterator<Item = SlotId>,
    ) -> BTreeSet<SlotId> {
        let (slots, terms) = (slots.collect(), &self.constraints.blocks);
        if terms.is_binding() { blocks::together(machine, terms, slots) } else { slots }
    }

    /// The best places for a gang of `nodes` distinct nodes among `places`, which come in their order, in the order of
    /// names; `None` if there are too few.
    pub fn choose(
        &self,
        machine: &Machine<'_>,
        places: impl Iterator<Item = Pick>,
        nodes: u32,
    ) -> Option<Vec<Pick>> {
        let terms = &self.constraints.blocks;
        if terms.is_empty() {
            choose(places, nodes)
        } else {
            blocks::choose(machine, terms, places, nodes)
        }
    }

    /// The same as far as there is power now.
    pub fn choose_now(
        &self,
        machine: &Machine<'_>,
        asked: Asked<'_>,
        places: impl Iterator<Item = Pick>,
    ) -> Option<Vec<Pick>> {
        let left = machine.power.as_ref().map(|power| power.left().clone());
        self.choose_powered(machine, left.as_ref(), asked, places)
    }

    /// The same as far as there is so much power. Of a gang of segments that is not always the best choice: power may go to
    /// nodes that make no whole segment.
    pub fn choose_powered(
        &self,
        machine: &Machine<'_>,
        purse: Option<&Purse>,
        asked: Asked<'_>,
        places: impl Iterator<Item = Pick>,
    ) -> Option<Vec<Pick>> {
        let (Some(power), Some(purse)) = (&machine.power, purse) else {
            return self.choose(machine, places, asked.nodes);
        };
        let terms = &self.constraints.blocks;
        if terms.is_empty() {
            let picks = machine.powered(power, purse, places, asked);
            return choose(picks.into_iter(), asked.nodes);
        }
        let places: Vec<Pick> = places.collect();
        let first = self.choose(machine, places.iter().copied(), asked.nodes)?;
        if machine.short_of(power, purse, &first, asked).is_none() {
            return Some(first);
        }
        let all = Asked { nodes: u32::MAX, ..asked };
        let powered = |places: Vec<Pick>| machine.powered(power, purse, places.into_iter(), all);
        // A gang is in one of these alone, so power for one is none for another.
        let apart = match terms.one {
            Some(level) => blocks::apart(machine, level, places),
            None => vec![places],
        };
        let picks: Vec<Pick> = apart.into_iter().flat_map(powered).collect();
        self.choose(machine, picks.into_iter(), asked.nodes)
    }

    /// Every place inside that serves one node of a gang now, best first. For a gang that keeps together some may be on
    /// nodes that belong to no block: to ask each of them takes longer than to leave them out with all others later.
    pub fn places<'a>(
        &'a self,
        machine: &'a Machine<'_>,
        class: Option<ClassIndex>,
        need: &Need,
    ) -> Box<dyn Iterator<Item = Pick> + 'a> {
        if self.leaves_out_no_node() {
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
