//! Jobs that wait for their namesakes, and jobs that can no longer end in time.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotgan_core::change::Change;
use gotgan_core::digest::Digest;
use gotgan_core::explain::{explain, sentence};
use gotgan_core::ids::{Epoch, IdempotencyKey, JobId, UserName};
use gotgan_core::job::{JobState, JobStatus};
use gotgan_core::lifecycle::{
    Action, Actor, Draft, Submission, SubmitRefusal, act, commit, end_overdue, submit,
};
use gotgan_core::plan::Decision;
use gotgan_core::spec::JobSpec;

use crate::cluster::TestCluster;

fn draft<T>(
    cluster: &mut TestCluster,
    change: impl FnOnce(&mut Draft<'_>) -> T,
) -> (T, Vec<Change>) {
    let mut draft = Draft::new(&mut cluster.world, &cluster.policy, Epoch(1), cluster.now);
    let value = change(&mut draft);
    let changes = draft.into_changes();
    assert_eq!(gotgan_core::check::world(&cluster.world), []);
    (value, changes)
}

fn submission(owner: &str, key: u64, spec: &Arc<JobSpec>) -> Submission {
    Submission {
        owner: UserName::new(owner).unwrap(),
        key: IdempotencyKey::new(&format!("key-{key}")).unwrap(),
        digest: Digest("".into()),
        spec: Arc::clone(spec),
        outcomes: BTreeMap::new(),
    }
}

fn submit_all(
    cluster: &mut TestCluster,
    owner: &str,
    specs: &[Arc<JobSpec>],
) -> Result<Vec<JobId>, SubmitRefusal> {
    let next = cluster.world.sequences.next_job;
    let all = (next..).zip(specs).map(|(key, spec)| submission(owner, key, spec)).collect();
    draft(cluster, |draft| submit(draft, all)).0.map_err(|(_, refusal)| refusal)
}

fn last_status(changes: &[Change], of: JobId) -> JobStatus {
    let found = changes.iter().rev().find_map(|change| match change {
        Change::JobMoved { id, status } if *id == of => Some(JobStatus::clone(status)),
        _ => None,
    });
    found.unwrap()
}

fn cancel(cluster: &mut TestCluster, job: JobId) {
    let actor = Actor { name: UserName::new("lee").unwrap(), for_site: false };
    draft(cluster, |draft| act(draft, job, Action::Cancel, &actor, "")).0.unwrap();
}

fn starts(cluster: &mut TestCluster) -> Vec<JobId> {
    let decisions = cluster.check().plan.decisions.into_iter();
    let start = |decision| match decision {
        Decision::Start { job, .. } => Some(job),
        Decision::Preempt { .. } => None,
    };
    decisions.filter_map(start).collect()
}

fn a_node() -> TestCluster {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(4, "b200").add();
    cluster
}

#[test]
fn a_singleton_starts_once_no_earlier_job_of_its_name_is_left() {
    let mut cluster = a_node();
    let plain = cluster.job().name("nightly").into_spec();
    let single = cluster.job().name("nightly").singleton().into_spec();
    let other = cluster.job().name("daily").singleton().into_spec();
    let jobs = submit_all(&mut cluster, "lee", &[plain, single.clone(), single, other]).unwrap();
    let foreign = cluster.job().name("nightly").singleton().into_spec();
    let foreign = submit_all(&mut cluster, "kim", &[foreign]).unwrap();
    assert_eq!(starts(&mut cluster), [jobs[0], jobs[3], foreign[0]]);
    let report = cluster.check().plan.report;
    let why = explain(&cluster.world, jobs[2], Some(&report), None).unwrap();
    assert!(why.blockers.iter().any(|one| sentence(one).contains("to end")), "{why:?}");
    cancel(&mut cluster, jobs[0]);
    assert_eq!(starts(&mut cluster), [jobs[1], jobs[3], foreign[0]]);
    cancel(&mut cluster, jobs[1]);
    assert!(starts(&mut cluster).contains(&jobs[2]));
}

#[test]
fn a_singleton_waits_for_an_earlier_one_that_itself_was_cancelled_while_it_waited() {
    let mut cluster = a_node();
    let single = cluster.job().name("nightly").singleton().into_spec();
    let jobs = submit_all(&mut cluster, "lee", &[single.clone(), single.clone(), single]).unwrap();
    cancel(&mut cluster, jobs[1]);
    assert_eq!(starts(&mut cluster), [jobs[0]]);
}

#[test]
fn a_singleton_that_would_wait_for_too_many_is_refused_with_their_number() {
    let mut cluster = a_node();
    let plain = cluster.job().name("nightly").into_spec();
    submit_all(&mut cluster, "lee", &vec![plain; 257]).unwrap();
    let single = cluster.job().name("nightly").singleton().into_spec();
    let refused = submit_all(&mut cluster, "lee", &[single]).unwrap_err().to_string();
    assert!(refused.contains("257 other jobs named \"nightly\""), "{refused}");
    cluster.check();
}

#[test]
fn a_job_that_can_no_longer_end_by_its_deadline_is_cancelled_with_the_reason() {
    let mut cluster = a_node();
    let late = cluster.job().gpus(4, "b200").hours(1).deadline_in_s(2 * 3600).submit();
    let running = cluster.job().gpus(4, "b200").priority(1).hours(3).submit();
    let start = cluster.check().plan.decisions;
    draft(&mut cluster, |draft| commit(draft, &start[0])).0.unwrap();
    assert!(cluster.world.jobs[&running].status.state.is_active());
    let report = cluster.check().plan.report;
    let why = explain(&cluster.world, late, Some(&report), None).unwrap();
    let last = sentence(why.blockers.last().unwrap());
    assert!(last.starts_with("must start before ") && last.contains("by its deadline"), "{last}");
    cluster.now = cluster.now.plus_seconds(3600);
    draft(&mut cluster, end_overdue);
    assert_eq!(cluster.world.state_of(late), Some(JobState::Pending), "it could just end in time");
    cluster.now = cluster.now.plus_seconds(1);
    let (_, changes) = draft(&mut cluster, end_overdue);
    let status = last_status(&changes, late);
    assert_eq!(status.state, JobState::Cancelled);
    assert!(status.detail.starts_with("it can no longer end by its deadline"), "{}", status.detail);
}

#[test]
fn nothing_starts_that_is_about_to_be_cancelled_for_its_deadline() {
    let mut cluster = a_node();
    let late = cluster.job().gpus(1, "b200").hours(1).deadline_in_s(3600).submit();
    let after = cluster.job().gpus(1, "b200").hours(1).submit();
    let decisions = cluster.check().plan.decisions;
    cluster.now = cluster.now.plus_seconds(1);
    assert_eq!(starts(&mut cluster), [after]);
    let too_late =
        decisions.iter().find(|it| matches!(it, Decision::Start { job, .. } if *job == late));
    let refused = draft(&mut cluster, |draft| commit(draft, too_late.unwrap())).0.unwrap_err();
    assert!(refused.reason.contains("by its deadline"), "{refused}");
}

#[test]
fn an_earlier_deadline_is_no_earlier_turn() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(1, "b200").add();
    let first = cluster.job().gpus(1, "b200").submit();
    cluster.job().gpus(1, "b200").deadline_in_s(3601).submit();
    assert_eq!(starts(&mut cluster), [first]);
}

#[test]
fn the_tasks_of_an_array_that_have_not_started_go_with_its_deadline() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(1, "b200").add();
    let array = cluster.job().gpus(1, "b200").deadline_in_s(3600).array(5, None).submit();
    let start = cluster.check().plan.decisions;
    draft(&mut cluster, |draft| commit(draft, &start[0])).0.unwrap();
    cluster.now = cluster.now.plus_seconds(1);
    draft(&mut cluster, end_overdue);
    let tasks = cluster.world.arrays[&array].status.tasks.clone().unwrap();
    assert_eq!((tasks.in_state(JobState::Cancelled), tasks.active()), (4, 1));
    cluster.check();
}

#[test]
fn a_job_that_could_not_end_in_time_even_now_is_not_stored() {
    let mut cluster = a_node();
    let spec = cluster.job().hours(1).deadline_in_s(3599).into_spec();
    let refused = submit_all(&mut cluster, "lee", &[spec]).unwrap_err();
    assert!(matches!(refused, SubmitRefusal::DeadlineTooSoon { .. }));
    cluster.check();
}
