//! How long jobs run, compared with how long they may.
//!
//! What was seen of jobs with about the same time limit is kept as it is, as thousandths of the limit. A job is believed
//! to run as long as one of those did: which one is drawn by its number, so that of many jobs some are short and some
//! long as they are, and the same job is believed the same each time. Of one that runs already, those that ran longer
//! are left.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::sample::Sample;
use crate::ids::JobId;
use crate::spec::JobSpec;

/// A length that is its limit, in the unit of a [`Sample`].
const WHOLE: i64 = 1000;

/// As long as fewer are known, some are believed to run evenly between nothing and the limit.
const SUPPOSED: i64 = 16;

/// Lengths that were seen, by the time limit in doublings of a second.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunLengths {
    by_limit: BTreeMap<u32, Sample>,
}

/// By what it is told how long jobs run.
#[derive(Debug, Clone, Copy)]
pub enum Ends<'a> {
    /// As such jobs do.
    Likely(&'a RunLengths),
    /// As long as they may.
    Limits,
}

impl RunLengths {
    /// Notes that a job with this limit ran for so long, both seconds.
    pub fn note(&mut self, limit_s: i64, ran_s: i64) {
        let limit_s = limit_s.max(1);
        let milli = ran_s.clamp(0, limit_s).saturating_mul(WHOLE) / limit_s;
        self.by_limit.entry(limit_s.ilog2()).or_default().add(i32::try_from(milli).unwrap_or(0));
    }

    /// How long a job is believed to run that ran for `ran_s` already, seconds.
    fn likely_s(&self, job: JobId, limit_s: i64, ran_s: i64) -> i64 {
        let limit_s = limit_s.max(1);
        let ran = ran_s.clamp(0, limit_s).saturating_mul(WHOLE) / limit_s;
        let known = self.by_limit.get(&limit_s.ilog2()).map_or(&[][..], Sample::sorted);
        let longer = &known[known.partition_point(|milli| i64::from(*milli) <= ran)..];
        let count = i64::try_from(longer.len()).unwrap_or(i64::MAX);
        let supposed = (SUPPOSED - count).max(0);
        let drawn = drawn(job);
        let place = drawn * (count + supposed) / DRAWS;
        let milli = match usize::try_from(place).ok().and_then(|place| longer.get(place)) {
            Some(milli) => i64::from(*milli),
            None => ran + (WHOLE - ran) * drawn / DRAWS,
        };
        (limit_s.saturating_mul(milli) / WHOLE).max(ran_s)
    }
}

impl Ends<'_> {
    /// How long the job runs that ran for `ran_s` already, seconds.
    #[must_use]
    pub fn length_s(self, job: JobId, spec: &JobSpec, ran_s: i64) -> i64 {
        match self {
            Ends::Likely(lengths) => lengths.likely_s(job, spec.time_limit_s, ran_s),
            Ends::Limits => spec.longest_s(),
        }
    }
}

/// Outcomes of [`drawn`].
const DRAWS: i64 = 1 << 16;

/// A number below [`DRAWS`]; those of jobs that follow each other lie far apart and fill the whole evenly: steps of the
/// golden ratio.
pub(super) fn drawn(job: JobId) -> i64 {
    i64::from((job.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn jobs_are_believed_to_run_as_those_with_such_limits_did() {
        let mut lengths = RunLengths::default();
        for ran_s in 1..=100 {
            lengths.note(10_000, ran_s * 10);
        }
        let likely = |job: u64| lengths.likely_s(JobId(job), 9_000, 0);
        let mean = (0..1000).map(likely).sum::<i64>() / 1000;
        assert!((400..500).contains(&mean), "{mean}");
        assert!((0..1000).map(likely).all(|seconds| seconds <= 900));
    }

    proptest! {
        #[test]
        fn nobody_is_believed_to_run_less_than_he_has_or_longer_than_he_may(
            seen in prop::collection::vec((1..100_000_i64, 0..200_000_i64), 0..50),
            job in any::<u64>(),
            limit_s in 1..100_000_i64,
            ran_s in 0..100_000_i64,
        ) {
            let mut lengths = RunLengths::default();
            seen.iter().for_each(|(limit_s, ran_s)| lengths.note(*limit_s, *ran_s));
            let likely = lengths.likely_s(JobId(job), limit_s, ran_s);
            prop_assert!(likely >= ran_s && likely <= limit_s.max(ran_s));
        }
    }
}
