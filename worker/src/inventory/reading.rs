//! One look at a GPU, as it goes into heartbeats.

use gotgan_proto::v1;
use gotgan_proto::v1::{GpuProcess, GpuReading};

use crate::nvml::{
    Driver, EccSpan, Fabric, FabricHealth, FabricState, Gpu, MigDevice, NvLink, Process, Reading,
    RecoveryAction, RemappedRows,
};

const BYTES_PER_MIB: u64 = 1 << 20;

/// Looks at all of them.
pub(super) fn read_all(driver: &Driver, uuids: &[String]) -> Vec<GpuReading> {
    uuids.iter().map(|uuid| read(driver, uuid)).collect()
}

fn read(driver: &Driver, uuid: &str) -> GpuReading {
    let mut reading = GpuReading { uuid: uuid.to_owned(), ..Default::default() };
    match driver.gpu(uuid) {
        Ok(gpu) => {
            let mut asked = Asked { error: String::new() };
            fill_load(&mut reading, &gpu, &mut asked);
            fill_health(&mut reading, &gpu, &mut asked);
            reading.error = asked.error;
        }
        Err(error) => reading.error = error.to_string(),
    }
    reading
}

fn fill_load(reading: &mut GpuReading, gpu: &Gpu<'_>, asked: &mut Asked) {
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
}

fn fill_health(reading: &mut GpuReading, gpu: &Gpu<'_>, asked: &mut Asked) {
    let errors = asked.ok(gpu.ecc_counts(EccSpan::SinceLoad));
    reading.ecc_uncorrected = errors.map(|errors| errors.uncorrected);
    reading.ecc_corrected = errors.map(|errors| errors.corrected);
    let action = asked.ok(gpu.recovery_action()).map(recovery_action);
    reading.recovery_action = action.unwrap_or_default().into();
    reading.remapped_rows = asked.ok(gpu.remapped_rows()).map(remapped_rows);
    reading.fabric = asked.ok(gpu.fabric()).and_then(|found| fabric(&found));
    let devices = asked.ok(gpu.mig_devices()).unwrap_or_default();
    reading.mig_devices = devices.into_iter().map(mig_device).collect();
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

fn mig_device(device: MigDevice) -> v1::MigDevice {
    let MigDevice { uuid, profile, gpu_instance, compute_instance, memory_mib } = device;
    v1::MigDevice { uuid, profile, gpu_instance, compute_instance, memory_mib }
}

/// Collects the first failure that means more than "this GPU or driver has no such reading".
struct Asked {
    error: String,
}

impl Asked {
    fn ok<T>(&mut self, reading: Reading<T>) -> Option<T> {
        let missing = match reading {
            Ok(value) => return Some(value),
            Err(missing) => missing,
        };
        if missing.is_fault() && self.error.is_empty() {
            self.error = missing.to_string();
        }
        None
    }
}
