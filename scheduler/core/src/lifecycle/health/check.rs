//! The site's own check of hardware that is about to come back: its worker runs it once nothing is on the hardware, and only
//! what passes takes work again. Of a node one check runs at a time.

use super::super::draft::Draft;
use super::back::{needs_a_person, standing};
use super::{name_of, nothing_is_on, put};
use crate::amount::UnixMicros;
use crate::change::EventKind;
use crate::health::Standing;
use crate::ids::{GpuUuid, NodeName};
use crate::world::World;

/// What a node's worker is to check.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Check {
    /// The GPU; `None`: the node with all of its GPUs.
    pub gpu: Option<GpuUuid>,
    /// Since when it is being verified, which tells this check from one after a later repair.
    pub since: UnixMicros,
}

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// The hardware is as it should be.
    Passed,
    /// It is not, and why, in words.
    Failed(String),
}

/// What the node's worker is to check now: the node before its GPUs, and nothing on which something still runs. `None` if
/// there is nothing, or if the site has no check there.
#[must_use]
pub fn check_due(world: &World, node: &NodeName) -> Option<Check> {
    let known = world.nodes.get(node).filter(|known| known.registered.checks_hardware)?;
    let due = |place: &Option<&GpuUuid>| {
        let is_unchecked = known.health.standing(*place).is_some_and(Standing::is_unchecked);
        is_unchecked && nothing_is_on(world, known, *place)
    };
    let place = known.health.places().find(due)?;
    let since = known.health.standing(place)?.since;
    Some(Check { gpu: place.cloned(), since })
}

/// A check has ended. One of an earlier time, or of what is not being verified any more, says nothing.
pub fn checked(draft: &mut Draft<'_>, node: &NodeName, check: &Check, outcome: &Checked) {
    let gpu = check.gpu.as_ref();
    let awaited = |standing: &Standing| standing.is_unchecked() && standing.since == check.since;
    let Some(standing) = standing(draft, node, gpu).filter(awaited) else { return };
    let name = name_of(draft, node, gpu);
    match outcome {
        Checked::Passed => {
            pass(draft, node, check);
            let text = format!("{name} passed the site's check");
            draft.tell_node(node, EventKind::HardwareVerifying, text);
        }
        Checked::Failed(why) => {
            let reason = format!("{name} failed the site's check: {why}");
            needs_a_person(draft, node, gpu, Standing { reason, ..standing });
        }
    }
}

/// What was checked has passed; with a node all of its GPUs that were being verified when its check was.
fn pass(draft: &mut Draft<'_>, node: &NodeName, check: &Check) {
    let Some(known) = draft.world.nodes.get(node) else { return };
    let of_it = |place: &Option<&GpuUuid>| check.gpu.is_none() || *place == check.gpu.as_ref();
    let places: Vec<Option<GpuUuid>> =
        known.health.places().filter(of_it).map(Option::<&GpuUuid>::cloned).collect();
    for place in places {
        let verified = standing(draft, node, place.as_ref());
        let verified = verified.filter(|it| it.is_unchecked() && it.since <= check.since);
        if let Some(verified) = verified {
            let passed = Some(verified.since);
            put(draft, node, place.as_ref(), Standing { passed, ..verified });
        }
    }
}
