//! How hardware stands, what workers see of it, and back.

use std::collections::BTreeSet;

use gotgan_core::amount::UnixMicros;
use gotgan_core::health::{
    Condition, GpuHealth, GpuLook, Journal, Repair, Signal, Standing, State,
};
use gotgan_core::ids::{AttemptId, GpuUuid, JobId, NodeName};
use gotgan_core::lifecycle::{Check, Checked, Finding};
use gotgan_proto::v1;

/// What counts beside how hardware stands.
#[derive(Debug, Clone, Copy)]
pub struct Beside {
    /// Something runs on it.
    pub is_busy: bool,
    /// Its site checks it before it comes back.
    pub has_check: bool,
}

/// How a GPU stands; of one about which there is nothing to say, that it is sound.
#[must_use]
pub fn gpu(health: Option<&GpuHealth>, beside: Beside) -> v1::HardwareHealth {
    let Some(health) = health else { return standing(&Standing::default(), beside) };
    let conditions = health.conditions.keys().map(|condition| condition.word().to_owned());
    v1::HardwareHealth { conditions: conditions.collect(), ..standing(&health.standing, beside) }
}

/// How hardware stands.
#[must_use]
pub fn standing(standing: &Standing, beside: Beside) -> v1::HardwareHealth {
    let Standing { state, since, signal, reason, passed: _ } = standing;
    let (shown, repair, held_back) = match state {
        State::Ok => (v1::HealthState::Ok, None, false),
        State::Suspect { repair, held_back } => (v1::HealthState::Suspect, *repair, *held_back),
        State::Out { repair } if beside.is_busy => {
            (v1::HealthState::Draining, Some(*repair), false)
        }
        State::Out { repair } => (v1::HealthState::Out, Some(*repair), false),
        State::Verifying => (v1::HealthState::Verifying, None, false),
    };
    v1::HardwareHealth {
        state: shown.into(),
        since_us: since.0,
        reason: reason.clone(),
        repair: repair.map(Repair::word).unwrap_or_default().to_owned(),
        signal: signal.map(|signal| signal.to_string()).unwrap_or_default(),
        held_back,
        conditions: Vec::new(),
        check_awaited: beside.has_check && standing.is_unchecked(),
    }
}

/// What lasts on the GPUs of a node, by its readings; of a UUID that is none, nothing.
#[must_use]
pub fn looks(readings: &[v1::GpuReading]) -> Vec<GpuLook> {
    let look = |reading: &v1::GpuReading| {
        let uuid = GpuUuid::new(&reading.uuid).ok()?;
        Some(GpuLook { uuid, conditions: conditions(reading) })
    };
    readings.iter().filter_map(look).collect()
}

/// Everything about a reading that is not as it should be. What a reading does not say is taken to be well.
fn conditions(reading: &v1::GpuReading) -> BTreeSet<Condition> {
    let rows = reading.remapped_rows.unwrap_or_default();
    let reasons = reading.clock_reasons.unwrap_or_default();
    let slowed = |reason: v1::GpuClockReason| reasons & u64::from(reason as u32) != 0;
    let links_down = reading.nvlinks.zip(reading.nvlinks_up).is_some_and(|(all, up)| up < all);
    let found = [
        (rows.pending, Condition::RemapPending),
        (rows.failed, Condition::RemapFailed),
        (links_down, Condition::LinksDown),
        (slowed(v1::GpuClockReason::HardwareThermal), Condition::ThermalSlowdown),
        (slowed(v1::GpuClockReason::PowerBrake), Condition::PowerBrake),
        (reading.leftover_processes, Condition::LeftoverProcesses),
    ];
    let found = found.into_iter().filter_map(|(is, condition)| is.then_some(condition));
    found.chain(fault(reading)).chain(recovery(reading)).chain(fabric(reading)).collect()
}

fn fault(reading: &v1::GpuReading) -> Option<Condition> {
    match reading.fault() {
        v1::GpuFault::Unspecified => None,
        v1::GpuFault::Lost => Some(Condition::Lost),
        v1::GpuFault::ResetRequired => Some(Condition::ResetRequired),
        v1::GpuFault::Unresponsive => Some(Condition::Unresponsive),
    }
}

fn recovery(reading: &v1::GpuReading) -> Option<Condition> {
    match reading.recovery_action() {
        v1::GpuRecoveryAction::Unspecified | v1::GpuRecoveryAction::None => None,
        v1::GpuRecoveryAction::ResetGpu => Some(Condition::RecoverByReset),
        v1::GpuRecoveryAction::RebootNode => Some(Condition::RecoverByReboot),
        v1::GpuRecoveryAction::DrainLinks => Some(Condition::RecoverLinks),
        v1::GpuRecoveryAction::DrainAndReset => Some(Condition::RecoverByDrain),
        v1::GpuRecoveryAction::RecoverDomain => Some(Condition::RecoverDomain),
        v1::GpuRecoveryAction::ResetBus => Some(Condition::RecoverBus),
        v1::GpuRecoveryAction::RebootSystem => Some(Condition::RecoverByPowerCycle),
        v1::GpuRecoveryAction::Other => Some(Condition::RecoverUnknown),
    }
}

/// A GPU that is just joining its fabric is left alone until it has.
fn fabric(reading: &v1::GpuReading) -> Option<Condition> {
    let fabric = reading.fabric.as_ref()?;
    match (fabric.state(), fabric.health()) {
        (v1::GpuFabricState::NotStarted, _) => Some(Condition::FabricNotJoined),
        (v1::GpuFabricState::Completed, v1::GpuFabricHealth::Unhealthy) => {
            Some(Condition::FabricUnhealthy)
        }
        _ => None,
    }
}

/// What a worker found; `None` if it is newer than this scheduler, or names what cannot be.
#[must_use]
pub fn finding(finding: v1::Finding, node: &NodeName) -> Option<Finding> {
    let gpu = gpu_named(&finding.gpu_uuid)?;
    let (signal, said) = match finding.what? {
        v1::finding::What::Xid(xid) => {
            let pid = (xid.pid != 0).then(|| format!("process {}", xid.pid));
            (Signal::Xid(xid.number), pid)
        }
        v1::finding::What::UncorrectedErrors(rose) => {
            let text = format!("from {} to {}", rose.before, rose.after);
            (Signal::UncorrectedErrors, Some(text))
        }
    };
    let detail = [said, Some(finding.detail).filter(|detail| !detail.is_empty())];
    let detail: Vec<String> = detail.into_iter().flatten().collect();
    let attempts = finding.attempts.iter();
    let attempts = attempts.map(|held| AttemptId { job: JobId(held.job_id), number: held.attempt });
    Some(Finding {
        node: node.clone(),
        journal: Journal { id: finding.journal_id, seq: finding.seq },
        signal,
        gpu,
        attempts: attempts.collect(),
        detail: detail.join("; ").chars().take(DETAIL_MAX).collect(),
    })
}

/// The GPU of that name, or none of an empty one; `None` if it cannot be a name.
fn gpu_named(uuid: &str) -> Option<Option<GpuUuid>> {
    if uuid.is_empty() { Some(None) } else { GpuUuid::new(uuid).ok().map(Some) }
}

/// How a check ended; `None` if it names what cannot be.
#[must_use]
pub fn check_outcome(outcome: v1::CheckOutcome) -> Option<(Check, Checked)> {
    let gpu = gpu_named(&outcome.gpu_uuid)?;
    let checked = match outcome.failed.as_str() {
        "" => Checked::Passed,
        why => Checked::Failed(why.chars().take(DETAIL_MAX).collect()),
    };
    Some((Check { gpu, since: UnixMicros(outcome.since_us) }, checked))
}

/// What a worker may say of a finding or a check in words, in characters.
const DETAIL_MAX: usize = 200;
