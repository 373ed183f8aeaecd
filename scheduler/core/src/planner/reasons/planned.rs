//! Reasons that come of planned starts: what a job would put off, and what is planned for itself.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{Reasons, Waiting};
use crate::amount::UnixMicros;
use crate::crowded::BehindPlan;
use crate::ids::JobId;
use crate::plan::{Blocker, BlockerKind, Unit};
use crate::planned::PlannedStarts;
use crate::planner::horizon::{Ask, Horizon, Who};
use crate::planner::score::{ClassIndex, SlotId};

/// Until when a job could stay on nodes of a class if it started now, and who comes then.
pub(super) type Way = (UnixMicros, JobId);

/// What is planned at the end of the pass.
#[derive(Debug, Clone, Copy)]
pub(in crate::planner) struct Outlook<'a, 'w> {
    /// When what is held is free.
    pub horizon: &'a Horizon<'w>,
    /// For whom a start is planned.
    pub starts: &'a PlannedStarts,
    /// The moment of the pass.
    pub now: UnixMicros,
    /// Seconds that a job may need beyond its time limit to end.
    pub grace_s: i64,
}

impl Reasons<'_, '_> {
    /// The start that is planned for the job itself.
    pub(super) fn own_plan(&self, job: JobId) -> Option<Blocker> {
        let start = self.outlook.starts.of(job)?;
        Some(Blocker {
            kind: BlockerKind::Planned,
            subject: start.at.0.to_string(),
            needed: 0,
            available: 0,
            limit: start.nodes.len() as u64,
            unit: Unit::Nodes,
            note: start.nodes.first().map(ToString::to_string).unwrap_or_default(),
        })
    }

    /// Whose planned start the job would put off if it started where there is room, and how long it could take
    /// without doing so.
    pub(super) fn behind_plans(&mut self, waiting: &Waiting) -> Option<BehindPlan> {
        let found = self.ways(waiting).into_iter().flatten();
        // Of several classes the one that it could use for the longest time.
        let (until, ahead) = found.max_by_key(|(until, ahead)| (*until, Reverse(*ahead)))?;
        let by = self.outlook.starts.of(ahead).map_or(until, |start| start.at);
        let open_s = (until.0.saturating_sub(self.outlook.now.0)).max(0) / 1_000_000;
        let open_s = open_s.saturating_sub(self.outlook.grace_s).max(0);
        Some(BehindPlan { ahead, by, open_s })
    }

    /// The same for each class that may serve. Where nothing is reserved for some projects only, that is the same for all
    /// jobs of a kind and size for which nothing is planned.
    fn ways(&mut self, waiting: &Waiting) -> Vec<Option<Way>> {
        let key = (waiting.want.family, waiting.want.nodes);
        let own = self.outlook.starts.of(waiting.job).is_some();
        let alike = !own && self.machine.reservations.is_empty();
        if let Some(known) = self.ways.get(&key).filter(|_| alike) {
            return known.clone();
        }
        let tries = self.families.get(waiting.want.family).tries.iter();
        let found: Vec<_> = tries.map(|attempt| self.in_the_way(waiting, attempt.class)).collect();
        if alike {
            self.ways.insert(key, found.clone());
        }
        found
    }

    /// The same on nodes of one class.
    fn in_the_way(&self, waiting: &Waiting, class: Option<ClassIndex>) -> Option<Way> {
        let (want, family) = (waiting.want, self.families.get(waiting.want.family));
        let ask = Ask {
            who: Who { job: waiting.job, guaranteed: false, plans_gang: false },
            project: self.limits.path(want.project),
            class,
            need: family.need,
            seconds: 0,
        };
        let mut open: BTreeMap<SlotId, UnixMicros> = BTreeMap::new();
        for pick in family.territory.places(self.machine, class, &family.need) {
            let until = || self.outlook.horizon.open_until(self.machine, pick.slot, &ask);
            open.entry(pick.slot).or_insert_with(until);
        }
        let mut open: Vec<_> =
            open.into_iter().map(|(slot, until)| (Reverse(until), slot)).collect();
        open.sort_unstable();
        let (Reverse(until), slot) = *open.get(want.nodes.checked_sub(1)? as usize)?;
        let mut ahead = self.outlook.horizon.planned_on(slot).filter(|job| *job != waiting.job);
        Some((until, ahead.next()?))
    }
}
