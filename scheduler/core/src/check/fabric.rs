//! May a job start on a node that is reserved or stands by? Counted anew from labels and from the quota book's
//! reservations.

use std::cell::LazyCell;
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
    // Looks at every node, so only where a start depends on it.
    let standing_by = LazyCell::new(|| standing_by(world));
    let spare = |name: &&&NodeName| world.nodes.get(**name).is_some_and(is_spare);
    let mut wrong = Vec::new();
    for name in names.iter().filter(spare).filter(|name| standing_by.contains(*name)) {
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
        let taken = nodes_of(world, terms, &standing_by);
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

/// Spare nodes of which others are enough for all that are gone: for those of its own NVLink domain, the spare ones of that
/// domain before it by name; for what no domain makes up for itself, those that are left. Looks at every node once.
pub(super) fn standing_by(world: &World) -> BTreeSet<&NodeName> {
    let mut lacking: BTreeMap<(Option<&String>, Option<&String>), usize> = BTreeMap::new();
    for node in world.nodes.values().filter(|node| is_gone(node) && !is_spare(node)) {
        *lacking.entry((cluster(node), domain(node))).or_default() += 1;
    }
    let mut left: BTreeMap<Option<&String>, Vec<&NodeName>> = BTreeMap::new();
    for (name, node) in world.nodes.iter().filter(|(_, node)| is_spare(node) && !is_gone(node)) {
        let (cluster, domain) = (cluster(node), domain(node));
        // Nodes of no cluster have no stand-ins, and those of no domain none of their own.
        let own = lacking
            .get_mut(&(cluster, domain))
            .filter(|lacks| cluster.is_some() && domain.is_some() && **lacks > 0);
        match own {
            Some(lacks) => *lacks -= 1,
            None => left.entry(cluster).or_default().push(name),
        }
    }
    let elsewhere = |of: Option<&String>| -> usize {
        let lacks = lacking.iter().filter(|((cluster, _), _)| of.is_some() && *cluster == of);
        lacks.map(|(_, lacks)| lacks).sum()
    };
    left.into_iter().flat_map(|(of, names)| names.into_iter().skip(elsewhere(of))).collect()
}

/// The first nodes of the reservation's cluster that are there, until they have as many GPUs as are reserved.
fn nodes_of<'w>(
    world: &'w World,
    terms: &ReservationTerms,
    standing_by: &BTreeSet<&NodeName>,
) -> BTreeSet<&'w NodeName> {
    let wanted = terms.fabric.cluster().map(|name| name.as_str());
    let mut left = terms.gpus.0;
    let mut taken = BTreeSet::new();
    for (name, node) in &world.nodes {
        let there = wanted.is_some() && cluster(node).map(String::as_str) == wanted;
        if left == 0 || !there || is_gone(node) || standing_by.contains(name) {
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
