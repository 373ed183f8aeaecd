//! What it costs the scheduler to have all these workers on the line while nothing happens.

use std::time::Instant;

use super::country::Country;
use super::{BEATS, Figures, process};
use crate::bench::{Mark, Setup};

/// Of one processor, in hundredths.
const MARK: f64 = 10.0;

/// Measures the scheduler's processor time while all nodes beat and no job is there.
pub async fn measure(country: &Country, setup: &Setup, figures: &mut Figures) {
    let (before, began) = (process::cpu_by_thread(country.process()), Instant::now());
    tokio::time::sleep(setup.duration).await;
    let (after, elapsed) = (process::cpu_by_thread(country.process()), began.elapsed());
    let mut percent = 0.0;
    for (thread, used) in after {
        let used = used.saturating_sub(before.get(&thread).copied().unwrap_or_default());
        let of_core = used.as_secs_f64() / elapsed.as_secs_f64() * 100.0;
        eprintln!("  {thread}: {of_core:.2} % of a core");
        percent += of_core;
    }
    figures.value(BEATS, "% core", Some(Mark::AtMost(MARK)), percent);
}
