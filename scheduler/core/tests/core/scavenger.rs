//! Jobs that take what nobody else wants, and stop for anybody.

use gotgan_core::ids::{AttemptId, GpuClass, JobId};
use gotgan_core::plan::{BlockerKind, Decision};
use gotgan_core::quota::bounds::Bounds;
use insta::assert_snapshot;
use proptest::prelude::*;

use crate::cluster::{Outcome, TestCluster};
use crate::sketch::sketch;
use crate::terms::every;

/// A node of eight GPUs; `a` is guaranteed six of them, `b` none.
fn cluster() -> TestCluster {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").add();
    cluster.guarantee("public/a", 1, &[("b200", 6)]);
    cluster.guarantee("public/b", 1, &[]);
    cluster
}

fn stopped(outcome: &Outcome) -> Vec<(JobId, JobId)> {
    let stop = |decision: &Decision| match decision {
        Decision::Preempt { attempt, for_job, .. } => Some((attempt.job, *for_job)),
        Decision::Start { .. } => None,
    };
    outcome.plan.decisions.iter().filter_map(stop).collect()
}

#[test]
fn a_scavenger_starts_after_everybody_whatever_its_age_and_priority() {
    let mut cluster = cluster();
    let scavenger = cluster.job().gpus(4, "b200").scavenger().priority(9).waiting_since_s(999);
    let scavenger = scavenger.submit();
    let borrower = cluster.job().project("public/b").gpus(6, "b200").submit();
    cluster.expect_on(borrower, &["n1"]);
    cluster.expect_waiting(scavenger);
    let outcome = cluster.check();
    assert_snapshot!(outcome.sentences(scavenger), @"
    needs 4 b200 GPUs; 2 of 8 are free
    is a scavenger: it starts where nobody else can, costs nothing, and stops for anybody
    ");
}

#[test]
fn a_job_that_borrows_stops_scavengers_and_no_more_of_them_than_it_needs() {
    let mut cluster = cluster();
    let [first, second] = [(); 2].map(|()| cluster.job().gpus(4, "b200").scavenger().submit());
    cluster.start_all();
    cluster.now = cluster.now.plus_seconds(1);
    let borrower = cluster.job().project("public/b").gpus(3, "b200").submit();
    let outcome = cluster.start_all();
    assert_eq!(stopped(&outcome), [(second, borrower)], "the younger one, at once");
    assert_eq!(outcome.blockers(borrower)[0].kind, BlockerKind::Recall);
    assert_eq!(stopped(&cluster.check()), [], "it is waited for, and nobody else is stopped");
    cluster.let_go();
    cluster.expect_on(borrower, &["n1"]);
    cluster.expect_waiting(second);
    cluster.start_all();
    assert!(cluster.world.attempts.contains_key(&AttemptId { job: first, number: 1 }));
}

#[test]
fn scavengers_go_before_those_that_borrow() {
    let mut cluster = cluster();
    let scavenger = cluster.job().gpus(4, "b200").scavenger().submit();
    let borrower = cluster.job().project("public/b").gpus(4, "b200").submit();
    cluster.start_all();
    cluster.now = cluster.now.plus_seconds(7200);
    let claim = cluster.job().project("public/a").gpus(4, "b200").submit();
    assert_eq!(stopped(&cluster.check()), [(scavenger, claim)]);
    let more = cluster.job().project("public/a").gpus(2, "b200").submit();
    let both = stopped(&cluster.check());
    assert_eq!(both, [(scavenger, claim), (borrower, more)]);
}

#[test]
fn what_scavengers_hold_counts_in_no_guarantee_and_keeps_nobody_below_a_limit() {
    let mut cluster = cluster();
    cluster.limit("public/a", &[("b200", 6)]);
    let own = cluster.job().project("public/a").gpus(6, "b200").scavenger().submit();
    cluster.start_all();
    let beyond = cluster.job().project("public/a").gpus(1, "b200").scavenger().submit();
    let outcome = cluster.check();
    assert_eq!(outcome.blockers(beyond)[0].kind, BlockerKind::ProjectLimit);
    let claim = cluster.job().project("public/a").gpus(6, "b200").submit();
    let outcome = cluster.start_all();
    assert_eq!(stopped(&outcome), [(own, claim)], "it is all of its guarantee");
    cluster.let_go();
    cluster.expect_on(claim, &["n1"]);
    cluster.check();
}

#[test]
fn a_scavenger_leaves_what_nodes_keep_and_a_borrower_frees_that_too() {
    let mut cluster = cluster();
    cluster.bounds("public/a", Bounds { keep_idle: every(2), ..Bounds::default() });
    let large = cluster.job().project("public/b").gpus(7, "b200").scavenger().submit();
    cluster.expect_waiting(large);
    assert_eq!(cluster.start_all().blockers(large)[0].kind, BlockerKind::Kept);
    let one = cluster.job().project("public/b").gpus(3, "b200").scavenger().submit();
    let other = cluster.job().project("public/b").gpus(3, "b200").scavenger().submit();
    cluster.start_all();
    // Two are free, and kept: for two more it is not enough that those two fit.
    let borrower = cluster.job().project("public/b").gpus(2, "b200").submit();
    let outcome = cluster.start_all();
    assert_eq!(stopped(&outcome), [(other, borrower)]);
    cluster.let_go();
    cluster.expect_on(borrower, &["n1"]);
    cluster.start_all();
    assert!(cluster.world.attempts.contains_key(&AttemptId { job: one, number: 1 }));
}

#[test]
fn the_project_that_scavenges_least_comes_first() {
    let mut cluster = cluster();
    let crowd =
        [(); 9].map(|()| cluster.job().project("public/a").gpus(1, "b200").scavenger().submit());
    let [one, two] =
        [(); 2].map(|()| cluster.job().project("public/b").gpus(2, "b200").scavenger().submit());
    for job in [crowd[0], crowd[1], crowd[2], crowd[3], one, two] {
        cluster.expect_on(job, &["n1"]);
    }
    cluster.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300.max(ProptestConfig::default().cases), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_waits_for_a_scavenger_and_it_comes_to_rest(
        sketch in sketch(), guarantees in any::<[u32; 8]>(),
    ) {
        let mut cluster = sketch.with_scavengers().build_guaranteed(guarantees);
        let mut rounds = 0;
        while !cluster.start_all().plan.decisions.is_empty() {
            cluster.let_go();
            rounds += 1;
            prop_assert!(rounds < 40, "jobs stop each other in turn");
        }
        let scavengers: Vec<JobId> = cluster.world.attempts.values()
            .filter(|attempt| attempt.scavenges()).map(|attempt| attempt.id.job).collect();
        for job in scavengers {
            cluster.end(job);
        }
        for decision in cluster.check().plan.decisions {
            let Decision::Start { job, .. } = decision else { continue };
            prop_assert!(cluster.world.jobs[&job].spec.scavenger, "job {} waited for scavengers", job);
        }
        let class = GpuClass::new("b200").unwrap();
        prop_assert_eq!(cluster.world.usage.scavenged("public", &class).0, 0);
    }
}
