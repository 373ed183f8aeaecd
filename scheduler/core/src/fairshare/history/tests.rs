//! What is kept of use and of asking, in small cases, and whatever the order in which attempts end.

use super::*;
use crate::attempt::{
    Attempt, AttemptState, Cause, GpuAllocation, NodeAllocation, Outcome, Placement,
};
use crate::ids::{AttemptId, Epoch, GpuUuid, JobId, NodeName};
use proptest::prelude::*;
use std::sync::Arc;

const DAY: i64 = 24 * 60 * 60;
/// Some day of 2026.
const START: i64 = 1_790_000_000;

fn at(second: i64) -> UnixMicros {
    UnixMicros(0).plus_seconds(START + second)
}

fn class() -> GpuClass {
    GpuClass::new("b200").unwrap()
}

/// An attempt of `project` from some second to another, for a cause.
fn attempt(project: &str, gpus: u64, from: i64, until: i64, cause: Cause) -> Attempt {
    let gpu = GpuAllocation { uuid: GpuUuid::new("GPU-1").unwrap(), milli: GpuMilli(gpus) };
    let allocation = NodeAllocation {
        node: NodeName::new("n1").unwrap(),
        gpus: vec![gpu],
        cpu_milli: crate::amount::CpuMilli(0),
        memory_mib: crate::amount::MemoryMib(0),
        imex: None,
    };
    Attempt {
        id: AttemptId { job: JobId(1), number: 1 },
        project: ProjectPath::new(project).unwrap(),
        placement: Arc::new(Placement {
            class: Some(class()),
            nodes: vec![allocation],
            gpu_cap_watts: None,
        }),
        epoch: Epoch(1),
        leased: at(from),
        hold: GpuMilliSeconds(0),
        meter: crate::meter::Meter::default(),
        state: AttemptState::Ended,
        started: None,
        ended: Some(at(until)),
        members: Vec::new(),
        stop: None,
        outcome: Some(Outcome { cause, exit: None, detail: String::new() }),
        next_step: 1,
        measured: None,
        idle_told: None,
    }
}

fn used(history: &History, path: &str, second: i64) -> i64 {
    history.used(path, &class(), history.moment(at(second))).0
}

fn asked(history: &History, path: &str, second: i64, waits: Option<i64>) -> f64 {
    let moment = history.moment(at(second));
    history.asked(path, &class(), moment, waits.map(at)).0 as f64 / Part::WHOLE.0 as f64
}

#[test]
fn time_that_is_given_back_is_no_use_and_the_project_asked_all_the_same() {
    let mut history = History::default();
    for cause in [Cause::Hardware, Cause::Node, Cause::Network, Cause::Site] {
        let lost = attempt("lab/a", 8000, 0, 14 * DAY, cause);
        history.begin(&lost);
        history.end(&lost);
    }
    assert_eq!(used(&history, "lab/a", 14 * DAY), 0);
    assert!((asked(&history, "lab/a", 14 * DAY, None) - 0.5).abs() < 0.01);
    let preempted = attempt("lab/a", 8000, 0, DAY, Cause::Preempted);
    history.begin(&preempted);
    history.end(&preempted);
    assert!(used(&history, "lab/a", DAY) > 0);
    assert_eq!(used(&history, "lab", DAY), used(&history, "lab/a", DAY));
}

#[test]
fn what_runs_counts_to_the_second_as_what_has_ended() {
    for length in [1, 100, DAY, 13 * DAY, 40 * DAY] {
        let (mut runs, mut ended) = (History::default(), History::default());
        let one = attempt("lab/a", 8000, 0, length, Cause::User);
        runs.begin(&one);
        ended.begin(&one);
        ended.end(&one);
        assert_eq!(used(&runs, "lab", length), used(&ended, "lab", length), "{length}");
    }
}

#[test]
fn a_clock_that_goes_back_before_the_lease_shows_no_use() {
    let mut history = History::default();
    history.begin(&attempt("lab/a", 8000, 0, DAY, Cause::User));
    assert_eq!(used(&history, "lab/a", -20 * DAY), 0);
    assert_eq!(used(&history, "lab/a", -10), 0);
    assert_eq!(asked(&history, "lab/a", -20 * DAY, None), 0.0);
}

#[test]
fn asking_is_one_stretch_whether_a_job_waits_or_runs() {
    let mut history = History::default();
    history.begin(&attempt("lab/a", 8000, 0, DAY, Cause::User));
    let half = asked(&history, "lab/a", 14 * DAY, None);
    assert!((half - 0.5).abs() < 0.01, "{half}");
    // It has waited since before and since after the one that runs began.
    assert!(asked(&history, "lab/a", 14 * DAY, Some(DAY)) == half);
    assert!((asked(&history, "lab/a", 14 * DAY, Some(-14 * DAY)) - 0.75).abs() < 0.01);
    assert_eq!(asked(&History::default(), "lab/a", 0, None), 0.0);
}

#[test]
fn idle_for_months_nothing_is_left() {
    let mut history = History::default();
    let old = attempt("lab/a", 50_000_000, 0, 100 * DAY, Cause::User);
    history.begin(&old);
    history.end(&old);
    let then = used(&history, "lab/a", 100 * DAY);
    assert!(used(&history, "lab/a", 142 * DAY).abs_diff(then / 8) <= 1);
    assert_eq!(used(&history, "lab/a", 400 * DAY), 0);
    assert_eq!(asked(&history, "lab/a", 400 * DAY, None), 0.0);
}

#[test]
fn what_is_held_always_is_worth_the_half_life_over_ln_2() {
    let mut history = History::default();
    history.begin(&attempt("lab/a", 1000, -500 * DAY, 0, Cause::User));
    let moment = history.moment(at(0));
    let always = i64::try_from(moment.always_s()).unwrap();
    assert!((always - 1_745_126).abs() < 60, "{always}");
    assert!((used(&history, "lab/a", 0) / 1000 - always).abs() < 40);
    assert!(asked(&history, "lab/a", 0, None) > 0.9999);
}

fn attempts() -> impl Strategy<Value = Vec<Attempt>> {
    let project = prop_oneof![Just("lab/a"), Just("lab/b"), Just("lab")];
    let cause = prop_oneof![Just(Cause::User), Just(Cause::Node)];
    let one = (project, 1..50_000_u64, 0..60 * DAY, 1..40 * DAY, cause);
    let make =
        |(project, gpus, from, length, cause)| attempt(project, gpus, from, from + length, cause);
    proptest::collection::vec(one.prop_map(make), 1..10)
}

proptest! {
    #[test]
    fn the_order_in_which_attempts_end_changes_nothing(attempts in attempts(), turn in 0..10_usize) {
        let (mut live, mut restored) = (History::default(), History::default());
        attempts.iter().for_each(|attempt| live.begin(attempt));
        attempts.iter().for_each(|attempt| live.end(attempt));
        let turn = turn % attempts.len();
        for attempt in attempts[turn..].iter().chain(&attempts[..turn]) {
            restored.begin(attempt);
            restored.end(attempt);
        }
        prop_assert_eq!(live, restored);
    }

    #[test]
    fn a_node_used_what_those_below_it_used(attempts in attempts(), running in 0..10_usize) {
        let mut history = History::default();
        attempts.iter().for_each(|attempt| history.begin(attempt));
        attempts.iter().skip(running).for_each(|attempt| history.end(attempt));
        let own: i64 = attempts.iter().enumerate()
            .filter(|(place, attempt)| *place < running || !is_refunded(attempt.outcome.as_ref().unwrap().cause))
            .map(|(place, attempt)| {
                let mut alone = History::default();
                alone.begin(attempt);
                if place >= running {
                    alone.end(attempt);
                }
                used(&alone, "lab", 100 * DAY)
            })
            .sum();
        prop_assert!(used(&history, "lab", 100 * DAY).abs_diff(own) <= attempts.len() as u64);
    }
}
