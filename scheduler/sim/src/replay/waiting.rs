//! Jobs that wait, in the order of their rule, and which of them start now.

use std::collections::VecDeque;

use gotgan_core::amount::{GpuMilli, UnixMicros};
use gotgan_core::backfill::{Pass, Verdict};
use gotgan_core::profile::Profile;

use super::rule::Backfill;

/// A job by its place in the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobIndex(pub usize);

/// A job that waits. Its place in its lane is by `key`, then by the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The smaller is first.
    pub key: i64,
    /// Which.
    pub job: JobIndex,
    /// Whole GPUs.
    pub gpus: u32,
    /// How long it is believed to run, seconds.
    pub estimate_s: i64,
}

/// A job in its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    lane: usize,
    position: usize,
}

/// Lanes of jobs; what comes first within each is fixed, which lane comes first may change.
#[derive(Debug, Clone, Default)]
pub struct Lanes(Vec<VecDeque<Waiting>>);

impl Lanes {
    /// So many empty lanes.
    #[must_use]
    pub fn new(lanes: usize) -> Self {
        Lanes(vec![VecDeque::new(); lanes])
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(VecDeque::is_empty)
    }

    /// Puts a job where it belongs in its lane; most belong at the end.
    pub fn push(&mut self, lane: usize, waiting: Waiting) {
        let Some(jobs) = self.0.get_mut(lane) else { return };
        let place = |other: &Waiting| (other.key, other.job);
        let at = jobs.partition_point(|other| place(other) < place(&waiting));
        jobs.insert(at, waiting);
    }

    /// All that wait, the lanes in this order.
    pub fn in_order<'a>(
        &'a self,
        lanes: &'a [usize],
    ) -> impl Iterator<Item = (Place, &'a Waiting)> {
        let jobs_of = |&lane: &usize| {
            let jobs = self.0.get(lane).into_iter().flatten();
            jobs.enumerate().map(move |(position, job)| (Place { lane, position }, job))
        };
        lanes.iter().flat_map(jobs_of)
    }

    /// Takes out jobs, of each lane in the order in which they stand there.
    pub fn take(&mut self, places: &[Place]) -> Vec<Waiting> {
        let out = places.iter().rev();
        let out = out.filter_map(|place| self.0.get_mut(place.lane)?.remove(place.position));
        let mut taken: Vec<Waiting> = out.collect();
        taken.reverse();
        taken
    }
}

/// Which of those that wait, in their order, start now. They are taken from `profile` for as long as they are believed
/// to run.
///
/// Nothing here is about [`Backfill::Conservative`]: there a job that waits has its moment already.
#[must_use]
pub fn starts<'a>(
    backfill: Backfill,
    waiting: impl Iterator<Item = (Place, &'a Waiting)>,
    profile: &mut Profile,
    now: UnixMicros,
) -> Vec<Place> {
    let mut pass = Pass::new(profile, now, promises(backfill));
    let mut starts = Vec::new();
    for (place, job) in waiting {
        if pass.is_over() {
            break;
        }
        match pass.offer(GpuMilli::whole(job.gpus), job.estimate_s) {
            Verdict::Starts => starts.push(place),
            Verdict::Promised(_) | Verdict::Waits if backfill == Backfill::None => break,
            Verdict::Promised(_) | Verdict::Waits => {}
        }
    }
    starts
}

/// How many that wait are promised a moment.
fn promises(backfill: Backfill) -> u32 {
    match backfill {
        Backfill::None | Backfill::Skip => 0,
        Backfill::Easy => 1,
        Backfill::Reserved(promises) => promises,
        Backfill::Conservative => u32::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(key: i64, job: usize) -> Waiting {
        Waiting { key, job: JobIndex(job), gpus: 1, estimate_s: 10 }
    }

    fn order(lanes: &Lanes, of: &[usize]) -> Vec<usize> {
        lanes.in_order(of).map(|(_, job)| job.job.0).collect()
    }

    #[test]
    fn a_lane_is_by_key_and_then_by_the_trace() {
        let mut lanes = Lanes::new(1);
        for (key, job) in [(5, 0), (3, 2), (3, 1), (9, 3)] {
            lanes.push(0, waiting(key, job));
        }
        assert_eq!(order(&lanes, &[0]), [1, 2, 0, 3]);
    }

    #[test]
    fn what_is_taken_out_leaves_the_rest_in_order() {
        let mut lanes = Lanes::new(2);
        for job in 0..6 {
            lanes.push(job % 2, waiting(0, job));
        }
        assert_eq!(order(&lanes, &[1, 0]), [1, 3, 5, 0, 2, 4]);
        let places: Vec<Place> = lanes.in_order(&[1, 0]).map(|(place, _)| place).collect();
        let taken = lanes.take(&[places[0], places[1], places[4]]);
        assert_eq!(taken.iter().map(|job| job.job.0).collect::<Vec<_>>(), [1, 3, 2]);
        assert_eq!(order(&lanes, &[0, 1]), [0, 4, 5]);
    }

    #[test]
    fn a_pass_ends_where_nothing_is_free() {
        let mut lanes = Lanes::new(1);
        (0..5).for_each(|job| lanes.push(0, waiting(0, job)));
        let mut profile = Profile::new(UnixMicros(0), GpuMilli::whole(3));
        let found = starts(Backfill::Easy, lanes.in_order(&[0]), &mut profile, UnixMicros(0));
        assert_eq!(lanes.take(&found).len(), 3);
        assert_eq!(order(&lanes, &[0]), [3, 4]);
    }
}
