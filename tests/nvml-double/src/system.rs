//! Functions of the whole system: start and end, versions, and finding GPUs.

use std::ffi::{CStr, c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use crate::instance::{
    Device, GPU_IS_LOST, INSTANCE, INVALID_ARGUMENT, NOT_FOUND, find, put, put_text,
};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    INSTANCE.system("nvmlInit_v2", |_| {
        INSTANCE.lock().start();
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> nvmlReturn_t {
    INSTANCE.system("nvmlInitWithFlags", |_| {
        INSTANCE.lock().start();
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    INSTANCE.system("nvmlShutdown", |_| {
        INSTANCE.lock().stop();
        Ok(())
    })
}

/// What a code means is for the caller to know.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlErrorString(_code: nvmlReturn_t) -> *const c_char {
    c"a code of the nvml-double".as_ptr()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(
    text: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    INSTANCE
        .system("nvmlSystemGetDriverVersion", |state| put_text(text, length, &state.driver_version))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetNVMLVersion(
    text: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    INSTANCE
        .system("nvmlSystemGetNVMLVersion", |state| put_text(text, length, &state.library_version))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> nvmlReturn_t {
    INSTANCE.system("nvmlSystemGetCudaDriverVersion_v2", |state| put(version, state.cuda_version))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetProcessName(
    pid: c_uint,
    text: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    INSTANCE.system("nvmlSystemGetProcessName", |state| {
        put_text(text, length, state.commands.get(&pid).ok_or(NOT_FOUND)?)
    })
}

/// GPUs that are lost count until the next start.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> nvmlReturn_t {
    INSTANCE.system("nvmlDeviceGetCount_v2", |_| {
        let counted = INSTANCE.lock().counted.len();
        put(count, u32::try_from(counted).unwrap_or(u32::MAX))
    })
}

/// By the order in the file now; a test shifts positions by writing them in another order.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(
    index: c_uint,
    handle: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    INSTANCE.system("nvmlDeviceGetHandleByIndex_v2", |state| {
        let mut shared = INSTANCE.lock();
        let counted = &shared.counted;
        let mut order = state.gpus.iter().filter(|gpu| counted.contains(&gpu.uuid));
        let gpu = order.nth(index as usize).ok_or(INVALID_ARGUMENT)?;
        if gpu.lost || gpu.gone {
            return Err(GPU_IS_LOST);
        }
        put(handle, shared.handle_of(&gpu.uuid))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByUUID(
    uuid: *const c_char,
    handle: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    INSTANCE.system("nvmlDeviceGetHandleByUUID", |state| {
        if uuid.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: the caller promises text with a final zero.
        let uuid = unsafe { CStr::from_ptr(uuid) }.to_string_lossy();
        let (Device::Gpu(gpu) | Device::Mig(gpu, _)) = find(state, &uuid).ok_or(NOT_FOUND)?;
        if gpu.lost || gpu.gone {
            return Err(GPU_IS_LOST);
        }
        put(handle, INSTANCE.lock().handle_of(&uuid))
    })
}
