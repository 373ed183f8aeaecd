//! Where jobs start.

use gotgan_core::amount::GpuMilli;
use gotgan_core::node::Liveness;

use crate::cluster::TestCluster;

#[test]
fn a_job_without_gpus_prefers_a_node_without_gpus() {
    let mut cluster = TestCluster::new();
    cluster.node("a-gpu").gpus(8, "b200").add();
    cluster.node("z-cpu").add();
    let job = cluster.job().submit();
    cluster.expect_on(job, &["z-cpu"]);
    cluster.check();
}

#[test]
fn whole_gpus_go_where_the_fewest_are_left() {
    let mut cluster = TestCluster::new();
    for name in ["n1", "n2", "n3"] {
        cluster.node(name).gpus(8, "b200").add();
    }
    let first = cluster.job().gpus(6, "b200").submit();
    cluster.expect_on(first, &["n1"]);
    cluster.start_all();
    let small = cluster.job().gpus(2, "b200").submit();
    let large = cluster.job().gpus(8, "b200").nodes(2).submit();
    cluster.expect_on(small, &["n1"]);
    cluster.expect_on(large, &["n2", "n3"]);
    cluster.check();
}

#[test]
fn gang_waits_until_all_nodes_fit() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").add();
    cluster.node("n2").gpus(8, "b200").add();
    let blocker = cluster.job().gpus(1, "b200").submit();
    cluster.start_all();
    let gang = cluster.job().gpus(8, "b200").nodes(2).submit();
    let single = cluster.job().gpus(8, "b200").submit();
    cluster.expect_waiting(gang);
    cluster.expect_on(single, &["n2"]);
    cluster.check();
    cluster.end(blocker);
    cluster.status(single, |status| status.not_before = status.not_before.plus_seconds(60));
    cluster.expect_on(gang, &["n1", "n2"]);
}

#[test]
fn shares_fill_one_gpu_before_the_next_is_broken() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").add();
    cluster.node("n2").gpus(8, "b200").add();
    let jobs: Vec<_> = (0..8).map(|_| cluster.job().share(250, "b200").submit()).collect();
    let outcome = cluster.check();
    let mut gpus: Vec<_> = jobs
        .iter()
        .map(|job| outcome.placement(*job).unwrap().nodes[0].gpus[0].uuid.to_string())
        .collect();
    gpus.dedup();
    assert_eq!(gpus, ["GPU-n1-0", "GPU-n1-1"]);
}

#[test]
fn a_share_goes_to_the_fullest_gpu_that_still_has_room() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(2, "b200").add();
    cluster.job().share(300, "b200").waiting_since_s(1).submit();
    cluster.job().share(800, "b200").submit();
    cluster.start_all();
    let fits_the_fuller = cluster.job().share(200, "b200").submit();
    let fits_the_other = cluster.job().share(600, "b200").submit();
    let outcome = cluster.check();
    let gpu = |job| outcome.placement(job).unwrap().nodes[0].gpus[0].uuid.to_string();
    assert_eq!(gpu(fits_the_fuller), "GPU-n1-1");
    assert_eq!(gpu(fits_the_other), "GPU-n1-0");
}

#[test]
fn a_gang_of_shares_gets_distinct_nodes() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(4, "b200").add();
    cluster.node("n2").gpus(4, "b200").add();
    let gang = cluster.job().share(100, "b200").nodes(2).submit();
    let too_wide = cluster.job().share(100, "b200").nodes(3).submit();
    cluster.expect_on(gang, &["n1", "n2"]);
    cluster.expect_waiting(too_wide);
    cluster.check();
}

#[test]
fn a_gang_of_any_class_gets_one_class_on_all_its_nodes() {
    let mut cluster = TestCluster::new();
    cluster.node("a1").gpus(4, "a100").add();
    cluster.node("b1").gpus(4, "b200").add();
    cluster.node("b2").gpus(4, "b200").add();
    let pair = cluster.job().gpus(4, "").nodes(2).submit();
    let single = cluster.job().gpus(4, "").submit();
    cluster.expect_on(pair, &["b1", "b2"]);
    cluster.expect_on(single, &["a1"]);
    cluster.check();
}

#[test]
fn a_node_of_two_classes_gives_only_gpus_of_the_one_asked() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(1, "a100").gpus(2, "b200").add();
    let job = cluster.job().gpus(2, "b200").submit();
    let share = cluster.job().share(500, "a100").submit();
    let outcome = cluster.check();
    let uuids = |job| {
        let gpus = &outcome.placement(job).unwrap().nodes[0].gpus;
        gpus.iter().map(|gpu| gpu.uuid.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(uuids(job), ["GPU-n1-1", "GPU-n1-2"]);
    assert_eq!(uuids(share), ["GPU-n1-0"]);
}

#[test]
fn labels_and_node_lists_decide_where_a_job_may_go() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").label("hall", "a").add();
    cluster.node("n2").gpus(8, "b200").label("hall", "b").add();
    cluster.node("n3").gpus(8, "b200").label("hall", "b").add();
    let labelled = cluster.job().gpus(1, "b200").label("hall", "b").submit();
    let listed = cluster.job().gpus(1, "b200").only_on(&["n3"]).submit();
    let excluding = cluster.job().gpus(8, "b200").never_on(&["n2", "n3"]).submit();
    cluster.expect_on(labelled, &["n2"]);
    cluster.expect_on(listed, &["n3"]);
    cluster.expect_on(excluding, &["n1"]);
    cluster.check();
}

#[test]
fn a_job_avoids_nodes_it_was_lost_on_while_others_could_serve() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").add();
    cluster.node("n2").gpus(8, "b200").add();
    let elsewhere = cluster.job().gpus(8, "b200").avoiding(&["n1"]).submit();
    let patient = cluster.job().gpus(8, "b200").avoiding(&["n1"]).submit();
    cluster.expect_on(elsewhere, &["n2"]);
    cluster.expect_waiting(patient);
    cluster.check();
}

#[test]
fn avoiding_is_dropped_where_nothing_else_could_ever_serve() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").add();
    cluster.node("n2").gpus(8, "b200").add();
    cluster.heard("n2", Liveness::Lost);
    let job = cluster.job().gpus(8, "b200").avoiding(&["n1"]).submit();
    cluster.expect_on(job, &["n1"]);
    cluster.check();
}

#[test]
fn higher_priority_goes_first_then_the_longer_wait_then_the_lower_number() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(3, "b200").add();
    let late = cluster.job().gpus(1, "b200").submit();
    let later = cluster.job().gpus(1, "b200").submit();
    let old = cluster.job().gpus(1, "b200").waiting_since_s(60).submit();
    let high = cluster.job().gpus(1, "b200").priority(5).submit();
    let outcome = cluster.check();
    let order: Vec<_> = [high, old, late, later].map(|job| outcome.nodes_of(job).is_some()).into();
    assert_eq!(order, [true, true, true, false]);
}

#[test]
fn a_project_at_its_limit_does_not_keep_others_from_starting() {
    let mut cluster = TestCluster::new();
    cluster.limit("public/small", &[("b200", 2)]);
    cluster.node("n1").gpus(8, "b200").add();
    let first = cluster.job().project("public/small").gpus(2, "b200").submit();
    let second = cluster.job().project("public/small").gpus(1, "b200").submit();
    let other = cluster.job().gpus(4, "b200").submit();
    cluster.expect_on(first, &["n1"]);
    cluster.expect_waiting(second);
    cluster.expect_on(other, &["n1"]);
    cluster.check();
}

#[test]
fn starts_past_the_limit_of_a_pass_are_left_for_the_next() {
    let mut cluster = TestCluster::new();
    cluster.policy.max_starts_per_pass = 2;
    cluster.node("n1").gpus(8, "b200").add();
    for _ in 0..5 {
        cluster.job().gpus(1, "b200").submit();
    }
    let outcome = cluster.start_all();
    assert_eq!((outcome.plan.decisions.len(), outcome.plan.report.deferred), (2, 3));
    cluster.start_all();
    let outcome = cluster.start_all();
    assert_eq!((outcome.plan.decisions.len(), outcome.plan.report.deferred), (1, 0));
}

#[test]
fn what_one_decision_takes_the_next_one_does_not_see_as_free() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").cpus(10).memory_gib(10).add();
    let by_cpu = cluster.job().gpus(1, "b200").cpus(9).submit();
    let no_cpu = cluster.job().gpus(1, "b200").cpus(2).submit();
    let by_memory = cluster.job().gpus(1, "b200").cpus(1).memory_gib(9).submit();
    cluster.expect_on(by_cpu, &["n1"]);
    cluster.expect_waiting(no_cpu);
    cluster.expect_on(by_memory, &["n1"]);
    let outcome = cluster.check();
    assert_eq!(outcome.placement(by_cpu).unwrap().gpus(), GpuMilli::WHOLE);
}
