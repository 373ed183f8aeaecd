//! What a driver says once of its GPUs. Each is asked by a thread of its own: one that does not answer is left out.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use gotgan_proto::v1::GpuDevice;

use super::cut::cut_of;
use super::frames::{Described, Opened};
use crate::nvml::{Driver, FabricState, Gpu, Reading};

/// Joining a fabric takes seconds, and all GPUs of a node join at once.
const FABRIC_PATIENCE: Duration = Duration::from_secs(20);
const FABRIC_LOOK: Duration = Duration::from_millis(500);
/// A GPU that has not said what it is by then is left out. Less than the daemon waits for all of it.
const ANSWER_PATIENCE: Duration = Duration::from_secs(40);
const BYTES_PER_MIB: u64 = 1 << 20;
const MW_PER_WATT: u32 = 1_000;

/// The driver and all its GPUs. GPUs are told apart by UUID only: their order may change.
pub(super) fn describe_all(driver: &'static Driver) -> Opened {
    let count = driver.count().unwrap_or_else(|error| {
        tracing::error!(%error, "the driver does not say how many GPUs there are");
        0
    });
    let mut gpus = ask_each(driver, count);
    gpus.sort_by_key(|gpu| gpu.device.index);
    Opened { gpus, ..versions(driver) }
}

/// What the driver says of itself.
pub(super) fn versions(driver: &Driver) -> Opened {
    Opened {
        gpus: Vec::new(),
        driver_version: driver.driver_version().unwrap_or_default(),
        cuda_version: driver.cuda_version().unwrap_or_default(),
        double: driver.is_double(),
    }
}

fn ask_each(driver: &'static Driver, count: u32) -> Vec<Described> {
    let (answer, answers) = mpsc::sync_channel(count as usize);
    let until = Instant::now() + FABRIC_PATIENCE;
    for index in 0..count {
        let answer = answer.clone();
        // Whoever waited may have given up.
        let ask = move || drop(answer.send((index, describe(driver, index, until))));
        if let Err(error) = std::thread::Builder::new().name(format!("gpu-{index}")).spawn(ask) {
            tracing::error!(index, %error, "cannot start a thread that asks a GPU");
        }
    }
    drop(answer);
    collect(&answers, count)
}

fn collect(answers: &mpsc::Receiver<(u32, Reading<Described>)>, count: u32) -> Vec<Described> {
    let until = Instant::now() + ANSWER_PATIENCE;
    let mut silent: Vec<u32> = (0..count).collect();
    let mut found = Vec::new();
    while let Ok((index, described)) = answers.recv_timeout(until - Instant::now().min(until)) {
        silent.retain(|other| *other != index);
        match described {
            Ok(described) => found.push(described),
            Err(error) => tracing::error!(index, %error, "a GPU does not answer and is left out"),
        }
    }
    for index in silent {
        tracing::error!(index, "a GPU hangs when it is asked what it is, and is left out");
    }
    found
}

/// A GPU without a UUID cannot be given to anybody; everything else may be missing.
fn describe(driver: &Driver, index: u32, until: Instant) -> Reading<Described> {
    let gpu = driver.gpu_at(index)?;
    let uuid = gpu.uuid()?;
    let range = gpu.power_range().ok();
    let device = GpuDevice {
        gpu_class: String::new(),
        uuid,
        index,
        name: gpu.name().unwrap_or_else(|_| "unknown GPU".into()),
        pci_bus_id: gpu.pci_bus_id().unwrap_or_default(),
        memory_mib: gpu.memory().map_or(0, |memory| memory.total_bytes / BYTES_PER_MIB),
        serial: gpu.serial().unwrap_or_default(),
        nvlink_domain: nvlink_domain(&gpu, until),
        cap_min_watts: range.map_or(0, |range| range.min_mw.div_ceil(MW_PER_WATT)),
        cap_max_watts: range.map_or(0, |range| range.max_mw / MW_PER_WATT),
        mig: cut_of(&gpu).and_then(|seen| seen.cut),
    };
    Ok(Described { device, minor: gpu.minor_number().ok() })
}

/// The domain that a GPU has joined. One that is still joining when the machine comes up is waited for a while.
fn nvlink_domain(gpu: &Gpu<'_>, until: Instant) -> String {
    loop {
        match gpu.fabric() {
            Ok(fabric) if fabric.state == FabricState::InProgress => {
                if Instant::now() >= until {
                    tracing::warn!(
                        "a GPU has not joined its NVLink fabric yet: its domain is known after a restart of the worker"
                    );
                    return String::new();
                }
            }
            Ok(fabric) => return fabric.domain().unwrap_or_default(),
            Err(_) => return String::new(),
        }
        std::thread::sleep(FABRIC_LOOK);
    }
}
