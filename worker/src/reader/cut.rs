//! What a GPU is cut into, as its driver says.

use gotgan_proto::v1::{MigCut, MigInstance};

use super::frames::CutSeen;
use crate::nvml::{Gpu, MigDevice, Missing, Reading};

/// What the GPU is cut into now; `None` if the driver does not say.
pub(super) fn cut_of(gpu: &Gpu<'_>) -> Option<CutSeen> {
    let cut = match gpu.mig_mode() {
        Ok(mode) if mode.on => Some(instances(gpu).ok()?),
        Ok(_) | Err(Missing::NotSupported | Missing::Absent) => None,
        Err(Missing::Failed(_) | Missing::Unreadable) => return None,
    };
    Some(CutSeen { cut, minor: gpu.minor_number().ok() })
}

fn instances(gpu: &Gpu<'_>) -> Reading<MigCut> {
    let (slices, devices) = (gpu.mig_places()?, gpu.mig_devices()?);
    Ok(MigCut { slices, instances: devices.into_iter().map(instance).collect() })
}

fn instance(device: MigDevice) -> MigInstance {
    MigInstance {
        uuid: device.uuid,
        profile: device.profile,
        memory_mib: device.memory_mib,
        slices: device.compute_slices,
        gpu_instance: device.gpu_instance,
        compute_instance: device.compute_instance,
        place: device.place,
        ..MigInstance::default()
    }
}
