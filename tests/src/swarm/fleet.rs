//! Which nodes a swarm has: six classes, the large ones in two clusters.

use gotgan_proto::v1::NodeInventory;

use crate::virtual_worker::inventory;

/// GPUs of each node.
pub const GPUS: u32 = 8;
/// Label with the cluster of a node.
const CLUSTER_LABEL: &str = "cluster";

/// A class of GPUs, its part of the nodes in hundredths, and its clusters.
#[derive(Debug, Clone, Copy)]
struct Share {
    class: &'static str,
    percent: usize,
    clusters: &'static [&'static str],
}

/// Of 6,250 nodes the smallest has 375, and the last, which measurements keep free, more than 512.
const SHARES: [Share; 6] = [
    Share { class: "b200", percent: 32, clusters: &["busan-1", "busan-2"] },
    Share { class: "h200", percent: 24, clusters: &["daejeon-1", "daejeon-2"] },
    Share { class: "h100", percent: 20, clusters: &["daegu-1", "daegu-2"] },
    Share { class: "a100", percent: 8, clusters: &["gwangju-1"] },
    Share { class: "mi300x", percent: 6, clusters: &["ulsan-1"] },
    Share { class: "l40s", percent: 10, clusters: &["jeju-1"] },
];

/// The class that is used for what must find free GPUs.
pub const FREE_CLASS: &str = "l40s";

/// How many nodes of which class.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// In the order of the shares.
    classes: Vec<(Share, usize)>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Its name.
    pub node: String,
    /// Of its GPUs.
    pub class: &'static str,
    /// Where it stands.
    pub cluster: &'static str,
}

impl Fleet {
    /// That many nodes; what does not divide is of the last class.
    #[must_use]
    pub fn of(nodes: usize) -> Self {
        let mut classes: Vec<_> =
            SHARES.iter().map(|share| (*share, nodes * share.percent / 100)).collect();
        let given: usize = classes.iter().map(|(_, count)| count).sum();
        if let Some((_, last)) = classes.last_mut() {
            *last += nodes - given;
        }
        Self { classes }
    }

    /// How many nodes.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.classes.iter().map(|(_, count)| count).sum()
    }

    /// How many GPUs.
    #[must_use]
    pub fn gpus(&self) -> usize {
        self.nodes() * GPUS as usize
    }

    /// Its classes with their nodes; classes of which there is none are left out.
    pub fn classes(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.classes.iter().filter(|(_, count)| *count > 0).map(|(share, n)| (share.class, *n))
    }

    /// Nodes of the class.
    #[must_use]
    pub fn nodes_of(&self, class: &str) -> usize {
        self.classes().find(|(name, _)| *name == class).map_or(0, |(_, count)| count)
    }

    /// Every node, cluster by cluster.
    pub fn sites(&self) -> impl Iterator<Item = Site> {
        self.classes.iter().flat_map(|(share, count)| sites(*share, *count))
    }
}

fn sites(share: Share, count: usize) -> impl Iterator<Item = Site> {
    let each = count.div_ceil(share.clusters.len()).max(1);
    (0..count).map(move |number| {
        let cluster = share.clusters[number / each];
        let node = format!("{cluster}-{:04}", number % each);
        Site { node, class: share.class, cluster }
    })
}

impl Site {
    /// What the node has.
    #[must_use]
    pub fn inventory(&self) -> NodeInventory {
        let mut inventory = inventory(&self.node, self.class, GPUS);
        inventory.labels.insert(CLUSTER_LABEL.into(), self.cluster.into());
        inventory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_country_has_50_000_gpus_and_room_for_a_gang_of_512_nodes_in_the_free_class() {
        let fleet = Fleet::of(6_250);
        assert_eq!((fleet.gpus(), fleet.nodes_of(FREE_CLASS)), (50_000, 625));
    }

    #[test]
    fn every_node_has_a_name_of_its_own_whatever_the_number() {
        for nodes in [0, 1, 7, 40, 333, 6_250] {
            let fleet = Fleet::of(nodes);
            let names: std::collections::BTreeSet<String> =
                fleet.sites().map(|site| site.node).collect();
            assert_eq!((names.len(), fleet.nodes()), (nodes, nodes));
        }
    }
}
