//! Why jobs wait: each kind of reason with its numbers.

use gotgan_core::node::Liveness;
use gotgan_core::plan::{BlockerKind, Unit};
use gotgan_core::spec::DependencyKind;
use insta::assert_snapshot;

use crate::cluster::TestCluster;

/// A cluster with one full node of 8 GPUs, held by `public/lab`.
fn full() -> TestCluster {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").add();
    cluster.job().gpus(8, "b200").submit();
    cluster.start_all();
    cluster
}

#[test]
fn a_project_at_its_limit_is_named_with_what_it_holds() {
    let mut cluster = TestCluster::new();
    cluster.limit("public/nup", &[]);
    cluster.limit("public/nup/startup-042", &[("b200", 8)]);
    cluster.node("n1").gpus(8, "b200").add();
    cluster.node("n2").gpus(8, "b200").add();
    cluster.job().project("public/nup/startup-042").gpus(8, "b200").submit();
    let job = cluster.job().project("public/nup/startup-042").gpus(4, "b200").submit();
    let outcome = cluster.check();
    let blocker = &outcome.blockers(job)[0];
    assert_eq!((blocker.needed, blocker.available, blocker.limit), (4000, 0, 8000));
    assert_eq!((blocker.kind, blocker.unit), (BlockerKind::ProjectLimit, Unit::GpuMilli));
    assert_snapshot!(outcome.sentences(job), @"project public/nup/startup-042 may hold 8 b200 GPUs and holds 8; this job needs 4 more");
}

#[test]
fn every_limit_above_is_named_the_nearest_first() {
    let mut cluster = TestCluster::new();
    cluster.limit("public", &[("any", 10)]);
    cluster.limit("public/nup", &[("b200", 8)]);
    cluster.limit("public/nup/a", &[]);
    cluster.limit("public/nup/b", &[("b200", 16)]);
    cluster.node("n1").gpus(8, "b200").add();
    cluster.node("n2").gpus(8, "b200").add();
    cluster.job().project("public/nup/a").gpus(8, "b200").submit();
    let job = cluster.job().project("public/nup/b").gpus(4, "b200").submit();
    let alone = cluster.job().project("public/nup/b").gpus(4, "b200").nodes(3).submit();
    let outcome = cluster.check();
    assert_snapshot!(outcome.sentences(job), @r"
    all of public/nup may hold 8 b200 GPUs together and holds 8; this job needs 4 more
    all of public may hold 10 GPUs together and holds 8; this job needs 4 more
    ");
    assert_snapshot!(outcome.sentences(alone), @r"
    all of public/nup may hold 8 b200 GPUs together; this job alone needs 12
    all of public may hold 10 GPUs together; this job alone needs 12
    needs 3 nodes with 4 b200 GPUs, 1 CPU and 1 GiB memory; there are only 2
    ");
}

#[test]
fn a_limit_lowered_below_what_is_held_says_so() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").add();
    cluster.job().gpus(6, "b200").submit();
    cluster.start_all();
    cluster.limit("public", &[("b200", 4)]);
    let job = cluster.job().gpus(1, "b200").submit();
    assert_snapshot!(cluster.check().sentences(job), @"all of public may hold 4 b200 GPUs together and holds 6; this job needs 1 more");
}

#[test]
fn a_project_taken_out_of_the_tree_starts_nothing() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").add();
    let job = cluster.job().project("public/gone").submit();
    cluster.expect_waiting(job);
    assert_snapshot!(cluster.check().sentences(job), @"project public/gone is not in the quota tree");
}

#[test]
fn too_few_free_gpus_are_counted_against_the_class() {
    let mut cluster = full();
    cluster.node("n2").gpus(8, "b200").add();
    cluster.job().gpus(5, "b200").waiting_since_s(1).submit();
    let job = cluster.job().gpus(8, "b200").submit();
    let outcome = cluster.check();
    let blocker = &outcome.blockers(job)[0];
    assert_eq!((blocker.needed, blocker.available, blocker.limit), (8000, 3000, 16000));
    assert_snapshot!(outcome.sentences(job), @"needs 8 b200 GPUs; 3 of 16 are free");
}

#[test]
fn gpus_that_are_free_on_the_wrong_nodes_are_counted_as_nodes() {
    let mut cluster = TestCluster::new();
    for name in ["n1", "n2"] {
        cluster.node(name).gpus(8, "b200").add();
        cluster.job().gpus(4, "b200").only_on(&[name]).waiting_since_s(1).submit();
    }
    let whole = cluster.job().gpus(8, "b200").submit();
    let outcome = cluster.check();
    assert_snapshot!(outcome.sentences(whole), @"needs 1 node with 8 free b200 GPUs, 1 free CPU and 1 GiB free memory; 0 of 2 have that");
}

#[test]
fn cpus_and_memory_are_named_where_they_bind() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").cpus(32).memory_gib(64).add();
    cluster.job().gpus(1, "b200").cpus(28).memory_gib(60).submit();
    let job = cluster.job().gpus(1, "b200").cpus(8).memory_gib(8).submit();
    let no_gpu = cluster.job().cpus(8).submit();
    let outcome = cluster.check();
    assert_snapshot!(outcome.sentences(job), @r"
    needs 8 CPUs on each node; 4 of 32 are free beside free b200 GPUs
    needs 8 GiB memory on each node; 4 GiB of 64 GiB are free beside free b200 GPUs
    ");
    assert_snapshot!(outcome.sentences(no_gpu), @"needs 8 CPUs on each node; 4 of 32 are free where most is");
}

#[test]
fn cpus_here_and_memory_there_are_not_enough() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(2, "b200").cpus(32).memory_gib(64).add();
    cluster.node("n2").gpus(2, "b200").cpus(32).memory_gib(64).add();
    cluster.job().gpus(1, "b200").only_on(&["n1"]).cpus(30).memory_gib(1).submit();
    cluster.job().gpus(1, "b200").only_on(&["n2"]).cpus(1).memory_gib(60).submit();
    let job = cluster.job().gpus(1, "b200").cpus(16).memory_gib(32).submit();
    assert_snapshot!(cluster.check().sentences(job), @"needs 1 node with 1 free b200 GPU, 16 free CPUs and 32 GiB free memory; 0 of 2 have that");
}

#[test]
fn a_drained_node_that_would_serve_is_named_with_who_and_why() {
    let mut cluster = full();
    cluster.node("n2").gpus(8, "b200").add();
    cluster.drain("n2", "fan replaced");
    let job = cluster.job().gpus(8, "b200").submit();
    let outcome = cluster.check();
    let blocker = &outcome.blockers(job)[0];
    assert_eq!((blocker.kind, blocker.subject.as_str()), (BlockerKind::NodesUnavailable, "n2"));
    assert_eq!((blocker.needed, blocker.available, blocker.limit), (1, 0, 2));
    assert_snapshot!(outcome.sentences(job), @r"
    needs 1 node and none is free; would serve but take no work: n2 (drained by kim: fan replaced)
    needs 8 b200 GPUs; 0 of 8 are free
    ");
}

#[test]
fn many_lost_nodes_are_counted_after_the_first_three() {
    let mut cluster = TestCluster::new();
    for name in ["n1", "n2", "n3", "n4", "n5"] {
        cluster.node(name).gpus(8, "b200").add();
        cluster.heard(name, Liveness::Lost);
    }
    cluster.node("n6").gpus(8, "b200").add();
    let job = cluster.job().gpus(8, "b200").nodes(2).submit();
    assert_snapshot!(cluster.check().sentences(job), @r"
    needs 2 nodes and 1 is free; would serve but take no work: n1 (lost), n2 (lost), n3 (lost) and 2 more
    needs 16 b200 GPUs; 8 of 8 are free
    ");
}

#[test]
fn a_drained_node_that_would_not_help_is_not_named() {
    let mut cluster = full();
    cluster.node("n2").gpus(4, "b200").add();
    cluster.drain("n2", "fan replaced");
    let job = cluster.job().gpus(8, "b200").submit();
    assert_snapshot!(cluster.check().sentences(job), @"needs 8 b200 GPUs; 0 of 8 are free");
}

#[test]
fn a_job_that_takes_any_gpu_is_told_that_there_is_none() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").add();
    let job = cluster.job().gpus(1, "").submit();
    assert_snapshot!(cluster.check().sentences(job), @"no node has GPUs, in use or not");
}

#[test]
fn what_no_node_could_ever_serve_is_said_to_be_so() {
    let mut cluster = full();
    let large = cluster.job().gpus(9, "b200").submit();
    let wide = cluster.job().gpus(8, "b200").nodes(2).submit();
    let other_class = cluster.job().gpus(1, "h200").submit();
    let labelled = cluster.job().gpus(1, "b200").label("hall", "z").submit();
    let outcome = cluster.check();
    assert_snapshot!(outcome.sentences(large), @"no node has 9 b200 GPUs, 1 CPU and 1 GiB memory, in use or not");
    assert_snapshot!(outcome.sentences(wide), @"needs 2 nodes with 8 b200 GPUs, 1 CPU and 1 GiB memory; there are only 1");
    assert_snapshot!(outcome.sentences(other_class), @"no node has h200 GPUs, in use or not");
    assert_snapshot!(outcome.sentences(labelled), @"no node has 1 b200 GPU, 1 CPU and 1 GiB memory within its constraints, in use or not");
}

#[test]
fn a_dependency_is_named_with_its_state() {
    let mut cluster = full();
    let first = cluster.job().gpus(8, "b200").submit();
    let second = cluster.job().after(DependencyKind::AfterOk, first).submit();
    let third = cluster
        .job()
        .after(DependencyKind::AfterAny, first)
        .after(DependencyKind::After, second)
        .submit();
    let outcome = cluster.check();
    assert_snapshot!(outcome.sentences(second), @"waits for job 2 to complete, which is pending");
    assert_snapshot!(outcome.sentences(third), @r"
    waits for job 2 to end, which is pending
    waits for job 3 to start, which is pending
    ");
}

#[test]
fn a_retry_that_is_not_due_says_when_it_is() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").add();
    let job = cluster.job().not_before_ms(4_500).submit();
    cluster.expect_waiting(job);
    assert_snapshot!(cluster.check().sentences(job), @"failed a moment ago and is tried again in 5 s");
}

#[test]
fn several_reasons_come_worst_first() {
    let mut cluster = full();
    cluster.limit("public/lab", &[("b200", 10)]);
    cluster.node("n2").gpus(8, "b200").add();
    cluster.drain("n2", "fan replaced");
    let job = cluster.job().gpus(8, "b200").submit();
    assert_snapshot!(cluster.check().sentences(job), @r"
    project public/lab may hold 10 b200 GPUs and holds 8; this job needs 8 more
    needs 1 node and none is free; would serve but take no work: n2 (drained by kim: fan replaced)
    needs 8 b200 GPUs; 0 of 8 are free
    ");
}

#[test]
fn equal_jobs_share_one_list() {
    let mut cluster = full();
    let first = cluster.job().gpus(8, "b200").submit();
    let second = cluster.job().gpus(8, "b200").submit();
    let outcome = cluster.check();
    let lists = &outcome.waiting;
    assert!(std::sync::Arc::ptr_eq(&lists[&first], &lists[&second]));
}
