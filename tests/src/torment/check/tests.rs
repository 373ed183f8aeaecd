//! Histories in which nothing is wrong, and for every promise one in which it was broken.

use gotgan_proto::v1::{AttemptState, GpuAllocation, JobSpec, NodeAllocation};

use super::*;
use crate::torment::history::{Count, Limit, Look, Submit, WrongClock};

const SECOND_US: i64 = 1_000_000;
const ALPHA: &str = "centre/alpha";
const NOTHING: [u8; 0] = [];

fn attempt(number: u32, nodes: &[&str], leased_s: i64, ended_s: i64) -> Attempt {
    let part = |node: &&str| NodeAllocation {
        node: (*node).to_owned(),
        gpus: vec![GpuAllocation { uuid: format!("GPU-{node}"), milli: 1000 }],
        ..Default::default()
    };
    Attempt {
        number,
        state: AttemptState::Ended.into(),
        cause: Cause::User.into(),
        allocation: nodes.iter().map(part).collect(),
        leased_us: leased_s * SECOND_US,
        ended_us: ended_s * SECOND_US,
        ..Default::default()
    }
}

fn job(job_id: u64, project: &str, attempts: Vec<Attempt>) -> Job {
    let spec =
        JobSpec { name: format!("key-{job_id}"), project: project.into(), ..Default::default() };
    Job {
        job_id,
        spec: Some(spec),
        state: JobState::Completed.into(),
        attempt: attempts.len().try_into().unwrap(),
        attempts,
        ..Default::default()
    }
}

fn run(job_id: u64, attempt: u32, node: &str, from_s: i64, until_s: i64) -> Run {
    Run {
        node: node.into(),
        job_id,
        attempt,
        gpus: vec![(format!("GPU-{node}"), 1000)],
        imex_channel: 0,
        from_us: from_s * SECOND_US,
        until_us: Some(until_s * SECOND_US),
        starts: 1,
    }
}

fn submit(job_id: u64) -> Submit {
    let key = format!("key-{job_id}");
    let (answer, again) = (Answer::Done(job_id), vec![job_id]);
    Submit { key, sent_us: 0, answered_us: 1, answer, again }
}

fn look(asked_us: i64, state: JobState, attempt: u32) -> Look {
    Look { asked_us, state, attempt }
}

/// A gang of two nodes that needed two attempts, and a job after it on one of them.
fn sound() -> History {
    let gang = vec![attempt(1, &["a", "b"], 1, 20), attempt(2, &["a", "b"], 30, 50)];
    let looks = [(JobState::Pending, 0), (JobState::Running, 2), (JobState::Completed, 2)];
    History {
        submits: vec![submit(1), submit(2)],
        limits: vec![limit(2, 0), limit(1, 100)],
        guarantees: [(ALPHA.to_owned(), 2000)].into(),
        looks: [(1, looks.map(|(state, attempt)| look(0, state, attempt)).into())].into(),
        counts: vec![Count { asked_us: 0, capacity: 3000, free: 1000, allocated: 1500, down: 500 }],
        runs: vec![
            run(1, 1, "a", 2, 20),
            run(1, 1, "b", 2, 21),
            run(1, 2, "a", 31, 50),
            run(1, 2, "b", 31, 50),
            run(2, 1, "b", 51, 60),
        ],
        jobs: vec![job(1, LIMITED, gang), job(2, LIMITED, vec![attempt(1, &["b"], 51, 60)])],
        ..History::default()
    }
}

fn limit(gpus: u64, at_s: i64) -> Limit {
    let at_us = at_s * SECOND_US;
    let project = LIMITED.to_owned();
    Limit { project, gpu_milli: gpus * 1000, sent_us: at_us, answered_us: at_us }
}

/// Breaks a sound history and tells which promises are found broken.
fn broken(spoil: impl FnOnce(&mut History)) -> Vec<u8> {
    let mut history = sound();
    spoil(&mut history);
    let mut promises: Vec<u8> = judge(&history).iter().map(|found| found.promise).collect();
    promises.dedup();
    promises
}

#[test]
fn in_a_sound_history_nothing_is_found() {
    assert_eq!(judge(&sound()), Vec::new());
}

#[test]
fn a_gpu_in_two_attempts_at_once_is_found() {
    let found = broken(|history| {
        history.runs[4].from_us = 49 * SECOND_US;
        history.limits[0].gpu_milli = 9000;
    });
    assert_eq!(found, [1]);
}

#[test]
fn gpus_that_do_not_add_up_are_found() {
    assert_eq!(broken(|history| history.counts[0].free -= 1), [2]);
}

#[test]
fn a_limit_that_was_passed_is_found_and_one_that_came_later_is_not_held_against_anybody() {
    assert_eq!(broken(|history| history.limits[0].gpu_milli = 1500), [3]);
    // Lowered while it ran, and in force for a while before another start.
    assert_eq!(broken(|history| history.limits[1] = limit(1, 3)), [3]);
    assert_eq!(broken(|history| history.limits[1] = limit(1, 32)), NOTHING);
    // Nobody knows when it came into force.
    assert_eq!(broken(|history| history.limits[1].answered_us = i64::MAX), NOTHING);
}

#[test]
fn an_acknowledged_job_that_is_lost_doubled_or_of_another_number_is_found() {
    assert_eq!(broken(|history| drop(history.jobs.pop().map(|_| history.runs.pop()))), [4]);
    assert_eq!(broken(|history| history.jobs.push(job(3, ALPHA, Vec::new()))), [4]);
    let doubled = |history: &mut History| {
        let mut twin = job(3, ALPHA, Vec::new());
        twin.spec.as_mut().unwrap().name = "key-2".into();
        history.jobs.push(twin);
    };
    assert_eq!(broken(doubled), [4]);
    assert_eq!(broken(|history| history.submits[1].answer = Answer::Done(7)), [4]);
    assert_eq!(broken(|history| history.submits[1].again = vec![2, 3]), [4]);
    let refused = Answer::Refused("no".into());
    assert_eq!(broken(|history| history.submits[1].answer = refused), [4]);
}

#[test]
fn a_submission_that_nobody_answered_may_be_there_or_not() {
    let unanswered = |history: &mut History| {
        history.submits[1].answer = Answer::None;
        history.submits[1].again.clear();
    };
    assert_eq!(broken(unanswered), NOTHING);
    let and_gone = |history: &mut History| {
        unanswered(history);
        history.jobs.pop();
        history.runs.pop();
    };
    assert_eq!(broken(and_gone), NOTHING);
}

#[test]
fn a_second_start_an_unknown_attempt_and_others_gpus_are_found() {
    assert_eq!(broken(|history| history.runs[4].starts = 2), [5]);
    assert_eq!(broken(|history| drop(history.jobs[1].attempts.pop())), [5]);
    assert_eq!(broken(|history| history.runs[4].gpus[0].0 = "GPU-c".into()), [5]);
    assert_eq!(broken(|history| history.jobs[0].attempts[1].number = 3), [5, 6]);
}

#[test]
fn a_job_whose_attempts_decrease_is_found() {
    let back = |history: &mut History| {
        let looks = history.looks.get_mut(&1).unwrap();
        looks.insert(1, look(0, JobState::Starting, 3));
    };
    assert_eq!(broken(back), [5]);
}

#[test]
fn a_gang_that_completed_without_one_of_its_nodes_is_found() {
    assert_eq!(broken(|history| drop(history.runs.remove(3))), [6]);
}

#[test]
fn what_outlives_its_attempt_is_found_but_on_a_node_that_could_not_be_told() {
    let late = |history: &mut History| history.runs[0].until_us = Some(29 * SECOND_US);
    assert_eq!(broken(late), [7]);
    let excused = |history: &mut History| {
        late(history);
        let apart = vec![(18 * SECOND_US, 22 * SECOND_US)];
        history.apart.insert("a".into(), apart);
    };
    assert_eq!(broken(excused), NOTHING);
}

#[test]
fn times_that_a_wrong_clock_may_have_written_are_held_against_nobody_and_others_are() {
    let found = |from_s: i64, by_s: i64, node: Option<&str>| {
        broken(|history| {
            history.runs[0].until_us = Some(29 * SECOND_US);
            let (from_us, until_us) = (from_s * SECOND_US, (from_s + 1) * SECOND_US);
            let (by_us, node) = (by_s * SECOND_US, node.map(str::to_owned));
            history.wrong_clocks.push(WrongClock { from_us, until_us, by_us, node });
        })
    };
    assert_eq!(found(15, 10, None), NOTHING);
    assert_eq!(found(15, 10, Some("a")), NOTHING);
    assert_eq!(found(15, 10, Some("c")), [7], "of a node that has nothing to do with it");
    assert_eq!(found(300, 10, None), [7], "long after it");
    assert_eq!(found(-300, -10, None), [7], "and long before");
}

#[test]
fn a_job_that_changes_after_its_end_is_found() {
    let revived = |history: &mut History| {
        history.looks.get_mut(&1).unwrap().push(look(0, JobState::Running, 2));
    };
    assert_eq!(broken(revived), [7]);
    assert_eq!(broken(|history| history.jobs[0].state = JobState::Failed.into()), [7]);
}

#[test]
fn who_is_stopped_within_its_guarantee_is_found_and_a_borrower_is_not() {
    let preempted = |guarantee: u64| {
        broken(|history| {
            history.jobs[1].attempts[0].cause = Cause::Preempted.into();
            history.guarantees = [(LIMITED.to_owned(), guarantee)].into();
        })
    };
    assert_eq!((preempted(1000), preempted(999)), (vec![10], Vec::new()));
    let short = |history: &mut History| {
        history.jobs[1].attempts[0].cause = Cause::Preempted.into();
        history.guarantees = [(LIMITED.to_owned(), 3000)].into();
        history.counts[0].asked_us = 59 * SECOND_US;
    };
    assert_eq!(broken(short), NOTHING, "there was less than was promised");
}

#[test]
fn nobody_led_between_two_answers_that_are_far_apart() {
    let history = History { led_us: vec![1, 2, 9, 10], ..History::default() };
    assert_eq!(history.leaderless(3), [(2, 9)]);
}

#[test]
fn what_others_have_found_is_told() {
    let spoil = |history: &mut History| {
        history.said.push("panicked".into());
        history.books.push("not balanced".into());
        history.replayed.push("another world".into());
        history.stuck.push((1, "pending".into()));
    };
    assert_eq!(broken(spoil), [0, 8, 11, 12]);
}
