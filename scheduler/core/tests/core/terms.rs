//! How much a node may borrow, and how large, how long and how many its jobs may be.

use std::collections::BTreeMap;

use gotgan_core::amount::GpuMilli;
use gotgan_core::check;
use gotgan_core::ids::{GpuClass, JobId};
use gotgan_core::plan::{BlockerKind, Decision};
use gotgan_core::quota::bounds::{Bounds, ClassAmount};
use insta::assert_snapshot;

use crate::cluster::TestCluster;

/// The same number for every class.
pub fn every(gpus: u32) -> Option<ClassAmount> {
    Some(ClassAmount::Every(GpuMilli::whole(gpus)))
}

/// A number for one class.
pub fn of(class: &str, gpus: u32) -> Option<ClassAmount> {
    let class = GpuClass::new(class).unwrap();
    Some(ClassAmount::ByClass(BTreeMap::from([(class, GpuMilli::whole(gpus))])))
}

/// Two nodes of eight GPUs; `a` is guaranteed four of them, `b` none.
fn cluster() -> TestCluster {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").add();
    cluster.node("n2").gpus(8, "b200").add();
    cluster.guarantee("public/a", 1, &[("b200", 4)]);
    cluster.guarantee("public/b", 1, &[]);
    cluster
}

/// The plan with a job that waits in it started all the same must be found wrong.
fn expect_wrong(cluster: &mut TestCluster, job: JobId, path: &str, words: &str) {
    let mut free = cluster.copy();
    free.bounds(path, Bounds::default());
    let plan = free.check().plan;
    let start =
        |decision: &Decision| matches!(decision, Decision::Start { job: of, .. } if *of == job);
    let decision = plan.decisions.iter().find(|decision| start(decision)).unwrap();
    let found = check::decision(&cluster.world, decision, cluster.now).unwrap_err();
    assert!(found.reason.contains(words), "{found}");
}

#[test]
fn a_node_borrows_no_more_than_it_may() {
    let mut cluster = cluster();
    let max = Bounds { borrow_max: every(2), ..Bounds::default() };
    cluster.bounds("public/a", max);
    let within = cluster.job().project("public/a").gpus(6, "b200").submit();
    cluster.expect_on(within, &["n1"]);
    cluster.start_all();
    let beyond = cluster.job().project("public/a").gpus(1, "b200").submit();
    let outcome = cluster.check();
    assert_eq!(outcome.blockers(beyond)[0].kind, BlockerKind::Term);
    assert_snapshot!(outcome.sentences(beyond), @"
    public/a may hold 2 b200 GPUs beyond its guarantee of 4 and holds 6; this job needs 1 more
    borrows, since public/a holds 4 of the 4 b200 GPUs guaranteed to it and this job needs 1; jobs within a guarantee go first
    ");
    expect_wrong(&mut cluster, beyond, "public/a", "would borrow more than it may");
}

#[test]
fn a_node_that_may_borrow_nothing_has_its_guarantee_and_no_more() {
    let mut cluster = cluster();
    cluster.bounds("public/a", Bounds { borrow_max: of("b200", 0), ..Bounds::default() });
    let within = cluster.job().project("public/a").gpus(4, "b200").submit();
    let beyond = cluster.job().project("public/a").share(1, "b200").submit();
    cluster.expect_on(within, &["n1"]);
    cluster.expect_waiting(beyond);
    cluster.check();
}

#[test]
fn what_a_node_may_borrow_counts_from_what_is_left_of_its_guarantee() {
    let mut cluster = cluster();
    cluster.guarantee("public/a", 1, &[("b200", 12)]);
    cluster.bounds("public/a", Bounds { borrow_max: every(0), ..Bounds::default() });
    cluster.drain("n2", "fan");
    let eight = cluster.job().project("public/a").gpus(8, "b200").submit();
    cluster.expect_on(eight, &["n1"]);
    cluster.check();
    cluster.guarantee("public/b", 1, &[("b200", 4)]);
    let six = cluster.job().project("public/a").gpus(6, "b200").submit();
    // Eight are there for twelve and four, so six are left of the twelve.
    let outcome = cluster.copy().check();
    assert!(outcome.placement(eight).is_none() && outcome.placement(six).is_some());
}

#[test]
fn a_sibling_that_borrowed_what_a_node_above_may_is_stopped_for_a_guarantee() {
    let mut cluster = cluster();
    cluster.guarantee("public/p", 1, &[("b200", 8)]);
    cluster.guarantee("public/p/one", 1, &[("b200", 4)]);
    cluster.guarantee("public/p/two", 1, &[("b200", 4)]);
    cluster.bounds("public/p", Bounds { borrow_max: every(0), ..Bounds::default() });
    let borrows = cluster.job().project("public/p/one").gpus(8, "b200").submit();
    cluster.start_all();
    cluster.now = cluster.now.plus_seconds(100);
    let job = cluster.job().project("public/p/two").gpus(4, "b200").submit();
    assert_eq!(cluster.start_all().victims(), [(borrows, job)]);
    cluster.let_go();
    assert!(cluster.check().placement(job).is_some());
}

#[test]
fn a_job_larger_than_a_node_above_allows_waits_for_the_tree_to_change() {
    let mut cluster = cluster();
    cluster.bounds("public", Bounds { max_gang: of("b200", 4), ..Bounds::default() });
    let small = cluster.job().project("public/b").gpus(4, "b200").submit();
    let large = cluster.job().project("public/b").gpus(5, "b200").submit();
    cluster.expect_on(small, &["n1"]);
    cluster.expect_waiting(large);
    let outcome = cluster.check();
    assert_snapshot!(outcome.sentences(large), @"
    a job of public may have 4 b200 GPUs; this one needs 5
    borrows, since public/b has no guarantee of b200 GPUs; jobs within a guarantee go first
    ");
    expect_wrong(&mut cluster, large, "public", "is larger than public allows");
}

#[test]
fn the_strictest_of_all_nodes_above_says_how_long_a_job_may_take() {
    let mut cluster = cluster();
    let most = |hours: i64| Bounds { max_walltime_s: Some(hours * 3600), ..Bounds::default() };
    cluster.bounds("public", most(12));
    cluster.bounds("public/b", most(24));
    let short = cluster.job().project("public/b").hours(12).gpus(1, "b200").submit();
    let long = cluster.job().project("public/b").hours(24).gpus(1, "b200").submit();
    cluster.expect_on(short, &["n1"]);
    cluster.expect_waiting(long);
    let outcome = cluster.check();
    assert_snapshot!(outcome.sentences(long), @"
    a job of public may take 12h; this one may take 1d
    borrows, since public/b has no guarantee of b200 GPUs; jobs within a guarantee go first
    ");
    expect_wrong(&mut cluster, long, "public", "may take longer than public allows");
}

#[test]
fn jobs_at_a_node_and_below_it_are_counted_together_those_without_gpus_too() {
    let mut cluster = cluster();
    cluster.bounds("public", Bounds { max_jobs: Some(2), ..Bounds::default() });
    let first = cluster.job().project("public/a").gpus(1, "b200").submit();
    let second = cluster.job().project("public/b").submit();
    cluster.expect_on(first, &["n1"]);
    cluster.expect_on(second, &["n1"]);
    cluster.start_all();
    let third = cluster.job().project("public/b").submit();
    let outcome = cluster.check();
    assert_snapshot!(outcome.sentences(third), @"2 jobs of public may run at once and 2 do");
    expect_wrong(&mut cluster, third, "public", "public would have more jobs than it may");
    cluster.end(first);
    cluster.expect_on(third, &["n1"]);
    cluster.check();
}
