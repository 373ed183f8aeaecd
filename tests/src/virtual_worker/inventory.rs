//! What virtual nodes have.

use gotgan_proto::v1::{GpuDevice, GpuReading, NodeInventory};

/// CPUs of a virtual node, in thousandths.
pub const CPU_MILLI: u64 = 256_000;
/// Memory of a virtual node.
pub const MEMORY_MIB: u64 = 2 << 20;
/// Memory of a virtual GPU.
const GPU_MEMORY_MIB: u64 = 180 << 10;

/// A node with GPUs of one class.
#[must_use]
pub fn inventory(node: &str, class: &str, gpus: u32) -> NodeInventory {
    NodeInventory {
        node: node.to_owned(),
        address: "127.0.0.1".into(),
        boot_id: format!("boot-of-{node}"),
        worker_version: env!("CARGO_PKG_VERSION").into(),
        os: "virtual".into(),
        kernel: "0".into(),
        cpu_milli: CPU_MILLI,
        memory_mib: MEMORY_MIB,
        gpus: self::gpus(node, class, gpus),
        simulated: true,
        ..Default::default()
    }
}

/// GPUs of a node.
#[must_use]
pub fn gpus(node: &str, class: &str, count: u32) -> Vec<GpuDevice> {
    let device = |index: u32| GpuDevice {
        uuid: format!("GPU-{node}-{index}"),
        index,
        name: format!("Virtual {}", class.to_uppercase()),
        gpu_class: class.to_owned(),
        pci_bus_id: format!("00000000:{index:02x}:00.0"),
        memory_mib: GPU_MEMORY_MIB,
        ..Default::default()
    };
    (0..count).map(device).collect()
}

/// One look at all GPUs of a node: as much as the real ones say, and a little different each time.
#[must_use]
pub fn readings(gpus: &[GpuDevice], look: u64) -> Vec<GpuReading> {
    let wobble = u32::try_from(look % 7).unwrap_or_default();
    let reading = |gpu: &GpuDevice| GpuReading {
        uuid: gpu.uuid.clone(),
        utilisation_percent: Some(90 + wobble),
        memory_used_mib: Some(gpu.memory_mib / 2 + u64::from(wobble)),
        temperature_c: Some(60 + wobble),
        power_mw: Some(650_000 + 1_000 * wobble),
        power_limit_mw: Some(1_000_000),
        ecc_uncorrected: Some(0),
        ecc_corrected: Some(0),
        ..Default::default()
    };
    gpus.iter().map(reading).collect()
}
