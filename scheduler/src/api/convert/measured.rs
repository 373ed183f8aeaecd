//! What the GPUs of attempts did.

use std::collections::BTreeMap;

use gotgan_core::amount::{GpuMilliSeconds, MemoryMib};
use gotgan_core::ids::{AttemptId, JobId};
use gotgan_core::measured::MeasuredUse;
use gotgan_proto::v1;

use crate::flow::telemetry::LiveUse;

/// As the API has it.
#[must_use]
pub fn measured(found: MeasuredUse) -> v1::MeasuredUse {
    v1::MeasuredUse {
        nodes: found.nodes,
        observed_gpu_ms: amount(found.observed),
        busy_gpu_ms: found.busy.map(amount),
        energy_mj: found.energy_mj,
        peak_memory_mib: found.peak_memory.map(|memory| memory.0),
        longest_idle_ms: found.longest_idle_ms,
        estimated: found.estimated,
    }
}

/// As a worker told it, which speaks for one node. No more is busy than was observed, whatever it says.
#[must_use]
pub fn measured_from(told: v1::MeasuredUse) -> MeasuredUse {
    let observed = time(told.observed_gpu_ms);
    MeasuredUse {
        nodes: 1,
        observed,
        busy: told.busy_gpu_ms.map(|busy| time(busy).min(observed)),
        energy_mj: told.energy_mj,
        peak_memory: told.peak_memory_mib.map(MemoryMib),
        longest_idle_ms: told.longest_idle_ms,
        estimated: told.estimated,
    }
}

/// What a beat tells of attempts.
#[must_use]
pub fn uses(told: &[v1::AttemptUse]) -> BTreeMap<AttemptId, LiveUse> {
    let each = |told: &v1::AttemptUse| {
        let id = AttemptId { job: JobId(told.job_id), number: told.attempt };
        let measured = told.measured.map(measured_from);
        (id, LiveUse { measured, idle_ms: told.idle_ms })
    };
    told.iter().map(each).collect()
}

fn amount(time: GpuMilliSeconds) -> u64 {
    u64::try_from(time.0).unwrap_or(0)
}

fn time(gpu_ms: u64) -> GpuMilliSeconds {
    GpuMilliSeconds(i64::try_from(gpu_ms).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_cannot_tell_of_more_than_its_own_node_or_of_more_busy_time_than_it_observed() {
        let told = v1::MeasuredUse {
            nodes: 7,
            observed_gpu_ms: 100,
            busy_gpu_ms: Some(u64::MAX),
            ..v1::MeasuredUse::default()
        };
        let found = measured(measured_from(told));
        assert_eq!((found.nodes, found.busy_gpu_ms), (1, Some(100)));
        assert_eq!((found.energy_mj, found.peak_memory_mib), (None, None));
    }
}
