//! NVLinks, the fabric they make, and processes.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlGpuFabricInfo_t, nvmlGpuFabricInfo_v2_t, nvmlGpuFabricInfo_v3_t,
    nvmlProcessInfo_t, nvmlReturn_t,
};

use crate::instance::{
    INSTANCE, INSUFFICIENT_SIZE, INVALID_ARGUMENT, NOT_SUPPORTED, VERSION_MISMATCH, put,
};
use crate::state::{Fabric, NvLink, Process};

const fn version<T>(number: u32) -> u32 {
    size_of::<T>() as u32 | number << 24
}

fn cluster(fabric: &Fabric) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (place, byte) in bytes.iter_mut().enumerate() {
        let digits = fabric.cluster.get(place * 2..place * 2 + 2).unwrap_or("00");
        *byte = u8::from_str_radix(digits, 16).unwrap_or_default();
    }
    bytes
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuFabricInfo(
    device: nvmlDevice_t,
    place: *mut nvmlGpuFabricInfo_t,
) -> nvmlReturn_t {
    INSTANCE.gpu("nvmlDeviceGetGpuFabricInfo", device, |gpu| {
        let fabric = gpu.fabric.as_ref().ok_or(NOT_SUPPORTED)?;
        let (status, state) = (fabric.status, fabric.state);
        let info = nvmlGpuFabricInfo_t {
            clusterUuid: cluster(fabric),
            status,
            cliqueId: fabric.clique,
            state,
        };
        put(place, info)
    })
}

/// Answers the versions that the driver knows, and writes no byte beyond the one that was asked for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuFabricInfoV(
    device: nvmlDevice_t,
    place: *mut nvmlGpuFabricInfo_v3_t,
) -> nvmlReturn_t {
    INSTANCE.gpu("nvmlDeviceGetGpuFabricInfoV", device, |gpu| {
        if place.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        let second = place.cast::<nvmlGpuFabricInfo_v2_t>();
        // SAFETY: every version begins as the second does.
        let second = unsafe { &mut *second };
        let known = match second.version {
            version if version == self::version::<nvmlGpuFabricInfo_v2_t>(2) => 2,
            version if version == self::version::<nvmlGpuFabricInfo_v3_t>(3) => 3,
            _ => return Err(VERSION_MISMATCH),
        };
        if known > gpu.fabric_version {
            return Err(VERSION_MISMATCH);
        }
        // Member by member: what lies between them stays as the caller has it.
        let fabric = gpu.fabric.clone().unwrap_or_else(Fabric::none);
        second.clusterUuid = cluster(&fabric);
        second.status = fabric.status;
        second.cliqueId = fabric.clique;
        second.state = fabric.state;
        second.healthMask = fabric.health_mask;
        if known == 3 {
            // SAFETY: whoever asks for the third version has room for it.
            unsafe { (*place).healthSummary = fabric.health };
        }
        Ok(())
    })
}

fn link(links: &[NvLink], number: u32) -> Result<&NvLink, u32> {
    match links.get(number as usize) {
        Some(link) => Ok(link),
        None if links.is_empty() => Err(NOT_SUPPORTED),
        None => Err(INVALID_ARGUMENT),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkState(
    device: nvmlDevice_t,
    number: c_uint,
    place: *mut c_uint,
) -> nvmlReturn_t {
    INSTANCE.gpu("nvmlDeviceGetNvLinkState", device, |gpu| {
        put(place, u32::from(link(&gpu.nvlinks, number)?.active))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkErrorCounter(
    device: nvmlDevice_t,
    number: c_uint,
    counter: c_uint,
    place: *mut u64,
) -> nvmlReturn_t {
    INSTANCE.gpu("nvmlDeviceGetNvLinkErrorCounter", device, |gpu| {
        let errors = link(&gpu.nvlinks, number)?.errors;
        put(place, *errors.get(counter as usize).ok_or(INVALID_ARGUMENT)?)
    })
}

/// With `processes_grow` there are more at every call than at the one before, as on a busy machine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: nvmlDevice_t,
    count: *mut c_uint,
    places: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    let name = "nvmlDeviceGetComputeRunningProcesses_v3";
    INSTANCE.gpu(name, device, |gpu| {
        let more = INSTANCE.calls_of(name).saturating_sub(1) * u64::from(gpu.processes_grow);
        let begun = (0..more).map(|number| Process {
            pid: 100_000 + u32::try_from(number).unwrap_or_default(),
            memory_bytes: None,
            gpu_instance: None,
            compute_instance: None,
        });
        let all: Vec<Process> = gpu.processes.iter().cloned().chain(begun).collect();
        list(&all, count, places)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v3(
    device: nvmlDevice_t,
    count: *mut c_uint,
    places: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    INSTANCE.gpu("nvmlDeviceGetGraphicsRunningProcesses_v3", device, |_| list(&[], count, places))
}

fn list(
    processes: &[Process],
    count: *mut c_uint,
    places: *mut nvmlProcessInfo_t,
) -> Result<(), u32> {
    if count.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: the caller says in it how many entries there is room for.
    let room = unsafe { count.read() } as usize;
    put(count, u32::try_from(processes.len()).unwrap_or(u32::MAX))?;
    if processes.len() > room {
        return Err(INSUFFICIENT_SIZE);
    }
    for (place, process) in processes.iter().enumerate() {
        let info = nvmlProcessInfo_t {
            pid: process.pid,
            usedGpuMemory: process.memory_bytes.unwrap_or(u64::MAX),
            gpuInstanceId: process.gpu_instance.unwrap_or(u32::MAX),
            computeInstanceId: process.compute_instance.unwrap_or(u32::MAX),
        };
        // SAFETY: there is room for so many entries.
        put(unsafe { places.add(place) }, info)?;
    }
    Ok(())
}
