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

/// What a measure is to reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "mark_is", content = "mark")]
pub enum Mark {
    /// So much, or more.
    AtLeast(f64),
    /// So much, or less.
    AtMost(f64),
}

/// Unit of a measured time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Thousandths of a second.
    Milliseconds,
    /// Millionths of a second.
    Microseconds,
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
    #[serde(flatten)]
    pub mark: Option<Mark>,
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
    pub fn of(name: &str, unit: &str, mark: Option<Mark>, samples: Vec<Sample>) -> Self {
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

    /// The median of some times.
    ///
    /// # Panics
    /// If there was none.
    #[must_use]
    pub fn of_times(name: &str, unit: Unit, mark: Mark, mut times: Vec<Duration>) -> Self {
        let runs = times.iter().map(|time| unit.of(*time)).map(round).take(SHOWN_MAX).collect();
        times.sort_unstable();
        let median = *times.get(times.len() / 2).expect("at least one time");
        Self {
            name: name.to_owned(),
            unit: unit.word().to_owned(),
            value: round(unit.of(median)),
            p50: round(percentile(&times, 50)),
            p99: round(percentile(&times, 99)),
            mark: Some(mark),
            runs,
        }
    }

    /// The slowest but one in a hundred of some times.
    #[must_use]
    pub fn of_slowest(name: &str, unit: Unit, mark: Mark, mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let (p50, p99) = (percentile(&times, 50), percentile(&times, 99));
        let value = round(unit.of(Duration::from_secs_f64(p99 / 1e3)));
        let runs = vec![value];
        let (name, unit) = (name.to_owned(), unit.word().to_owned());
        Self { name, unit, value, p50: round(p50), p99: round(p99), mark: Some(mark), runs }
    }

    /// The median of some values that are no times.
    ///
    /// # Panics
    /// If there was none.
    #[must_use]
    pub fn of_values(name: &str, unit: &str, mark: Option<Mark>, values: &[f64]) -> Self {
        let sample = |value: &f64| Sample { rate: *value, p50_ms: 0.0, p99_ms: 0.0 };
        Self::of(name, unit, mark, values.iter().map(sample).collect())
    }

    fn verdict(&self) -> String {
        let (mark, reached) = match self.mark {
            None => return String::new(),
            Some(Mark::AtLeast(mark)) => (mark, self.value >= mark),
            Some(Mark::AtMost(mark)) => (mark, self.value <= mark),
        };
        format!("{mark:.0} {}", if reached { "reached" } else { "MISSED" })
    }
}

/// Values of runs that are kept; of thousands of short ones a few show enough.
const SHOWN_MAX: usize = 5;

impl Unit {
    fn of(self, time: Duration) -> f64 {
        match self {
            Unit::Milliseconds => time.as_secs_f64() * 1e3,
            Unit::Microseconds => time.as_secs_f64() * 1e6,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Unit::Milliseconds => "ms",
            Unit::Microseconds => "us",
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
            let digits = if one.value < 100.0 { 2 } else { 0 };
            let runs: Vec<String> = one.runs.iter().map(|run| format!("{run:.digits$}")).collect();
            format!(
                "{:<36} {:>9.digits$} {:<7} {:>9.3} {:>9.3}  {:<14} {}\n",
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
        let measure = Measure::of(
            "x",
            "jobs/s",
            Some(Mark::AtLeast(6.0)),
            vec![sample(9.0), sample(1.0), sample(5.0)],
        );
        assert_eq!(measure.value, 5.0);
        assert_eq!(measure.runs, [9.0, 1.0, 5.0]);
        assert_eq!(measure.verdict(), "6 MISSED");
    }

    #[test]
    fn a_time_is_to_be_no_longer_than_its_mark() {
        let times = [3, 1, 2].map(Duration::from_micros).to_vec();
        let measure = Measure::of_times("x", Unit::Microseconds, Mark::AtMost(2.0), times.clone());
        assert_eq!((measure.value, measure.verdict()), (2.0, "2 reached".to_owned()));
        let measure = Measure::of_times("x", Unit::Microseconds, Mark::AtMost(1.0), times);
        assert_eq!(measure.verdict(), "1 MISSED");
    }

    #[test]
    fn the_slowest_but_one_in_a_hundred_counts_where_it_is_asked_for() {
        let times = (1..=200).map(Duration::from_millis).collect();
        let measure = Measure::of_slowest("x", Unit::Milliseconds, Mark::AtMost(50.0), times);
        assert_eq!((measure.p50, measure.value), (101.0, 199.0));
        assert_eq!(measure.verdict(), "50 MISSED");
    }

    #[test]
    fn percentiles_of_few_and_of_none() {
        let one = [Duration::from_millis(3)];
        assert_eq!((percentile(&one, 50), percentile(&one, 99)), (3.0, 3.0));
        assert_eq!(percentile(&[], 99), 0.0);
    }
}
