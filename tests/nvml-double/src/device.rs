//! Functions about a GPU: what it is, what it does, whether it is sound.

use std::ffi::{c_char, c_int, c_uint, c_ulong, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlFieldValue_t, nvmlMemory_t, nvmlMemory_v2_t, nvmlPciInfo_t, nvmlReturn_t,
    nvmlRowRemapperHistogramValues_t, nvmlUtilization_t, nvmlValue_t,
};

use crate::instance::{
    Device, Done, INSTANCE, INVALID_ARGUMENT, NOT_SUPPORTED, VERSION_MISMATCH, put, put_text,
};
use crate::state::Gpu;

/// Functions that write one value about a whole GPU.
macro_rules! values {
    ($($symbol:ident($type:ty) = $value:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $symbol(device: nvmlDevice_t, place: *mut $type) -> nvmlReturn_t {
            let value: fn(&Gpu) -> Result<$type, u32> = $value;
            INSTANCE.gpu(stringify!($symbol), device, |gpu| put(place, value(gpu)?))
        }
    )*};
}

/// Functions that write two values about a whole GPU.
macro_rules! pairs {
    ($($symbol:ident = $value:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $symbol(
            device: nvmlDevice_t,
            first: *mut c_uint,
            second: *mut c_uint,
        ) -> nvmlReturn_t {
            let value: fn(&Gpu) -> [u32; 2] = $value;
            INSTANCE.gpu(stringify!($symbol), device, |gpu| {
                put(first, value(gpu)[0])?;
                put(second, value(gpu)[1])
            })
        }
    )*};
}

/// Functions that write text about a GPU or a MIG device.
macro_rules! texts {
    ($($symbol:ident = $gpu:expr, $mig:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $symbol(
            device: nvmlDevice_t,
            place: *mut c_char,
            length: c_uint,
        ) -> nvmlReturn_t {
            let of_gpu: fn(&Gpu) -> String = $gpu;
            let of_mig: fn(&Gpu, &crate::state::MigDevice) -> Result<String, u32> = $mig;
            INSTANCE.device(stringify!($symbol), device, |device| match device {
                Device::Gpu(gpu) => put_text(place, length, &of_gpu(gpu)),
                Device::Mig(gpu, part) => put_text(place, length, &of_mig(gpu, part)?),
            })
        }
    )*};
}

texts! {
    nvmlDeviceGetUUID = |gpu| gpu.uuid.clone(), |_, part| Ok(part.uuid.clone());
    nvmlDeviceGetName = |gpu| gpu.name.clone(),
        |gpu, part| Ok(format!("{} MIG {}", gpu.name, part.profile));
    nvmlDeviceGetSerial = |gpu| gpu.serial.clone(), |_, _| Err(INVALID_ARGUMENT);
    nvmlDeviceGetVbiosVersion = |gpu| gpu.vbios_version.clone(), |_, _| Err(INVALID_ARGUMENT);
    nvmlDeviceGetBoardPartNumber = |gpu| gpu.board_part_number.clone(),
        |_, _| Err(INVALID_ARGUMENT);
}

pairs! {
    nvmlDeviceGetEccMode = |gpu| gpu.ecc_mode;
    nvmlDeviceGetMigMode = |gpu| gpu.mig_mode;
    nvmlDeviceGetPowerManagementLimitConstraints = |gpu| gpu.power_range_mw;
}

values! {
    nvmlDeviceGetIndex(c_uint) = index;
    nvmlDeviceGetMinorNumber(c_uint) = |gpu| Ok(gpu.minor_number);
    nvmlDeviceGetPciInfo_v3(nvmlPciInfo_t) = |gpu| Ok(pci(gpu));
    nvmlDeviceGetMemoryInfo(nvmlMemory_t) = |gpu| Ok(memory(gpu));
    nvmlDeviceGetComputeMode(c_uint) = |gpu| Ok(gpu.compute_mode);
    nvmlDeviceGetPersistenceMode(c_uint) = |gpu| Ok(gpu.persistence_mode);
    nvmlDeviceGetNumaNodeId(c_uint) = |gpu| gpu.numa_node.ok_or(NOT_SUPPORTED);
    nvmlDeviceGetUtilizationRates(nvmlUtilization_t) = utilisation;
    nvmlDeviceGetCurrentClocksEventReasons(c_ulonglong) = |gpu| Ok(gpu.clock_reasons);
    nvmlDeviceGetCurrentClocksThrottleReasons(c_ulonglong) = |gpu| Ok(gpu.clock_reasons);
    nvmlDeviceGetPowerUsage(c_uint) = |gpu| Ok(gpu.power_mw);
    nvmlDeviceGetPowerManagementDefaultLimit(c_uint) = |gpu| Ok(gpu.power_limit_default_mw);
    nvmlDeviceGetTotalEnergyConsumption(c_ulonglong) = |gpu| Ok(gpu.energy_mj);
    nvmlDeviceGetRowRemapperHistogram(nvmlRowRemapperHistogramValues_t) = |gpu| Ok(rows(gpu));
    nvmlDeviceGetCurrPcieLinkGeneration(c_uint) = |gpu| Ok(gpu.pcie[0]);
    nvmlDeviceGetMaxPcieLinkGeneration(c_uint) = |gpu| Ok(gpu.pcie[1]);
    nvmlDeviceGetCurrPcieLinkWidth(c_uint) = |gpu| Ok(gpu.pcie[2]);
    nvmlDeviceGetMaxPcieLinkWidth(c_uint) = |gpu| Ok(gpu.pcie[3]);
    nvmlDeviceGetSupportedEventTypes(c_ulonglong) = |gpu| Ok(gpu.event_kinds);
}

fn index(gpu: &Gpu) -> Result<u32, u32> {
    INSTANCE.index_of(&gpu.uuid).ok_or(INVALID_ARGUMENT)
}

fn pci(gpu: &Gpu) -> nvmlPciInfo_t {
    let mut bus_id = [0; 32];
    for (place, byte) in bus_id.iter_mut().zip(gpu.pci_bus_id.bytes().take(31)) {
        *place = byte.cast_signed();
    }
    let parts: Vec<u32> = gpu
        .pci_bus_id
        .split([':', '.'])
        .map(|part| u32::from_str_radix(part, 16).unwrap_or_default())
        .collect();
    let part = |place: usize| parts.get(place).copied().unwrap_or_default();
    nvmlPciInfo_t {
        busIdLegacy: [0; 16],
        domain: part(0),
        bus: part(1),
        device: part(2),
        pciDeviceId: 0x2330_10de,
        pciSubSystemId: 0x16c1_10de,
        busId: bus_id,
    }
}

/// The older form: what the driver holds counts as used.
fn memory(gpu: &Gpu) -> nvmlMemory_t {
    let used = gpu.memory_used_bytes + gpu.memory_reserved_bytes;
    nvmlMemory_t { total: gpu.memory_total_bytes, free: gpu.memory_total_bytes - used, used }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    device: nvmlDevice_t,
    place: *mut nvmlMemory_v2_t,
) -> nvmlReturn_t {
    INSTANCE.gpu("nvmlDeviceGetMemoryInfo_v2", device, |gpu| {
        let version = size_of::<nvmlMemory_v2_t>() as u32 | 2 << 24;
        // SAFETY: the caller promises a whole structure.
        if place.is_null() || unsafe { (*place).version } != version {
            return Err(VERSION_MISMATCH);
        }
        let (used, reserved) = (gpu.memory_used_bytes, gpu.memory_reserved_bytes);
        let total = gpu.memory_total_bytes;
        put(
            place,
            nvmlMemory_v2_t { version, total, reserved, free: total - used - reserved, used },
        )
    })
}

/// A GPU that is cut does not say how busy it is.
fn utilisation(gpu: &Gpu) -> Result<nvmlUtilization_t, u32> {
    if gpu.mig_mode[0] != 0 {
        return Err(NOT_SUPPORTED);
    }
    Ok(nvmlUtilization_t { gpu: gpu.utilisation_percent, memory: gpu.memory_utilisation_percent })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(
    device: nvmlDevice_t,
    sensor: c_uint,
    place: *mut c_uint,
) -> nvmlReturn_t {
    INSTANCE.gpu("nvmlDeviceGetTemperature", device, |gpu| match sensor {
        0 => put(place, gpu.temperature_c),
        _ => Err(INVALID_ARGUMENT),
    })
}

fn rows(gpu: &Gpu) -> nvmlRowRemapperHistogramValues_t {
    let [max, high, partial, low, none] = gpu.row_histogram;
    nvmlRowRemapperHistogramValues_t { max, high, partial, low, none }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetRemappedRows(
    device: nvmlDevice_t,
    correctable: *mut c_uint,
    uncorrectable: *mut c_uint,
    pending: *mut c_uint,
    failed: *mut c_uint,
) -> nvmlReturn_t {
    INSTANCE.gpu("nvmlDeviceGetRemappedRows", device, |gpu| {
        let places = [correctable, uncorrectable, pending, failed];
        places.into_iter().zip(gpu.remapped_rows).try_for_each(|(place, value)| put(place, value))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: nvmlDevice_t,
    kind: c_uint,
    counter: c_uint,
    place: *mut c_ulonglong,
) -> nvmlReturn_t {
    INSTANCE.gpu("nvmlDeviceGetTotalEccErrors", device, |gpu| {
        let counts = match counter {
            0 => gpu.ecc_since_load,
            1 => gpu.ecc_lifetime,
            _ => return Err(INVALID_ARGUMENT),
        };
        put(place, *counts.get(kind as usize).ok_or(INVALID_ARGUMENT)?)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCpuAffinity(
    device: nvmlDevice_t,
    words: c_uint,
    place: *mut c_ulong,
) -> nvmlReturn_t {
    INSTANCE.gpu("nvmlDeviceGetCpuAffinity", device, |gpu| {
        for word in 0..words as usize {
            let value = if word == 0 { gpu.near_cpus } else { 0 };
            // SAFETY: the caller promises room for so many words.
            put(unsafe { place.add(word) }, value)?;
        }
        Ok(())
    })
}

/// Fields that are known; others are answered as invalid, each by itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: nvmlDevice_t,
    count: c_int,
    values: *mut nvmlFieldValue_t,
) -> nvmlReturn_t {
    INSTANCE.gpu("nvmlDeviceGetFieldValues", device, |gpu| {
        for place in 0..usize::try_from(count).unwrap_or_default() {
            // SAFETY: the caller promises so many entries.
            field(gpu, unsafe { &mut *values.add(place) })?;
        }
        Ok(())
    })
}

fn field(gpu: &Gpu, entry: &mut nvmlFieldValue_t) -> Done {
    let (known, value) = match entry.fieldId {
        186 => (true, gpu.power_mw),
        230 => (true, gpu.recovery_action),
        _ => (false, 0),
    };
    entry.nvmlReturn = if known { 0 } else { INVALID_ARGUMENT };
    entry.valueType = 1;
    entry.value = nvmlValue_t { uiVal: value };
    Ok(())
}
