//! GPUs as NVIDIA's driver tells of them, through its library, opened at run time.
//!
//! All calls are made on one thread of their own: a call that hangs in the driver then costs readings, not
//! heartbeats. What one GPU or one symbol fails to answer is absent from that reading; nothing here panics on a code
//! it does not know. GPUs are told apart by UUID only: their order may change.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gotgan_proto::v1::{GpuDevice, GpuProcess, GpuReading};
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::classes::gpu_class;
use super::{InventoryError, InventoryPlan};

/// The driver's first answer may take long on a machine that has just booted, with many GPUs.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(60);
const BYTES_PER_MIB: u64 = 1 << 20;

/// What the driver says once.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// GPUs, in the driver's order.
    pub gpus: Vec<GpuDevice>,
    /// As in "580.65.06".
    pub driver_version: String,
    /// As in "12.8".
    pub cuda_version: String,
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
        let error = format!("the driver has not answered for {} s", age.as_secs());
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
    let nvml = match open(plan.nvml_library.as_deref()) {
        Ok(nvml) => nvml,
        Err(error) => {
            tracing::info!(%error, "no NVIDIA driver: this node has no GPUs");
            // The receiver waits for exactly this.
            let _ = answer.send(None);
            return;
        }
    };
    let found = take_inventory(nvml, &plan.gpu_classes);
    let uuids: Vec<String> = found.gpus.iter().map(|gpu| gpu.uuid.clone()).collect();
    store(latest, read_all(nvml, &uuids));
    if answer.send(Some(found)).is_err() || uuids.is_empty() {
        return;
    }
    loop {
        std::thread::sleep(plan.reading_interval);
        store(latest, read_all(nvml, &uuids));
    }
}

/// Leaked: devices borrow it for as long as the process lives, and shutting it down may hang.
fn open(library: Option<&str>) -> Result<&'static Nvml, NvmlError> {
    let nvml = match library {
        Some(path) => Nvml::builder().lib_path(OsStr::new(path)).init()?,
        None => Nvml::init()?,
    };
    Ok(Box::leak(Box::new(nvml)))
}

fn take_inventory(nvml: &Nvml, classes: &BTreeMap<String, String>) -> Found {
    let count = nvml.device_count().unwrap_or_else(|error| {
        tracing::error!(%error, "the driver does not say how many GPUs there are");
        0
    });
    let gpus = (0..count).filter_map(|index| match describe(nvml, index, classes) {
        Ok(gpu) => Some(gpu),
        Err(error) => {
            tracing::error!(index, %error, "a GPU does not answer and is left out");
            None
        }
    });
    Found {
        gpus: gpus.collect(),
        driver_version: nvml.sys_driver_version().unwrap_or_default(),
        cuda_version: nvml.sys_cuda_driver_version().map(cuda_version).unwrap_or_default(),
    }
}

/// A GPU without a UUID cannot be given to anybody; everything else may be missing.
fn describe(
    nvml: &Nvml,
    index: u32,
    classes: &BTreeMap<String, String>,
) -> Result<GpuDevice, NvmlError> {
    let device = nvml.device_by_index(index)?;
    let uuid = device.uuid()?;
    let name = device.name().unwrap_or_else(|_| "unknown GPU".into());
    Ok(GpuDevice {
        gpu_class: gpu_class(&name, classes),
        uuid,
        index,
        name,
        pci_bus_id: device.pci_info().map(|pci| pci.bus_id).unwrap_or_default(),
        memory_mib: device.memory_info().map_or(0, |memory| memory.total / BYTES_PER_MIB),
    })
}

fn read_all(nvml: &Nvml, uuids: &[String]) -> Vec<GpuReading> {
    uuids.iter().map(|uuid| read(nvml, uuid)).collect()
}

fn read(nvml: &Nvml, uuid: &str) -> GpuReading {
    let mut reading = GpuReading { uuid: uuid.to_owned(), ..Default::default() };
    match nvml.device_by_uuid(uuid) {
        Ok(device) => fill(&mut reading, &device),
        Err(error) => reading.error = error.to_string(),
    }
    reading
}

fn fill(reading: &mut GpuReading, device: &Device<'_>) {
    let mut asked = Asked { error: String::new() };
    reading.utilisation_percent = asked.ok(device.utilization_rates()).map(|rates| rates.gpu);
    let memory = asked.ok(device.memory_info());
    reading.memory_used_mib = memory.map(|memory| memory.used / BYTES_PER_MIB);
    reading.temperature_c = asked.ok(device.temperature(TemperatureSensor::Gpu));
    reading.power_mw = asked.ok(device.power_usage());
    reading.power_limit_mw = asked.ok(device.enforced_power_limit());
    let mut errors = |kind| asked.ok(device.total_ecc_errors(kind, EccCounter::Volatile));
    reading.ecc_uncorrected = errors(MemoryError::Uncorrected);
    reading.ecc_corrected = errors(MemoryError::Corrected);
    let processes = asked.ok(device.running_compute_processes()).unwrap_or_default();
    reading.processes = processes
        .into_iter()
        .map(|process| GpuProcess {
            pid: process.pid,
            memory_mib: match process.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => bytes / BYTES_PER_MIB,
                UsedGpuMemory::Unavailable => 0,
            },
        })
        .collect();
    reading.error = asked.error;
}

/// Collects the first failure that means more than "this GPU or driver has no such reading".
struct Asked {
    error: String,
}

impl Asked {
    fn ok<T>(&mut self, result: Result<T, NvmlError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => None,
            Err(error) => {
                if self.error.is_empty() {
                    self.error = error.to_string();
                }
                None
            }
        }
    }
}

fn store(latest: &Mutex<Latest>, readings: Vec<GpuReading>) {
    let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
    *latest = Latest { readings, at: Instant::now() };
}

fn cuda_version(code: i32) -> String {
    format!("{}.{}", code / 1000, code % 1000 / 10)
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
        assert!(readings[0].error.contains("not answered"));
    }

    #[test]
    fn versions_of_cuda_are_read_as_people_write_them() {
        assert_eq!(cuda_version(12080), "12.8");
        assert_eq!(cuda_version(13000), "13.0");
    }
}
