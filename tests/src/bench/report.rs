//! Results: samples, their median, a table for people and JSON for programs.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::machine::Machine;

/// One run.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Jobs a second.
    pub rate: f64,
    /// Half of the calls (or jobs) took no longer, in milliseconds.
    pub p50_ms: f64,
    /// All but one in a hundred took no longer.
    pub p99_ms: f64,
}

/// The median of some runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measure {
    /// What was measured.
    pub name: String,
    /// Unit of `value`.
    pub unit: String,
    /// The median run's.
    pub value: f64,
    /// Milliseconds, of the median run.
    pub p50: f64,
    /// Milliseconds, of the median run.
    pub p99: f64,
    /// What it is to reach, if anything.
    pub mark: Option<f64>,
    /// The values of all runs, in their order.
    pub runs: Vec<f64>,
}

/// All results with where they come from.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Name and version of this form.
    pub schema: &'static str,
    /// Where and what was measured.
    pub machine: Machine,
    /// Seconds each run submitted.
    pub seconds: f64,
    /// Decided the mix of jobs.
    pub seed: u64,
    /// Whether connections were encrypted.
    pub tls: bool,
    /// Whether jobs were submitted held.
    pub held: bool,
    /// In the order measured.
    pub results: Vec<Measure>,
}

impl Sample {
    /// Of jobs done in a time, with how long each call or job took.
    #[must_use]
    pub fn new(jobs: usize, elapsed: Duration, mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        Self {
            rate: jobs as f64 / elapsed.as_secs_f64(),
            p50_ms: percentile(&latencies, 50),
            p99_ms: percentile(&latencies, 99),
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}/s, p50 {:.2} ms, p99 {:.2} ms", self.rate, self.p50_ms, self.p99_ms)
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
}

impl Measure {
    /// The median of the runs.
    ///
    /// # Panics
    /// If there was none.
    #[must_use]
    pub fn of(name: &str, unit: &str, mark: Option<f64>, samples: Vec<Sample>) -> Self {
        let runs = samples.iter().map(|sample| round(sample.rate)).collect();
        let mut sorted = samples;
        sorted.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        let median = sorted.get(sorted.len() / 2).expect("at least one run");
        Self {
            name: name.to_owned(),
            unit: unit.to_owned(),
            value: round(median.rate),
            p50: round(median.p50_ms),
            p99: round(median.p99_ms),
            mark,
            runs,
        }
    }

    fn verdict(&self) -> String {
        match self.mark {
            None => String::new(),
            Some(mark) if self.value >= mark => format!("{mark:.0} reached"),
            Some(mark) => format!("{mark:.0} MISSED"),
        }
    }
}

/// More digits than these are noise.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

impl Report {
    /// The results as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let rows = self.results.iter().map(|one| {
            let runs: Vec<String> = one.runs.iter().map(|run| format!("{run:.0}")).collect();
            format!(
                "{:<36} {:>9.0} {:<7} {:>9.2} {:>9.2}  {:<14} {}\n",
                one.name,
                one.value,
                one.unit,
                one.p50,
                one.p99,
                one.verdict(),
                runs.join(" ")
            )
        });
        let head = format!(
            "{:<36} {:>9} {:<7} {:>9} {:>9}  {:<14} {}\n",
            "what", "median", "unit", "p50 ms", "p99 ms", "mark", "runs"
        );
        head + &rows.collect::<String>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rate: f64) -> Sample {
        Sample { rate, p50_ms: 1.0, p99_ms: 2.0 }
    }

    #[test]
    fn the_middle_run_counts() {
        let measure =
            Measure::of("x", "jobs/s", Some(6.0), vec![sample(9.0), sample(1.0), sample(5.0)]);
        assert_eq!(measure.value, 5.0);
        assert_eq!(measure.runs, [9.0, 1.0, 5.0]);
        assert_eq!(measure.verdict(), "6 MISSED");
    }

    #[test]
    fn percentiles_of_few_and_of_none() {
        let one = [Duration::from_millis(3)];
        assert_eq!((percentile(&one, 50), percentile(&one, 99)), (3.0, 3.0));
        assert_eq!(percentile(&[], 99), 0.0);
    }
}
