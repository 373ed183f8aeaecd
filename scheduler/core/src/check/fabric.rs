//! May a job start on a node that is reserved or stands by? Counted anew from labels and from the quota book's
//! reservations.

use std::collections::{BTreeMap, BTreeSet};

use crate::amount::UnixMicros;
use crate::attempt::Placement;
use crate::ids::{NodeName, ReservationName};
use crate::job::Job;
use crate::node::{Admin, Liveness};
use crate::quota::reserve::ReservationTerms;
use crate::world::{Node, World};

use super::reckoning::Reckoning;

/// What labels and the quota book say of nodes, found from every node once. Starts and stops change none of it.
#[derive(Debug)]
pub(super) struct Fabrics {
    /// Spare nodes that stand by.
    standing_by: BTreeSet<NodeName>,
    /// Nodes that are reserved, by reservation.
    reserved: BTreeMap<ReservationName, BTreeSet<NodeName>>,
}

impl Fabrics {
    pub(super) fn of(world: &World) -> Self {
        let standing_by = standing_by(world);
        let nodes = |terms| nodes_of(world, terms, &standing_by);
        let reservations = world.quota.reservations.iter();
        let reserved = reservations.map(|(name, terms)| (name.clone(), nodes(terms))).collect();
        Fabrics { standing_by, reserved }
    }

    pub(super) fn stands_by(&self, name: &NodeName) -> bool {
        self.standing_by.contains(name)
    }
}

/// All that is wrong with the fabrics of a start; what needs a moment is judged only at one.
pub(super) fn judge(
    world: &World,
    reckoning: &mut Reckoning,
    job: &Job,
    placement: &Placement,
    now: Option<UnixMicros>,
) -> Vec<String> {
    let names: BTreeSet<&NodeName> = placement.nodes.iter().map(|given| &given.node).collect();
    let mut wrong = Vec::new();
    let spare = |name: &&&NodeName| world.nodes.get(**name).is_some_and(is_spare);
    // Every node is looked at only where a start depends on it.
    for name in names.iter().filter(spare) {
        if !reckoning.fabrics(world).stands_by(name) {
            continue;
        }
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
        let Some(taken) = reckoning.fabrics(world).reserved.get(reservation) else { continue };
        for name in names.iter().filter(|name| taken.contains(**name)) {
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
fn standing_by(world: &World) -> BTreeSet<NodeName> {
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
    let stay = left.into_iter().flat_map(|(of, names)| names.into_iter().skip(elsewhere(of)));
    stay.cloned().collect()
}

/// The first nodes of the reservation's cluster that are there, until they have as many GPUs as are reserved.
fn nodes_of(
    world: &World,
    terms: &ReservationTerms,
    standing_by: &BTreeSet<NodeName>,
) -> BTreeSet<NodeName> {
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
            taken.insert(name.clone());
        }
    }
    taken
}
