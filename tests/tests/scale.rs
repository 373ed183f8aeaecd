//! The benchmark of a country, in a village: it must find everything it wants to measure.

use std::time::Duration;

use gotgan_tests::bench::scale::{self, Dose};
use gotgan_tests::bench::{Measure, Setup};

/// Figures of a whole run.
const FIGURES: usize = 14;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_figure_of_a_country_can_be_measured_in_a_village() {
    let setup = Setup {
        duration: Duration::from_millis(500),
        runs: 1,
        seed: 7,
        plaintext: false,
        held: false,
        only: String::new(),
        directory: std::env::temp_dir(),
    };
    let measures = scale::measure(&setup, Dose { nodes: 40, waiting: 200 }).await;
    let names: Vec<&str> = measures.iter().map(|measure| measure.name.as_str()).collect();
    assert_eq!(names.len(), FIGURES, "{names:?}");
    let is_nothing = |measure: &&Measure| !measure.value.is_finite() || measure.value <= 0.0;
    let nothing: Vec<&Measure> = measures.iter().filter(is_nothing).collect();
    assert!(nothing.is_empty(), "{nothing:?}");
}
