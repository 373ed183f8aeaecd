//! Power limits: what is set is kept in a file, for all processes, as a driver keeps it until it is unloaded.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use crate::instance::{INSTANCE, INVALID_ARGUMENT, put};
use crate::state::Gpu;

fn limit(gpu: &Gpu) -> u32 {
    INSTANCE.limits().get(&gpu.uuid).copied().unwrap_or(gpu.power_limit_mw)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPowerManagementLimit(
    device: nvmlDevice_t,
    place: *mut c_uint,
) -> nvmlReturn_t {
    INSTANCE.gpu("nvmlDeviceGetPowerManagementLimit", device, |gpu| put(place, limit(gpu)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetEnforcedPowerLimit(
    device: nvmlDevice_t,
    place: *mut c_uint,
) -> nvmlReturn_t {
    INSTANCE.gpu("nvmlDeviceGetEnforcedPowerLimit", device, |gpu| {
        put(place, gpu.power_limit_enforced_mw.unwrap_or(u32::MAX).min(limit(gpu)))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceSetPowerManagementLimit(
    device: nvmlDevice_t,
    wanted: c_uint,
) -> nvmlReturn_t {
    INSTANCE.gpu("nvmlDeviceSetPowerManagementLimit", device, |gpu| {
        let [least, most] = gpu.power_range_mw;
        if !(least..=most).contains(&wanted) {
            return Err(INVALID_ARGUMENT);
        }
        let set = wanted.next_multiple_of(gpu.power_step_mw.max(1));
        INSTANCE.set_limit(&gpu.uuid, set)
    })
}
