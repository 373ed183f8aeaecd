//! Power: caps of GPUs, and what a site, its halls, racks and nodes may draw together.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotgan_core::check;
use gotgan_core::ids::{GpuClass, JobId};
use gotgan_core::plan::{BlockerKind, Decision};
use gotgan_core::power::budget::PowerBudget;
use gotgan_core::power::{PowerLimits, PowerTerms};
use gotgan_core::topology::Level;

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

const HOUR: i64 = 3600;

/// B200s draw 1,000 W each, and 100 W with nothing to do; nodes 200 W beside them.
fn limited(limits: PowerLimits) -> TestCluster {
    let power = PowerTerms { idle_percent: 10, node_watts: 200, limits, ..PowerTerms::default() };
    cluster_with(power)
}

fn hall(watts: u64) -> PowerLimits {
    PowerLimits { hall_watts: BTreeMap::from([("h1".to_owned(), watts)]), ..PowerLimits::default() }
}

fn add(cluster: &mut TestCluster, hall: &str, names: &[&str]) {
    for name in names {
        cluster.node(name).gpus(4, "b200").caps(200).label("hall", hall).add();
    }
}

#[test]
fn a_hall_takes_only_as_many_jobs_as_its_limit_has_power_for() {
    // Two idle nodes reserve 1,200 W, and one that is busy 3,600 W more.
    let mut cluster = limited(hall(4_800));
    add(&mut cluster, "h1", &["n1", "n2"]);
    let first = cluster.job().gpus(4, "b200").submit();
    let second = cluster.job().gpus(4, "b200").submit();
    cluster.expect_on(first, &["n1"]);
    cluster.expect_waiting(second);
    let outcome = cluster.start_all();
    assert_eq!(outcome.blockers(second)[0].kind, BlockerKind::Power);
    assert_snapshot!(outcome.sentences(second), @"needs 3,600 W more in hall h1; 0 W of 4,800 W are left");
    cluster.end(first);
    cluster.expect_on(second, &["n1"]);
    cluster.check();
}

#[test]
fn a_lower_cap_lets_more_jobs_run() {
    let mut cluster = limited(hall(4_800));
    add(&mut cluster, "h1", &["n1", "n2"]);
    let first = cluster.job().gpus(4, "b200").cap(500).submit();
    let second = cluster.job().gpus(4, "b200").cap(600).submit();
    let third = cluster.job().gpus(1, "b200").cap(300).submit();
    cluster.expect_on(first, &["n1"]);
    cluster.expect_waiting(third);
    let outcome = cluster.check();
    assert!(outcome.nodes_of(second).is_some());
    cluster.start_all();
    let hall = cluster.world.power_budget.places().next().unwrap().1;
    assert_eq!((hall.reserved_watts, hall.idle_watts), (1_200 + 4 * 400 + 4 * 500, 1_200));
}

#[test]
fn a_job_goes_to_the_hall_that_has_power_and_a_gang_to_both() {
    let mut cluster = limited(hall(4_800));
    add(&mut cluster, "h1", &["a1", "a2"]);
    add(&mut cluster, "h2", &["b1", "b2"]);
    let gang = cluster.job().gpus(4, "b200").nodes(3).submit();
    cluster.expect_on(gang, &["a1", "b1", "b2"]);
    cluster.check();
    let mut small = limited(hall(2_000));
    add(&mut small, "h1", &["a1", "a2"]);
    add(&mut small, "h2", &["b1"]);
    let job = small.job().gpus(4, "b200").submit();
    small.expect_on(job, &["b1"]);
    small.check();
}

#[test]
fn a_gang_that_keeps_together_starts_in_the_block_that_has_power() {
    let mut cluster = limited(hall(4_800));
    add(&mut cluster, "h1", &["a1", "a2"]);
    add(&mut cluster, "h2", &["b1", "b2", "b3"]);
    let gang = cluster.job().gpus(4, "b200").nodes(2).one(Level::Hall).submit();
    cluster.expect_on(gang, &["b1", "b2"]);
    cluster.check();
}

#[test]
fn every_level_binds_and_the_one_that_does_is_named() {
    let site = PowerLimits { site_watts: Some(4_000), ..PowerLimits::default() };
    let node_watts = BTreeMap::from([("*".to_owned(), 2_000)]);
    let node = PowerLimits { node_watts, ..PowerLimits::default() };
    let rack_watts = BTreeMap::from([("r1".to_owned(), 1_500)]);
    let rack = PowerLimits { rack_watts, ..PowerLimits::default() };
    let told = |limits: PowerLimits| {
        let mut cluster = limited(limits);
        cluster.node("n1").gpus(4, "b200").label("rack", "r1").add();
        let job = cluster.job().gpus(4, "b200").submit();
        cluster.expect_waiting(job);
        cluster.check().sentences(job)
    };
    assert_snapshot!(told(site), @"needs 3,600 W more in the whole site; 3,400 W of 4,000 W are left");
    assert_snapshot!(told(rack), @"needs 3,600 W more in rack r1, which may draw no more than 1,500 W");
    assert_snapshot!(told(node), @"needs 3,600 W more in node n1, which may draw no more than 2,000 W");
}

#[test]
fn of_shares_of_one_gpu_the_first_alone_reserves() {
    let mut cluster = limited(hall(600 + 900));
    add(&mut cluster, "h1", &["n1"]);
    let first = cluster.job().share(300, "b200").submit();
    let second = cluster.job().share(300, "b200").submit();
    cluster.expect_on(first, &["n1"]);
    cluster.expect_on(second, &["n1"]);
    cluster.start_all();
    let whole = cluster.job().gpus(1, "b200").submit();
    cluster.expect_waiting(whole);
    cluster.start_all();
    cluster.end(first);
    let third = cluster.job().share(300, "b200").submit();
    cluster.expect_on(third, &["n1"]);
    cluster.expect_waiting(whole);
    cluster.start_all();
    cluster.end(second);
    cluster.end(third);
    cluster.expect_on(whole, &["n1"]);
    cluster.check();
}

#[test]
fn a_job_without_gpus_needs_no_power_of_its_own() {
    let mut cluster = limited(hall(100));
    add(&mut cluster, "h1", &["n1"]);
    let job = cluster.job().submit();
    cluster.expect_on(job, &["n1"]);
    cluster.check();
}

#[test]
fn a_large_gang_that_waits_for_power_is_not_passed_for_ever() {
    let mut cluster = limited(hall(1_800 + 2 * 3_600));
    cluster.policy.planned_gangs_per_project = 2;
    add(&mut cluster, "h1", &["n1", "n2", "n3"]);
    cluster.job().gpus(4, "b200").hours(4).submit();
    cluster.run_all();
    let gang = cluster.job().gpus(4, "b200").nodes(2).hours(2).submit();
    // There is room and power for it, but until after the gang has its turn.
    let long = cluster.job().gpus(4, "b200").hours(100).submit();
    let short = cluster.job().gpus(4, "b200").hours(1).submit();
    cluster.expect_waiting(gang);
    cluster.expect_waiting(long);
    let outcome = cluster.run_all();
    assert!(outcome.nodes_of(short).is_some());
    let (at_s, _) = outcome.planned(gang).unwrap();
    assert!((4 * HOUR..4 * HOUR + 120).contains(&at_s), "{at_s}");
    assert_snapshot!(outcome.sentences(long), @r"
    needs 3,600 W more in hall h1; 0 W of 9,000 W are left
    there is room, but it would still be there when job 2 is to start, by 1970-01-13T02:47:10+09:00
    ");
}

#[test]
fn a_gang_for_which_there_is_never_enough_power_is_told_and_nothing_is_planned_for_it() {
    let mut cluster = limited(hall(4_800));
    cluster.policy.planned_gangs_per_project = 2;
    add(&mut cluster, "h1", &["n1", "n2"]);
    let gang = cluster.job().gpus(4, "b200").nodes(2).submit();
    cluster.expect_waiting(gang);
    let outcome = cluster.check();
    assert_eq!(outcome.planned(gang), None);
    assert_snapshot!(outcome.sentences(gang), @"needs 7,200 W more in hall h1, which may draw no more than 4,800 W");
}

#[test]
fn nobody_stops_for_a_guarantee_that_there_is_no_power_for() {
    let mut cluster = limited(hall(4_800));
    add(&mut cluster, "h1", &["n1", "n2"]);
    cluster.node("m1").gpus(4, "b200").caps(200).label("hall", "h2").add();
    cluster.limit("public/owner", &[]);
    cluster.guarantee("public/owner", 1, &[("b200", 8)]);
    cluster.policy.min_runtime_before_preemption_s = 0;
    let here = cluster.job().gpus(4, "b200").only_on(&["n1"]).submit();
    let there = cluster.job().gpus(4, "b200").only_on(&["m1"]).submit();
    cluster.run_all();
    cluster.later(600);
    // Stopping what runs in the other hall would give it no power here.
    let owner = cluster.job().project("public/owner").gpus(4, "b200").only_on(&["n2"]);
    let owner = owner.submit();
    cluster.expect_waiting(owner);
    let outcome = cluster.start_all();
    assert_eq!(outcome.victims(), [(here, owner)], "{there}");
    cluster.let_go();
    cluster.expect_on(owner, &["n2"]);
    cluster.check();
}

#[test]
fn what_is_reserved_is_given_back_and_a_restart_counts_the_same() {
    let site_watts = Some(100_000);
    let mut cluster = limited(PowerLimits { site_watts, ..hall(50_000) });
    add(&mut cluster, "h1", &["n1", "n2"]);
    let before = cluster.world.power_budget.clone();
    let job = cluster.job().gpus(4, "b200").nodes(2).cap(400).submit();
    cluster.start_all();
    let held = cluster.world.power_budget.clone();
    assert_ne!(held, before);
    let mut world = cluster.world.clone();
    world.power_budget = PowerBudget::default();
    assert_ne!(check::world(&world), [], "the check counts by itself");
    cluster.end(job);
    assert_eq!(cluster.world.power_budget, before);
    cluster.check();
}

#[test]
fn the_check_refuses_what_a_limit_has_no_power_for() {
    let mut free = limited(hall(50_000));
    add(&mut free, "h1", &["n1", "n2"]);
    let first = free.job().gpus(4, "b200").submit();
    let second = free.job().gpus(4, "b200").submit();
    let plan = free.check().plan;
    let mut tight = limited(hall(4_800));
    add(&mut tight, "h1", &["n1", "n2"]);
    assert_eq!([first, second], [(); 2].map(|()| tight.job().gpus(4, "b200").submit()));
    tight.check();
    let found = check::check(&tight.world, &plan.decisions);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].text.contains("hall h1 would have 8400 W reserved, above its limit of 4800 W"),
        "{found:?}"
    );
}

#[test]
fn passes_for_events_leave_limited_power_to_full_ones() {
    let mut cluster = limited(hall(4_800));
    add(&mut cluster, "h1", &["n1"]);
    cluster.job().gpus(4, "b200").submit();
    cluster.start_all();
    let mut bearings = cluster.bearings.clone();
    let (world, policy, now) = (&cluster.world, &cluster.policy, cluster.now);
    assert!(gotgan_core::planner::plan_event(&mut bearings, world, policy, now).is_none());
}
