//! Fabrics: to which cluster of the quota book a node belongs, which spare nodes stand by, and which nodes a
//! reservation takes. All of it follows from labels, from what people decided and from what is heard, and is found
//! anew whenever it is needed: nothing of it is kept.

use std::collections::{BTreeMap, BTreeSet};

use crate::amount::GpuMilli;
use crate::ids::{GpuClass, NodeName};
use crate::node::{Admin, Gpu, Inventory, Liveness};
use crate::topology::Level;
use crate::world::{Node, World};

/// Label with the name of the cluster that a node belongs to.
pub const CLUSTER_LABEL: &str = "cluster";

/// Label that is [`SPARE_VALUE`] on nodes that stand by until another one of their cluster is down.
pub const SPARE_LABEL: &str = "spare";

/// Its value.
pub const SPARE_VALUE: &str = "true";

impl Inventory {
    /// Name of the cluster it belongs to, if its labels say so.
    #[must_use]
    pub fn cluster(&self) -> Option<&str> {
        self.block(Level::Cluster)
    }

    /// Whether it is a spare one of its cluster.
    #[must_use]
    pub fn is_spare(&self) -> bool {
        self.labels.get(SPARE_LABEL).is_some_and(|value| value == SPARE_VALUE)
    }

    /// GPUs of the class, instances with what they count.
    #[must_use]
    pub fn gpus_of(&self, class: &GpuClass) -> GpuMilli {
        self.gpus.iter().filter(|gpu| gpu.class == *class).map(Gpu::amount).sum()
    }
}

impl Node {
    /// Whether nothing new can be expected of it: people took it out, or it was given up.
    #[must_use]
    pub fn is_down(&self) -> bool {
        let taken_out = self.admin != Admin::Active || self.maintenance.is_some();
        taken_out || self.liveness == Liveness::Lost
    }
}

/// Spare nodes that are not needed: of each cluster as many stand in as others of it are down, for those of their own
/// NVLink domain first, so that a domain stays as large as it can, and then by name. One that stood in and is no longer
/// needed finishes what runs there.
#[must_use]
pub fn standby(world: &World) -> BTreeSet<&NodeName> {
    let mut spares: BTreeMap<Option<&str>, Vec<(&NodeName, Option<&str>)>> = BTreeMap::new();
    for (name, node) in world.nodes.iter().filter(|(_, node)| node.inventory.is_spare()) {
        if !node.is_down() {
            let own = (name, node.inventory.block(Level::Nvlink));
            spares.entry(node.inventory.cluster()).or_default().push(own);
        }
    }
    let of_cluster = |(cluster, spares)| not_needed(spares, down(world, cluster));
    spares.into_iter().flat_map(of_cluster).collect()
}

/// Spare nodes of one cluster, in the order of names, that stand in for none of the nodes that are down.
fn not_needed<'w>(
    spares: Vec<(&'w NodeName, Option<&'w str>)>,
    mut down: BTreeMap<Option<&'w str>, usize>,
) -> impl Iterator<Item = &'w NodeName> {
    let mut elsewhere = Vec::new();
    for (name, domain) in spares {
        match down.get_mut(&domain).filter(|left| domain.is_some() && **left > 0) {
            Some(left) => *left -= 1,
            None => elsewhere.push(name),
        }
    }
    elsewhere.into_iter().skip(down.values().sum())
}

/// Whether the node is a spare one that is not needed.
#[must_use]
pub fn stands_by(world: &World, name: &NodeName) -> bool {
    let spare = world.nodes.get(name).is_some_and(|node| node.inventory.is_spare());
    spare && standby(world).contains(name)
}

/// How many nodes of the cluster are down and no spare ones, by NVLink domain. Nodes that belong to no cluster have no
/// stand-ins.
fn down<'w>(world: &'w World, cluster: Option<&str>) -> BTreeMap<Option<&'w str>, usize> {
    let of_cluster = |node: &&Node| cluster.is_some() && node.inventory.cluster() == cluster;
    let nodes = world.nodes.values().filter(of_cluster);
    let mut down = BTreeMap::new();
    for node in nodes.filter(|node| node.is_down() && !node.inventory.is_spare()) {
        *down.entry(node.inventory.block(Level::Nvlink)).or_default() += 1;
    }
    down
}

/// A set of reservations by their places: those of the quota book in the order of names, and behind them those by
/// command in the order of their numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReservationSet([u128; 2]);

impl ReservationSet {
    /// None of them.
    pub const EMPTY: Self = ReservationSet([0; 2]);

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::EMPTY
    }

    /// Whether any is in both.
    #[must_use]
    pub fn meets(self, other: Self) -> bool {
        !self.both(other).is_empty()
    }

    /// Those that are in both.
    #[must_use]
    pub fn both(self, other: Self) -> Self {
        ReservationSet([self.0[0] & other.0[0], self.0[1] & other.0[1]])
    }

    /// Whether the one at that place is in it.
    #[must_use]
    pub fn has(self, place: usize) -> bool {
        self.0.get(place / 128).is_some_and(|word| word & (1 << (place % 128)) != 0)
    }

    /// Adds the one at that place.
    pub fn insert(&mut self, place: usize) {
        if let Some(word) = self.0.get_mut(place / 128) {
            *word |= 1 << (place % 128);
        }
    }
}

/// By node, the reservations that take it: of their cluster the first nodes by name that are there, as many as have
/// the GPUs that are reserved. A node that is down or stands by is not there; one that was not heard for a while is.
#[must_use]
pub fn reserved<'w>(
    world: &'w World,
    standby: &BTreeSet<&NodeName>,
) -> BTreeMap<&'w NodeName, ReservationSet> {
    let mut sets: BTreeMap<&NodeName, ReservationSet> = BTreeMap::new();
    for (place, terms) in world.quota.reservations.values().enumerate() {
        let cluster = terms.fabric.cluster().map(|name| name.as_str());
        let of_cluster = world.nodes.iter().filter(|(name, node)| {
            cluster.is_some()
                && node.inventory.cluster() == cluster
                && !node.is_down()
                && !standby.contains(name)
        });
        let mut taken = GpuMilli::ZERO;
        for (name, node) in of_cluster {
            let gpus = node.inventory.gpus_of(&terms.class);
            if taken >= terms.gpus {
                break;
            }
            if !gpus.is_zero() {
                taken += gpus;
                sets.entry(name).or_default().insert(place);
            }
        }
    }
    sets
}

/// A node that says it belongs to a cluster whose GPUs are of another class than its own: with that class, if the
/// book knows the cluster.
#[must_use]
pub fn misplaced<'w>(world: &'w World, inventory: &Inventory) -> Option<&'w GpuClass> {
    let terms = world.book.clusters.get(inventory.cluster()?)?;
    let other = inventory.gpus.iter().any(|gpu| gpu.class != terms.class);
    other.then_some(&terms.class)
}
