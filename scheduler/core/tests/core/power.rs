//! Power: caps of GPUs, and what a site, its halls, racks and nodes may draw together.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotgan_core::check;
use gotgan_core::ids::{GpuClass, JobId};
use gotgan_core::plan::{BlockerKind, Decision};
use gotgan_core::power::PowerTerms;
use insta::assert_snapshot;

use crate::cluster::TestCluster;

fn class(name: &str) -> GpuClass {
    GpuClass::new(name).unwrap()
}

/// The site orders so many watts for its B200s.
fn ordering(watts: u32) -> PowerTerms {
    PowerTerms { cap_watts: BTreeMap::from([(class("b200"), watts)]), ..PowerTerms::default() }
}

fn cluster_with(power: PowerTerms) -> TestCluster {
    let mut cluster = TestCluster::new();
    cluster.power(power);
    cluster
}

fn cap_of(cluster: &mut TestCluster, job: JobId) -> Option<u32> {
    cluster.check().placement(job).unwrap().gpu_cap_watts
}

#[test]
fn a_job_with_a_cap_starts_only_where_its_gpus_take_it() {
    let mut cluster = TestCluster::new();
    cluster.node("old").gpus(4, "b200").add();
    cluster.node("high").gpus(4, "b200").caps(500).add();
    cluster.node("able").gpus(4, "b200").caps(200).add();
    let job = cluster.job().gpus(4, "b200").cap(400).submit();
    let more = cluster.job().gpus(4, "b200").cap(400).submit();
    let plain = cluster.job().gpus(4, "b200").submit();
    cluster.expect_on(job, &["able"]);
    cluster.expect_waiting(more);
    let outcome = cluster.check();
    assert!(outcome.nodes_of(plain).is_some());
    assert_eq!(outcome.placement(plain).unwrap().gpu_cap_watts, None);
    assert_eq!(outcome.placement(job).unwrap().gpu_cap_watts, Some(400));
}

#[test]
fn where_no_gpu_takes_the_cap_a_job_is_told_so() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(4, "b200").add();
    let job = cluster.job().gpus(4, "b200").cap(400).submit();
    cluster.expect_waiting(job);
    let outcome = cluster.check();
    assert_eq!(outcome.blockers(job)[0].kind, BlockerKind::Constraints);
    assert_snapshot!(outcome.sentences(job), @"no node has 4 b200 GPUs that take a cap of 400 W, 1 CPU and 1 GiB memory, in use or not");
}

#[test]
fn the_lower_of_what_the_job_asks_and_the_site_orders_is_its_cap() {
    for (asked, cap) in [(None, 600), (Some(400), 400), (Some(900), 600)] {
        let mut cluster = cluster_with(ordering(600));
        cluster.node("n1").gpus(4, "b200").caps(200).add();
        let job = cluster.job().gpus(4, "b200");
        let job = match asked {
            Some(watts) => job.cap(watts).submit(),
            None => job.submit(),
        };
        assert_eq!(cap_of(&mut cluster, job), Some(cap), "asked {asked:?}");
    }
}

#[test]
fn what_cannot_be_capped_as_the_site_orders_is_given_to_nobody() {
    let mut cluster = cluster_with(ordering(600));
    cluster.node("n1").gpus(4, "b200").add();
    cluster.node("h1").gpus(4, "h100").add();
    let (capped, other) =
        (cluster.job().gpus(1, "b200").submit(), cluster.job().gpus(1, "h100").submit());
    let share = cluster.job().share(500, "b200").submit();
    let without = cluster.job().only_on(&["n1"]).submit();
    cluster.expect_waiting(capped);
    cluster.expect_waiting(share);
    cluster.expect_on(other, &["h1"]);
    cluster.expect_on(without, &["n1"]);
    let outcome = cluster.check();
    assert_snapshot!(outcome.sentences(capped), @"no node has 1 b200 GPU that take a cap of 600 W, 1 CPU and 1 GiB memory, in use or not");
}

#[test]
fn the_check_refuses_a_start_with_another_cap_or_where_it_cannot_be_set() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(4, "b200").caps(200).add();
    let job = cluster.job().gpus(4, "b200").cap(400).submit();
    let outcome = cluster.check();
    let Decision::Start { placement, .. } = &outcome.plan.decisions[0] else { panic!("no start") };
    let mut other = placement.as_ref().clone();
    other.gpu_cap_watts = Some(500);
    let decision = Decision::Start { job, placement: Arc::new(other) };
    let refusal = check::decision(&cluster.world, &decision, cluster.now).unwrap_err();
    assert!(refusal.reason.contains("is to be capped at Some(400) W"), "{refusal}");
    let mut lame = TestCluster::new();
    lame.node("n1").gpus(4, "b200").add();
    lame.job().gpus(4, "b200").cap(400).submit();
    lame.check();
    let refusal = check::decision(&lame.world, &outcome.plan.decisions[0], lame.now).unwrap_err();
    assert!(refusal.reason.contains("cannot cap its GPUs at 400 W"), "{refusal}");
}
