//! One look at a GPU, as it goes into heartbeats.

use gotgan_proto::v1;
use gotgan_proto::v1::{GpuProcess, GpuReading};

use super::cut::cut_of;
use super::frames::{CutSeen, Look};
use crate::nvml::{
    Code, Driver, EccSpan, Fabric, FabricHealth, FabricState, Gpu, Missing, NvLink, Process,
    ProcessKind, Reading, RecoveryAction, RemappedRows,
};

const BYTES_PER_MIB: u64 = 1 << 20;

/// One look. `lost`: waiting for events has said that the driver has lost it.
pub(super) fn look(driver: &Driver, uuid: &str, lost: bool) -> Look {
    let mut reading = GpuReading { uuid: uuid.to_owned(), ..Default::default() };
    let mut asked = Asked::default();
    let (mut compute_processes, mut cut) = (0, None);
    match driver.gpu(uuid) {
        Ok(gpu) => {
            compute_processes = fill_load(&mut reading, &gpu, &mut asked);
            fill_health(&mut reading, &gpu, &mut asked);
            cut = cut_of(&gpu);
            reading.mig_devices = cut.iter().flat_map(mig_devices).collect();
        }
        Err(Missing::Failed(Code::NOT_FOUND)) => asked.not_listed(),
        Err(missing) => drop(asked.ok::<()>(Err(missing))),
    }
    if lost {
        asked.failed(Missing::Failed(Code::GPU_IS_LOST));
    }
    reading.fault = asked.fault.into();
    reading.error = asked.error;
    Look { reading, compute_processes, cut }
}

/// Also says how many processes compute on it.
fn fill_load(reading: &mut GpuReading, gpu: &Gpu<'_>, asked: &mut Asked) -> u32 {
    reading.index = asked.ok(gpu.index());
    reading.utilisation_percent = asked.ok(gpu.utilisation()).map(|rates| rates.gpu_percent);
    let memory = asked.ok(gpu.memory());
    reading.memory_used_mib = memory.map(|memory| memory.used_bytes / BYTES_PER_MIB);
    reading.temperature_c = asked.ok(gpu.temperature_c());
    reading.power_mw = asked.ok(gpu.power_mw());
    reading.power_limit_mw = asked.ok(gpu.power_limit_enforced_mw());
    reading.energy_mj = asked.ok(gpu.energy_mj());
    reading.clock_reasons = asked.ok(gpu.clock_reasons()).map(|reasons| reasons.0);
    let processes = asked.ok(gpu.processes()).unwrap_or_default();
    reading.processes = processes.iter().map(process).collect();
    let compute = processes.iter().filter(|process| process.kind == ProcessKind::Compute);
    u32::try_from(compute.count()).unwrap_or(u32::MAX)
}

fn fill_health(reading: &mut GpuReading, gpu: &Gpu<'_>, asked: &mut Asked) {
    let errors = asked.ok(gpu.ecc_counts(EccSpan::SinceLoad));
    reading.ecc_uncorrected = errors.map(|errors| errors.uncorrected);
    reading.ecc_corrected = errors.map(|errors| errors.corrected);
    let action = asked.ok(gpu.recovery_action()).map(recovery_action);
    reading.recovery_action = action.unwrap_or_default().into();
    reading.remapped_rows = asked.ok(gpu.remapped_rows()).map(remapped_rows);
    reading.fabric = asked.ok(gpu.fabric()).and_then(|found| fabric(&found));
    let links = asked.ok(gpu.nvlinks()).unwrap_or_default();
    let (all, up) = (count(&links, |_| true), count(&links, |link| link.active));
    (reading.nvlinks, reading.nvlinks_up) = (all, all.and(up.or(Some(0))));
}

/// How many there are; none rather than zero.
fn count(links: &[NvLink], wanted: impl Fn(&NvLink) -> bool) -> Option<u32> {
    let count = links.iter().filter(|link| wanted(link)).count();
    u32::try_from(count).ok().filter(|count| *count > 0)
}

fn process(found: &Process) -> GpuProcess {
    GpuProcess {
        pid: found.pid,
        memory_mib: found.memory_bytes.map_or(0, |bytes| bytes / BYTES_PER_MIB),
        command: found.command.clone(),
    }
}

fn recovery_action(action: RecoveryAction) -> v1::GpuRecoveryAction {
    match action {
        RecoveryAction::None => v1::GpuRecoveryAction::None,
        RecoveryAction::ResetGpu => v1::GpuRecoveryAction::ResetGpu,
        RecoveryAction::RebootNode => v1::GpuRecoveryAction::RebootNode,
        RecoveryAction::DrainLinks => v1::GpuRecoveryAction::DrainLinks,
        RecoveryAction::DrainAndReset => v1::GpuRecoveryAction::DrainAndReset,
        RecoveryAction::RecoverDomain => v1::GpuRecoveryAction::RecoverDomain,
        RecoveryAction::ResetBus => v1::GpuRecoveryAction::ResetBus,
        RecoveryAction::RebootSystem => v1::GpuRecoveryAction::RebootSystem,
        RecoveryAction::Other(_) => v1::GpuRecoveryAction::Other,
    }
}

fn remapped_rows(rows: RemappedRows) -> v1::GpuRemappedRows {
    let RemappedRows { correctable, uncorrectable, pending, failed } = rows;
    v1::GpuRemappedRows { correctable, uncorrectable, pending, failed }
}

/// Its part in a fabric, if it has one.
fn fabric(found: &Fabric) -> Option<v1::GpuFabric> {
    let state = match found.state {
        FabricState::NotSupported => return None,
        FabricState::NotStarted => v1::GpuFabricState::NotStarted,
        FabricState::InProgress => v1::GpuFabricState::InProgress,
        FabricState::Completed => v1::GpuFabricState::Completed,
        FabricState::Other(_) => v1::GpuFabricState::Unspecified,
    };
    let health = match found.health {
        Some(FabricHealth::Healthy) => v1::GpuFabricHealth::Healthy,
        Some(FabricHealth::Unhealthy) => v1::GpuFabricHealth::Unhealthy,
        Some(FabricHealth::LimitedCapacity) => v1::GpuFabricHealth::LimitedCapacity,
        Some(FabricHealth::NotSupported | FabricHealth::Other(_)) | None => {
            v1::GpuFabricHealth::Unspecified
        }
    };
    Some(v1::GpuFabric {
        state: state.into(),
        nvlink_domain: found.domain().unwrap_or_default(),
        health: health.into(),
        status: found.status.0,
    })
}

fn mig_devices(seen: &CutSeen) -> Vec<v1::MigDevice> {
    let device = |instance: &v1::MigInstance| v1::MigDevice {
        uuid: instance.uuid.clone(),
        profile: instance.profile.clone(),
        gpu_instance: instance.gpu_instance,
        compute_instance: instance.compute_instance,
        memory_mib: instance.memory_mib,
    };
    seen.cut.iter().flat_map(|cut| &cut.instances).map(device).collect()
}

/// Collects the first failure that means more than "this GPU or driver has no such reading", and why the GPU is of no use.
#[derive(Default)]
struct Asked {
    error: String,
    fault: v1::GpuFault,
}

impl Asked {
    fn ok<T>(&mut self, reading: Reading<T>) -> Option<T> {
        match reading {
            Ok(value) => Some(value),
            Err(missing) => {
                self.failed(missing);
                None
            }
        }
    }

    fn failed(&mut self, missing: Missing) {
        if missing.is_fault() && self.error.is_empty() {
            self.error = missing.to_string();
        }
        match missing {
            Missing::Failed(Code::GPU_IS_LOST | Code::GPU_NOT_FOUND) => {
                self.fault = v1::GpuFault::Lost;
            }
            // One that is lost may have asked for a reset before.
            Missing::Failed(Code::RESET_REQUIRED) if self.fault != v1::GpuFault::Lost => {
                self.fault = v1::GpuFault::ResetRequired;
            }
            Missing::Failed(_) | Missing::Absent | Missing::NotSupported | Missing::Unreadable => {}
        }
    }

    fn not_listed(&mut self) {
        self.error = "the driver does not list this GPU any more".into();
        self.fault = v1::GpuFault::Lost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault_of(codes: &[Code]) -> v1::GpuFault {
        let mut asked = Asked::default();
        codes.iter().for_each(|code| asked.failed(Missing::Failed(*code)));
        asked.fault
    }

    #[test]
    fn a_gpu_is_of_no_use_where_the_driver_says_so_and_not_for_any_other_failure() {
        assert_eq!(fault_of(&[Code(999), Code::NO_PERMISSION]), v1::GpuFault::Unspecified);
        assert_eq!(fault_of(&[Code(999), Code::RESET_REQUIRED]), v1::GpuFault::ResetRequired);
        assert_eq!(fault_of(&[Code::GPU_IS_LOST, Code::RESET_REQUIRED]), v1::GpuFault::Lost);
        assert_eq!(fault_of(&[Code::RESET_REQUIRED, Code::GPU_IS_LOST]), v1::GpuFault::Lost);
    }
}
