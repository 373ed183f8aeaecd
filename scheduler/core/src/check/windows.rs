//! Would a job still be there when maintenance of one of its nodes begins? And are the nodes in maintenance those that
//! open windows name? Both counted from the windows themselves.

use std::collections::BTreeMap;

use crate::amount::UnixMicros;
use crate::attempt::Placement;
use crate::ids::NodeName;
use crate::job::Job;
use crate::window::{WindowId, WindowState};
use crate::world::World;

/// Every window of its nodes that the job would run into if it started at that moment.
pub(super) fn judge(
    world: &World,
    job: &Job,
    placement: &Placement,
    now: Option<UnixMicros>,
) -> Vec<String> {
    let Some(now) = now else { return Vec::new() };
    let longest_s = job.spec.time_limit_s + i64::from(job.spec.grace_s);
    let ends = UnixMicros(now.0.saturating_add(longest_s.saturating_mul(1_000_000)));
    let mut wrong = Vec::new();
    for window in world.windows.iter() {
        let apart = ends <= window.during.from || now >= window.during.until;
        let on = |given: &&NodeName| window.nodes.contains(*given);
        let names = placement.nodes.iter().map(|given| &given.node);
        for name in names.filter(on).filter(|_| !apart) {
            wrong.push(format!("would still be on node {name} in window {}", window.id));
        }
    }
    wrong
}

/// Nodes that the world has in maintenance, or has not, against its windows.
pub(super) fn misplaced(world: &World) -> Vec<(NodeName, String)> {
    let mut open: BTreeMap<&NodeName, Vec<(UnixMicros, WindowId)>> = BTreeMap::new();
    for window in world.windows.iter().filter(|window| window.state == WindowState::Open) {
        for name in &window.nodes {
            open.entry(name).or_default().push((window.during.until, window.id));
        }
    }
    let mut found = Vec::new();
    for (name, node) in &world.nodes {
        let should = open.get(name).and_then(|open| open.iter().max()).map(|(_, id)| *id);
        let is = node.maintenance.as_ref().map(|window| window.id);
        if is != should {
            found.push((name.clone(), format!("is in window {is:?}, should be in {should:?}")));
        }
    }
    found
}
