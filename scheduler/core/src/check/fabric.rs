//! May a job start on a node that is reserved or stands by, and are its nodes of one cluster? Counted anew from labels
//! and from the quota book's reservations.

use std::collections::BTreeSet;

use crate::amount::UnixMicros;
use crate::attempt::Placement;
use crate::ids::NodeName;
use crate::job::Job;
use crate::node::{Admin, Liveness};
use crate::quota::reserve::ReservationTerms;
use crate::world::{Node, World};

/// All that is wrong with the fabrics of a start; what needs a moment is judged only at one.
pub(super) fn judge(
    world: &World,
    job: &Job,
    placement: &Placement,
    now: Option<UnixMicros>,
) -> Vec<String> {
    let names: BTreeSet<&NodeName> = placement.nodes.iter().map(|given| &given.node).collect();
    let mut wrong = Vec::new();
    if job.spec.constraints.same_cluster {
        let clusters: BTreeSet<Option<&String>> =
            names.iter().filter_map(|name| world.nodes.get(*name)).map(cluster).collect();
        if clusters.len() != 1 || clusters.contains(&None) {
            wrong.push("needs nodes of one cluster and gets others".to_owned());
        }
    }
    for name in names.iter().filter(|name| stands_by(world, name)) {
        wrong.push(format!("node {name} is a spare one and stands by"));
    }
    let Some(now) = now else { return wrong };
    let ends = now.plus_seconds(job.spec.time_limit_s);
    for (reservation, terms) in &world.quota.reservations {
        let span = terms.during;
        let over = now >= span.until || ends <= span.from;
        let holder = job.spec.project.is_within(terms.holder.as_str());
        if over || (holder && ends <= span.until) {
            continue;
        }
        let taken = nodes_of(world, terms);
        for name in names.intersection(&taken) {
            wrong.push(format!("node {name} is reserved by {reservation}"));
        }
    }
    wrong
}

fn cluster(node: &Node) -> Option<&String> {
    node.inventory.labels.get("cluster")
}

fn is_spare(node: &Node) -> bool {
    node.inventory.labels.get("spare").is_some_and(|value| value == "true")
}

fn is_gone(node: &Node) -> bool {
    matches!(node.admin, Admin::Drain { .. }) || node.liveness == Liveness::Lost
}

/// Whether it is a spare node, and those of its cluster before it by name are enough for all that are gone.
pub(super) fn stands_by(world: &World, name: &NodeName) -> bool {
    let Some(node) = world.nodes.get(name).filter(|node| is_spare(node) && !is_gone(node)) else {
        return false;
    };
    let alike = world.nodes.iter().filter(|(_, other)| cluster(other) == cluster(node));
    let (mut gone, mut before) = (0, 0);
    for (other_name, other) in alike {
        match (is_spare(other), is_gone(other)) {
            (false, true) if cluster(node).is_some() => gone += 1,
            (true, false) if other_name < name => before += 1,
            (true | false, true | false) => {}
        }
    }
    before >= gone
}

/// The first nodes of the reservation's cluster that are there, until they have as many GPUs as are reserved.
fn nodes_of<'w>(world: &'w World, terms: &ReservationTerms) -> BTreeSet<&'w NodeName> {
    let wanted = terms.fabric.cluster().map(|name| name.as_str());
    let mut left = terms.gpus.0;
    let mut taken = BTreeSet::new();
    for (name, node) in &world.nodes {
        let there = wanted.is_some() && cluster(node).map(String::as_str) == wanted;
        if left == 0 || !there || is_gone(node) || stands_by(world, name) {
            continue;
        }
        let own = node.inventory.gpus.iter().filter(|gpu| gpu.class == terms.class).count() as u64;
        if own > 0 {
            left = left.saturating_sub(own * 1000);
            taken.insert(name);
        }
    }
    taken
}
