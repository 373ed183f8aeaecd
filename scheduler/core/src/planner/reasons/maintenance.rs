//! Maintenance that is to come as a reason for waiting, and the time limit with which the job would be over by then.

use std::cmp::Reverse;

use super::{Look, count};
use crate::plan::{Blocker, BlockerKind, Unit};
use crate::planner::score::SlotId;
use crate::quota::show_moment;

impl Look<'_, '_> {
    /// The maintenance of those nodes that a job without it could have beside what is open to it: of the ones that close
    /// last, as many as it lacks.
    pub(super) fn maintenance(&self, closed: &[SlotId]) -> Option<Blocker> {
        let bounds = self.family.territory.closed;
        let closing = closed.iter().copied().filter(|id| bounds.outstays(self.slot(*id)));
        let mut closing: Vec<(Reverse<u32>, SlotId)> =
            closing.map(|id| (Reverse(self.slot(id).closes), id)).collect();
        closing.sort_unstable();
        let limit = count(closing.iter());
        let open = count(self.fitting_now().iter());
        let lacking = self.nodes.saturating_sub(open).clamp(1, limit.max(1)) as usize;
        let (_, decides) = *closing.get(lacking - 1)?;
        let window = self.machine.windows.next_on(self.slot(decides).name)?;
        let fits = |id: SlotId| {
            self.slot(id).takes_work && self.slot(id).fits(self.class, &self.family.need)
        };
        let free = closing.iter().filter(|(_, id)| fits(*id)).nth(lacking - 1);
        let open_s = free.map_or(0, |(_, id)| self.open_s(*id));
        let [from, until] = [window.during.from, window.during.until].map(show_moment);
        Some(Blocker {
            kind: BlockerKind::Maintenance,
            subject: window.id.to_string(),
            needed: self.nodes.into(),
            available: open.into(),
            limit: limit.into(),
            unit: Unit::Nodes,
            note: format!("{open_s} {from} {until} {}", window.reason),
        })
    }

    /// The longest time limit with which a job would be over when the node closes if it started now, seconds.
    fn open_s(&self, id: SlotId) -> i64 {
        let closes = self.machine.closings.get(self.slot(id).closes as usize);
        let left_us = closes.map_or(0, |at| at.0.saturating_sub(self.now.0));
        let grace_s = i64::from(self.family.territory.closed.grace_s);
        (left_us / 1_000_000).saturating_sub(grace_s).max(0)
    }
}
