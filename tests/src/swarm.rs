//! Thousands of virtual workers in one process: each with a certificate and a stream of its own, as a site of that
//! size has them. Their jobs take the time that they say, and no process.
//!
//! [`fleet`] says which nodes there are, [`words`] what a job says of its length.

pub mod fleet;
pub mod words;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::api::{channel, told};
use crate::cluster::Cluster;
use crate::deadline;
use crate::virtual_worker::{Board, Journal, Link, VirtualWorker};

pub use fleet::{Fleet, Site};

/// Nodes that join at the same time. More would only wait for each other: a join is one after the other's turn at the
/// scheduler, and the rest is this process' own work.
const JOINING: usize = 64;
/// Thousands of handshakes on one processor take a while.
const JOIN_LIMIT: Duration = Duration::from_secs(600);

/// Virtual nodes that have joined and speak.
#[derive(Debug)]
pub struct Swarm {
    workers: Vec<VirtualWorker>,
    board: Arc<Board>,
}

impl Swarm {
    /// All nodes of the fleet join and register.
    ///
    /// # Panics
    /// If one cannot.
    pub async fn join(cluster: &Cluster, fleet: &Fleet) -> Self {
        let board = Arc::new(Board::default());
        let mut workers = Vec::with_capacity(fleet.nodes());
        let door = Door::of(cluster);
        let mut joining = JoinSet::new();
        for site in fleet.sites() {
            if joining.len() >= JOINING
                && let Some(joined) = joining.join_next().await
            {
                workers.push(joined.expect("a node that joins"));
            }
            joining.spawn(door.clone().admit(site, Arc::clone(&board)));
        }
        while let Some(joined) = joining.join_next().await {
            workers.push(joined.expect("a node that joins"));
        }
        wait_until_ready(cluster, workers.len()).await;
        Self { workers, board }
    }

    /// Nodes.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.workers.len()
    }

    /// What they did.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }
}

/// How nodes get in.
#[derive(Debug, Clone)]
struct Door {
    api: crate::Api,
    channel: Channel,
    url: String,
    /// Of schedulers that stand by.
    others: Vec<String>,
    /// Without TLS there are no certificates and nobody joins.
    insecure: bool,
}

impl Door {
    fn of(cluster: &Cluster) -> Self {
        let scheduler = &cluster.scheduler;
        let url = scheduler.url();
        let insecure = !url.starts_with("https");
        let ca = (!insecure).then(|| scheduler.ca_pem());
        let channel = channel(&url, ca.as_deref());
        let others = cluster.others().to_vec();
        Self { api: cluster.api.clone(), channel, url, others, insecure }
    }

    async fn admit(self, site: Site, board: Arc<Board>) -> VirtualWorker {
        let inventory = site.inventory();
        let link = self.link(&inventory.node).await.also_at(&self.others);
        let journal = Journal::new(inventory, words::script()).noting_on(&board);
        VirtualWorker::start(link, journal)
    }

    async fn link(&self, node: &str) -> Link {
        if self.insecure {
            return Link::insecure(&self.url, node);
        }
        let token = self.api.join_token().await;
        let link = Link::join_over(self.channel.clone(), &self.url, &token, node).await;
        link.unwrap_or_else(|status| panic!("{node} cannot join: {}", told(&status)))
    }
}

async fn wait_until_ready(cluster: &Cluster, nodes: usize) {
    let what = format!("{nodes} nodes to be ready");
    deadline::until_within(JOIN_LIMIT, &what, async || {
        let status = cluster.api.status().await.map_err(|status| told(&status))?;
        let ready = status.nodes_ready;
        if ready == nodes as u64 { Ok(()) } else { Err(format!("{ready} are")) }
    })
    .await;
}
