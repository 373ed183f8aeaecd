//! Planned starts where power is limited: the first moment at which nodes that are free have power together.

use std::collections::BTreeSet;

use super::backfill::Standby;
use super::{Pass, Want};
use crate::amount::UnixMicros;
use crate::planner::blocks::apart;
use crate::planner::gang::Pick;
use crate::planner::horizon::Ask;
use crate::planner::power::Asked;
use crate::planner::score::SlotId;
use crate::profile::FOREVER;

/// Moments that are looked at one by one, where something planned before leaves power only between others.
const LOOKS_MAX: usize = 32;

impl Pass<'_> {
    /// The first moment from `from` on at which there is power for all of these nodes; that moment itself where nothing is
    /// limited, and `None` if it never comes.
    pub(super) fn powered_from(
        &self,
        slots: &[SlotId],
        ask: &Ask<'_>,
        from: UnixMicros,
    ) -> Option<UnixMicros> {
        if self.machine.power.is_none() {
            return Some(from);
        }
        let fits = |at: &UnixMicros| self.are_powered(slots, ask, *at);
        if fits(&from) {
            return Some(from);
        }
        first_of(&self.horizon.power_moments(&self.machine, from), fits)
    }

    /// When a planned start can be that was found to be possible at a moment, or at none: no later than it was planned for, if
    /// that can still be. Moments of power are found by halving, which may miss an early one.
    pub(super) fn no_later(
        &self,
        one: &Standby<'_>,
        ask: &Ask<'_>,
        found: Option<UnixMicros>,
    ) -> Option<UnixMicros> {
        let planned = one.before.at;
        let is_later = found.is_none_or(|at| at > planned);
        if self.machine.power.is_none() || !is_later || planned < self.now {
            return found;
        }
        let is_free = |slot: &SlotId| {
            self.horizon.earliest(&self.machine, *slot, ask, planned) == Some(planned)
        };
        let stands = one.slots.iter().all(is_free) && self.are_powered(&one.slots, ask, planned);
        if stands { Some(planned) } else { found }
    }

    fn are_powered(&self, slots: &[SlotId], ask: &Ask<'_>, at: UnixMicros) -> bool {
        self.powered_at(slots.iter().copied(), ask, at).len() == slots.len()
    }

    /// Of these nodes, those for which there is power together from a moment on.
    fn powered_at(
        &self,
        slots: impl Iterator<Item = SlotId>,
        ask: &Ask<'_>,
        at: UnixMicros,
    ) -> Vec<Pick> {
        let picks = slots.map(|slot| Pick { slot, gpu: None });
        let purse = self.horizon.purse_at(&self.machine, ask, at);
        let (Some(power), Some(purse)) = (&self.machine.power, purse) else {
            return picks.collect();
        };
        let asked = Asked { class: ask.class, need: &ask.need, nodes: u32::MAX };
        self.machine.powered_when_idle(power, &purse, picks, asked)
    }

    /// The first moment at which a whole gang has room and power, with its nodes; `ready` says when each is free.
    pub(super) fn gather_powered(
        &self,
        ready: &[(UnixMicros, SlotId)],
        want: Want,
        ask: &Ask<'_>,
    ) -> Option<(UnixMicros, Vec<SlotId>)> {
        let frees = ready.iter().map(|(at, _)| *at).filter(|at| *at < FOREVER);
        let powers = self.horizon.power_moments(&self.machine, self.now);
        let moments: BTreeSet<UnixMicros> = frees.chain(powers).collect();
        let moments: Vec<UnixMicros> = moments.into_iter().collect();
        let at = first_of(&moments, |at| self.gang_at(ready, want, ask, *at).is_some())?;
        Some((at, self.gang_at(ready, want, ask, at)?))
    }

    /// Nodes for a gang that is to start at a moment.
    fn gang_at(
        &self,
        ready: &[(UnixMicros, SlotId)],
        want: Want,
        ask: &Ask<'_>,
        at: UnixMicros,
    ) -> Option<Vec<SlotId>> {
        let free = |slot: &SlotId| self.horizon.earliest(&self.machine, *slot, ask, at) == Some(at);
        let mut slots: Vec<_> = ready.iter().filter(|(since, _)| *since <= at).collect();
        slots.sort_unstable();
        let slots = slots.into_iter().map(|(_, slot)| *slot).filter(free);
        let territory = &self.families.get(want.family).territory;
        let picks = slots.map(|slot| Pick { slot, gpu: None }).collect();
        // A gang is in one of these alone, so power for one is none for another.
        let apart = match territory.constraints.blocks.one {
            Some(level) => apart(&self.machine, level, picks),
            None => vec![picks],
        };
        let powered =
            |picks: Vec<Pick>| self.powered_at(picks.into_iter().map(|pick| pick.slot), ask, at);
        let picks: Vec<Pick> = apart.into_iter().flat_map(powered).collect();
        let picks = territory.choose(&self.machine, picks.into_iter(), want.nodes)?;
        Some(picks.into_iter().map(|pick| pick.slot).collect())
    }
}

/// The first of the moments that will do. The later the more is free, but for what is planned: so it is found by halving, and
/// where that meets something planned, a few more are looked at.
fn first_of(moments: &[UnixMicros], fits: impl Fn(&UnixMicros) -> bool) -> Option<UnixMicros> {
    let found = moments.partition_point(|at| !fits(at));
    moments[found..].iter().take(LOOKS_MAX).find(|at| fits(at)).copied()
}
