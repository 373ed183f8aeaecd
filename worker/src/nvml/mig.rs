//! MIG: a GPU cut into devices of their own.

use std::ptr;

use nvml_wrapper_sys::bindings::nvmlDeviceAttributes_t;
use serde::Serialize;

use super::answer::{Code, Missing, Reading};
use super::calls;
use super::driver::Gpu;
use super::identity::Switch;

/// Whether a GPU is cut, now and after the next reset.
pub type MigMode = Switch;

/// One device that a GPU is cut into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MigDevice {
    /// What it is called everywhere, as in "MIG-…".
    pub uuid: String,
    /// Slices and memory, as in "3g.40gb".
    pub profile: String,
    /// Its GPU instance: what has memory of its own.
    pub gpu_instance: u32,
    /// Its compute instance within that.
    pub compute_instance: u32,
    /// Its memory.
    pub memory_mib: u64,
    /// Compute slices of its compute instance.
    pub compute_slices: u32,
    /// Its place among those of its GPU, from 0.
    pub place: u32,
}

impl<'driver> Gpu<'driver> {
    /// Whether it is cut.
    pub fn mig_mode(&self) -> Reading<MigMode> {
        let (now, next): (u32, u32) =
            calls::two(&self.library().nvmlDeviceGetMigMode, self.handle)?;
        Ok(Switch { on: now != 0, on_after_reset: next != 0 })
    }

    /// Most devices that it can be cut into: its compute slices.
    pub fn mig_places(&self) -> Reading<u32> {
        calls::value(&self.library().nvmlDeviceGetMaxMigDeviceCount, self.handle)
    }

    /// The devices that it is cut into; places without one are passed over.
    pub fn mig_devices(&self) -> Reading<Vec<MigDevice>> {
        let mut devices = Vec::new();
        for place in 0..self.mig_places()? {
            match self.mig_device_at(place) {
                Ok(device) => devices.push(device.described(place)?),
                Err(Missing::Failed(Code::NOT_FOUND | Code::INVALID_ARGUMENT)) => {}
                Err(missing) => return Err(missing),
            }
        }
        Ok(devices)
    }

    fn mig_device_at(&self, place: u32) -> Reading<Gpu<'driver>> {
        let function = calls::found(&self.library().nvmlDeviceGetMigDeviceHandleByIndex)?;
        let mut handle = ptr::null_mut();
        // SAFETY: takes a number, writes one handle.
        let code = Code(unsafe { function(self.handle, place, &raw mut handle) });
        code.gives(Gpu { driver: self.driver, handle })
    }

    /// What a MIG device is. Asked of the device, not of the GPU it is cut from.
    fn described(&self, place: u32) -> Reading<MigDevice> {
        let library = self.library();
        let attributes = self.attributes()?;
        Ok(MigDevice {
            uuid: self.uuid()?,
            profile: profile(&self.name().unwrap_or_default(), &attributes),
            gpu_instance: calls::value(&library.nvmlDeviceGetGpuInstanceId, self.handle)?,
            compute_instance: calls::value(&library.nvmlDeviceGetComputeInstanceId, self.handle)?,
            memory_mib: attributes.memorySizeMB,
            compute_slices: attributes.computeInstanceSliceCount,
            place,
        })
    }

    fn attributes(&self) -> Reading<nvmlDeviceAttributes_t> {
        let initial = nvmlDeviceAttributes_t {
            multiprocessorCount: 0,
            sharedCopyEngineCount: 0,
            sharedDecoderCount: 0,
            sharedEncoderCount: 0,
            sharedJpegCount: 0,
            sharedOfaCount: 0,
            gpuInstanceSliceCount: 0,
            computeInstanceSliceCount: 0,
            memorySizeMB: 0,
        };
        calls::fill(&self.library().nvmlDeviceGetAttributes_v2, self.handle, initial)
    }
}

/// As the driver has it at the end of the name; else from what the device consists of.
fn profile(name: &str, attributes: &nvmlDeviceAttributes_t) -> String {
    if let Some((_, profile)) = name.rsplit_once("MIG ") {
        return profile.to_owned();
    }
    let (whole, part) = (attributes.gpuInstanceSliceCount, attributes.computeInstanceSliceCount);
    let share = if part == whole { String::new() } else { format!("{part}c.") };
    // The driver rounds up: what it holds back itself is not in the size.
    format!("{share}{whole}g.{}gb", attributes.memorySizeMB.div_ceil(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(whole: u32, part: u32, memory: u64) -> nvmlDeviceAttributes_t {
        nvmlDeviceAttributes_t {
            multiprocessorCount: 0,
            sharedCopyEngineCount: 0,
            sharedDecoderCount: 0,
            sharedEncoderCount: 0,
            sharedJpegCount: 0,
            sharedOfaCount: 0,
            gpuInstanceSliceCount: whole,
            computeInstanceSliceCount: part,
            memorySizeMB: memory,
        }
    }

    #[test]
    fn a_profile_is_the_end_of_the_name() {
        let name = "NVIDIA H100 80GB HBM3 MIG 3g.40gb";
        assert_eq!(profile(name, &attributes(1, 1, 1)), "3g.40gb");
    }

    #[test]
    fn without_a_name_a_profile_is_made_of_slices_and_memory() {
        assert_eq!(profile("", &attributes(3, 3, 40_448)), "3g.40gb");
        assert_eq!(profile("NVIDIA H100", &attributes(3, 1, 40_448)), "1c.3g.40gb");
    }
}
