//! What the file says: the driver, its GPUs, and how it is to fail. What is left out is as on a sound H100 node.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The whole machine.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    pub driver_version: String,
    pub library_version: String,
    /// As in 13000 for 13.0.
    pub cuda_version: i32,
    /// Whether there is a driver at all.
    pub loaded: bool,
    /// Whether calls are counted in a file.
    pub count_calls: bool,
    /// How functions answer, whatever GPU they are asked about.
    pub answers: BTreeMap<String, Answer>,
    /// Command lines of processes by their number.
    pub commands: BTreeMap<u32, String>,
    /// In the driver's order.
    pub gpus: Vec<Gpu>,
    /// What happens; an event with a number above the last one that was seen is delivered.
    pub events: Vec<Event>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            driver_version: "580.159.04-nvml-double".into(),
            library_version: "13.580.159.04-nvml-double".into(),
            cuda_version: 13_000,
            loaded: true,
            count_calls: false,
            answers: BTreeMap::new(),
            commands: BTreeMap::new(),
            gpus: Vec::new(),
            events: Vec::new(),
        }
    }
}

/// How a function answers instead of, or before, doing what it should.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Answer {
    /// This code; 0: what it would answer anyway. 13 is what a driver without the function answers.
    pub code: u32,
    /// Only after so long.
    pub delay_ms: u64,
    /// Not before this is taken out of the file.
    pub hang: bool,
}

/// An event of a GPU.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    pub number: u64,
    pub uuid: String,
    /// One bit.
    pub kind: u64,
    pub data: u64,
    /// Delivered so many times: a storm.
    #[serde(default = "once")]
    pub repeat: u64,
}

fn once() -> u64 {
    1
}

/// A GPU.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gpu {
    pub uuid: String,
    pub name: String,
    pub serial: String,
    pub minor_number: u32,
    pub pci_bus_id: String,
    pub board_part_number: String,
    pub vbios_version: String,
    pub memory_total_bytes: u64,
    pub memory_used_bytes: u64,
    pub memory_reserved_bytes: u64,
    pub compute_mode: u32,
    pub persistence_mode: u32,
    /// Now, and after a reset.
    pub ecc_mode: [u32; 2],
    pub numa_node: Option<u32>,
    /// Bits of the first 64 CPUs.
    pub near_cpus: u64,
    pub utilisation_percent: u32,
    pub memory_utilisation_percent: u32,
    pub temperature_c: u32,
    pub clock_reasons: u64,
    pub power_mw: u32,
    pub power_limit_mw: u32,
    pub power_limit_default_mw: u32,
    /// Absent: the limit that is set.
    pub power_limit_enforced_mw: Option<u32>,
    /// The least and the most.
    pub power_range_mw: [u32; 2],
    /// What is set becomes the next multiple of this, as on a board that knows steps alone; 0: it is as asked.
    pub power_step_mw: u32,
    pub energy_mj: u64,
    pub recovery_action: u32,
    /// Corrected and uncorrected.
    pub ecc_since_load: [u64; 2],
    pub ecc_lifetime: [u64; 2],
    /// Correctable, uncorrectable, pending, failed.
    pub remapped_rows: [u32; 4],
    /// All, most, some, few, none.
    pub row_histogram: [u32; 5],
    pub fabric: Option<Fabric>,
    /// The newest form of the fabric's description that this driver knows.
    pub fabric_version: u32,
    /// Generation, at most, lanes, at most.
    pub pcie: [u32; 4],
    pub nvlinks: Vec<NvLink>,
    pub processes: Vec<Process>,
    /// So many more processes each time they are asked for.
    pub processes_grow: u32,
    /// Now, and after a reset.
    pub mig_mode: [u32; 2],
    pub mig_devices: Vec<MigDevice>,
    /// Kinds of events that it tells of.
    pub event_kinds: u64,
    /// Fell off the bus: every call about it says so.
    pub lost: bool,
    /// Lost, and no longer counted after the library's next start.
    pub gone: bool,
    /// How functions answer about this GPU.
    pub answers: BTreeMap<String, Answer>,
}

impl Default for Gpu {
    fn default() -> Self {
        Self {
            uuid: String::new(),
            name: "NVIDIA H100 80GB HBM3 (nvml-double)".into(),
            serial: "1650000000000".into(),
            minor_number: 0,
            pci_bus_id: "00000000:00:06.0".into(),
            board_part_number: "692-2G520-0200-000".into(),
            vbios_version: "96.00.DA.00.0C".into(),
            memory_total_bytes: 85_520_809_984,
            memory_used_bytes: 0,
            memory_reserved_bytes: 503_316_480,
            compute_mode: 0,
            persistence_mode: 1,
            ecc_mode: [1, 1],
            numa_node: None,
            near_cpus: 0xffff,
            utilisation_percent: 0,
            memory_utilisation_percent: 0,
            temperature_c: 40,
            clock_reasons: 1,
            power_mw: 74_579,
            power_limit_mw: 700_000,
            power_limit_default_mw: 700_000,
            power_limit_enforced_mw: None,
            power_range_mw: [200_000, 700_000],
            power_step_mw: 0,
            energy_mj: 2_440_325,
            recovery_action: 0,
            ecc_since_load: [0; 2],
            ecc_lifetime: [0; 2],
            remapped_rows: [0; 4],
            row_histogram: [2560, 0, 0, 0, 0],
            fabric: None,
            fabric_version: 3,
            pcie: [5, 5, 16, 16],
            nvlinks: Vec::new(),
            processes: Vec::new(),
            processes_grow: 0,
            mig_mode: [0; 2],
            mig_devices: Vec::new(),
            event_kinds: 65_439,
            lost: false,
            gone: false,
            answers: BTreeMap::new(),
        }
    }
}

/// Part of which fabric a GPU is.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fabric {
    /// 32 digits, base 16.
    pub cluster: String,
    pub clique: u32,
    pub state: u8,
    pub status: u32,
    pub health_mask: u32,
    pub health: u8,
}

impl Fabric {
    /// As a GPU says that is of none.
    pub fn none() -> Self {
        Self { state: 0, health: 0, ..Self::default() }
    }
}

impl Default for Fabric {
    fn default() -> Self {
        let cluster = "0".repeat(32);
        Self { cluster, clique: 0, state: 3, status: 0, health_mask: 0, health: 1 }
    }
}

/// A link to another GPU.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NvLink {
    pub active: bool,
    /// Replay, recovery, flow control's checksums, data's checksums.
    pub errors: [u64; 4],
}

impl Default for NvLink {
    fn default() -> Self {
        Self { active: true, errors: [0; 4] }
    }
}

/// A process on a GPU.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    pub pid: u32,
    /// Absent: the driver does not tell.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    #[serde(default)]
    pub gpu_instance: Option<u32>,
    #[serde(default)]
    pub compute_instance: Option<u32>,
}

/// A device that a GPU is cut into.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigDevice {
    pub uuid: String,
    /// As in "3g.40gb".
    pub profile: String,
    pub gpu_instance: u32,
    pub compute_instance: u32,
    pub memory_mib: u64,
    /// Of the GPU instance and of the compute instance.
    pub slices: [u32; 2],
}
