//! Every reading of a GPU by its name, for listings that want all of them.

use serde::Serialize;
use serde_json::Value;

use super::answer::Reading;
use super::driver::{Driver, Gpu};
use super::health::EccSpan;

/// One reading.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Its name, unit last.
    pub name: &'static str,
    /// Takes it.
    pub read: fn(&Gpu<'_>) -> Reading<Value>,
}

macro_rules! probes {
    ($($name:ident = $read:expr;)*) => {
        &[$(Probe { name: stringify!($name), read: |gpu| value($read(gpu)) }),*]
    };
}

/// Every reading, the unchanging ones first.
pub const PROBES: &[Probe] = probes! {
    name = Gpu::name;
    serial = Gpu::serial;
    index = Gpu::index;
    minor_number = Gpu::minor_number;
    pci_bus_id = Gpu::pci_bus_id;
    board_part_number = Gpu::board_part_number;
    vbios_version = Gpu::vbios_version;
    memory = Gpu::memory;
    compute_mode = Gpu::compute_mode;
    persistence_mode = Gpu::persistence_mode;
    ecc_mode = Gpu::ecc_mode;
    mig_mode = Gpu::mig_mode;
    mig_devices = Gpu::mig_devices;
    numa_node = Gpu::numa_node;
    near_cpus = Gpu::near_cpus;
    utilisation = Gpu::utilisation;
    temperature_c = Gpu::temperature_c;
    clock_reasons = Gpu::clock_reasons;
    power_mw = Gpu::power_mw;
    power_now_mw = Gpu::power_now_mw;
    power_limit_mw = Gpu::power_limit_mw;
    power_limit_enforced_mw = Gpu::power_limit_enforced_mw;
    power_limit_default_mw = Gpu::power_limit_default_mw;
    power_range = Gpu::power_range;
    energy_mj = Gpu::energy_mj;
    recovery_action = Gpu::recovery_action;
    ecc_since_load = |gpu: &Gpu<'_>| gpu.ecc_counts(EccSpan::SinceLoad);
    ecc_lifetime = |gpu: &Gpu<'_>| gpu.ecc_counts(EccSpan::Lifetime);
    remapped_rows = Gpu::remapped_rows;
    row_histogram = Gpu::row_histogram;
    fabric = Gpu::fabric;
    pcie = Gpu::pcie;
    nvlinks = Gpu::nvlinks;
    processes = Gpu::processes;
    event_kinds = Gpu::event_kinds;
};

fn value<T: Serialize>(reading: Reading<T>) -> Reading<Value> {
    // Numbers, words and lists of them: nothing that JSON could not have.
    reading.map(|value| serde_json::to_value(value).unwrap_or_default())
}

macro_rules! presence {
    ($library:expr; $($symbol:ident)*) => {
        vec![$((stringify!($symbol), $library.$symbol.is_ok())),*]
    };
}

impl Driver {
    /// Every function that is asked for, and whether the library has it.
    pub fn functions(&self) -> Vec<(&'static str, bool)> {
        presence! { self.library();
            nvmlInit_v2 nvmlShutdown
            nvmlSystemGetDriverVersion nvmlSystemGetNVMLVersion nvmlSystemGetCudaDriverVersion_v2
            nvmlSystemGetProcessName
            nvmlDeviceGetCount_v2 nvmlDeviceGetHandleByIndex_v2 nvmlDeviceGetHandleByUUID
            nvmlDeviceGetUUID nvmlDeviceGetName nvmlDeviceGetSerial nvmlDeviceGetIndex
            nvmlDeviceGetMinorNumber nvmlDeviceGetPciInfo_v3 nvmlDeviceGetBoardPartNumber
            nvmlDeviceGetVbiosVersion nvmlDeviceGetMemoryInfo_v2 nvmlDeviceGetMemoryInfo
            nvmlDeviceGetComputeMode nvmlDeviceGetPersistenceMode nvmlDeviceGetEccMode
            nvmlDeviceGetMigMode nvmlDeviceGetMaxMigDeviceCount
            nvmlDeviceGetMigDeviceHandleByIndex nvmlDeviceGetAttributes_v2
            nvmlDeviceGetGpuInstanceId nvmlDeviceGetComputeInstanceId
            nvmlDeviceGetNumaNodeId nvmlDeviceGetCpuAffinity
            nvmlDeviceGetUtilizationRates nvmlDeviceGetTemperature
            nvmlDeviceGetCurrentClocksEventReasons nvmlDeviceGetCurrentClocksThrottleReasons
            nvmlDeviceGetPowerUsage nvmlDeviceGetPowerManagementLimit
            nvmlDeviceGetEnforcedPowerLimit nvmlDeviceGetPowerManagementDefaultLimit
            nvmlDeviceGetPowerManagementLimitConstraints nvmlDeviceSetPowerManagementLimit
            nvmlDeviceGetTotalEnergyConsumption nvmlDeviceGetFieldValues
            nvmlDeviceGetTotalEccErrors nvmlDeviceGetRemappedRows
            nvmlDeviceGetRowRemapperHistogram
            nvmlDeviceGetGpuFabricInfoV nvmlDeviceGetGpuFabricInfo
            nvmlDeviceGetCurrPcieLinkGeneration nvmlDeviceGetMaxPcieLinkGeneration
            nvmlDeviceGetCurrPcieLinkWidth nvmlDeviceGetMaxPcieLinkWidth
            nvmlDeviceGetNvLinkState nvmlDeviceGetNvLinkErrorCounter
            nvmlDeviceGetComputeRunningProcesses_v3 nvmlDeviceGetGraphicsRunningProcesses_v3
            nvmlEventSetCreate nvmlEventSetFree nvmlEventSetWait_v2
            nvmlDeviceRegisterEvents nvmlDeviceGetSupportedEventTypes
        }
    }
}
