//! How much of what a gang asks for there is and is free, and what one node of it must give, in words.

use super::{Family, Look, Machine};
use crate::amount::GpuMilli;
use crate::explain::memory_words;
use crate::plan::{Blocker, Unit};
use crate::planner::gang::Need;
use crate::planner::score::ClassIndex;
use crate::spec::GpuRequest;

/// GPUs of a class on nodes that take work, or instances of a kind there.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    free: GpuMilli,
    capacity: GpuMilli,
}

/// Sums over the nodes of a family's territory that take work.
pub(super) fn sum(machine: &Machine<'_>, family: &Family<'_>, class: ClassIndex) -> Totals {
    let mut totals = Totals::default();
    let kind = family.need.gpus.kind();
    let slots = machine.ids_of(Some(class)).map(|id| machine.slot(id));
    for slot in slots.filter(|slot| slot.takes_work) {
        if family.territory.contains(slot) {
            totals.free += slot.free_for(class, kind).map(|(_, free)| free).sum();
            totals.capacity += match kind {
                None => GpuMilli::whole(slot.gpus_of(class)),
                Some(kind) => kind.amount().times(slot.free_for(class, Some(kind)).count() as u64),
            };
        }
    }
    totals
}

impl Look<'_, '_> {
    /// What one node must give, in words; `free` is put before each part.
    pub(super) fn node_words(&self, free: &str) -> String {
        let (class, capped) = (self.class_word(), self.cap_words());
        let gpus = match &self.family.per_node.gpus {
            GpuRequest::None => String::new(),
            GpuRequest::Whole { count: 1, .. } => format!("1{free} {class} GPU{capped}, "),
            GpuRequest::Whole { count, .. } => format!("{count}{free} {class} GPUs{capped}, "),
            GpuRequest::Share { milli, .. } => {
                format!("{} of a{free} {class} GPU{capped}, ", GpuMilli(u64::from(*milli)))
            }
            GpuRequest::Mig { count, profile, .. } => {
                let of = if class.is_empty() { class } else { format!(" of {class}") };
                let instances = if *count == 1 { "instance" } else { "instances" };
                format!("{count}{free} {profile} {instances}{of}, ")
            }
        };
        let need = &self.family.need;
        let cpus = if need.cpu_milli.0 == 1000 { "CPU" } else { "CPUs" };
        let memory = memory_words(need.memory_mib);
        format!("{gpus}{}{free} {cpus} and {memory}{free} memory", need.cpu_milli)
    }

    pub(super) fn too_few_gpus(&self, alone: &Need) -> Blocker {
        let Totals { free, capacity } = self.totals;
        let needed = self.family.need.gpu_milli().times(self.nodes.into());
        // Enough in sum, but scattered; or work without GPUs, of which it needs none. Where nodes keep together, a sum
        // over all of them tells nothing.
        if free >= needed || self.terms().is_binding() {
            return self.too_few_nodes(alone);
        }
        let [needed, free, all] = [needed, free, capacity].map(|amount| amount.0);
        let Some(kind) = alone.gpus.kind() else {
            return self.capacity_blocker(Unit::GpuMilli, needed, free, all, String::new());
        };
        // An instance is given as a whole or not at all, so these are numbers of them.
        let [needed, free, all] = [needed, free, all].map(|milli| milli / u64::from(kind.milli));
        self.capacity_blocker(Unit::Instances, needed, free, all, kind.profile.to_string())
    }
}
