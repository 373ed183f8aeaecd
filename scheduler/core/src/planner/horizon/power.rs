//! Power over time, by what runs on nodes and what is planned there.

use super::{Ask, Horizon, Stretch};
use crate::amount::{GpuMilli, UnixMicros};
use crate::attempt::NodeAllocation;
use crate::planner::fit::Machine;
use crate::planner::power::{Power, Purse, Return};
use crate::planner::score::SlotId;

impl<'w> Horizon<'w> {
    /// What is left below every limit for as long as is asked for, from a moment on; `None` where nothing is limited.
    pub fn purse_at(
        &self,
        machine: &Machine<'w>,
        ask: &Ask<'_>,
        from: UnixMicros,
    ) -> Option<Purse> {
        let (power, ahead) = (machine.power.as_ref()?, self.power.as_ref()?);
        let during = Stretch { from, until: from.plus_seconds(ask.seconds) };
        Some(ahead.purse(power.left(), ask.who, during, || self.returns(machine, power)))
    }

    /// The same from now on. What scavengers hold is theirs until they have gone.
    pub fn purse_now(&self, machine: &Machine<'w>, ask: &Ask<'_>) -> Option<Purse> {
        let power = machine.power.as_ref()?;
        if self.is_open() {
            return Some(power.left().clone());
        }
        let planned = self.purse_at(machine, ask, self.now)?;
        Some(power.left().iter().zip(planned).map(|(left, planned)| (*left).min(planned)).collect())
    }

    /// Moments after another at which there may be more power.
    pub fn power_moments(&self, machine: &Machine<'w>, after: UnixMicros) -> Vec<UnixMicros> {
        let (Some(power), Some(ahead)) = (&machine.power, &self.power) else { return Vec::new() };
        ahead.moments(after, || self.returns(machine, power)).into_iter().collect()
    }

    /// What GPUs that attempts of the world hold give back, and when.
    fn returns(&self, machine: &Machine<'w>, power: &Power<'w>) -> Vec<(SlotId, Return)> {
        let of_slot = |id: SlotId| {
            let slot = machine.slot(id);
            let ends = self.ends_in_world(slot);
            let gpus =
                slot.node.inventory.gpus.iter().zip(slot.node.free.gpus.clone()).zip(ends.gpus);
            let held = gpus.filter(|((_, free), _)| *free < GpuMilli::WHOLE);
            held.map(move |((gpu, _), end)| (id, (end, power.held_of(slot.node, gpu))))
        };
        machine.ids().flat_map(of_slot).collect()
    }

    /// What a start gives back: of a GPU of which others have shares not before the last of them ends.
    pub(super) fn returns_of(
        &self,
        machine: &Machine<'_>,
        id: SlotId,
        (held, until): (&NodeAllocation, UnixMicros),
        cap_watts: Option<u32>,
    ) -> Vec<Return> {
        if self.power.is_none() {
            return Vec::new();
        }
        let (slot, terms) = (machine.slot(id), machine.power_terms());
        let ends = self.ends(machine, id);
        let mut returns = Vec::new();
        for gpu in held.gpus.iter().filter_map(|gpu| slot.node.gpu_index(&gpu.uuid)) {
            let device = &slot.node.inventory.gpus[gpu];
            let busy = terms.busy_watts(&device.class, cap_watts);
            let watts = i64::from(busy) - i64::from(terms.idle_watts_of(device));
            let others_until = ends.gpus[gpu];
            if others_until <= self.now {
                returns.push((until, watts));
            } else if others_until < until {
                returns.extend([(others_until, -watts), (until, watts)]);
            }
        }
        returns
    }
}
