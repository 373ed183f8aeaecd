//! Tests of the meter: single readings, and what holds for all sequences of them.

#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

const GAP_MS: u64 = 20_000;

fn reading(uuid: &str, load: Option<u32>) -> GpuReading {
    GpuReading { uuid: uuid.into(), utilisation_percent: load, ..Default::default() }
}

fn one_gpu() -> Measuring {
    Measuring::begin([("GPU-0".to_owned(), 1000)], 1_000)
}

fn look(measuring: &mut Measuring, at_ms: u64, reading: &GpuReading) {
    measuring.look(&[Looked { at_ms, reading }], GAP_MS);
}

/// One look with load, counter and power.
fn see(measuring: &mut Measuring, at_ms: u64, load: u32, counter: Option<u64>, power: Option<u32>) {
    let mut reading = reading("GPU-0", Some(load));
    reading.energy_mj = counter;
    reading.power_mw = power;
    look(measuring, at_ms, &reading);
}

#[test]
fn a_reading_stands_for_the_time_since_the_one_before_and_the_last_one_until_the_end() {
    let mut measuring = one_gpu();
    see(&mut measuring, 6_000, 100, None, None);
    see(&mut measuring, 11_000, 50, None, None);
    measuring.end(13_000, GAP_MS);
    let found = measuring.measured().unwrap();
    assert_eq!((found.observed_gpu_ms, found.busy_gpu_ms), (12_000, Some(5_000 + 2_500 + 1_000)));
    assert_eq!((found.energy_mj, found.peak_memory_mib), (None, None), "absent, and not 0");
}

#[test]
fn what_lies_in_a_gap_is_not_known_but_the_counter_knows_its_energy() {
    let mut measuring = one_gpu();
    see(&mut measuring, 6_000, 100, Some(1_000), Some(500));
    see(&mut measuring, 66_000, 100, Some(31_000), Some(500));
    let found = measuring.measured().unwrap();
    assert_eq!((found.observed_gpu_ms, found.busy_gpu_ms), (5_000, Some(5_000)));
    assert_eq!(found.energy_mj, Some(32_500), "power until the counter was first read");
    measuring.end(600_000, GAP_MS);
    assert_eq!(measuring.measured().unwrap(), found, "nothing goes on for so long");
}

#[test]
fn a_look_from_before_the_attempt_says_nothing_of_its_counter() {
    let mut measuring = one_gpu();
    see(&mut measuring, 900, 100, Some(1_000), None);
    assert!(!measuring.knows_counters(), "so the next one is to be remembered at once");
    see(&mut measuring, 2_000, 100, Some(1_500), None);
    assert!(measuring.knows_counters());
}

#[test]
fn a_counter_that_falls_begins_again_and_what_was_before_is_kept() {
    let mut measuring = one_gpu();
    see(&mut measuring, 6_000, 10, Some(500_000), None);
    see(&mut measuring, 11_000, 10, Some(800_000), None);
    see(&mut measuring, 16_000, 10, Some(40), Some(2_000));
    see(&mut measuring, 21_000, 10, Some(90), None);
    let energy = measuring.measured().unwrap().energy_mj;
    assert_eq!(energy, Some(300_000 + 10_000 + 50), "the second is 2 W for 5 s");
}

#[test]
fn without_a_counter_power_over_time_is_the_energy() {
    let mut measuring = one_gpu();
    see(&mut measuring, 6_000, 10, None, Some(700_000));
    see(&mut measuring, 11_000, 10, None, Some(300_000));
    measuring.end(12_000, GAP_MS);
    assert_eq!(measuring.measured().unwrap().energy_mj, Some(3_500_000 + 1_500_000 + 300_000));
}

#[test]
fn a_counter_that_cannot_be_read_for_a_while_goes_on_where_it_was() {
    let mut measuring = one_gpu();
    see(&mut measuring, 6_000, 10, Some(100), None);
    see(&mut measuring, 11_000, 10, None, None);
    see(&mut measuring, 16_000, 10, Some(900), None);
    assert_eq!(measuring.measured().unwrap().energy_mj, Some(800));
}

#[test]
fn nothing_is_known_where_nothing_was_read() {
    let mut measuring = one_gpu();
    look(&mut measuring, 6_000, &reading("GPU-0", None));
    look(&mut measuring, 6_000, &reading("GPU-7", Some(100)));
    assert_eq!(measuring.measured(), None);
    assert_eq!(Measuring::begin([], 0).measured(), None, "an attempt without GPUs");
}

#[test]
fn a_figure_that_one_gpu_does_not_tell_is_absent() {
    let gpus = [("GPU-0".to_owned(), 1000), ("GPU-1".to_owned(), 1000)];
    let mut measuring = Measuring::begin(gpus, 0);
    let mut first = reading("GPU-0", Some(100));
    (first.energy_mj, first.memory_used_mib) = (Some(7), Some(512));
    let mut second = reading("GPU-1", None);
    second.memory_used_mib = Some(256);
    let looks =
        [Looked { at_ms: 5_000, reading: &first }, Looked { at_ms: 5_000, reading: &second }];
    measuring.look(&looks, GAP_MS);
    let found = measuring.measured().unwrap();
    assert_eq!((found.busy_gpu_ms, found.energy_mj), (None, None));
    assert_eq!((found.observed_gpu_ms, found.peak_memory_mib), (5_000, Some(768)));
}

#[test]
fn the_highest_memory_of_all_gpus_together_is_kept() {
    let gpus = [("GPU-0".to_owned(), 1000), ("GPU-1".to_owned(), 1000)];
    let mut measuring = Measuring::begin(gpus, 0);
    for (at_ms, first, second) in [(1_000, 700, 100), (2_000, 400, 500), (3_000, 100, 300)] {
        let mut readings = [reading("GPU-0", Some(1)), reading("GPU-1", Some(1))];
        readings[0].memory_used_mib = Some(first);
        readings[1].memory_used_mib = Some(second);
        let looks: Vec<_> = readings.iter().map(|reading| Looked { at_ms, reading }).collect();
        measuring.look(&looks, GAP_MS);
    }
    assert_eq!(measuring.measured().unwrap().peak_memory_mib, Some(900));
}

#[test]
fn of_a_part_of_a_gpu_that_part_is_counted_and_it_is_said() {
    let mut measuring = Measuring::begin([("GPU-0".to_owned(), 250)], 1_000);
    let mut seen = reading("GPU-0", Some(100));
    (seen.power_mw, seen.memory_used_mib) = (Some(400_000), Some(4_000));
    look(&mut measuring, 11_000, &seen);
    let found = measuring.measured().unwrap();
    assert_eq!((found.observed_gpu_ms, found.busy_gpu_ms), (2_500, Some(2_500)));
    assert_eq!((found.energy_mj, found.peak_memory_mib), (Some(1_000_000), Some(1_000)));
    assert!(found.estimated);
}

#[test]
fn gpus_are_idle_while_all_of_them_do_nothing() {
    let gpus = [("GPU-0".to_owned(), 1000), ("GPU-1".to_owned(), 1000)];
    let mut measuring = Measuring::begin(gpus, 0);
    let mut step = |at_ms, first, second| {
        let readings = [reading("GPU-0", first), reading("GPU-1", second)];
        let looks: Vec<_> = readings.iter().map(|reading| Looked { at_ms, reading }).collect();
        measuring.look(&looks, GAP_MS);
        (measuring.idle_ms(), measuring.measured().and_then(|found| found.longest_idle_ms))
    };
    assert_eq!(step(5_000, Some(0), Some(9)), (0, Some(5_000)));
    assert_eq!(step(10_000, Some(0), Some(0)), (5_000, Some(10_000)));
    assert_eq!(step(15_000, Some(0), Some(0)), (10_000, Some(15_000)));
    assert_eq!(step(16_000, Some(3), Some(0)), (0, Some(15_000)));
    assert_eq!(step(17_000, Some(0), Some(0)), (1_000, Some(15_000)));
    assert_eq!(step(18_000, Some(0), None), (0, Some(15_000)), "it is not known");
    assert_eq!(step(60_000, Some(0), Some(0)), (0, Some(15_000)), "a gap");
}

/// What may come one after another: time since the one before, load, counter, power.
type Step = (u64, Option<u32>, Option<u64>, Option<u32>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        0..40_000u64,
        prop::option::of(0..150u32),
        prop::option::of(0..1_000_000u64),
        prop::option::of(0..2_000_000u32),
    );
    prop::collection::vec(step, 0..40)
}

fn readings_of(steps: &[Step]) -> Vec<(u64, GpuReading)> {
    let mut at_ms = 1_000;
    let each = |(after_ms, load, counter, power): &Step| {
        at_ms += after_ms;
        let mut reading = reading("GPU-0", *load);
        (reading.energy_mj, reading.power_mw) = (*counter, *power);
        (at_ms, reading)
    };
    steps.iter().map(each).collect()
}

/// The figures as numbers that may only grow.
fn figures(measuring: &Measuring) -> [u64; 4] {
    let found = measuring.measured().unwrap_or_default();
    let rest = [found.busy_gpu_ms, found.energy_mj, found.longest_idle_ms];
    let [busy, energy, idle] = rest.map(Option::unwrap_or_default);
    [found.observed_gpu_ms, busy, energy, idle]
}

proptest! {
    #[test]
    fn no_more_is_busy_than_was_observed_and_no_more_observed_than_was_held(
        steps in steps(), milli in 1..=1000u32,
    ) {
        let mut measuring = Measuring::begin([("GPU-0".to_owned(), milli)], 1_000);
        let mut now_ms = 1_000;
        for (at_ms, reading) in readings_of(&steps) {
            look(&mut measuring, at_ms, &reading);
            now_ms = at_ms;
        }
        measuring.end(now_ms + 3_000, GAP_MS);
        let [observed, busy, _, idle] = figures(&measuring);
        let held = (now_ms + 3_000 - 1_000) * u64::from(milli) / 1000;
        prop_assert!(busy <= observed && observed <= held, "{busy} {observed} {held}");
        prop_assert!(idle <= now_ms + 3_000 - 1_000);
    }

    #[test]
    fn no_figure_ever_falls(steps in steps()) {
        let mut measuring = one_gpu();
        let mut before = figures(&measuring);
        for (at_ms, reading) in readings_of(&steps) {
            look(&mut measuring, at_ms, &reading);
            let now = figures(&measuring);
            prop_assert!(before.iter().zip(&now).all(|(before, now)| before <= now));
            before = now;
        }
    }

    #[test]
    fn a_look_that_comes_again_changes_nothing(steps in steps()) {
        let mut measuring = one_gpu();
        for (at_ms, reading) in readings_of(&steps) {
            look(&mut measuring, at_ms, &reading);
            let once = measuring.clone();
            look(&mut measuring, at_ms, &reading);
            look(&mut measuring, at_ms - 1, &reading);
            prop_assert_eq!(&once, &measuring);
        }
    }

    #[test]
    fn with_a_counter_alone_energy_is_the_sum_of_all_that_it_rose(
        counters in prop::collection::vec(0..1_000_000u64, 1..30),
    ) {
        let mut measuring = one_gpu();
        for (number, counter) in (1..).zip(&counters) {
            see(&mut measuring, 1_000 + number * 90_000, 0, Some(*counter), None);
        }
        let risen: u64 = counters.windows(2).map(|two| two[1].saturating_sub(two[0])).sum();
        let found = measuring.gpus[0].energy_uj.unwrap_or(0) / MICRO_IN_MILLI;
        prop_assert_eq!(found, risen);
    }
}
