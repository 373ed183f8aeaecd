//! IMEX channels: through which GPUs of one NVLink domain share memory across nodes.
//!
//! The driver numbers its channels alike on all nodes of a domain. Programs that opened channel 5 share memory with those that
//! opened it on other nodes, and with no others. So an attempt is leased one channel of every domain in which it holds whole
//! GPUs, no two attempts have the same one at a time, and its workers make the channel's device node before it starts and
//! remove it before its end is reported.
//!
//! Source: NVIDIA, IMEX service for NVLink networks, "IMEX channels".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::amount::GpuMilli;
use crate::attempt::{Attempt, GpuAllocation, NodeAllocation, Placement};
use crate::ids::AttemptId;
use crate::mig::Mig;
use crate::world::World;

/// Channel 0 is what a site makes for everybody where nothing leases channels.
const FIRST: u32 = 1;

/// Whether attempts on a node can have channels, as its worker found when it started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Imex {
    /// Its driver has none, or the site does not want it.
    Off,
    /// It cannot be done there: why, in words.
    Unable(String),
    /// Its driver has this many, from 0.
    Able(u32),
}

/// A channel that an attempt has as long as it holds its GPUs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ImexLease {
    /// NVLink domain, as the driver names it.
    pub domain: String,
    /// Number of the channel, the same on all nodes of the domain.
    pub channel: u32,
}

/// Who holds which channel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImexChannels {
    /// By domain; of a domain of which none is held nothing is kept.
    held: BTreeMap<String, BTreeMap<u32, AttemptId>>,
}

impl ImexChannels {
    /// Who holds that channel of the domain.
    #[must_use]
    pub fn holder(&self, domain: &str, channel: u32) -> Option<AttemptId> {
        self.held.get(domain)?.get(&channel).copied()
    }

    /// How many are held, over all domains.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.values().map(BTreeMap::len).sum()
    }

    pub(crate) fn take(&mut self, attempt: &Attempt) {
        for lease in leases_of(&attempt.placement) {
            let of_domain = self.held.entry(lease.domain.clone()).or_default();
            of_domain.entry(lease.channel).or_insert(attempt.id);
        }
    }

    pub(crate) fn give_back(&mut self, attempt: &Attempt) {
        for lease in leases_of(&attempt.placement) {
            let Some(of_domain) = self.held.get_mut(&lease.domain) else { continue };
            if of_domain.get(&lease.channel) == Some(&attempt.id) {
                of_domain.remove(&lease.channel);
            }
            if of_domain.is_empty() {
                self.held.remove(&lease.domain);
            }
        }
    }

    /// A channel of the domain that nobody holds. Where the search begins differs from attempt to attempt: a node that was
    /// lost with an attempt still has its channel open for a while, so one that was given back is not the next to be leased.
    fn free(&self, domain: &str, channels: u32, id: AttemptId) -> Option<u32> {
        let count = channels.checked_sub(FIRST).filter(|count| *count > 0)?;
        let turn = id.job.0.wrapping_add(u64::from(id.number)) % u64::from(count);
        let start = FIRST + u32::try_from(turn).unwrap_or(0);
        let mut search = (start..channels).chain(FIRST..start);
        search.find(|channel| self.holder(domain, *channel).is_none())
    }
}

/// The leases of an attempt, one of each domain.
#[must_use]
pub fn leases_of(placement: &Placement) -> BTreeSet<&ImexLease> {
    placement.nodes.iter().filter_map(|allocation| allocation.imex.as_ref()).collect()
}

/// What an attempt gets that starts now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leased {
    /// What it was given, with its channels.
    pub placement: Arc<Placement>,
    /// Domains of which it has none, since all are held.
    pub exhausted: BTreeSet<String>,
}

/// Leases the channels that an attempt needs on these places. Where nothing can have any, the placement is as it was.
#[must_use]
pub fn lease(world: &World, id: AttemptId, placement: &Arc<Placement>) -> Leased {
    let domains: Vec<Option<(&str, u32)>> =
        placement.nodes.iter().map(|allocation| domain_of(world, allocation)).collect();
    // Nodes of one domain have the same driver; where they do not, what the least of them has counts.
    let mut channels: BTreeMap<&str, u32> = BTreeMap::new();
    for (domain, count) in domains.iter().flatten() {
        let least = channels.entry(domain).or_insert(*count);
        *least = (*least).min(*count);
    }
    if channels.is_empty() {
        return Leased { placement: Arc::clone(placement), exhausted: BTreeSet::new() };
    }
    let free = |(domain, count)| (domain, world.imex.free(domain, count, id));
    let chosen: BTreeMap<&str, Option<u32>> = channels.into_iter().map(free).collect();
    let none = chosen.iter().filter(|(_, channel)| channel.is_none());
    let exhausted = none.map(|(domain, _)| (*domain).to_owned()).collect();
    let mut placement = Placement::clone(placement);
    for (allocation, domain) in placement.nodes.iter_mut().zip(&domains) {
        allocation.imex = domain.and_then(|(domain, _)| {
            let channel = chosen.get(domain).copied().flatten()?;
            Some(ImexLease { domain: domain.to_owned(), channel })
        });
    }
    Leased { placement: Arc::new(placement), exhausted }
}

/// The domain that all GPUs of the allocation are of, and how many channels the node's driver has. `None` where channels
/// cannot be had, where GPUs are shared or instances, which do not reach beyond their node, and where they are of no domain.
fn domain_of<'a>(world: &'a World, allocation: &NodeAllocation) -> Option<(&'a str, u32)> {
    let node = world.nodes.get(&allocation.node)?;
    let Some(Imex::Able(channels)) = node.registered.imex else { return None };
    let domain = |held: &GpuAllocation| {
        let gpu = node.inventory.gpus.iter().find(|gpu| gpu.uuid == held.uuid)?;
        let whole = held.milli == GpuMilli::WHOLE && gpu.mig == Mig::Off;
        Some(gpu.nvlink_domain.as_str()).filter(|domain| whole && !domain.is_empty())
    };
    let mut domains = allocation.gpus.iter().map(domain);
    let first = domains.next()??;
    domains.all(|other| other == Some(first)).then_some((first, channels))
}
