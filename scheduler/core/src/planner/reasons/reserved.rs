//! Reservations and maintenance as reasons for waiting.

use super::{Look, count};
use crate::fabric::ReservationSet;
use crate::plan::{Blocker, BlockerKind, Unit};
use crate::planner::score::SlotId;
use crate::planner::slot::Slot;
use crate::quota::show_moment;

impl<'w> Look<'_, 'w> {
    /// The reservations and the maintenance without which there would be enough nodes, counting those that are closed
    /// to it and `serve`.
    pub(super) fn closed(&self, serves: impl Fn(&Slot<'w>) -> bool) -> Vec<Blocker> {
        let territory = &self.family.territory;
        let closed = |id: &SlotId| {
            let slot = self.slot(*id);
            territory.closed.covers(slot) && territory.would_contain(slot) && serves(slot)
        };
        if territory.closed.is_nothing() {
            return Vec::new();
        }
        let closed: Vec<SlotId> = self.machine.ids().filter(closed).collect();
        let open = territory.places(self.machine, self.class, &self.family.need);
        let with = open.map(|pick| pick.slot).chain(closed.iter().copied());
        let could = count(territory.together(self.machine, with).iter());
        if could < self.nodes {
            return Vec::new();
        }
        let places = 0..self.machine.reservations.len();
        let reserved = places.filter_map(|place| self.taken_by(place, &closed));
        reserved.chain(self.maintenance(&closed)).collect()
    }

    fn taken_by(&self, place: usize, closed: &[SlotId]) -> Option<Blocker> {
        let mut own = ReservationSet::EMPTY;
        own.insert(place);
        let own = own.both(self.family.territory.closed.reservations);
        let nodes = closed.iter().filter(|id| self.slot(**id).reserved.meets(own));
        let (limit, (name, terms)) = (count(nodes), self.machine.reservations[place]);
        let [from, until] = [terms.during.from, terms.during.until].map(show_moment);
        (limit > 0).then(|| Blocker {
            kind: BlockerKind::Reservation,
            subject: name.to_string(),
            needed: self.nodes.into(),
            available: count(self.fitting_now().iter()).into(),
            limit: limit.into(),
            unit: Unit::Nodes,
            note: format!("{} {from} {until}", terms.holder),
        })
    }
}
