//! What a job must stay off if it starts now: reservations that are not for it, and nodes that go into maintenance
//! before it would be over. And the reservation that it asks for, whose nodes alone it may have.
//!
//! The moments at which nodes close are counted, not compared: a job that runs past the first so many of them may be on
//! no node that closes at one of these. So jobs whose limits make no difference are alike.

use crate::amount::UnixMicros;
use crate::fabric::ReservationSet;
use crate::planner::slot::Slot;
use crate::world::World;

/// Of a node that does not close.
pub(super) const NEVER: u32 = u32::MAX;

/// What a job must stay off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Closed {
    /// Reservations.
    pub reservations: ReservationSet,
    /// So many of the moments at which nodes close, the first ones, come before it would be over.
    pub closings: u32,
    /// What it may take to end beyond its time limit, seconds; 0 where it stays off nothing for which that matters.
    pub grace_s: u32,
    /// Place of the reservation whose nodes alone it may have; `None` if it asks for none.
    pub within: Option<u16>,
}

impl Closed {
    /// Whether it may be everywhere.
    pub fn is_nothing(self) -> bool {
        self.closings == 0 && self.reservations.is_empty() && self.within.is_none()
    }

    /// Whether it would still be there when the node closes.
    pub fn outstays(self, slot: &Slot<'_>) -> bool {
        slot.closes < self.closings
    }

    /// Whether the node belongs to the reservation that it asks for, or it asks for none.
    pub fn admits(self, slot: &Slot<'_>) -> bool {
        self.within.is_none_or(|place| slot.reserved.has(place.into()))
    }

    /// Whether it must stay off the node.
    pub fn covers(self, slot: &Slot<'_>) -> bool {
        self.outstays(slot) || slot.reserved.meets(self.reservations)
    }
}

/// Every moment at which nodes close, once each; and for each node that closes which of them is its own.
pub(super) fn close(world: &World, slots: &mut [Slot<'_>]) -> Vec<UnixMicros> {
    let windows = &world.windows;
    let begins = |name| windows.next_on(name).map(|window| window.during.from);
    let mut closings: Vec<UnixMicros> = windows.nodes().filter_map(begins).collect();
    closings.sort_unstable();
    closings.dedup();
    for name in windows.nodes() {
        let slot = slots.binary_search_by(|slot| slot.name.cmp(name)).ok();
        let place = begins(name).and_then(|at| closings.binary_search(&at).ok());
        if let (Some(slot), Some(place)) = (slot, place) {
            slots[slot].closes = u32::try_from(place).unwrap_or(NEVER);
        }
    }
    closings
}
