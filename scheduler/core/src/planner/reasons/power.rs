//! Power as a reason for waiting.

use super::{Look, Reasons, Waiting};
use crate::explain::{CAPPED, PLANNED_POWER};
use crate::plan::{Blocker, BlockerKind, Unit};
use crate::planner::fit::Machine;
use crate::planner::gang::Pick;
use crate::planner::horizon::{Ask, Who};
use crate::planner::power::{Asked, Purse, Short};
use crate::planner::request::Family;
use crate::planner::score::ClassIndex;

impl Look<'_, '_> {
    /// What its GPUs must be capped at, in words; only nodes that can do that serve.
    pub(super) fn cap_words(&self) -> String {
        let class = self.class.map(|class| self.machine.class_name(class));
        let asked = self.family.need.cap_watts;
        let cap = class.and_then(|class| self.machine.power_terms().cap_watts(class, asked));
        cap.map_or_else(String::new, |watts| format!("{CAPPED} {watts} W"))
    }

    /// The limit that keeps the gang from starting on nodes that would do but for power.
    pub(super) fn short_of_power(&self) -> Option<Blocker> {
        let left = self.machine.power.as_ref()?.left();
        let short = short(self.machine, self.family, self.class, (self.nodes, left), |_| true)?;
        Some(blocker(short, ""))
    }
}

impl Reasons<'_, '_> {
    /// The limit below which too little is left until a start that is planned, for a job that would find room and power now.
    pub(super) fn planned_power(&self, waiting: &Waiting) -> Option<Blocker> {
        let (want, family) = (waiting.want, self.families.get(waiting.want.family));
        let of_class = |class: Option<ClassIndex>| {
            let ask = Ask {
                who: Who { job: waiting.job, guaranteed: false, plans_gang: false },
                project: self.limits.path(want.project),
                class,
                need: family.need,
                seconds: want.limit_s.saturating_add(self.outlook.grace_s),
            };
            let horizon = self.outlook.horizon;
            let purse = horizon.purse_now(self.machine, &ask)?;
            let open = |pick: Pick| horizon.leaves_planned(self.machine, pick, &ask);
            short(self.machine, family, class, (want.nodes, &purse), open)
        };
        let short = family.tries.iter().find_map(|attempt| of_class(attempt.class))?;
        Some(blocker(short, PLANNED_POWER))
    }
}

/// The limit that nodes which would do but for power would break.
fn short(
    machine: &Machine<'_>,
    family: &Family<'_>,
    class: Option<ClassIndex>,
    (nodes, purse): (u32, &Purse),
    open: impl Fn(Pick) -> bool,
) -> Option<Short> {
    let power = machine.power.as_ref()?;
    let places = family.territory.places(machine, class, &family.need);
    let places = places.filter(|pick| open(*pick));
    let picks = family.territory.choose(machine, places, nodes)?;
    machine.short_of(power, purse, &picks, Asked { class, need: &family.need, nodes })
}

fn blocker(short: Short, note: &str) -> Blocker {
    Blocker {
        kind: BlockerKind::Power,
        subject: short.place_words(),
        needed: short.needed_watts,
        available: short.left_watts,
        limit: short.limit_watts,
        unit: Unit::Watts,
        note: note.to_owned(),
    }
}
