//! Arrays behind arrays: each task waits for the task of the same index of the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotgan_core::array::{TaskSet, task_id};
use gotgan_core::explain::explain;
use gotgan_core::ids::{IdempotencyKey, JobId, UserName};
use gotgan_core::job::{Digest, JobState};
use gotgan_core::lifecycle::{Action, Submission, SubmitRefusal, submit};
use gotgan_core::plan::Decision;
use gotgan_core::spec::{Dependency, DependencyKind, JobSpec};
use insta::assert_snapshot;

use crate::arrays::{acted, commit_all, drafted, run, tasks};
use crate::cluster::TestCluster;

type States = BTreeMap<JobId, JobState>;

fn gpus(count: u32) -> TestCluster {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(count, "b200").add();
    cluster
}

fn array(cluster: &mut TestCluster, tasks: u32) -> JobId {
    cluster.job().gpus(1, "b200").array(tasks, None).submit()
}

/// So many tasks behind those of the other array, as if submitted now.
fn behind(
    cluster: &mut TestCluster,
    tasks: u32,
    other: JobId,
    outcomes: States,
) -> Result<JobId, SubmitRefusal> {
    let spec = cluster.job().gpus(1, "b200").array(tasks, None).into_spec();
    let dependencies = vec![Dependency::on(DependencyKind::AfterCorr, other)];
    let submission = Submission {
        owner: UserName::new("lee").unwrap(),
        key: IdempotencyKey::new("behind").unwrap(),
        digest: Digest("".into()),
        spec: Arc::new(JobSpec { dependencies, ..JobSpec::clone(&spec) }),
        outcomes,
    };
    let stored = drafted(cluster, |draft| submit(draft, vec![submission]));
    stored.map(|ids| ids[0]).map_err(|(_, refusal)| refusal)
}

/// Places of the tasks of an array that start now.
fn started(cluster: &mut TestCluster, array: JobId) -> Vec<u64> {
    let place = |decision: &Decision| match decision {
        Decision::Start { job, .. } => job.0.checked_sub(array.0 + 1),
        Decision::Preempt { .. } => None,
    };
    commit_all(cluster).iter().filter_map(place).collect()
}

fn why(cluster: &mut TestCluster, job: JobId) -> String {
    let report = cluster.check().plan.report;
    explain(&cluster.world, job, Some(&report), None).unwrap().summary
}

#[test]
fn each_task_starts_once_the_one_of_the_same_index_has_completed() {
    let mut cluster = gpus(8);
    let first = array(&mut cluster, 4);
    commit_all(&mut cluster);
    let second = behind(&mut cluster, 4, first, States::new()).unwrap();
    let third = behind(&mut cluster, 4, second, States::new()).unwrap();
    assert_eq!(commit_all(&mut cluster), []);
    assert_snapshot!(why(&mut cluster, task_id(second, 2)), @"waits for job 1_2 to complete, which is starting");
    assert_snapshot!(why(&mut cluster, second), @"array of 4 pending; the next waits for job 1_0 to complete, which is starting");
    run(&mut cluster, task_id(first, 2), 0);
    assert_eq!(started(&mut cluster, second), [2]);
    run(&mut cluster, task_id(first, 1), 0);
    run(&mut cluster, task_id(first, 3), 7);
    // The third array loses its task with the second.
    assert_eq!(tasks(&cluster.world, second).in_state(JobState::Cancelled), 1);
    assert_eq!(tasks(&cluster.world, third).in_state(JobState::Cancelled), 1);
    run(&mut cluster, task_id(first, 0), 0);
    assert!(!cluster.world.arrays.contains_key(&first), "it has ended");
    assert_eq!(started(&mut cluster, second), [0, 1]);
    assert_eq!(tasks(&cluster.world, second).behind, None);
    for place in 0..3 {
        run(&mut cluster, task_id(second, place), 0);
    }
    assert_eq!(started(&mut cluster, third), [0, 1, 2]);
    cluster.check();
}

#[test]
fn tasks_go_with_those_that_were_cancelled_before_they_started() {
    let mut cluster = gpus(2);
    let first = array(&mut cluster, 1_000);
    let second = behind(&mut cluster, 1_000, first, States::new()).unwrap();
    let third = behind(&mut cluster, 1_000, second, States::new()).unwrap();
    commit_all(&mut cluster);
    acted(&mut cluster, first, Action::Cancel).unwrap();
    for array in [second, third] {
        let left = tasks(&cluster.world, array);
        assert_eq!((left.in_state(JobState::Cancelled), left.waiting.len()), (998, 2));
    }
    assert_snapshot!(cluster.world.arrays[&third].status.detail, @"cancelled: aftercorr:1002 cannot be fulfilled: 1002_[2-999] has cancelled");
    cluster.check();
}

#[test]
fn what_has_ended_by_the_submission_counts_as_it_ended() {
    let mut cluster = gpus(1);
    let first = array(&mut cluster, 5);
    for (place, code) in [(0, 0), (1, 7), (2, 0)] {
        commit_all(&mut cluster);
        run(&mut cluster, task_id(first, place), code);
    }
    let ended = [JobState::Completed, JobState::Failed, JobState::Completed];
    let outcomes: States = (0..).map(|place| task_id(first, place)).zip(ended).collect();
    let late = |id: JobId| States::from([(id, JobState::Running)]);
    let stale = States::from_iter(outcomes.clone().into_iter().chain(late(task_id(first, 1))));
    let refused = behind(&mut cluster.copy(), 5, first, stale);
    assert!(matches!(refused, Err(SubmitRefusal::StaleDependency(id)) if id == first));
    let second = behind(&mut cluster, 5, first, outcomes).unwrap();
    let stand = tasks(&cluster.world, second);
    assert_eq!(*stand.ready(), TaskSet::of([(0, 0), (2, 2)]));
    assert_eq!(stand.behind.clone().unwrap().places, TaskSet::of([(3, 4)]));
    assert_eq!(stand.in_state(JobState::Cancelled), 1);
    cluster.check();
}

#[test]
fn behind_an_array_of_which_nothing_completed_there_is_nothing_to_wait_for() {
    let mut cluster = gpus(1);
    let gone: States = (0..2).map(|place| (task_id(JobId(7), place), JobState::Failed)).collect();
    let refused = behind(&mut cluster, 2, JobId(7), gone).unwrap_err();
    assert_snapshot!(refused.to_string(), @"aftercorr cannot be fulfilled: job 7 has failed");
    let unknown = behind(&mut cluster, 2, JobId(7), States::new()).unwrap_err();
    assert_eq!(unknown, SubmitRefusal::UnknownDependency(JobId(7)));
    cluster.check();
}

#[test]
fn a_task_that_is_held_and_released_still_waits_for_its_counterpart() {
    let mut cluster = gpus(4);
    let first = array(&mut cluster, 2);
    let second = behind(&mut cluster, 2, first, States::new()).unwrap();
    acted(&mut cluster, second, Action::Hold).unwrap();
    commit_all(&mut cluster);
    run(&mut cluster, task_id(first, 0), 0);
    acted(&mut cluster, second, Action::Release).unwrap();
    assert_eq!(started(&mut cluster, second), [0]);
    run(&mut cluster, task_id(first, 1), 0);
    assert_eq!(started(&mut cluster, second), [1]);
    cluster.check();
}
