//! GPUs as NVIDIA's driver tells of them, through its library, opened at run time.
//!
//! All calls are made on one thread of their own: a call that hangs in the driver then costs readings, not
//! heartbeats. What one GPU or one function fails to answer is absent from that reading. GPUs are told apart by UUID
//! only: their order may change.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gotgan_proto::v1::{GpuDevice, GpuReading};

use super::classes::gpu_class;
use super::reading;
use super::{InventoryError, InventoryPlan};
use crate::nvml::{Driver, FabricState, Gpu, Reading};

/// The driver's first answer may take long on a machine that has just booted, with many GPUs.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(60);
/// Joining a fabric takes seconds, and all GPUs of a node join at once. This is for all of them together, and less than
/// the time for the first answer.
const FABRIC_PATIENCE: Duration = Duration::from_secs(20);
const FABRIC_LOOK: Duration = Duration::from_millis(500);
const BYTES_PER_MIB: u64 = 1 << 20;

/// What the driver says once.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// GPUs, in the driver's order.
    pub gpus: Vec<GpuDevice>,
    /// Numbers of their device nodes, by UUID, where the driver tells them.
    pub minors: BTreeMap<String, u32>,
    /// As in "580.65.06".
    pub driver_version: String,
    /// As in "12.8".
    pub cuda_version: String,
    /// The library is a double for tests, and its GPUs are invented.
    pub double: bool,
}

/// The latest readings, kept by the reading thread.
#[derive(Debug)]
pub struct Reader {
    latest: Arc<Mutex<Latest>>,
    uuids: Vec<String>,
    timeout: Duration,
}

#[derive(Debug)]
struct Latest {
    readings: Vec<GpuReading>,
    at: Instant,
}

/// Asks the driver, if its library is there. `None`: no library, no driver, or no answer worth having.
pub fn find(plan: &InventoryPlan) -> Result<Option<(Found, Reader)>, InventoryError> {
    let (answer, answered) = mpsc::sync_channel(1);
    let latest = Arc::new(Mutex::new(Latest { readings: Vec::new(), at: Instant::now() }));
    let (plan_of_thread, shared) = (plan.clone(), latest.clone());
    let thread = std::thread::Builder::new().name("nvml".into());
    let spawned = thread.spawn(move || read_for_ever(&plan_of_thread, &answer, &shared));
    if let Err(error) = spawned {
        tracing::error!(%error, "cannot start the thread that reads GPUs");
        return Ok(None);
    }
    let found = answered
        .recv_timeout(FIRST_ANSWER_MAX)
        .map_err(|_| InventoryError::DriverSilent(FIRST_ANSWER_MAX))?;
    Ok(found.map(|found| {
        let uuids = found.gpus.iter().map(|gpu| gpu.uuid.clone()).collect();
        let timeout = plan.reading_interval + plan.reading_timeout;
        (found, Reader { latest, uuids, timeout })
    }))
}

impl Reader {
    /// The latest reading of every GPU; with `error` set where the driver has fallen silent.
    pub fn latest(&self) -> Vec<GpuReading> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let age = latest.at.elapsed();
        if age <= self.timeout {
            return latest.readings.clone();
        }
        let error = format!("driver_unresponsive: no answer for {} s", age.as_secs());
        let silent = |uuid: &String| GpuReading {
            uuid: uuid.clone(),
            error: error.clone(),
            ..Default::default()
        };
        self.uuids.iter().map(silent).collect()
    }
}

fn read_for_ever(
    plan: &InventoryPlan,
    answer: &mpsc::SyncSender<Option<Found>>,
    latest: &Mutex<Latest>,
) {
    let driver = match Driver::open(plan.nvml_library.as_deref()) {
        Ok(driver) => driver,
        Err(error) => {
            tracing::info!(%error, "no NVIDIA driver: this node has no GPUs");
            // The receiver waits for exactly this.
            let _ = answer.send(None);
            return;
        }
    };
    let found = take_inventory(driver, &plan.gpu_classes);
    let uuids: Vec<String> = found.gpus.iter().map(|gpu| gpu.uuid.clone()).collect();
    let mut positions = Positions::of(&found.gpus);
    store(latest, reading::read_all(driver, &uuids));
    if answer.send(Some(found)).is_err() || uuids.is_empty() {
        return;
    }
    loop {
        std::thread::sleep(plan.reading_interval);
        let readings = reading::read_all(driver, &uuids);
        positions.tell(&readings);
        store(latest, readings);
    }
}

fn take_inventory(driver: &Driver, classes: &BTreeMap<String, String>) -> Found {
    let count = driver.count().unwrap_or_else(|error| {
        tracing::error!(%error, "the driver does not say how many GPUs there are");
        0
    });
    let until = Instant::now() + FABRIC_PATIENCE;
    let gpus = (0..count).filter_map(|index| match describe(driver, index, classes, until) {
        Ok(gpu) => Some(gpu),
        Err(error) => {
            tracing::error!(index, %error, "a GPU does not answer and is left out");
            None
        }
    });
    let gpus: Vec<GpuDevice> = gpus.collect();
    let minor = |gpu: &GpuDevice| {
        let minor = driver.gpu(&gpu.uuid).and_then(|found| found.minor_number()).ok()?;
        Some((gpu.uuid.clone(), minor))
    };
    Found {
        minors: gpus.iter().filter_map(minor).collect(),
        gpus,
        driver_version: driver.driver_version().unwrap_or_default(),
        cuda_version: driver.cuda_version().unwrap_or_default(),
        double: driver.is_double(),
    }
}

/// A GPU without a UUID cannot be given to anybody; everything else may be missing.
fn describe(
    driver: &Driver,
    index: u32,
    classes: &BTreeMap<String, String>,
    until: Instant,
) -> Reading<GpuDevice> {
    let gpu = driver.gpu_at(index)?;
    let uuid = gpu.uuid()?;
    let name = gpu.name().unwrap_or_else(|_| "unknown GPU".into());
    Ok(GpuDevice {
        gpu_class: gpu_class(&name, classes),
        uuid,
        index,
        name,
        pci_bus_id: gpu.pci_bus_id().unwrap_or_default(),
        memory_mib: gpu.memory().map_or(0, |memory| memory.total_bytes / BYTES_PER_MIB),
        serial: gpu.serial().unwrap_or_default(),
        nvlink_domain: nvlink_domain(&gpu, until),
    })
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

fn store(latest: &Mutex<Latest>, readings: Vec<GpuReading>) {
    let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
    *latest = Latest { readings, at: Instant::now() };
}

/// Where GPUs were seen last.
struct Positions(BTreeMap<String, u32>);

impl Positions {
    fn of(gpus: &[GpuDevice]) -> Self {
        Self(gpus.iter().map(|gpu| (gpu.uuid.clone(), gpu.index)).collect())
    }

    /// Says once of each change that a GPU is elsewhere now. Nothing rests on positions, but people use them.
    fn tell(&mut self, readings: &[GpuReading]) {
        for reading in readings {
            let Some(now) = reading.index else {
                continue;
            };
            let before = self.0.insert(reading.uuid.clone(), now);
            if before.is_some_and(|before| before != now) {
                tracing::warn!(
                    gpu = reading.uuid,
                    before,
                    now,
                    "the driver has a GPU elsewhere now"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn plan(library: &str) -> InventoryPlan {
        InventoryPlan { nvml_library: Some(library.into()), ..Default::default() }
    }

    #[test]
    fn a_machine_without_the_library_has_no_gpus() {
        assert!(find(&plan("/nowhere/libnvidia-ml.so.1")).unwrap().is_none());
    }

    #[test]
    fn a_driver_that_fell_silent_is_an_error_of_every_gpu() {
        let at = Instant::now().checked_sub(Duration::from_secs(9)).unwrap();
        let latest = Arc::new(Mutex::new(Latest { readings: Vec::new(), at }));
        let uuids = vec!["GPU-1".to_owned()];
        let reader = Reader { latest, uuids, timeout: Duration::from_secs(1) };
        let readings = reader.latest();
        assert_eq!(readings[0].uuid, "GPU-1");
        assert!(readings[0].error.starts_with("driver_unresponsive"));
    }
}
