//! Whole lives of jobs a second through all nodes: submitted, planned, told, reported, accounted.

use std::time::{Duration, Instant};

use super::country::Country;
use super::{Figures, LIVES, process};
use crate::bench::lifecycle;
use crate::bench::load::{Load, connection, submit};
use crate::bench::{Mark, Measure, Sample, Setup};

/// A second.
const MARK: f64 = 2_000.0;
/// Jobs on their way at most: a second's worth of what is to be reached.
const IN_FLIGHT: u64 = 2_000;
/// Jobs a call.
const BATCH: u64 = 100;
/// Between two looks at how many are on their way.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Keeps jobs on their way for a while, then waits until the last is accounted for.
pub async fn measure(country: &Country, setup: &Setup, figures: &mut Figures) {
    let api = connection(&country.cluster);
    let (mut client, mut load) = (api.jobs(), Load::new(setup.seed, 0, 1, false));
    let ended_before = country.swarm.board().sums().ended;
    let (used, began, mut jobs) = (process::cpu(country.process()), Instant::now(), 0);
    while began.elapsed() < setup.duration {
        let ended = country.swarm.board().sums().ended - ended_before;
        if jobs - ended + BATCH > IN_FLIGHT {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        submit(&mut client, &mut load, usize::try_from(BATCH).unwrap_or(1)).await;
        jobs += BATCH;
    }
    api.wait_until_idle().await;
    let elapsed = began.elapsed();
    let used = process::cpu(country.process()).saturating_sub(used);
    eprintln!(
        "  {:.0} us of the scheduler's processor a life",
        used.as_secs_f64() * 1e6 / jobs as f64
    );
    let sample =
        Sample::new(usize::try_from(jobs).unwrap_or(0), elapsed, lifecycle::times(&api).await);
    figures.add(Measure::of(LIVES, "jobs/s", Some(Mark::AtLeast(MARK)), vec![sample]));
}
