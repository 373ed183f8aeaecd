//! Nodes of a scenario: what their workers would register.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use gotgan_core::amount::{CpuMilli, MemoryMib};
use gotgan_core::fabric::{CLUSTER_LABEL, SPARE_LABEL, SPARE_VALUE};
use gotgan_core::ids::{BadName, GpuUuid, NodeName};
use gotgan_core::mig::Mig;
use gotgan_core::node::{Gpu, Inventory};
use gotgan_core::topology::Level;

use crate::scenario::ClusterFile;

/// CPUs and memory beside each GPU: so many that GPUs alone decide.
const CPUS_PER_GPU: u64 = 16;
const MEMORY_GIB_PER_GPU: u64 = 128;

/// Every node of a cluster, spare ones last.
///
/// # Errors
/// [`BadName`] if a name gets too long.
pub fn nodes(cluster: &ClusterFile) -> Result<Vec<Inventory>, BadName> {
    let all = cluster.nodes.saturating_add(cluster.spare_nodes);
    (1..=all).map(|number| inventory(cluster, number)).collect()
}

/// Whether any of the clusters has a node of that name.
#[must_use]
pub fn has_node(clusters: &[ClusterFile], node: &NodeName) -> bool {
    clusters.iter().any(|cluster| {
        let number = node.as_str().strip_prefix(cluster.name.as_str());
        let number = number.and_then(|rest| rest.strip_prefix('-')?.parse::<u32>().ok());
        let all = cluster.nodes.saturating_add(cluster.spare_nodes);
        number.is_some_and(|number| {
            (1..=all).contains(&number) && node_name(cluster, number) == node.as_str()
        })
    })
}

fn node_name(cluster: &ClusterFile, number: u32) -> String {
    format!("{}-{number:04}", cluster.name)
}

fn inventory(cluster: &ClusterFile, number: u32) -> Result<Inventory, BadName> {
    let node = NodeName::new(&node_name(cluster, number))?;
    let gpus = (0..cluster.gpus_per_node).map(|index| gpu(cluster, &node, index));
    let count = u64::from(cluster.gpus_per_node);
    Ok(Inventory {
        address: format!("{node}.simulated:7450"),
        boot_id: "simulated".to_owned(),
        journal_id: String::new(),
        worker_version: env!("CARGO_PKG_VERSION").to_owned(),
        os: "simulated".to_owned(),
        kernel: "simulated".to_owned(),
        driver_version: String::new(),
        cuda_version: String::new(),
        cpu_milli: CpuMilli(1000).times(count * CPUS_PER_GPU),
        memory_mib: MemoryMib(1024).times(count * MEMORY_GIB_PER_GPU),
        gpus: gpus.collect::<Result<_, _>>()?,
        labels: labels(cluster, number),
        simulated: true,
        confinement: None,
        images: None,
        caps: None,
        checks_hardware: false,
        imex: None,
        node,
    })
}

fn labels(cluster: &ClusterFile, number: u32) -> BTreeMap<String, String> {
    let name = (CLUSTER_LABEL.to_owned(), cluster.name.to_string());
    let is_spare = number > cluster.nodes;
    let spare = is_spare.then(|| (SPARE_LABEL.to_owned(), SPARE_VALUE.to_owned()));
    let block = |(level, size): (&Level, &NonZeroU32)| {
        let (word, block) = (level.word(), block_of(cluster, *size, number));
        (word.to_owned(), format!("{}/{word}-{block:02}", cluster.name))
    };
    std::iter::once(name).chain(spare).chain(cluster.blocks.iter().map(block)).collect()
}

/// Number of the node's block, from 1.
fn block_of(cluster: &ClusterFile, size: NonZeroU32, number: u32) -> u32 {
    let blocks = cluster.nodes.div_ceil(size.get()).max(1);
    match number.checked_sub(cluster.nodes + 1) {
        Some(spare) => spare % blocks + 1,
        None => (number - 1) / size + 1,
    }
}

fn gpu(cluster: &ClusterFile, node: &NodeName, index: u32) -> Result<Gpu, BadName> {
    Ok(Gpu {
        uuid: GpuUuid::new(&format!("GPU-{node}-{index}"))?,
        index,
        name: cluster.class.to_string(),
        class: cluster.class.clone(),
        pci_bus_id: String::new(),
        memory_mib: MemoryMib(1024),
        serial: String::new(),
        nvlink_domain: String::new(),
        cap_range: None,
        mig: Mig::Off,
    })
}
