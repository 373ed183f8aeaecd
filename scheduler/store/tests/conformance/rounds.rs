//! What a round may change, and that it is written whole or not at all.

use std::sync::Arc;

use gotgan_core::attempt::Cause;
use gotgan_core::change::Change;
use gotgan_core::ids::{AttemptId, IdempotencyKey, JobId};
use gotgan_core::job::JobState;
use gotgan_core::node::{Admin, Liveness};
use gotgan_core::step::{Task, TaskState};
use gotgan_store::{Result, StoreError};

use crate::harness::Place;
use crate::things::{
    Leader, at, attempt, ended, inventory, job, job_event, moved, node_name, plain_job, running,
    step, submitted,
};

fn assert_conflict(result: Result<()>) {
    assert!(matches!(result, Err(StoreError::Conflict(_))), "{result:?}");
}

/// A leader with jobs 1 to 5 and a node.
async fn leader_with_jobs(place: &Place) -> Leader {
    let mut leader = Leader::at(place).await;
    let mut changes = vec![Change::NodeRegistered(Arc::new(inventory("n1")))];
    changes.extend((1..=5).map(|id| submitted(plain_job(id))));
    leader.commit(changes).await;
    leader
}

fn lease(job: u64, gpus: &[usize], milli: u64) -> Change {
    Change::AttemptLeased(Arc::new(attempt(job, 1, "n1", gpus, milli)))
}

fn end(job: u64, gpus: &[usize], milli: u64) -> Change {
    Change::AttemptMoved(Arc::new(ended(attempt(job, 1, "n1", gpus, milli), 20, Cause::User)))
}

pub async fn a_key_is_used_once_for_each_owner(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    let key = IdempotencyKey::new("same").unwrap();
    let with_key = |id, owner: &str| {
        let mut job = job(id, owner, "public/nup/a", "x");
        job.key = key.clone();
        submitted(job)
    };
    leader.commit(vec![with_key(1, "minji"), with_key(2, "jun")]).await;
    assert_conflict(leader.try_commit(vec![with_key(3, "minji")]).await);
    assert_conflict(leader.try_commit(vec![with_key(3, "sora"), with_key(4, "sora")]).await);
    leader.assert_reloads().await;
}

pub async fn a_refused_round_leaves_nothing(place: Arc<Place>) {
    let mut leader = leader_with_jobs(&place).await;
    let refused = leader
        .try_commit(vec![
            submitted(plain_job(6)),
            moved(1, JobState::Cancelled),
            job_event(1, 6),
            lease(2, &[0], 1000),
            moved(99, JobState::Held),
        ])
        .await;
    assert_conflict(refused);
    leader.assert_reloads().await;
    assert!(leader.store.events(0, None, 10).await.unwrap().is_empty());
    leader.commit(vec![lease(3, &[0], 1000)]).await;
}

pub async fn the_last_change_of_a_round_counts(place: Arc<Place>) {
    let mut leader = leader_with_jobs(&place).await;
    let mut other = inventory("n1");
    other.kernel = "6.2".to_owned();
    let task = |state| Change::TaskMoved {
        attempt: AttemptId { job: JobId(1), number: 1 },
        step: 0,
        task: Arc::new(Task { rank: 1, node: node_name("n1"), local_rank: 1, state }),
    };
    leader
        .commit(vec![
            submitted(plain_job(6)),
            moved(6, JobState::Held),
            moved(1, JobState::Held),
            moved(1, JobState::Starting),
            lease(1, &[0, 1], 1000),
            Change::AttemptMoved(Arc::new(running(attempt(1, 1, "n1", &[0, 1], 1000)))),
            Change::StepCreated(Arc::new(step(1, 1, 0, 2))),
            task(TaskState::Running { started: at(3) }),
            task(TaskState::Running { started: at(4) }),
            Change::NodeRegistered(Arc::new(inventory("n1"))),
            Change::NodeRegistered(Arc::new(other)),
        ])
        .await;
    leader.assert_reloads().await;
    let running = task(TaskState::Running { started: at(5) });
    leader.commit(vec![running, task(TaskState::Running { started: at(6) })]).await;
    leader.assert_reloads().await;
}

pub async fn a_terminal_job_never_changes_again(place: Arc<Place>) {
    let mut leader = leader_with_jobs(&place).await;
    leader.commit(vec![moved(1, JobState::Completed)]).await;
    for state in [JobState::Pending, JobState::Failed, JobState::Completed] {
        assert_conflict(leader.try_commit(vec![moved(1, state)]).await);
    }
    let within_one_round = vec![moved(2, JobState::Cancelled), moved(2, JobState::Pending)];
    assert_conflict(leader.try_commit(within_one_round).await);
    let states = leader.store.job_states(&[JobId(1), JobId(2)]).await.unwrap();
    assert_eq!(states[&JobId(1)], JobState::Completed);
    assert_eq!(states[&JobId(2)], JobState::Pending);
}

pub async fn an_ended_attempt_never_changes_again(place: Arc<Place>) {
    let mut leader = leader_with_jobs(&place).await;
    leader.commit(vec![lease(1, &[0], 600), lease(2, &[0], 400)]).await;
    leader.commit(vec![end(1, &[0], 600)]).await;
    assert_conflict(leader.try_commit(vec![end(1, &[0], 600)]).await);
    let back = Change::AttemptMoved(Arc::new(running(attempt(1, 1, "n1", &[0], 600))));
    assert_conflict(leader.try_commit(vec![back.clone()]).await);
    assert_conflict(leader.try_commit(vec![end(2, &[0], 400), lease(1, &[0], 1)]).await);
    let alive_again = Change::AttemptMoved(Arc::new(running(attempt(2, 1, "n1", &[0], 400))));
    assert_conflict(leader.try_commit(vec![end(2, &[0], 400), alive_again]).await);
    // What job 2 holds is still counted, and what job 1 held is free once.
    leader.commit(vec![lease(3, &[0], 600)]).await;
    assert_conflict(leader.try_commit(vec![lease(4, &[0], 1)]).await);
    leader.assert_reloads().await;
}

pub async fn a_gpu_is_not_given_twice(place: Arc<Place>) {
    let mut leader = leader_with_jobs(&place).await;
    leader.commit(vec![lease(1, &[0, 1], 1000)]).await;
    assert_conflict(leader.try_commit(vec![lease(2, &[1, 2], 1000)]).await);
    assert_conflict(leader.try_commit(vec![lease(2, &[3], 1000), lease(3, &[3], 1000)]).await);
    assert_conflict(leader.try_commit(vec![lease(2, &[4], 1001)]).await);
    leader.commit(vec![lease(2, &[2], 1000), lease(3, &[3], 1000)]).await;
    leader.commit(vec![end(1, &[0, 1], 1000)]).await;
    leader.commit(vec![lease(4, &[0, 1], 1000)]).await;
    leader.assert_reloads().await;
}

pub async fn shares_fill_a_gpu_to_the_brim_and_no_further(place: Arc<Place>) {
    let mut leader = leader_with_jobs(&place).await;
    leader.commit(vec![lease(1, &[0], 333), lease(2, &[0], 333)]).await;
    leader.commit(vec![lease(3, &[0], 334)]).await;
    assert_conflict(leader.try_commit(vec![lease(4, &[0], 1)]).await);
    leader.commit(vec![end(2, &[0], 333)]).await;
    leader.commit(vec![lease(4, &[0], 333)]).await;
    leader.assert_reloads().await;
}

pub async fn a_gpu_passes_from_one_attempt_to_the_next_within_a_round(place: Arc<Place>) {
    let mut leader = leader_with_jobs(&place).await;
    leader.commit(vec![lease(1, &[0], 1000)]).await;
    leader.commit(vec![end(1, &[0], 1000), lease(2, &[0], 1000)]).await;
    leader.commit(vec![end(2, &[0], 1000), lease(3, &[0], 1000), end(3, &[0], 1000)]).await;
    leader.commit(vec![lease(4, &[0], 1000)]).await;
    leader.assert_reloads().await;
}

pub async fn what_is_not_stored_is_no_reason_to_fail(place: Arc<Place>) {
    let mut leader = leader_with_jobs(&place).await;
    let node = node_name("n1");
    leader.commit(vec![]).await;
    leader
        .commit(vec![
            Change::NodeHeard {
                node: node.clone(),
                liveness: Liveness::Ready,
                at: gotgan_core::amount::UnixMicros(7),
            },
            Change::NodeLeftovers { node, attempts: vec![AttemptId { job: JobId(1), number: 1 }] },
        ])
        .await;
    leader.assert_reloads().await;
}

pub async fn what_is_unknown_cannot_move(place: Arc<Place>) {
    let mut leader = leader_with_jobs(&place).await;
    let task = Task { rank: 9, node: node_name("n1"), local_rank: 0, state: TaskState::Pending };
    let unknown = AttemptId { job: JobId(1), number: 7 };
    let unknown_changes = [
        moved(77, JobState::Held),
        end(5, &[0], 1000),
        Change::TaskMoved { attempt: unknown, step: 0, task: Arc::new(task) },
        Change::NodeAdministered { node: node_name("nowhere"), admin: Admin::Active },
        Change::NodeHealth {
            node: node_name("nowhere"),
            health: Arc::default(),
            changes_room: true,
        },
        Change::AttemptLeased(Arc::new(attempt(77, 1, "n1", &[0], 1000))),
        Change::StepCreated(Arc::new(step(1, 7, 0, 1))),
    ];
    for change in unknown_changes {
        assert_conflict(leader.try_commit(vec![change]).await);
    }
    leader.assert_reloads().await;
}
