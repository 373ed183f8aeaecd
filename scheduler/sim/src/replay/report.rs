//! What came of a replay, for programs (`gotgan.replay/1`) and, in [`super::text`], for people.

use std::time::Duration;

use serde::Serialize;

use super::Played;
use super::bounds::Counted;
use super::estimates::EstimatesLine;
use super::fairness::{Due, dues, jain};
use super::figures::{
    LARGE_GPUS, MachineUse, Seen, Waits, hash_of_starts, seen, size_class, size_class_name,
};
use super::planned::PlannedLine;
use super::trace::Trace;

/// What was replayed, and how.
#[derive(Debug, Clone, Copy)]
pub struct Replayed<'a> {
    /// The trace.
    pub trace: &'a Trace,
    /// What came of it.
    pub played: &'a Played,
    /// GPUs of the machine.
    pub gpus: u32,
    /// A share for each tenant.
    pub shares: &'a [u32],
}

/// Everything that came of it.
#[derive(Debug, Clone, Serialize)]
pub struct ReplayReport {
    /// Version of the form of this document.
    pub schema: &'static str,
    /// Always true: nothing here ran on a GPU.
    pub simulated: bool,
    /// Where the jobs are from.
    pub trace: TraceLine,
    /// GPUs of the machine.
    pub capacity_gpus: u32,
    /// The rule, or `gotgan`.
    pub policy: String,
    /// What all jobs waited.
    #[serde(flatten)]
    pub all: Waits,
    /// Mean wait of the jobs of 16 GPUs and more, seconds; `null` if there are none.
    pub mean_wait_of_jobs_ge16_s: Option<f64>,
    /// How the machine was used.
    #[serde(flatten)]
    pub machine: MachineUse,
    /// Hash of all starts, 16 hexadecimal digits: equal hashes are equal schedules.
    pub fnv1a64_of_starts: String,
    /// Jobs that never started.
    pub never_started: u64,
    /// What the jobs of 16 GPUs and more waited; `null` if there are none.
    pub large: Option<Waits>,
    /// How well planned starts held; `null` if none was planned.
    pub planned: Option<PlannedLine>,
    /// How well estimated starts held; `null` if nobody was told anything.
    pub estimates: Option<EstimatesLine>,
    /// Waits by size class, the smallest first.
    pub sizes: Vec<Group>,
    /// Waits and fairness by tenant, by name.
    pub tenants: Vec<TenantLine>,
    /// How fairly the machine was shared out.
    pub fairness: Fairness,
    /// What the replay took.
    pub run: RunLine,
}

/// Where the jobs are from.
#[derive(Debug, Clone, Serialize)]
pub struct TraceLine {
    /// Name of the file.
    pub file: String,
    /// Jobs that can be replayed.
    pub jobs: usize,
    /// Jobs that cannot, and why.
    pub skipped: Vec<Counted>,
}

/// Waits of the jobs of one size class.
#[derive(Debug, Clone, Serialize)]
pub struct Group {
    /// GPUs of its jobs: `1`, `2`, `3-4`, `5-8`.
    pub gpus: String,
    /// Their waits.
    #[serde(flatten)]
    pub waits: Waits,
}

/// What a tenant waited and had.
#[derive(Debug, Clone, Serialize)]
pub struct TenantLine {
    /// Its name.
    pub tenant: String,
    /// Its share.
    pub share: u32,
    /// GPU-seconds that its jobs ran.
    pub used_gpu_s: u64,
    /// GPU-seconds that it was entitled to.
    pub entitled_gpu_s: u64,
    /// The former over the latter; `null` if it was entitled to nothing.
    pub fairness: Option<f64>,
    /// Its waits; `null` if no job of it ran.
    pub waits: Option<Waits>,
}

/// How fairly the machine was shared out; both `null` if nobody was entitled to anything.
#[derive(Debug, Clone, Serialize)]
pub struct Fairness {
    /// The smallest fairness of a tenant.
    pub least: Option<f64>,
    /// Jain's index over all of them.
    pub jain: Option<f64>,
}

/// What the replay took.
#[derive(Debug, Clone, Serialize)]
pub struct RunLine {
    /// Jobs that were started.
    pub starts: u64,
    /// Passes over those that wait.
    pub passes: u64,
    /// How long it took, milliseconds; the one number that is not the same each time.
    pub elapsed_ms: u64,
}

impl ReplayReport {
    /// Of a replay of that file by that rule, which took so long; `None` if no job ran.
    #[must_use]
    pub fn of(
        replayed: Replayed<'_>,
        file: &str,
        policy: &str,
        elapsed: Duration,
    ) -> Option<ReplayReport> {
        let Replayed { trace, played, gpus, .. } = replayed;
        let all = Waits::of(seen(trace, played))?;
        let large = Waits::of(seen(trace, played).filter(|one| one.job.gpus >= LARGE_GPUS));
        let tenants = tenants(replayed);
        let fairness: Vec<f64> = tenants.iter().filter_map(|tenant| tenant.fairness).collect();
        Some(ReplayReport {
            schema: "gotgan.replay/1",
            simulated: true,
            trace: TraceLine {
                file: file.to_owned(),
                jobs: trace.jobs.len(),
                skipped: trace.skipped.clone(),
            },
            capacity_gpus: gpus,
            policy: policy.to_owned(),
            mean_wait_of_jobs_ge16_s: large.as_ref().map(|waits| waits.mean_wait_s),
            machine: MachineUse::of(trace, played, gpus),
            fnv1a64_of_starts: format!("{:016x}", hash_of_starts(trace, played)),
            never_started: (trace.jobs.len() as u64).saturating_sub(all.jobs),
            run: RunLine {
                starts: all.jobs,
                passes: played.passes,
                elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            },
            all,
            large,
            planned: PlannedLine::of(played),
            estimates: EstimatesLine::of(trace, played),
            sizes: sizes(trace, played),
            tenants,
            fairness: Fairness {
                least: fairness.iter().copied().min_by(f64::total_cmp),
                jain: jain(&fairness),
            },
        })
    }
}

fn sizes(trace: &Trace, played: &Played) -> Vec<Group> {
    let mut classes: Vec<u32> = seen(trace, played).map(|one| size_class(one.job.gpus)).collect();
    classes.sort_unstable();
    classes.dedup();
    let group = |class: u32| {
        let jobs = seen(trace, played).filter(|one| size_class(one.job.gpus) == class);
        Some(Group { gpus: size_class_name(class), waits: Waits::of(jobs)? })
    };
    classes.into_iter().filter_map(group).collect()
}

fn tenants(replayed: Replayed<'_>) -> Vec<TenantLine> {
    let Replayed { trace, played, gpus, shares } = replayed;
    let mut jobs: Vec<Vec<Seen<'_>>> = vec![Vec::new(); trace.tenants.len()];
    for one in seen(trace, played) {
        jobs[one.job.tenant.0].push(one);
    }
    let dues = dues(trace, played, gpus, shares);
    let lines = trace.tenants.iter().zip(shares).zip(dues).zip(jobs);
    let line = |(((name, share), due), jobs): (((&String, &u32), Due), Vec<Seen<'_>>)| TenantLine {
        tenant: name.clone(),
        share: *share,
        used_gpu_s: narrow(due.held_gpu_milli_s / 1000),
        entitled_gpu_s: narrow(due.entitled_gpu_milli_s / 1000),
        fairness: due.fairness(),
        waits: Waits::of(jobs.into_iter()),
    };
    lines.map(line).collect()
}

fn narrow(amount: u128) -> u64 {
    u64::try_from(amount).unwrap_or(u64::MAX)
}
