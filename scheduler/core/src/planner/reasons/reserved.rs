//! Reservations and maintenance as reasons for waiting.

use super::{Look, count};
use crate::fabric::ReservationSet;
use crate::plan::{Blocker, BlockerKind, Unit};
use crate::planner::reservations::Reservation;
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
        let nodes: Vec<SlotId> = nodes.copied().collect();
        let (limit, reservation) = (count(nodes.iter()), self.machine.reservations[place]);
        let during = reservation.during();
        let [from, until] = [during.from, during.until].map(show_moment);
        let open_s = self.open_before(reservation, own, &nodes);
        (limit > 0).then(|| Blocker {
            kind: BlockerKind::Reservation,
            subject: reservation.name().to_string(),
            needed: self.nodes.into(),
            available: count(self.fitting_now().iter()).into(),
            limit: limit.into(),
            unit: Unit::Nodes,
            note: format!("{} {from} {until} {open_s}", reservation.holders()),
        })
    }

    /// The longest time limit with which the job would be over when the reservation begins if it started now on nodes
    /// that nothing else keeps it off, seconds; 0 if too few of them are free, `-` once it has begun.
    fn open_before(
        &self,
        reservation: Reservation<'w>,
        own: ReservationSet,
        nodes: &[SlotId],
    ) -> String {
        let left_us = reservation.during().from.0.saturating_sub(self.now.0);
        if left_us <= 0 {
            return "-".to_owned();
        }
        let bounds = self.family.territory.closed;
        let free = nodes.iter().filter(|id| {
            let slot = self.slot(**id);
            let alone = slot.reserved.both(bounds.reservations) == own && !bounds.outstays(slot);
            alone && slot.takes_work && slot.fits(self.class, &self.family.need)
        });
        let open = count(self.fitting_now().iter());
        if open.saturating_add(count(free)) < self.nodes {
            return "0".to_owned();
        }
        let grace_s = if reservation.counts_grace() { i64::from(bounds.grace_s) } else { 0 };
        (left_us / 1_000_000).saturating_sub(grace_s).max(0).to_string()
    }
}
