//! Figures of a replay: what jobs waited, and how well the machine was used.
//!
//! Sums are exact; means are fractions only when they are told. Of n waits in their order, the median is the one at
//! n / 2, and the percentile p the one at p n / 100, both cut down to a whole number and counted from 0.

use serde::Serialize;

use super::trace::{Trace, TraceJob};
use super::{Played, Ran};

/// Jobs that are looked at on their own have at least so many GPUs: two nodes of eight.
pub const LARGE_GPUS: u32 = 16;

/// Shortest run that a slowdown is measured against, seconds; else jobs of seconds would be all that counts.
const SHORTEST_RUN_S: i64 = 10;

/// Parts of a slowdown in which it is summed up.
const SLOWDOWN_PARTS: u128 = 1 << 32;

/// What the jobs of a group waited.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Waits {
    /// Jobs that ran.
    pub jobs: u64,
    /// Sum of what they waited, seconds.
    pub total_wait_s: u64,
    /// Mean, seconds.
    pub mean_wait_s: f64,
    /// Median, seconds.
    pub median_wait_s: i64,
    /// 90th percentile, seconds.
    pub p90_wait_s: i64,
    /// 99th percentile, seconds.
    pub p99_wait_s: i64,
    /// The longest, seconds.
    pub max_wait_s: i64,
    /// Mean time from the submission to the end, seconds.
    pub mean_jct_s: f64,
    /// Mean of max(1, (wait + run) / max(run, 10 s)).
    pub mean_bounded_slowdown: f64,
}

/// How well the machine was used, from the first submission to the last end.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MachineUse {
    /// From the first submission to the last end, seconds.
    pub makespan_s: i64,
    /// GPU-seconds that jobs ran.
    pub used_gpu_s: u64,
    /// Part of all GPU-seconds of that time that jobs ran, percent.
    pub utilisation_percent: f64,
}

/// A job of the trace that ran, with what became of it.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'t> {
    /// Its place in the trace.
    pub place: usize,
    /// The job.
    pub job: &'t TraceJob,
    /// When it ran.
    pub ran: Ran,
}

impl Seen<'_> {
    /// What it waited, seconds.
    #[must_use]
    pub fn wait_s(&self) -> i64 {
        self.ran.start.whole_seconds() - self.job.submit.whole_seconds()
    }

    /// How long it ran, seconds.
    #[must_use]
    pub fn run_s(&self) -> i64 {
        self.ran.end.whole_seconds() - self.ran.start.whole_seconds()
    }

    /// GPU-seconds that it ran.
    #[must_use]
    pub fn gpu_s(&self) -> u128 {
        u128::from(self.job.gpus) * u128::from(self.run_s().unsigned_abs())
    }
}

/// All jobs that ran, in the order of the trace.
pub fn seen<'a>(trace: &'a Trace, played: &'a Played) -> impl Iterator<Item = Seen<'a>> {
    let jobs = trace.jobs.iter().zip(&played.jobs).enumerate();
    jobs.filter_map(|(place, (job, ran))| Some(Seen { place, job, ran: (*ran)? }))
}

/// The smallest power of two that is no less than the GPUs of a job: its size class.
#[must_use]
pub fn size_class(gpus: u32) -> u32 {
    gpus.checked_next_power_of_two().unwrap_or(u32::MAX)
}

/// What people call a size class: `1`, `2`, `3-4`, `5-8`.
#[must_use]
pub fn size_class_name(class: u32) -> String {
    if class <= 2 { class.to_string() } else { format!("{}-{class}", class / 2 + 1) }
}

impl Waits {
    /// Of these jobs; `None` if there are none.
    #[must_use]
    pub fn of<'t>(jobs: impl Iterator<Item = Seen<'t>>) -> Option<Self> {
        let (mut waits, mut runs, mut slowdowns) = (Vec::new(), 0_u128, 0_u128);
        for job in jobs {
            waits.push(job.wait_s());
            runs += u128::from(job.run_s().unsigned_abs());
            slowdowns += slowdown_parts(job.wait_s(), job.run_s());
        }
        waits.sort_unstable();
        let total: u128 = waits.iter().map(|wait| u128::from(wait.unsigned_abs())).sum();
        let at = |percent: usize| waits.get(waits.len() * percent / 100).copied().unwrap_or(0);
        Some(Waits {
            jobs: u64::try_from(waits.len()).unwrap_or(u64::MAX),
            total_wait_s: u64::try_from(total).unwrap_or(u64::MAX),
            mean_wait_s: mean(total, waits.len(), 2),
            median_wait_s: waits.get(waits.len() / 2).copied().unwrap_or(0),
            p90_wait_s: at(90),
            p99_wait_s: at(99),
            max_wait_s: *waits.last()?,
            mean_jct_s: mean(total + runs, waits.len(), 2),
            mean_bounded_slowdown: quotient(slowdowns, parts_of(waits.len()), 3),
        })
    }
}

/// A bounded slowdown in parts.
fn slowdown_parts(wait_s: i64, run_s: i64) -> u128 {
    let run = u128::from(run_s.max(SHORTEST_RUN_S).unsigned_abs());
    let all = u128::from(wait_s.saturating_add(run_s).unsigned_abs());
    (all * SLOWDOWN_PARTS / run).max(SLOWDOWN_PARTS)
}

fn parts_of(jobs: usize) -> u128 {
    jobs as u128 * SLOWDOWN_PARTS
}

fn mean(sum: u128, count: usize, decimals: u32) -> f64 {
    quotient(sum, count as u128, decimals)
}

/// A quotient to so many decimals, to the nearest and half of one upwards; 0 of nothing.
#[must_use]
pub fn quotient(over: u128, under: u128, decimals: u32) -> f64 {
    let scale = 10_u128.pow(decimals);
    let twice = (2 * over * scale + under).checked_div(2 * under);
    // Figures for people: 53 bits are more digits than are shown.
    twice.unwrap_or(0) as f64 / scale as f64
}

impl MachineUse {
    /// Of a machine of so many GPUs.
    #[must_use]
    pub fn of(trace: &Trace, played: &Played, gpus: u32) -> Self {
        let first = trace.jobs.iter().map(|job| job.submit.whole_seconds()).min().unwrap_or(0);
        let ends = seen(trace, played).map(|seen| seen.ran.end.whole_seconds());
        let last = ends.max().unwrap_or(first);
        let used: u128 = seen(trace, played).map(|seen| seen.gpu_s()).sum();
        let makespan_s = last - first;
        let there = u128::from(gpus) * u128::from(makespan_s.unsigned_abs());
        MachineUse {
            makespan_s,
            used_gpu_s: u64::try_from(used).unwrap_or(u64::MAX),
            utilisation_percent: quotient(100 * used, there, 2),
        }
    }
}

/// The FNV-1a hash, 64 bits, of all starts in seconds, in the order of the jobs' numbers, each as eight bytes with the
/// lowest first: equal hashes are equal schedules. A job that never started counts as -1.
#[must_use]
pub fn hash_of_starts(trace: &Trace, played: &Played) -> u64 {
    let start = |ran: &Option<Ran>| ran.map_or(-1, |ran| ran.start.whole_seconds());
    let mut starts: Vec<(u64, i64)> =
        trace.jobs.iter().map(|job| job.id).zip(played.jobs.iter().map(start)).collect();
    starts.sort_unstable();
    let bytes = starts.iter().flat_map(|(_, start)| start.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use gotgan_core::amount::UnixMicros;

    use super::super::trace::TenantIndex;
    use super::*;

    fn at(second: i64) -> UnixMicros {
        UnixMicros(0).plus_seconds(second)
    }

    /// A trace of jobs by submission, start, length and GPUs, and how they were played.
    fn played(jobs: &[(i64, i64, i64, u32)]) -> (Trace, Played) {
        let job = |(id, &(submit, _, duration_s, gpus))| {
            let (submit, tenant) = (at(submit), TenantIndex(0));
            TraceJob { id, submit, duration_s, asked_s: None, gpus, tenant }
        };
        let ran = |&(_, start, length, _): &(i64, i64, i64, u32)| {
            Some(Ran { start: at(start), end: at(start + length) })
        };
        let trace = Trace { jobs: (0..).zip(jobs).map(job).collect(), ..Trace::default() };
        (
            trace,
            Played {
                jobs: jobs.iter().map(ran).collect(),
                passes: 0,
                told: std::collections::BTreeMap::new(),
                estimated: Vec::new(),
            },
        )
    }

    #[test]
    fn waits_are_told_by_their_places_in_their_order() {
        let (trace, played) =
            played(&[(0, 0, 5, 1), (0, 10, 5, 1), (0, 40, 20, 1), (0, 20, 100, 1)]);
        let waits = Waits::of(seen(&trace, &played)).unwrap();
        assert_eq!((waits.total_wait_s, waits.mean_wait_s), (70, 17.5));
        assert_eq!((waits.median_wait_s, waits.p90_wait_s, waits.max_wait_s), (20, 40, 40));
        // 1, 15/10, 60/20 and 120/100.
        assert_eq!((waits.mean_bounded_slowdown, waits.mean_jct_s), (1.675, 50.0));
    }

    #[test]
    fn use_is_of_the_time_from_the_first_submission_to_the_last_end() {
        let (trace, played) = played(&[(100, 100, 100, 4), (100, 150, 50, 2)]);
        let found = MachineUse::of(&trace, &played, 8);
        assert_eq!((found.makespan_s, found.used_gpu_s), (100, 500));
        assert_eq!(found.utilisation_percent, 62.5);
    }

    #[test]
    fn size_classes_are_powers_of_two() {
        let names = [1, 2, 3, 4, 5, 12, 64].map(|gpus| size_class_name(size_class(gpus)));
        assert_eq!(names, ["1", "2", "3-4", "3-4", "5-8", "9-16", "33-64"]);
    }

    #[test]
    fn the_hash_is_that_of_the_published_algorithm() {
        let (trace, played) = played(&[]);
        assert_eq!(hash_of_starts(&trace, &played), 0xcbf2_9ce4_8422_2325);
    }
}
