//! Looks ahead, and the ranges that are told by them.

use gotgan_core::amount::UnixMicros;
use gotgan_core::estimate::estimator::{Estimator, Learnt};
use gotgan_core::estimate::lengths::RunLengths;
use gotgan_core::estimate::outcome::Outcome;
use gotgan_core::estimate::{Foresight, StartRange};
use gotgan_core::explain::explain;
use gotgan_core::explain::starts::{Start, start};
use gotgan_core::ids::JobId;
use gotgan_core::job::JobState;
use gotgan_core::planner::foresee;
use proptest::prelude::*;

use crate::cluster::TestCluster;

/// Two nodes of four GPUs, all of them taken for two hours at most.
fn full() -> TestCluster {
    let mut cluster = TestCluster::new();
    cluster.node("a").gpus(4, "b200").add();
    cluster.node("b").gpus(4, "b200").add();
    for _ in 0..2 {
        cluster.job().gpus(4, "b200").hours(2).grace_s(0).submit();
    }
    cluster.run_all();
    cluster
}

fn look(cluster: &TestCluster) -> Foresight {
    let lengths = RunLengths::default();
    foresee(&cluster.world, &cluster.policy, &cluster.planned, &lengths, cluster.now)
}

/// After so many minutes, if everything takes as long as it may.
fn latest_min(cluster: &TestCluster, job: JobId) -> Option<i64> {
    let latest = look(cluster).jobs.get(&job)?.latest?;
    Some(latest.millis_since(cluster.now) / 60_000)
}

#[test]
fn jobs_start_in_their_turns_as_what_runs_ends() {
    let mut cluster = full();
    let jobs: Vec<JobId> =
        (0..3).map(|_| cluster.job().gpus(4, "b200").hours(1).grace_s(0).submit()).collect();
    let found: Vec<_> = jobs.iter().map(|job| latest_min(&cluster, *job)).collect();
    assert_eq!(found, [Some(120), Some(120), Some(180)]);
}

#[test]
fn a_gang_waits_until_enough_nodes_are_free_together() {
    let mut cluster = full();
    let gang = cluster.job().nodes(2).gpus(3, "b200").hours(1).grace_s(0).submit();
    assert_eq!(latest_min(&cluster, gang), Some(120));
    let never = cluster.job().nodes(3).gpus(1, "b200").submit();
    assert_eq!(latest_min(&cluster, never), None);
}

#[test]
fn nodes_are_kept_for_a_gang_that_has_waited() {
    let mut cluster = full();
    cluster.policy.planned_gangs_per_project = 1;
    let gang = cluster.job().nodes(2).gpus(4, "b200").hours(1).grace_s(0).submit();
    let ahead = cluster.job().gpus(4, "b200").hours(9).grace_s(0).priority(5).submit();
    assert_eq!(latest_min(&cluster, gang), Some(120));
    assert_eq!(latest_min(&cluster, ahead), Some(180));
}

#[test]
fn a_limit_puts_jobs_one_after_the_other() {
    let mut cluster = full();
    cluster.limit("public/small", &[("b200", 2)]);
    let mut submit =
        || cluster.job().project("public/small").gpus(2, "b200").hours(1).grace_s(0).submit();
    let (first, second) = (submit(), submit());
    assert_eq!(latest_min(&cluster, first), Some(120));
    assert_eq!(latest_min(&cluster, second), Some(180));
    let never = cluster.job().project("public/small").gpus(3, "b200").submit();
    assert_eq!(latest_min(&cluster, never), None);
}

/// What is told of a job.
fn told(cluster: &TestCluster, job: JobId) -> Option<Start> {
    let foresight = look(cluster);
    let range = Estimator::default().ranges(&foresight).get(&job).copied();
    let plan = gotgan_core::planner::plan(&cluster.world, &cluster.policy, cluster.now);
    let found = explain(&cluster.world, job, Some(&plan.report), Some(plan.planned)).unwrap();
    start(&found, range, Some(foresight.at))
}

#[test]
fn a_job_that_cannot_start_is_told_why_and_no_range() {
    let mut cluster = full();
    let reason = |cluster: &TestCluster, job| match told(cluster, job) {
        Some(Start::Not(reason)) => reason,
        other => panic!("{other:?}"),
    };
    let waits = cluster.job().gpus(4, "b200").submit();
    assert!(matches!(told(&cluster, waits), Some(Start::Between(_))));
    let held = cluster.job().gpus(1, "b200").submit();
    cluster.status(held, |status| status.state = JobState::Held);
    assert!(reason(&cluster, held).contains("held"));
    let large = cluster.job().gpus(9, "b200").submit();
    assert!(reason(&cluster, large).contains("no node has"));
    let running = *cluster.world.attempts.keys().next().unwrap();
    assert_eq!(told(&cluster, running.job), None);
}

/// Between two jobs that are told something, seconds.
const TOLD_APART_S: i64 = 600;

/// As many jobs of one kind as are named start so many minutes after they were told, one after the other.
fn learn(
    cluster: &mut TestCluster,
    estimator: &mut Estimator,
    waits_min: &[i64],
) -> Vec<StartRange> {
    let mut ranges = Vec::new();
    for wait_min in waits_min {
        let job = cluster.job().gpus(4, "b200").hours(1).submit();
        let lengths = &estimator.learnt().lengths;
        let foresight =
            foresee(&cluster.world, &cluster.policy, &cluster.planned, lengths, cluster.now);
        let told = estimator.tell_due(&foresight);
        ranges.extend(told.iter().find(|(other, _)| *other == job).map(|(_, told)| told.range));
        let at = cluster.now.plus_seconds(wait_min * 60);
        estimator.learn(&[Outcome::Started { job, at }]);
        cluster.status(job, |status| status.state = JobState::Cancelled);
        cluster.later(TOLD_APART_S);
    }
    ranges
}

#[test]
fn a_range_grows_narrow_once_it_is_known_how_late_such_jobs_are() {
    let (mut cluster, mut estimator) = (full(), Estimator::default());
    let began = cluster.now;
    let waits: Vec<i64> = (0..80).map(|number| 50 + number % 7).collect();
    let ranges = learn(&mut cluster, &mut estimator, &waits);
    let (first, last) = (ranges[0], ranges[79]);
    let minutes = |range: StartRange, told: i64| {
        let at = began.plus_seconds(told * TOLD_APART_S);
        [range.from, range.until].map(|moment| moment.millis_since(at) / 60_000)
    };
    assert!(minutes(first, 0)[1] > 240, "{first:?}");
    assert!(minutes(last, 79)[0] >= 48 && minutes(last, 79)[1] <= 60, "{last:?}");
    assert!(last.held.of > 70 && last.held.inside * 10 >= last.held.of * 7, "{:?}", last.held);
}

#[test]
fn what_was_learnt_survives_as_text() {
    let (mut cluster, mut estimator) = (full(), Estimator::default());
    learn(&mut cluster, &mut estimator, &[5; 40]);
    estimator.learn(&[Outcome::Ran { limit_s: 3600, ran_s: 60 }]);
    let text = serde_json::to_string(estimator.learnt()).unwrap();
    let again: Learnt = serde_json::from_str(&text).unwrap();
    assert_eq!(&again, estimator.learnt());
    let foresight = look(&cluster);
    assert_eq!(Estimator::new(again).ranges(&foresight), estimator.ranges(&foresight));
}

/// Jobs of some GPUs and hours, of one of two projects.
fn any_jobs() -> impl Strategy<Value = Vec<(u32, u32, i64, bool)>> {
    prop::collection::vec((1..3_u32, 1..5_u32, 1..5_i64, any::<bool>()), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_range_is_in_the_past_or_ends_before_it_begins(
        jobs in any_jobs(),
        waits in prop::collection::vec(0..400_i64, 0..60),
    ) {
        let (mut cluster, mut estimator) = (full(), Estimator::default());
        learn(&mut cluster, &mut estimator, &waits);
        for (nodes, gpus, hours, other) in jobs {
            let project = if other { "public/lab" } else { "public" };
            cluster.job().project(project).nodes(nodes).gpus(gpus, "b200").hours(hours).submit();
        }
        let foresight = look(&cluster);
        for (job, range) in estimator.ranges(&foresight) {
            prop_assert!(foresight.at <= range.from && range.from <= range.until, "{job}: {range:?}");
        }
        for foreseen in foresight.jobs.values() {
            prop_assert!(foreseen.likely >= cluster.now);
        }
        let (again, sketch) = (look(&cluster), cluster.world.sketch());
        prop_assert_eq!(&again, &foresight);
        let lengths = RunLengths::default();
        let sketched = foresee(&sketch, &cluster.policy, &cluster.planned, &lengths, cluster.now);
        prop_assert_eq!(&sketched, &foresight);
    }

    #[test]
    fn more_jobs_of_one_gpu_ahead_never_make_another_earlier(
        hours in prop::collection::vec(1..6_i64, 1..20),
        more_hours in 1..6_i64,
    ) {
        let mut cluster = full();
        let submit = |cluster: &mut TestCluster, hours, priority| {
            cluster.job().gpus(1, "b200").hours(hours).priority(priority).submit()
        };
        let jobs: Vec<JobId> = hours.iter().map(|hours| submit(&mut cluster, *hours, 0)).collect();
        let starts = |cluster: &TestCluster| -> Vec<(UnixMicros, Option<UnixMicros>)> {
            let found = look(cluster);
            jobs.iter().map(|job| (found.jobs[job].likely, found.jobs[job].latest)).collect()
        };
        let before = starts(&cluster);
        submit(&mut cluster, more_hours, 5);
        for (before, after) in before.iter().zip(starts(&cluster)) {
            prop_assert!(before.0 <= after.0 && before.1 <= after.1);
        }
    }
}
