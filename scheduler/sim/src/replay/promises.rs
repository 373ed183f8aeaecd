//! Conservative backfilling: who waits has a moment since the submission, the earliest at which there is room for all
//! of its time beside all that was promised before, and nobody is moved back.
//!
//! If jobs end before they were believed to, those that wait may start before their moment, in the order of their
//! submission, as soon as they have room beside all other promises. Where everything ends as believed that never
//! happens, and each starts at its moment.

use std::collections::{BTreeMap, BTreeSet};

use gotgan_core::amount::{GpuMilli, UnixMicros};
use gotgan_core::profile::Profile;

use super::waiting::{JobIndex, Waiting};

/// Who waits for which moment.
#[derive(Debug, Clone, Default)]
pub struct Promises {
    by_moment: BTreeSet<(UnixMicros, JobIndex)>,
    by_job: BTreeMap<JobIndex, (UnixMicros, Waiting)>,
}

impl Promises {
    /// Promises a job its moment, and takes it from `profile`.
    pub fn add(&mut self, job: Waiting, profile: &mut Profile, now: UnixMicros) {
        let gpus = GpuMilli::whole(job.gpus);
        let Some(at) = profile.earliest(gpus, job.estimate_s, now) else { return };
        profile.take(at, at.plus_seconds(job.estimate_s), gpus);
        self.by_moment.insert((at, job.job));
        self.by_job.insert(job.job, (at, job));
    }

    /// The next moment that is promised to anybody.
    #[must_use]
    pub fn next(&self) -> Option<UnixMicros> {
        self.by_moment.first().map(|(at, _)| *at)
    }

    /// Those whose moment has come.
    pub fn due(&mut self, now: UnixMicros) -> Vec<Waiting> {
        let mut due = Vec::new();
        while let Some(&(at, job)) = self.by_moment.first().filter(|(at, _)| *at <= now) {
            self.by_moment.remove(&(at, job));
            due.extend(self.by_job.remove(&job).map(|(_, waiting)| waiting));
        }
        due
    }

    /// Those that start before their moment since others ended early.
    pub fn early(&mut self, profile: &mut Profile, now: UnixMicros) -> Vec<Waiting> {
        let mut early = Vec::new();
        let promised: Vec<(UnixMicros, Waiting)> = self.by_job.values().copied().collect();
        for (at, job) in promised {
            if profile.free_at(now).is_zero() {
                break;
            }
            if moves(profile, now, at, &job) {
                self.by_moment.remove(&(at, job.job));
                self.by_job.remove(&job.job);
                early.push(job);
            }
        }
        early
    }
}

/// Moves a promise to now if there is room beside all others.
fn moves(profile: &mut Profile, now: UnixMicros, at: UnixMicros, job: &Waiting) -> bool {
    let gpus = GpuMilli::whole(job.gpus);
    let (own_until, until) = (at.plus_seconds(job.estimate_s), now.plus_seconds(job.estimate_s));
    // Up to its own moment its own promise takes nothing away, so that most are seen not to fit at once.
    if profile.free_until(gpus, now) < at.min(until) {
        return false;
    }
    profile.give_back(at, own_until, gpus);
    let fits = profile.free_until(gpus, now) >= until;
    let (from, until) = if fits { (now, until) } else { (at, own_until) };
    profile.take(from, until, gpus);
    fits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> UnixMicros {
        UnixMicros(0).plus_seconds(second)
    }

    fn job(index: usize, gpus: u32, estimate_s: i64) -> Waiting {
        Waiting { key: 0, job: JobIndex(index), gpus, estimate_s }
    }

    #[test]
    fn a_promise_is_kept_and_may_come_true_early() {
        let mut profile = Profile::new(at(0), GpuMilli::whole(4));
        profile.take(at(0), at(100), GpuMilli::whole(3));
        let mut promises = Promises::default();
        promises.add(job(0, 4, 50), &mut profile, at(0));
        promises.add(job(1, 1, 200), &mut profile, at(0));
        promises.add(job(2, 1, 100), &mut profile, at(0));
        assert_eq!(promises.next(), Some(at(0)), "what ends in time passes");
        assert_eq!(promises.due(at(0)), [job(2, 1, 100)]);
        // The three that were taken until 100 are free from 20 on, and the last of four from 100 on.
        profile.give_back(at(20), at(100), GpuMilli::whole(3));
        assert_eq!(promises.early(&mut profile, at(20)), []);
        assert_eq!(promises.next(), Some(at(100)));
        assert_eq!(promises.due(at(100)), [job(0, 4, 50)]);
        assert_eq!(promises.next(), Some(at(150)));
    }

    #[test]
    fn room_before_its_moment_is_taken() {
        let mut profile = Profile::new(at(0), GpuMilli::whole(4));
        profile.take(at(0), at(100), GpuMilli::whole(4));
        let mut promises = Promises::default();
        promises.add(job(0, 4, 90), &mut profile, at(0));
        profile.give_back(at(20), at(100), GpuMilli::whole(4));
        assert_eq!(promises.early(&mut profile, at(20)), [job(0, 4, 90)]);
        assert_eq!((promises.next(), profile.free_at(at(110))), (None, GpuMilli::whole(4)));
    }
}
