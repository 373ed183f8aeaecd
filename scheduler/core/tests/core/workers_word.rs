//! What a worker says that nobody asked: that its node is unfit, and that a job wanted more memory than it had.

use gotgan_core::attempt::{Cause, ExitStatus};
use gotgan_core::change::Change;
use gotgan_core::ids::{AttemptId, Epoch, JobId, NodeName, UserName};
use gotgan_core::job::JobState;
use gotgan_core::ledger;
use gotgan_core::lifecycle::{self, Draft, MemberEvent, Report, fold};
use gotgan_core::node::Admin;

use crate::arrays::drafted;
use crate::cluster::TestCluster;

fn says(cluster: &mut TestCluster, job: JobId, seq: u64, event: MemberEvent) {
    let attempt = AttemptId { job, number: 1 };
    let report = Report { node: n1(), attempt, seq, at: cluster.now, event };
    drafted(cluster, |draft| fold(draft, &report));
}

fn n1() -> NodeName {
    NodeName::new("n1").unwrap()
}

fn unfit() -> MemberEvent {
    MemberEvent::Unfit { reason: "processes of a job do not end".into() }
}

fn drain(cluster: &TestCluster) -> Option<(String, String)> {
    match &cluster.world.nodes[&n1()].admin {
        Admin::Drain { by, reason, .. } => Some((by.clone(), reason.clone())),
        Admin::Active => None,
    }
}

/// A node, and a job that runs on it.
fn running(max_retries: u32) -> (TestCluster, JobId) {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").add();
    let job = cluster.job().gpus(8, "b200").max_retries(max_retries).submit();
    cluster.start_all();
    says(&mut cluster, job, 1, MemberEvent::Accepted);
    says(&mut cluster, job, 2, MemberEvent::Started);
    (cluster, job)
}

fn end(cluster: &mut TestCluster, job: JobId, seq: u64, cause: Cause) {
    let exit = Some(ExitStatus::Signal(9));
    says(cluster, job, seq, MemberEvent::Ended { cause, reason: "out of memory".into(), exit });
}

#[test]
fn a_node_that_its_worker_says_is_unfit_gets_no_more_work_until_a_person_takes_it_back() {
    let (mut cluster, job) = running(0);
    says(&mut cluster, job, 3, unfit());
    let reason = "processes of a job do not end".to_owned();
    assert_eq!(drain(&cluster), Some(("its worker".to_owned(), reason)));
    end(&mut cluster, job, 4, Cause::User);
    let next = cluster.job().gpus(8, "b200").submit();
    cluster.expect_waiting(next);
    cluster.start_all();
    let person = UserName::new("kim").unwrap();
    drafted(&mut cluster, |draft| lifecycle::resume(draft, &n1(), &person));
    cluster.expect_on(next, &["n1"]);
    cluster.start_all();
}

#[test]
fn a_person_who_drained_the_node_before_keeps_their_reason_and_a_repetition_adds_nothing() {
    let (mut cluster, job) = running(0);
    cluster.drain("n1", "fan");
    for seq in [3, 3, 4] {
        says(&mut cluster, job, seq, unfit());
    }
    let reason = "fan; processes of a job do not end".to_owned();
    assert_eq!(drain(&cluster), Some(("kim".to_owned(), reason)));
}

#[test]
fn a_node_is_unfit_also_by_an_attempt_that_the_books_have_closed() {
    let (mut cluster, job) = running(0);
    end(&mut cluster, job, 3, Cause::User);
    says(&mut cluster, job, 4, unfit());
    assert!(drain(&cluster).is_some());
}

#[test]
fn a_job_out_of_memory_has_failed_by_its_own_doing_and_pays() {
    let (mut cluster, job) = running(0);
    let (attempt, exit) = (AttemptId { job, number: 1 }, Some(ExitStatus::Signal(9)));
    let (cause, reason) = (Cause::OutOfMemory, "out of memory".to_owned());
    let event = MemberEvent::Ended { cause, reason, exit };
    let report = Report { node: n1(), attempt, seq: 3, at: cluster.now, event };
    let mut draft = Draft::new(&mut cluster.world, &cluster.policy, Epoch(1), cluster.now);
    fold(&mut draft, &report);
    let changes = draft.into_changes();
    let moved = changes.iter().rev().find_map(|change| match change {
        Change::JobMoved { status, .. } => Some(status),
        _ => None,
    });
    let status = moved.unwrap();
    assert_eq!((status.state, status.cause), (JobState::Failed, Some(Cause::OutOfMemory)));
    assert!(status.detail.contains("out of memory"), "{}", status.detail);
    assert!(!ledger::is_refunded(Cause::OutOfMemory));
}

#[test]
fn a_job_out_of_memory_is_tried_again_as_often_as_its_user_allows() {
    let (mut cluster, job) = running(1);
    end(&mut cluster, job, 3, Cause::OutOfMemory);
    let status = &cluster.world.jobs[&job].status;
    assert_eq!((status.state, status.failures, status.losses), (JobState::Pending, 1, 0));
    assert!(status.avoid.is_empty());
}
