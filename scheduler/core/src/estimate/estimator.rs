//! What was told of whom, until it is known whether it held.
//!
//! A job is told a range when it is looked at first, and again each time it has waited twice as long. From these is learnt,
//! but of jobs of one kind that are told together from one only. In between a job is told what the last look ahead says,
//! from which nothing is learnt: jobs that wait long would otherwise be all that counts.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::calibration::{Calibration, Kind, Told};
use super::lengths::{self, RunLengths};
use super::outcome::Outcome;
use super::{Foreseen, Foresight, StartRange};
use crate::amount::UnixMicros;
use crate::ids::JobId;
use crate::planned::PlannedStarts;
use crate::planner;
use crate::policy::Policy;
use crate::world::World;

/// A job that was told something is told again no sooner than after so long, seconds.
const AGAIN_LEAST_S: i64 = 600;

/// Those from whom is learnt, of jobs of one kind, are told something so far apart, seconds.
const TEACHERS_APART_S: i64 = 600;

/// What is learnt; the part of an [`Estimator`] that is worth keeping.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Learnt {
    /// How long jobs run.
    pub lengths: RunLengths,
    /// How late they start.
    pub calibration: Calibration,
}

/// Estimates starts and learns from them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Estimator {
    learnt: Learnt,
    open: BTreeMap<JobId, Vec<Open>>,
    /// When of each kind somebody was told something last from which is learnt.
    taught: BTreeMap<Kind, UnixMicros>,
}

/// Something that was told, of a job that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Open {
    told: Told,
    /// Whether something is learnt from it.
    teaches: bool,
    /// It is known already that it did not hold.
    failed: bool,
}

impl Estimator {
    /// One that has learnt this.
    #[must_use]
    pub fn new(learnt: Learnt) -> Self {
        Estimator { learnt, ..Estimator::default() }
    }

    /// What it has learnt.
    #[must_use]
    pub fn learnt(&self) -> &Learnt {
        &self.learnt
    }

    /// Looks ahead.
    #[must_use]
    pub fn look(
        &self,
        world: &World,
        policy: &Policy,
        planned: &PlannedStarts,
        now: UnixMicros,
    ) -> Foresight {
        planner::foresee(world, policy, planned, &self.learnt.lengths, now)
    }

    /// What the look ahead says of each job, as it is told now.
    #[must_use]
    pub fn ranges(&self, foresight: &Foresight) -> BTreeMap<JobId, StartRange> {
        let range = |(job, foreseen): (&JobId, &Foreseen)| {
            (*job, self.learnt.calibration.tell(foreseen, foresight.at).range)
        };
        foresight.jobs.iter().map(range).collect()
    }

    /// Takes in a look ahead: tells those that are told for the first time or again. Those that were.
    pub fn tell_due(&mut self, foresight: &Foresight) -> Vec<(JobId, Told)> {
        self.judge_overdue(foresight.at);
        let due = |(job, foreseen): (&JobId, &Foreseen)| {
            let due = self.is_due(*job, foreseen.queued, foresight.at);
            due.then(|| (*job, self.learnt.calibration.tell(foreseen, foresight.at)))
        };
        let told: Vec<(JobId, Told)> = foresight.jobs.iter().filter_map(due).collect();
        let teachers = self.teachers(&told, foresight.at);
        for (job, told) in &told {
            let teaches = teachers.contains(job);
            let open = Open { told: *told, teaches, failed: false };
            self.open.entry(*job).or_default().push(open);
        }
        told
    }

    /// From whom of those that are told something is learnt: one of each kind, by a draw, if the last one was told long
    /// enough ago. Jobs that are told together share their fate, and thousands of them would teach no more than one.
    fn teachers(&mut self, told: &[(JobId, Told)], now: UnixMicros) -> BTreeSet<JobId> {
        let mut first: BTreeMap<Kind, (i64, JobId)> = BTreeMap::new();
        for (job, told) in told {
            let last = self.taught.get(&told.kind);
            if last.is_none_or(|last| last.plus_seconds(TEACHERS_APART_S) <= now) {
                let one = (lengths::drawn(*job), *job);
                let first = first.entry(told.kind).or_insert(one);
                *first = one.min(*first);
            }
        }
        self.taught.extend(first.keys().map(|kind| (*kind, now)));
        first.into_values().map(|(_, job)| job).collect()
    }

    /// Whether a job that waits since then is to be told something.
    #[must_use]
    pub fn is_due(&self, job: JobId, queued: UnixMicros, now: UnixMicros) -> bool {
        let last = self.open.get(&job).and_then(|open| open.last());
        last.is_none_or(|last| is_due_again(&last.told, queued, now))
    }

    /// A range that is over without a start did not hold. That is learnt at once, and that the job is at least so late, not
    /// when it starts at last: until then only those would count that start soon.
    fn judge_overdue(&mut self, now: UnixMicros) {
        for open in self.open.values_mut().flatten() {
            if open.teaches && !open.failed && open.told.range.until < now {
                open.failed = true;
                self.learnt.calibration.judge(&open.told, false);
                self.learnt.calibration.learn(&open.told, now);
            }
        }
    }

    /// Learns from what came of jobs.
    pub fn learn(&mut self, outcomes: &[Outcome]) {
        for outcome in outcomes {
            match *outcome {
                Outcome::Started { job, at } => self.started(job, at),
                Outcome::Left { job } => _ = self.open.remove(&job),
                Outcome::Ran { limit_s, ran_s } => self.learnt.lengths.note(limit_s, ran_s),
            }
        }
    }

    fn started(&mut self, job: JobId, at: UnixMicros) {
        let open = self.open.remove(&job).unwrap_or_default();
        for Open { told, failed, .. } in open.into_iter().filter(|open| open.teaches) {
            self.learnt.calibration.learn(&told, at);
            if !failed {
                self.learnt.calibration.judge(&told, told.range.has(at));
            }
        }
    }
}

/// Whether a job that waits has waited twice as long since it was told something.
fn is_due_again(last: &Told, waits_since: UnixMicros, now: UnixMicros) -> bool {
    let then_s = last.at.whole_seconds().saturating_sub(waits_since.whole_seconds());
    let now_s = now.whole_seconds().saturating_sub(waits_since.whole_seconds());
    now_s >= then_s.saturating_mul(2).max(then_s.saturating_add(AGAIN_LEAST_S))
}
