//! `gotgan jobs` over the queue, as somebody types it.

use std::time::{Duration, Instant};

use super::country::Country;
use super::{ALL_JOBS, FIRST_PAGE, Figures};
use crate::bench::Setup;

/// Milliseconds for a page, and for everything.
const PAGE_MARK: f64 = 50.0;
const ALL_MARK: f64 = 1_000.0;
/// The least runs of a command; of the quick one ten times as many.
const RUNS_MIN: usize = 3;

/// Measures the whole command, from its start to its end, with its output in a file.
pub async fn measure(country: &Country, setup: &Setup, figures: &mut Figures) {
    let runs = setup.runs.max(RUNS_MIN);
    let page = times(country, runs * 10, &["jobs", "--state", "pending"]).await;
    figures.times(FIRST_PAGE, PAGE_MARK, page);
    let all = times(country, runs, &["jobs", "--state", "pending", "--all", "--json"]).await;
    figures.times(ALL_JOBS, ALL_MARK, all);
}

async fn times(country: &Country, runs: usize, words: &'static [&'static str]) -> Vec<Duration> {
    let mut times = Vec::with_capacity(runs);
    let file = country.cluster.scratch("listing").join("output");
    for _ in 0..runs {
        let (gotgan, file) = (country.cluster.gotgan(), file.clone());
        // On a thread of its own: the nodes speak on this one.
        let run = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            // To read it all here would be a tenth of the work, on the same processors.
            let ran = gotgan.run_into(words, &file);
            (began.elapsed(), ran)
        });
        let (time, ran) = run.await.expect("a command that ends");
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        times.push(time);
    }
    times
}
