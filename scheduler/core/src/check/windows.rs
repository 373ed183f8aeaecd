//! Would a job still be there when maintenance of one of its nodes begins, or is one of its nodes reserved for others? Is
//! it where it asked to be? And are the nodes in maintenance those that open windows name? All counted from the windows
//! themselves.

use std::collections::BTreeMap;

use crate::amount::UnixMicros;
use crate::attempt::Placement;
use crate::ids::NodeName;
use crate::job::Job;
use crate::window::{Window, WindowId, WindowState};
use crate::world::World;

/// Every window of its nodes that the job would run into if it started at that moment, and every node that is not of the
/// reservation that it asks for.
pub(super) fn judge(
    world: &World,
    job: &Job,
    placement: &Placement,
    now: Option<UnixMicros>,
) -> Vec<String> {
    let Some(now) = now else { return Vec::new() };
    let after = |seconds: i64| UnixMicros(now.0.saturating_add(seconds.saturating_mul(1_000_000)));
    let limit_s = job.spec.time_limit_s;
    let (ends, gone) = (after(limit_s), after(limit_s + i64::from(job.spec.grace_s)));
    let mut wrong = Vec::new();
    for window in world.windows.iter() {
        let apart = gone <= window.during.from || now >= window.during.until;
        if apart || (is_held(window, job) && ends <= window.during.until) {
            continue;
        }
        let on = |given: &&NodeName| window.nodes.contains(*given);
        let names = placement.nodes.iter().map(|given| &given.node);
        for name in names.filter(on) {
            wrong.push(match &window.reserved {
                None => format!("would still be on node {name} in window {}", window.id),
                Some(reserved) => format!("node {name} is reserved by {}", reserved.name),
            });
        }
    }
    wrong.extend(outside(world, job, placement, now));
    wrong
}

fn is_held(window: &Window, job: &Job) -> bool {
    let path = job.spec.project.as_str();
    let below = |holder: &str| path == holder || path.starts_with(&format!("{holder}/"));
    let reserved = window.reserved.as_ref();
    reserved.is_some_and(|reserved| reserved.holders.iter().any(|one| below(one.as_str())))
}

/// Nodes that are not of the reservation that the job asks for, while that holds.
fn outside(world: &World, job: &Job, placement: &Placement, now: UnixMicros) -> Vec<String> {
    let Some(asked) = &job.spec.constraints.reservation else { return Vec::new() };
    let asks = |window: &&std::sync::Arc<Window>| {
        let holds = window.during.from <= now && now < window.during.until;
        holds && window.reserved.as_ref().is_some_and(|reserved| reserved.name == *asked)
    };
    let own = world.windows.iter().find(asks);
    let names = placement.nodes.iter().map(|given| &given.node);
    let outside = names.filter(|name| own.is_none_or(|window| !window.nodes.contains(*name)));
    outside.map(|name| format!("node {name} is not of reservation {asked} now")).collect()
}

/// Nodes that the world has in maintenance, or has not, against its windows; and nodes that two reservations have at once.
pub(super) fn misplaced(world: &World) -> Vec<(NodeName, String)> {
    let mut open: BTreeMap<&NodeName, Vec<(UnixMicros, WindowId)>> = BTreeMap::new();
    let mut reserved: BTreeMap<&NodeName, Vec<(UnixMicros, UnixMicros)>> = BTreeMap::new();
    for window in world.windows.iter() {
        for name in &window.nodes {
            match (&window.reserved, window.state) {
                (None, WindowState::Open) => {
                    open.entry(name).or_default().push((window.during.until, window.id));
                }
                (Some(_), _) => {
                    let span = (window.during.from, window.during.until);
                    reserved.entry(name).or_default().push(span);
                }
                (None, WindowState::Planned | WindowState::Over | WindowState::Cancelled) => {}
            }
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
    for (name, mut spans) in reserved {
        spans.sort_unstable();
        if spans.windows(2).any(|two| two[1].0 < two[0].1) {
            found.push((name.clone(), "is reserved twice at once".to_owned()));
        }
    }
    found
}
