//! One scheduler with the nodes and the queue of a country: 6,250 workers on streams of their own, 50,000 GPUs, 100,000
//! jobs that wait.
//!
//! The nodes join once, and the figures are taken one after the other in the order of the names below, each in the
//! state that the one before left: an idle country, whole lives through it, 50,000 jobs at once, a full country with a
//! long queue. A figure that is not wanted is left out, and so is what only it needs.

mod beats;
pub(super) mod country;
pub(super) mod fill;
mod gang;
mod instruction;
mod listing;
mod lives;
pub mod process;
mod start;

use std::time::Duration;

use super::report::Unit;
use super::{Mark, Measure, Setup};
use country::Country;

pub use instruction::{STAMP, read_stamp};

/// Of all names.
const JOIN: &str = "scale/join";
const BEATS: &str = "scale/beats/cpu";
const LIVES: &str = "scale/lifecycles";
const FILL: &str = "scale/fill/99-percent";
const FIRST_PAGE: &str = "scale/jobs/first-page";
const ALL_JOBS: &str = "scale/jobs/all-json";
const START: &str = "scale/start/p99";
const SUBMIT: &str = "scale/submit/p99";
const GANG_TOLD: &str = "scale/gang/all-told";
const GANG_STARTED: &str = "scale/gang/all-started";
const MEMORY_PEAK: &str = "scale/memory/peak";
const MEMORY_NOW: &str = "scale/memory/now";
const INSTRUCTION_P50: &str = "scale/first-instruction/p50";
const INSTRUCTION_P99: &str = "scale/first-instruction/p99";

/// What needs a full country.
const WHEN_FULL: [&str; 9] =
    [FILL, FIRST_PAGE, ALL_JOBS, START, SUBMIT, GANG_TOLD, GANG_STARTED, MEMORY_PEAK, MEMORY_NOW];
/// What needs nodes at all, besides.
const WHEN_IDLE: [&str; 3] = [JOIN, BEATS, LIVES];

/// How large the country is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dose {
    /// Nodes with eight GPUs each.
    pub nodes: usize,
    /// Jobs that wait while starts and submissions are measured; half of them are there for the cold start.
    pub waiting: usize,
}

impl Default for Dose {
    fn default() -> Self {
        Self { nodes: 6_250, waiting: 100_000 }
    }
}

/// The figures so far.
#[derive(Debug)]
pub(super) struct Figures {
    only: String,
    measures: Vec<Measure>,
}

impl Figures {
    fn wants(&self, name: &str) -> bool {
        name.contains(&self.only)
    }

    fn wants_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.wants(name))
    }

    /// Keeps a figure that is wanted, and says it at once: the whole takes minutes.
    fn add(&mut self, measure: Measure) {
        if !self.wants(&measure.name) {
            return;
        }
        let Measure { name, value, unit, p50, p99, .. } = &measure;
        let load = super::machine::load_average();
        eprintln!("{name}: {value:.3} {unit} (p50 {p50:.3} ms, p99 {p99:.3} ms), load {load}");
        self.measures.push(measure);
    }

    fn times(&mut self, name: &str, most_ms: f64, times: Vec<Duration>) {
        self.add(Measure::of_times(name, Unit::Milliseconds, Mark::AtMost(most_ms), times));
    }

    fn slowest(&mut self, name: &str, most_ms: f64, times: Vec<Duration>) {
        self.add(Measure::of_slowest(name, Unit::Milliseconds, Mark::AtMost(most_ms), times));
    }

    fn value(&mut self, name: &str, unit: &str, mark: Option<Mark>, value: f64) {
        self.add(Measure::of_values(name, unit, mark, &[value]));
    }
}

/// Measures what is wanted, on SQLite. `setup.duration` is that of the lifecycles and of the idle minute.
///
/// # Panics
/// If the cluster does not do what it is there for; a missed mark is no reason.
pub async fn measure(setup: &Setup, dose: Dose) -> Vec<Measure> {
    let mut figures = Figures { only: setup.only.clone(), measures: Vec::new() };
    if figures.wants_any(&[INSTRUCTION_P50, INSTRUCTION_P99]) {
        instruction::measure(setup, &mut figures).await;
    }
    if figures.wants_any(&WHEN_IDLE) || figures.wants_any(&WHEN_FULL) {
        let mut country = Country::join(setup, dose, &mut figures).await;
        measure_country(&mut country, setup, &mut figures).await;
    }
    figures.measures
}

async fn measure_country(country: &mut Country, setup: &Setup, figures: &mut Figures) {
    if figures.wants(BEATS) {
        beats::measure(country, setup, figures).await;
    }
    if figures.wants(LIVES) {
        lives::measure(country, setup, figures).await;
    }
    if !figures.wants_any(&WHEN_FULL) {
        return;
    }
    fill::measure(country, figures).await;
    if figures.wants_any(&[FIRST_PAGE, ALL_JOBS]) {
        listing::measure(country, setup, figures).await;
    }
    fill::lengthen(country).await;
    if figures.wants(START) {
        start::measure_starts(country, setup, figures).await;
    }
    if figures.wants(SUBMIT) {
        start::measure_submissions(country, setup, figures).await;
    }
    if figures.wants_any(&[GANG_TOLD, GANG_STARTED]) {
        gang::measure(country, setup, figures).await;
    }
    country.measure_memory(figures);
}
