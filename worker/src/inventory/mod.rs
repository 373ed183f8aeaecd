//! What this machine is: CPUs, memory, GPUs; and the newest readings of the GPUs for the heartbeats.
//!
//! GPUs come from NVML where its library and GPUs are there, from `--simulate` where asked for, or there are none.

pub mod cards;
pub mod classes;
pub mod cpu;
pub mod simulate;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cards::Cards;
use gotgan_proto::v1::{GpuReading, NodeInventory};

use crate::cutting::Cutter;
use crate::reader::board::Seen;
use crate::reader::keeper::{self, Reader};

/// Thousandths of a CPU or GPU in a whole one.
const WHOLE_MILLI: u32 = 1000;
/// What a simulated node has for each GPU unless told otherwise.
const SIMULATED_CPUS_PER_GPU: u64 = 16;
const SIMULATED_MEMORY_MIB_PER_GPU: u64 = 128 << 10;

/// Why the inventory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// `--simulate` says something else than `8xB200` or a list of such.
    #[error("cannot simulate {0:?}: write COUNTxMODEL, as in 8xB200 or 4xH100,4xA100, with at most 64 GPUs, and behind a colon what each is cut into by MIG, as in 2xH100:7x1g.10gb or 2xH100:3g.40gb+2x2g.20gb; models: {models}", models = simulate::models())]
    Simulation(String),
    /// The driver does not answer.
    #[error("the NVIDIA driver does not answer within {0:?}")]
    DriverSilent(Duration),
    /// There is no process that could ask it.
    #[error("the NVIDIA driver cannot be asked: {0}")]
    Reader(String),
}

/// What is asked of the inventory.
#[derive(Clone, Debug, Default)]
pub struct InventoryPlan {
    /// Name of the node.
    pub node: String,
    /// Where other nodes reach it.
    pub address: String,
    /// Labels of the node, with the names of its blocks. What a driver knows of them may fill the gaps and takes nothing
    /// back: people know better which rack a node stands in.
    pub labels: BTreeMap<String, String>,
    /// Invented GPUs, as in `8xB200`.
    pub simulate: Option<String>,
    /// CPUs to offer instead of all.
    pub cpus: Option<u64>,
    /// Memory to offer instead of all.
    pub memory_mib: Option<u64>,
    /// NVML's library; absent: where the system finds it.
    pub nvml_library: Option<String>,
    /// GPUs of a double of that library are shown as if they were real; only for looking for faults.
    pub nvml_double_as_real: bool,
    /// Classes of GPUs by their full names, before the built-in rules.
    pub gpu_classes: BTreeMap<String, String>,
    /// How often GPUs are read.
    pub reading_interval: Duration,
    /// After this long without an answer a reading counts as failed.
    pub reading_timeout: Duration,
    /// Where the driver lists the permissions to parts of GPUs.
    pub permissions: PathBuf,
}

/// The machine, and its readings.
#[derive(Debug)]
pub struct Inventory {
    /// What is registered.
    pub node: NodeInventory,
    /// Its GPUs with what each is cut into now.
    pub cards: Arc<Cards>,
    /// What it takes to cut them into something else.
    pub cutter: Cutter,
    source: Source,
}

#[derive(Debug)]
enum Source {
    None,
    Nvml(Reader),
    Simulated(simulate::Simulation),
}

impl Inventory {
    /// Takes the inventory. Blocks while the driver is asked.
    pub fn take(plan: &InventoryPlan) -> Result<Self, InventoryError> {
        let mut node = NodeInventory {
            node: plan.node.clone(),
            address: plan.address.clone(),
            boot_id: cpu::boot_id(),
            worker_version: env!("CARGO_PKG_VERSION").into(),
            os: cpu::os(),
            kernel: cpu::kernel(),
            cpu_milli: cpu::cpus() * u64::from(WHOLE_MILLI),
            memory_mib: cpu::memory_mib(),
            labels: plan.labels.clone().into_iter().collect(),
            ..Default::default()
        };
        let (source, cards) = find_gpus(plan, &mut node)?;
        if let Some(cpus) = plan.cpus {
            node.cpu_milli = cpus.saturating_mul(u64::from(WHOLE_MILLI));
        }
        node.memory_mib = plan.memory_mib.unwrap_or(node.memory_mib);
        let invented = matches!(source, Source::Simulated(_));
        let cutter = Cutter { library: plan.nvml_library.clone(), invented };
        Ok(Self { node, cards, cutter, source })
    }

    /// The latest look at each GPU. Never blocks on the driver.
    pub fn looks(&self) -> Vec<Seen> {
        let invented = |reading| Seen { reading, compute_processes: 0, at: Instant::now() };
        match &self.source {
            Source::None => Vec::new(),
            Source::Nvml(reader) => reader.latest(),
            Source::Simulated(simulation) => {
                simulation.readings(crate::clock::now_us()).into_iter().map(invented).collect()
            }
        }
    }

    /// The latest reading of each GPU.
    pub fn readings(&self) -> Vec<GpuReading> {
        self.looks().into_iter().map(|seen| seen.reading).collect()
    }

    /// Whoever reads its GPUs; nobody where there are none, or invented ones.
    pub fn reader(&self) -> Option<&Reader> {
        match &self.source {
            Source::Nvml(reader) => Some(reader),
            Source::None | Source::Simulated(_) => None,
        }
    }

    /// What is registered, with what GPUs are cut into now.
    pub fn registered(&self) -> NodeInventory {
        NodeInventory { gpus: self.cards.devices(), ..self.node.clone() }
    }
}

/// GPUs, by whom they are read and what they are cut into.
fn find_gpus(
    plan: &InventoryPlan,
    node: &mut NodeInventory,
) -> Result<(Source, Arc<Cards>), InventoryError> {
    let none = Arc::new(Cards::new(None));
    if let Some(wanted) = &plan.simulate {
        let simulation = simulate::Simulation::parse(wanted, &plan.node, &plan.gpu_classes)?;
        node.simulated = true;
        node.gpus = simulation.devices();
        let count = node.gpus.len() as u64;
        node.cpu_milli = count * SIMULATED_CPUS_PER_GPU * u64::from(WHOLE_MILLI);
        node.memory_mib = count * SIMULATED_MEMORY_MIB_PER_GPU;
        none.know(&node.gpus, |_| None);
        return Ok((Source::Simulated(simulation), none));
    }
    let Some((found, reader)) = keeper::start(plan)? else {
        return Ok((Source::None, none));
    };
    node.gpus = found.gpus;
    node.driver_version = found.driver_version;
    node.cuda_version = found.cuda_version;
    node.simulated = found.double && !plan.nvml_double_as_real;
    let cards = reader.cards();
    let source = if node.gpus.is_empty() { Source::None } else { Source::Nvml(reader) };
    Ok((source, cards))
}
