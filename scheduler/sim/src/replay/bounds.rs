//! What is taken from a trace at most, and the count of what is not taken.

use std::fmt;

use serde::Serialize;

/// Latest moment and longest time, seconds: a thousand years, so that no sum overflows.
pub const SECONDS_MAX: i64 = 365_250 * 86_400;

/// Most GPUs of a job or of a machine.
pub const GPUS_MAX: u32 = 100_000_000;

/// Things left out for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// How many jobs.
    pub jobs: u64,
    /// Why, to be read after the number: `jobs without a run time`.
    pub reason: &'static str,
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.jobs, self.reason)
    }
}

/// Counts by reason, without those that never occurred.
#[must_use]
pub fn counted(counts: &[(u64, &'static str)]) -> Vec<Counted> {
    let any = counts.iter().filter(|(jobs, _)| *jobs > 0);
    any.map(|&(jobs, reason)| Counted { jobs, reason }).collect()
}
