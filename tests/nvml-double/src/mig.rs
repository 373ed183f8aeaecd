//! Functions about the devices that a GPU is cut into.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlDeviceAttributes_t, nvmlReturn_t};

use crate::instance::{Device, INSTANCE, INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED, put};
use crate::state::MigDevice;

/// Places for devices on a GPU.
const PLACES: u32 = 7;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(
    device: nvmlDevice_t,
    place: *mut c_uint,
) -> nvmlReturn_t {
    INSTANCE.gpu("nvmlDeviceGetMaxMigDeviceCount", device, |_| put(place, PLACES))
}

/// The first place is left empty where there is one to spare, as places are when a device was taken away.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: nvmlDevice_t,
    index: c_uint,
    place: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    INSTANCE.gpu("nvmlDeviceGetMigDeviceHandleByIndex", device, |gpu| {
        if gpu.mig_mode[0] == 0 || index >= PLACES {
            return Err(NOT_FOUND);
        }
        let empty = usize::from(gpu.mig_devices.len() < PLACES as usize);
        let part = (index as usize).checked_sub(empty).and_then(|at| gpu.mig_devices.get(at));
        let uuid = &part.ok_or(NOT_FOUND)?.uuid;
        put(place, INSTANCE.lock().handle_of(uuid))
    })
}

fn of_mig(
    name: &str,
    device: nvmlDevice_t,
    otherwise: u32,
    body: impl FnOnce(&MigDevice) -> Result<(), u32>,
) -> nvmlReturn_t {
    INSTANCE.device(name, device, |device| match device {
        Device::Gpu(_) => Err(otherwise),
        Device::Mig(_, part) => body(part),
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstanceId(
    device: nvmlDevice_t,
    place: *mut c_uint,
) -> nvmlReturn_t {
    of_mig("nvmlDeviceGetGpuInstanceId", device, INVALID_ARGUMENT, |part| {
        put(place, part.gpu_instance)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeInstanceId(
    device: nvmlDevice_t,
    place: *mut c_uint,
) -> nvmlReturn_t {
    of_mig("nvmlDeviceGetComputeInstanceId", device, INVALID_ARGUMENT, |part| {
        put(place, part.compute_instance)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetAttributes_v2(
    device: nvmlDevice_t,
    place: *mut nvmlDeviceAttributes_t,
) -> nvmlReturn_t {
    of_mig("nvmlDeviceGetAttributes_v2", device, NOT_SUPPORTED, |part| {
        let attributes = nvmlDeviceAttributes_t {
            multiprocessorCount: 16 * part.slices[0],
            sharedCopyEngineCount: part.slices[0],
            sharedDecoderCount: part.slices[0],
            sharedEncoderCount: 0,
            sharedJpegCount: part.slices[0],
            sharedOfaCount: 0,
            gpuInstanceSliceCount: part.slices[0],
            computeInstanceSliceCount: part.slices[1],
            memorySizeMB: part.memory_mib,
        };
        put(place, attributes)
    })
}
