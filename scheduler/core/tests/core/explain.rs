//! Explanations beyond what the planner reports.

use gotgan_core::explain::{Explanation, explain, hint};
use gotgan_core::ids::JobId;
use gotgan_core::spec::DependencyKind;
use insta::assert_snapshot;

use crate::cluster::TestCluster;

fn why(cluster: &mut TestCluster, job: JobId) -> Explanation {
    let outcome = cluster.check();
    explain(&cluster.world, job, Some(&outcome.plan.report), Some(cluster.now)).unwrap()
}

#[test]
fn a_held_job_says_who_held_it_and_how_to_release_it() {
    let mut cluster = TestCluster::new();
    let job = cluster.job().held("held by lee: wrong data").submit();
    let why = why(&mut cluster, job);
    assert_snapshot!(why.summary, @"is held until somebody releases it: held by lee: wrong data");
    assert_eq!(hint(&why.blockers[0]), "gotgan release 1");
    assert_eq!(why.planned, None);
}

#[test]
fn a_job_submitted_after_the_pass_says_that_none_has_looked() {
    let mut cluster = TestCluster::new();
    let report = cluster.check().plan.report;
    let job = cluster.job().submit();
    let why = explain(&cluster.world, job, Some(&report), Some(cluster.now)).unwrap();
    assert_snapshot!(why.summary, @"waits; no planning pass has looked at it yet");
    assert!(why.blockers.is_empty() && why.planned.is_none());
}

#[test]
fn jobs_ahead_are_those_that_want_the_same() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(4, "b200").add();
    cluster.job().gpus(4, "b200").submit();
    cluster.start_all();
    for class in ["b200", "b200", "h200"] {
        cluster.job().gpus(1, class).submit();
    }
    cluster.job().after(DependencyKind::AfterAny, JobId(1)).submit();
    let last = cluster.job().gpus(4, "b200").submit();
    let why = why(&mut cluster, last);
    assert_eq!(why.jobs_ahead, 2);
    assert_eq!(why.planned, Some(cluster.now));
    assert_snapshot!(why.summary, @"needs 4 b200 GPUs; 0 of 4 are free");
}

#[test]
fn a_starting_job_says_where() {
    let mut cluster = TestCluster::new();
    for name in ["n1", "n2", "n3", "n4", "n5", "n6"] {
        cluster.node(name).gpus(4, "b200").add();
    }
    let job = cluster.job().gpus(4, "b200").nodes(6).submit();
    cluster.start_all();
    assert_snapshot!(why(&mut cluster, job).summary, @"starts in attempt 1 on n1, n2, n3, n4 and 2 more");
}

#[test]
fn a_job_that_is_gone_has_no_explanation() {
    let mut cluster = TestCluster::new();
    cluster.check();
    assert_eq!(explain(&cluster.world, JobId(7), None, None), None);
}
