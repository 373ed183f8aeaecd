//! Who goes first where the tree gives guarantees.

use gotgan_core::node::Liveness;
use insta::assert_snapshot;

use crate::cluster::TestCluster;

/// One node of eight GPUs; `a` is guaranteed four of them, `b` two, `c` none.
pub fn cluster() -> TestCluster {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").add();
    cluster.guarantee("public/a", 1, &[("b200", 4)]);
    cluster.guarantee("public/b", 1, &[("b200", 2)]);
    cluster.guarantee("public/c", 1, &[]);
    cluster
}

#[test]
fn a_job_within_a_guarantee_goes_before_an_older_one_that_borrows() {
    let mut cluster = cluster();
    let borrows = cluster.job().project("public/c").gpus(8, "b200").waiting_since_s(900).submit();
    let within = cluster.job().project("public/a").gpus(4, "b200").submit();
    cluster.expect_on(within, &["n1"]);
    cluster.expect_waiting(borrows);
    cluster.check();
}

#[test]
fn priority_counts_within_a_tier_and_not_against_a_better_one() {
    let mut cluster = cluster();
    let loud = cluster.job().project("public/c").gpus(8, "b200").priority(9).submit();
    let first = cluster.job().project("public/a").gpus(4, "b200").submit();
    let second = cluster.job().project("public/a").gpus(4, "b200").priority(1).submit();
    cluster.expect_on(second, &["n1"]);
    let outcome = cluster.start_all();
    // With four held, the other one would borrow, and then the priority of the third decides; it does not fit.
    assert!(outcome.nodes_of(first).is_some() && outcome.nodes_of(loud).is_none());
}

#[test]
fn what_exceeds_the_guarantee_by_a_thousandth_borrows() {
    let mut cluster = cluster();
    let before = cluster.job().project("public/b").share(1, "b200").submit();
    cluster.start_all();
    let exceeds = cluster.job().project("public/b").gpus(2, "b200").waiting_since_s(60).submit();
    let within = cluster.job().project("public/a").gpus(4, "b200").submit();
    let third = cluster.job().project("public/c").gpus(7, "b200").waiting_since_s(90).submit();
    cluster.expect_on(within, &["n1"]);
    cluster.expect_on(exceeds, &["n1"]);
    cluster.expect_waiting(third);
    cluster.start_all();
    cluster.end(before);
}

#[test]
fn of_those_that_borrow_the_one_furthest_below_its_share_goes_first() {
    let mut cluster = cluster();
    cluster.guarantee("public/d", 3, &[]);
    // Of the eight, two are surplus for c and six for d.
    let held = cluster.job().project("public/c").gpus(1, "b200").submit();
    let held_too = cluster.job().project("public/d").gpus(1, "b200").submit();
    cluster.start_all();
    let old = cluster.job().project("public/c").gpus(6, "b200").waiting_since_s(900).submit();
    let young = cluster.job().project("public/d").gpus(6, "b200").submit();
    cluster.expect_on(young, &["n1"]);
    cluster.expect_waiting(old);
    cluster.start_all();
    cluster.end(held);
    cluster.end(held_too);
}

#[test]
fn shares_are_compared_level_by_level_from_the_top() {
    let mut cluster = cluster();
    for path in ["x", "x/one", "x/two", "y", "y/one"] {
        cluster.guarantee(path, 1, &[]);
    }
    cluster.job().project("x/one").gpus(2, "b200").submit();
    cluster.job().project("y/one").gpus(1, "b200").submit();
    cluster.start_all();
    // x holds more than y, so y/one goes first though x/two holds nothing at all.
    let idle = cluster.job().project("x/two").gpus(5, "b200").waiting_since_s(900).submit();
    let busy = cluster.job().project("y/one").gpus(5, "b200").submit();
    cluster.expect_on(busy, &["n1"]);
    cluster.expect_waiting(idle);
    cluster.check();
}

#[test]
fn guarantees_shrink_with_what_is_in_service_and_a_suspect_node_still_counts() {
    for (liveness, fits) in [(Liveness::Suspect, true), (Liveness::Lost, false)] {
        let mut cluster = cluster();
        cluster.node("n2").gpus(8, "b200").add();
        cluster.guarantee("public/a", 1, &[("b200", 14)]);
        cluster.heard("n2", liveness);
        let older = cluster.job().project("public/c").gpus(8, "b200").waiting_since_s(9).submit();
        let job = cluster.job().project("public/a").gpus(8, "b200").submit();
        // With one node, 14 and 2 become 7 and 1: eight are more than that.
        cluster.expect_on(if fits { job } else { older }, &["n1"]);
        cluster.check();
    }
}

#[test]
fn a_job_for_any_class_takes_the_one_its_guarantee_is_of() {
    let mut cluster = cluster();
    cluster.node("n0").gpus(8, "a100").add();
    let job = cluster.job().project("public/a").gpus(4, "").submit();
    let more = cluster.job().project("public/a").gpus(4, "").submit();
    cluster.expect_on(job, &["n1"]);
    cluster.expect_on(more, &["n0"]);
    cluster.check();
}

#[test]
fn a_job_without_gpus_is_not_behind_those_within_a_guarantee() {
    let mut cluster = cluster();
    let plain = cluster.job().project("public/c").cpus(128).waiting_since_s(1).submit();
    let gpus = cluster.job().project("public/a").gpus(4, "b200").submit();
    cluster.expect_on(plain, &["n1"]);
    cluster.expect_waiting(gpus);
    cluster.check();
}

#[test]
fn a_waiting_job_says_in_which_tier_and_who_has_what_it_is_guaranteed() {
    let mut cluster = cluster();
    let lender = cluster.job().project("public/c").gpus(6, "b200").submit();
    cluster.job().project("public/b").gpus(2, "b200").submit();
    cluster.start_all();
    let within = cluster.job().project("public/a").gpus(4, "b200").submit();
    let beyond = cluster.job().project("public/b").gpus(1, "b200").submit();
    let none = cluster.job().project("public/c").gpus(1, "b200").submit();
    let outcome = cluster.check();
    assert_snapshot!(outcome.sentences(within), @"
    is within the guarantee of public/a, which is lent out: public/c holds 6 b200 GPUs beyond its own
    needs 4 b200 GPUs; 0 of 8 are free
    ");
    assert_snapshot!(outcome.sentences(beyond), @"
    needs 1 b200 GPU; 0 of 8 are free
    borrows, since public/b holds 2 of the 2 b200 GPUs guaranteed to it and this job needs 1; jobs within a guarantee go first
    ");
    assert_snapshot!(outcome.sentences(none), @"
    needs 1 b200 GPU; 0 of 8 are free
    borrows, since public/c has no guarantee of b200 GPUs; jobs within a guarantee go first
    ");
    cluster.end(lender);
    cluster.node("n2").gpus(2, "b200").add();
    cluster.drain("n1", "fan");
    let outcome = cluster.check();
    assert_snapshot!(outcome.sentences(within), @"
    needs 1 node and none is free; would serve but take no work: n1 (drained by kim: fan)
    needs 4 b200 GPUs; 0 of 2 are free
    borrows, since public/a holds 0 of the 1 b200 GPU guaranteed to it and this job needs 4; jobs within a guarantee go first
    ");
}
