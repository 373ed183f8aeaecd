//! Arrays: planned like the same jobs one by one, at the cost of one.

use std::sync::Arc;

use gotgan_core::array::{ArrayTasks, task_id};
use gotgan_core::attempt::{Cause, ExitStatus};
use gotgan_core::change::Change;
use gotgan_core::explain::explain;
use gotgan_core::ids::{AttemptId, Epoch, JobId, UserName};
use gotgan_core::job::JobState;
use gotgan_core::lifecycle::{
    Action, ActionRefusal, Actor, Changed, Draft, MemberEvent, Report, act, act_on_indexes, commit,
    fold,
};
use gotgan_core::plan::{BlockerKind, Decision};
use gotgan_core::planner::plan;
use gotgan_core::world::World;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::builders::JobBuilder;
use crate::cluster::TestCluster;
use crate::sketch::sketch;

/// An array in a small random world.
#[derive(Debug, Clone)]
struct ArraySketch {
    tasks: u32,
    gpus: u32,
    class: usize,
    project: usize,
    priority: i32,
    age_s: i64,
    hours: i64,
}

fn array() -> impl Strategy<Value = ArraySketch> {
    let shape = (1..12_u32, 0..3_u32, 0..3_usize, 0..4_usize);
    (shape, -1..2_i32, 0..12_i64, 1..3_i64).prop_map(|(shape, priority, age_s, hours)| {
        let (tasks, gpus, class, project) = shape;
        ArraySketch { tasks, gpus, class, project, priority, age_s, hours }
    })
}

impl ArraySketch {
    fn job<'a>(&self, cluster: &'a mut TestCluster) -> JobBuilder<'a> {
        let project = ["public/a/x", "public/a/y", "public/b", "public/lab"][self.project];
        let job = cluster.job().project(project).priority(self.priority).hours(self.hours);
        let job = job.waiting_since_s(self.age_s);
        let class = ["a100", "b200", ""][self.class];
        if self.gpus > 0 { job.gpus(self.gpus, class) } else { job }
    }

    fn submit(&self, cluster: &mut TestCluster, folded: bool) {
        if folded {
            self.job(cluster).array(self.tasks, None).submit();
            return;
        }
        // The number that the array itself would have.
        cluster.world.sequences.next_job += 1;
        for _ in 0..self.tasks {
            self.job(cluster).submit();
        }
    }
}

pub fn drafted<T>(cluster: &mut TestCluster, change: impl FnOnce(&mut Draft<'_>) -> T) -> T {
    let mut draft = Draft::new(&mut cluster.world, &cluster.policy, Epoch(1), cluster.now);
    let value = change(&mut draft);
    let _ = draft.into_changes();
    assert_eq!(gotgan_core::check::world(&cluster.world), []);
    value
}

pub fn commit_all(cluster: &mut TestCluster) -> Vec<Decision> {
    let decisions = cluster.check().plan.decisions;
    for decision in &decisions {
        drafted(cluster, |draft| commit(draft, decision)).unwrap();
    }
    decisions
}

fn report(cluster: &mut TestCluster, task: JobId, seq: u64, event: MemberEvent) {
    let attempt = AttemptId { job: task, number: 1 };
    let node = cluster.world.attempts[&attempt].placement.nodes[0].node.clone();
    let report = Report { node, attempt, seq, at: cluster.now, event };
    drafted(cluster, |draft| fold(draft, &report));
}

/// Runs a task to its end.
pub fn run(cluster: &mut TestCluster, task: JobId, code: i32) {
    report(cluster, task, 1, MemberEvent::Accepted);
    report(cluster, task, 2, MemberEvent::Started);
    let exit = Some(ExitStatus::Code(code));
    let (cause, reason) = (Cause::User, String::new());
    report(cluster, task, 3, MemberEvent::Ended { cause, reason, exit });
}

pub fn acted(
    cluster: &mut TestCluster,
    id: JobId,
    action: Action,
) -> Result<Changed, ActionRefusal> {
    let actor = Actor { name: UserName::new("ada").unwrap(), for_site: false };
    drafted(cluster, |draft| act(draft, id, action, &actor, "asked"))
}

pub fn tasks(world: &World, array: JobId) -> ArrayTasks {
    ArrayTasks::clone(world.arrays[&array].status.tasks.as_ref().unwrap())
}

/// Four GPUs, and an array of tasks that want one each.
fn four_gpus(tasks: u32, at_once: Option<u32>) -> (TestCluster, JobId) {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(4, "b200").add();
    let array = cluster.job().gpus(1, "b200").array(tasks, at_once).submit();
    (cluster, array)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300.max(ProptestConfig::default().cases), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_array_is_planned_exactly_like_the_same_jobs_one_by_one(
        sketch in sketch(), guarantees in any::<[u32; 8]>(), arrays in vec(array(), 1..4),
    ) {
        let mut folded = sketch.build_guaranteed(guarantees);
        let mut single = folded.copy();
        for array in &arrays {
            array.submit(&mut folded, true);
            array.submit(&mut single, false);
        }
        for _ in 0..3 {
            prop_assert_eq!(commit_all(&mut folded), commit_all(&mut single));
            let ending: Vec<JobId> = single.world.jobs.values()
                .filter(|job| job.status.state == JobState::Starting && job.status.attempt == 1 && job.spec.nodes == 1)
                .map(|job| job.id).filter(|id| id.0 % 2 == 0).collect();
            for job in ending {
                for cluster in [&mut folded, &mut single] {
                    if cluster.world.attempts[&AttemptId { job, number: 1 }].members[0].last_seq == 0 {
                        run(cluster, job, 0);
                    }
                }
            }
        }
    }

    #[test]
    fn scavenging_arrays_are_planned_like_the_same_jobs_too(
        sketch in sketch().prop_map(super::sketch::Sketch::with_scavengers), arrays in vec(array(), 1..3),
    ) {
        let mut folded = sketch.build();
        let mut single = folded.copy();
        for array in &arrays {
            let gpus = array.gpus.max(1);
            let array = ArraySketch { gpus, ..array.clone() };
            array.job(&mut folded).scavenger().array(array.tasks, None).submit();
            single.world.sequences.next_job += 1;
            for _ in 0..array.tasks {
                array.job(&mut single).scavenger().submit();
            }
        }
        prop_assert_eq!(commit_all(&mut folded), commit_all(&mut single));
    }
}

#[test]
fn no_more_tasks_run_at_once_than_the_array_says() {
    let (mut cluster, array) = four_gpus(10, Some(3));
    assert_eq!(commit_all(&mut cluster).len(), 3);
    assert_eq!(commit_all(&mut cluster), []);
    let last = task_id(array, 9);
    let report = plan(&cluster.world, &cluster.policy, cluster.now).report;
    let why = explain(&cluster.world, last, Some(&report), None).unwrap();
    assert_eq!(why.blockers[0].kind, BlockerKind::ArrayLimit);
    assert_eq!(
        why.summary,
        format!(
            "waits until fewer than 3 tasks run of array {array}, which allows no more at once"
        )
    );
    assert_eq!(why.jobs_ahead, 6);
    run(&mut cluster, task_id(array, 1), 0);
    let started = commit_all(&mut cluster);
    assert!(matches!(started[..], [Decision::Start { job, .. }] if job == task_id(array, 3)));
}

#[test]
fn a_start_beyond_the_limit_of_an_array_is_refused() {
    let (mut cluster, _) = four_gpus(10, Some(1));
    let decisions = cluster.check().plan.decisions;
    commit_all(&mut cluster);
    let Decision::Start { placement, .. } = &decisions[0] else { panic!("{decisions:?}") };
    let job = task_id(*cluster.world.arrays.keys().next().unwrap(), 5);
    let other = Decision::Start { job, placement: Arc::clone(placement) };
    let wrong = gotgan_core::check::check(&cluster.world, &[other]);
    assert!(wrong.iter().any(|it| it.text.contains("at most 1 of its tasks at once")), "{wrong:?}");
}

#[test]
fn a_hundred_thousand_waiting_tasks_are_one_entry_everywhere() {
    let (mut cluster, array) = four_gpus(100_000, None);
    let started = commit_all(&mut cluster);
    assert_eq!(started.len(), 4);
    let world = &cluster.world;
    assert_eq!((world.jobs.len(), world.arrays.len(), world.queue.len()), (4, 1, 0));
    assert_eq!(
        world.cohorts.iter().map(|(_, cohort)| cohort.jobs.places().len()).sum::<usize>(),
        1
    );
    assert_eq!(world.waiting_jobs(), 99_996);
    assert_eq!(tasks(world, array).waiting.pieces(), 1);
    let plan = plan(world, &cluster.policy, cluster.now);
    assert_eq!((plan.report.considered, plan.report.jobs.len()), (99_996, 0));
}

#[test]
fn an_array_has_completed_when_all_its_tasks_have_and_says_how_they_ended() {
    let (mut cluster, array) = four_gpus(3, None);
    commit_all(&mut cluster);
    assert_eq!(cluster.world.arrays[&array].status.state, JobState::Starting);
    run(&mut cluster, task_id(array, 0), 0);
    run(&mut cluster, task_id(array, 1), 7);
    assert_eq!(cluster.world.arrays[&array].status.state, JobState::Starting);
    let mut draft = Draft::new(&mut cluster.world, &cluster.policy, Epoch(1), cluster.now);
    let actor = Actor { name: UserName::new("ada").unwrap(), for_site: false };
    act(&mut draft, task_id(array, 2), Action::Cancel, &actor, "").unwrap();
    let _ = draft.into_changes();
    report(&mut cluster, task_id(array, 2), 1, MemberEvent::Accepted);
    let mut draft = Draft::new(&mut cluster.world, &cluster.policy, Epoch(1), cluster.now);
    let node =
        draft.world.attempts[&AttemptId { job: task_id(array, 2), number: 1 }].placement.nodes[0]
            .node
            .clone();
    let (attempt, at) = (AttemptId { job: task_id(array, 2), number: 1 }, cluster.now);
    let event = MemberEvent::Ended { cause: Cause::User, reason: String::new(), exit: None };
    fold(&mut draft, &Report { node, attempt, seq: 2, at, event });
    let last = draft.into_changes().into_iter().rev().find_map(|change| match change {
        Change::JobMoved { id, status } if id == array => Some(status),
        _ => None,
    });
    let last = last.unwrap();
    assert_eq!(last.state, JobState::Failed);
    assert_eq!(last.detail, "1 completed, 1 failed, 1 cancelled");
    assert!(cluster.world.arrays.is_empty());
}

#[test]
fn tasks_are_held_released_and_cancelled_by_their_index() {
    let (mut cluster, array) = four_gpus(10, None);
    let actor = Actor { name: UserName::new("ada").unwrap(), for_site: false };
    let on = |cluster: &mut TestCluster, range, action| {
        drafted(cluster, |draft| act_on_indexes(draft, array, &[range], action, (&actor, "x")))
    };
    assert!(on(&mut cluster, (2, 4), Action::Hold).unwrap().changed);
    assert!(on(&mut cluster, (8, 9), Action::Cancel).unwrap().changed);
    assert!(on(&mut cluster, (4, 4), Action::Release).unwrap().changed);
    assert!(matches!(
        on(&mut cluster, (10, 12), Action::Hold),
        Err(ActionRefusal::NoSuchTask { index: 10, .. })
    ));
    let stand = tasks(&cluster.world, array);
    assert_eq!(stand.waiting.ranges().collect::<Vec<_>>(), [(0, 1), (4, 7)]);
    assert_eq!(stand.held.ranges().collect::<Vec<_>>(), [(2, 3)]);
    assert_eq!(stand.in_state(JobState::Cancelled), 2);
    let started: Vec<u64> = commit_all(&mut cluster)
        .iter()
        .filter_map(|decision| match decision {
            Decision::Start { job, .. } => Some(job.0 - array.0 - 1),
            Decision::Preempt { .. } => None,
        })
        .collect();
    assert_eq!(started, [0, 1, 4, 5]);
    let gone = cluster.world.arrays[&array].dropped_task(task_id(array, 9)).unwrap();
    assert_eq!((gone.status.state, gone.task_index()), (JobState::Cancelled, Some(9)));
}

#[test]
fn a_cancelled_array_stops_its_tasks_and_forgets_the_others() {
    let (mut cluster, array) = four_gpus(1_000, None);
    commit_all(&mut cluster);
    let done = acted(&mut cluster, array, Action::Cancel).unwrap();
    assert!(done.changed);
    assert_eq!(tasks(&cluster.world, array).in_state(JobState::Cancelled), 996);
    assert!(cluster.world.attempts.values().all(|attempt| attempt.stop.is_some()));
    cluster.check();
}

#[test]
fn a_task_that_is_requeued_waits_as_a_job_of_its_own_with_its_age() {
    let (mut cluster, array) = four_gpus(6, None);
    commit_all(&mut cluster);
    let task = task_id(array, 2);
    acted(&mut cluster, task, Action::Requeue).unwrap();
    report(&mut cluster, task, 1, MemberEvent::Accepted);
    let event = MemberEvent::Ended { cause: Cause::User, reason: String::new(), exit: None };
    report(&mut cluster, task, 2, event);
    let job = &cluster.world.jobs[&task];
    assert_eq!((job.status.state, job.array), (JobState::Pending, Some(array)));
    assert_eq!(tasks(&cluster.world, array).in_state(JobState::Pending), 3);
    // Its number is lower than those of the tasks that have not started.
    let next = cluster.check().plan.decisions;
    assert!(matches!(next[..], [Decision::Start { job, .. }] if job == task), "{next:?}");
}

#[test]
fn nobody_cuts_the_waiting_tasks_of_an_array_into_too_many_pieces() {
    let (mut cluster, array) = four_gpus(4_000, None);
    let actor = Actor { name: UserName::new("ada").unwrap(), for_site: false };
    let every_second: Vec<(u32, u32)> = (0..4_000).step_by(2).map(|index| (index, index)).collect();
    let refused = drafted(&mut cluster, |draft| {
        act_on_indexes(draft, array, &every_second, Action::Cancel, (&actor, ""))
    });
    assert!(matches!(refused, Err(ActionRefusal::TooManyPieces { .. })));
    cluster.check();
}
