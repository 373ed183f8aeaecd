//! What a replay did over time, and how waits are spread: points for plots.

use super::figures::{Seen, seen, size_class, size_class_name};
use super::report::Replayed;

/// Stretches that the time of a replay is cut into.
pub const BINS: usize = 600;

/// Points of a curve of waits.
const CURVE_POINTS: usize = 240;

/// Means over stretches of equal length, from the first submission to the last end.
#[derive(Debug, Clone, PartialEq)]
pub struct OverTime {
    /// Length of a stretch, seconds.
    pub bin_s: f64,
    /// GPUs in use.
    pub used_gpus: Vec<f64>,
    /// Jobs that wait.
    pub waiting_jobs: Vec<f64>,
}

/// How the waits of one size class are spread.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// GPUs of its jobs: `1`, `3-4`.
    pub gpus: String,
    /// A wait in seconds, and the part of the jobs that waited no longer, percent.
    pub points: Vec<(f64, f64)>,
}

/// Sums over stretches. An amount that holds all through a stretch is noted at its ends alone.
#[derive(Debug)]
struct Bins {
    from_s: i64,
    bin_s: f64,
    sums: Vec<f64>,
    steps: Vec<f64>,
}

impl Bins {
    fn new(from_s: i64, bin_s: f64) -> Self {
        Bins { from_s, bin_s, sums: vec![0.0; BINS], steps: vec![0.0; BINS + 1] }
    }

    /// So much from one second to another.
    fn add(&mut self, amount: f64, from_s: i64, until_s: i64) {
        let place = |second: i64| (second - self.from_s) as f64 / self.bin_s;
        let (from, until) = (place(from_s), place(until_s));
        let last = BINS - 1;
        let (first_bin, last_bin) = ((from as usize).min(last), (until as usize).min(last));
        if first_bin == last_bin {
            self.sums[first_bin] += amount * (until - from);
            return;
        }
        self.sums[first_bin] += amount * ((first_bin + 1) as f64 - from);
        self.sums[last_bin] += amount * (until - last_bin as f64);
        self.steps[first_bin + 1] += amount;
        self.steps[last_bin] -= amount;
    }

    fn means(self) -> Vec<f64> {
        let mut level = 0.0;
        let mean = |(sum, step): (f64, f64)| {
            level += step;
            (sum + level).max(0.0)
        };
        self.sums.into_iter().zip(self.steps).map(mean).collect()
    }
}

/// What a replay did over time.
#[must_use]
pub fn over_time(replayed: Replayed<'_>, makespan_s: i64) -> OverTime {
    let jobs = || seen(replayed.trace, replayed.played);
    let from_s = jobs().map(|one| one.job.submit.whole_seconds()).min().unwrap_or(0);
    let bin_s = makespan_s.max(1) as f64 / BINS as f64;
    let (mut used, mut waiting) = (Bins::new(from_s, bin_s), Bins::new(from_s, bin_s));
    for one in jobs() {
        let [submit, start, end] =
            [one.job.submit, one.ran.start, one.ran.end].map(|at| at.whole_seconds());
        used.add(f64::from(one.job.gpus), start, end);
        waiting.add(1.0, submit, start);
    }
    OverTime { bin_s, used_gpus: used.means(), waiting_jobs: waiting.means() }
}

/// How waits are spread, by size class, the smallest first.
#[must_use]
pub fn curves(replayed: Replayed<'_>, longest_s: i64) -> Vec<Curve> {
    let mut jobs: Vec<Seen<'_>> = seen(replayed.trace, replayed.played).collect();
    jobs.sort_by_key(|one| (size_class(one.job.gpus), one.wait_s()));
    let classes =
        jobs.chunk_by(|one, other| size_class(one.job.gpus) == size_class(other.job.gpus));
    classes.map(|class| curve(class, longest_s)).collect()
}

/// Of jobs of one class, the one that waited least first.
fn curve(class: &[Seen<'_>], longest_s: i64) -> Curve {
    let gpus = class.first().map_or(0, |one| size_class(one.job.gpus));
    let top = (longest_s.max(1) as f64).log10();
    let point = |step: usize| {
        let wait_s = 10_f64.powf(top * step as f64 / CURVE_POINTS as f64);
        // The last is the longest wait itself, whatever the logarithm says of it.
        let no_longer = if step == CURVE_POINTS {
            class.len()
        } else {
            class.partition_point(|one| one.wait_s() as f64 <= wait_s)
        };
        (wait_s, 100.0 * no_longer as f64 / class.len().max(1) as f64)
    };
    Curve { gpus: size_class_name(gpus), points: (0..=CURVE_POINTS).map(point).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn means(stretches: &[(f64, i64, i64)]) -> Vec<f64> {
        let mut bins = Bins::new(100, 10.0);
        stretches.iter().for_each(|&(amount, from, until)| bins.add(amount, from, until));
        bins.means()
    }

    #[test]
    fn a_stretch_counts_in_every_bin_that_it_lies_in() {
        let found = means(&[(4.0, 105, 132), (1.0, 111, 116)]);
        let expected = [2.0, 4.5, 4.0, 0.8, 0.0];
        let alike =
            found.iter().zip(expected).all(|(mean, expected)| (mean - expected).abs() < 1e-9);
        assert!(alike, "{:?}", &found[..5]);
    }

    #[test]
    fn what_lasts_to_the_end_is_in_the_last_bin() {
        let found = means(&[(2.0, 100, 100 + 10 * BINS as i64)]);
        assert!(found.iter().all(|mean| (mean - 2.0).abs() < 1e-9), "{found:?}");
    }
}
