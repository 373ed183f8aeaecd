//! May a job start on a node that is reserved or stands by? Counted anew from labels and from the quota book's
//! reservations.

use std::collections::{BTreeMap, BTreeSet};

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
    node.inventory.labels.get("cluster").filter(|name| !name.is_empty())
}

fn domain(node: &Node) -> Option<&String> {
    node.inventory.labels.get("nvlink").filter(|name| !name.is_empty())
}

fn is_spare(node: &Node) -> bool {
    node.inventory.labels.get("spare").is_some_and(|value| value == "true")
}

fn is_gone(node: &Node) -> bool {
    let drained = matches!(node.admin, Admin::Drain { .. });
    drained || node.maintenance.is_some() || node.liveness == Liveness::Lost
}

/// Whether it is a spare node, and others are enough for all that are gone: for those of its own NVLink domain, the
/// spare ones of that domain before it by name; for what no domain makes up for itself, those that are left.
pub(super) fn stands_by(world: &World, name: &NodeName) -> bool {
    let Some(node) = world.nodes.get(name).filter(|node| is_spare(node) && !is_gone(node)) else {
        return false;
    };
    let alike = || world.nodes.iter().filter(|(_, other)| cluster(other) == cluster(node));
    let is_lacking = |other: &Node| cluster(node).is_some() && !is_spare(other) && is_gone(other);
    let lacking: Vec<_> = alike().filter(|(_, other)| is_lacking(other)).collect();
    let spares: Vec<_> = alike().filter(|(_, other)| is_spare(other) && !is_gone(other)).collect();
    let lacks = |of: Option<&String>| {
        lacking.iter().filter(|(_, other)| of.is_some() && domain(other) == of).count()
    };
    let mut met: BTreeMap<Option<&String>, usize> = BTreeMap::new();
    let mut left = Vec::new();
    for (spare_name, spare) in spares {
        let own = met.entry(domain(spare)).or_default();
        if *own < lacks(domain(spare)) {
            *own += 1;
        } else {
            left.push(spare_name);
        }
    }
    let elsewhere = lacking.len() - met.values().sum::<usize>();
    left.into_iter().skip(elsewhere).any(|spare| spare == name)
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
        let of_class = node.inventory.gpus.iter().filter(|gpu| gpu.class == terms.class);
        let own: u64 = of_class.map(|gpu| gpu.amount().0).sum();
        if own > 0 {
            left = left.saturating_sub(own);
            taken.insert(name);
        }
    }
    taken
}
