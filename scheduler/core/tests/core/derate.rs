//! Less power for a part of the machine: who stands idle, who stops for it, and how it is given back.

use std::collections::BTreeSet;

use gotgan_core::attempt::Cause;
use gotgan_core::check;
use gotgan_core::derate::{DerateRefusal, Derating, choose};
use gotgan_core::ids::{AttemptId, Epoch, GpuClass, JobId, NodeName, UserName};
use gotgan_core::lifecycle::{self, DerateWish, Draft, turn_windows};
use gotgan_core::power::PowerTerms;
use proptest::prelude::*;

use crate::cluster::TestCluster;

/// Idle GPUs draw nothing, so that nodes can be counted.
fn terms() -> PowerTerms {
    PowerTerms { idle_percent: 0, ..PowerTerms::default() }
}

/// So many nodes of eight GPUs; `a` is sure of sixteen, `b` of none.
fn hall(nodes: usize) -> TestCluster {
    let mut cluster = TestCluster::new();
    for number in 1..=nodes {
        cluster.node(&format!("n{number}")).gpus(8, "b200").add();
    }
    cluster.guarantee("public/a", 1, &[("b200", 16)]);
    cluster.guarantee("public/b", 1, &[]);
    cluster
}

fn job_on(cluster: &mut TestCluster, project: &str, gpus: u32, nodes: &[&str]) -> JobId {
    let count = u32::try_from(nodes.len()).unwrap();
    let job = cluster.job().project(project).nodes(count).gpus(gpus, "b200").only_on(nodes);
    job.hours(20).submit()
}

fn all(cluster: &TestCluster) -> BTreeSet<NodeName> {
    cluster.world.nodes.keys().cloned().collect()
}

fn to(cluster: &TestCluster, percent: u32) -> Derating {
    choose(&cluster.world, &all(cluster), percent, &terms(), cluster.now).unwrap()
}

fn names(derating: &Derating) -> Vec<String> {
    derating.idle.iter().map(ToString::to_string).collect()
}

fn jobs(derating: &Derating) -> Vec<JobId> {
    derating.stopped.iter().map(|id| id.job).collect()
}

#[test]
fn nodes_on_which_nothing_runs_stand_idle_first_and_those_that_take_no_jobs_before_them() {
    let mut cluster = hall(4);
    job_on(&mut cluster, "public/b", 1, &["n1"]);
    cluster.start_all();
    cluster.drain("n4", "new fans");
    let quarter = to(&cluster, 75);
    assert_eq!((names(&quarter), jobs(&quarter)), (vec!["n4".to_owned()], vec![]));
    let half = to(&cluster, 50);
    assert_eq!((names(&half), jobs(&half)), (vec!["n2".to_owned(), "n4".to_owned()], vec![]));
    assert_eq!((half.gpus, half.gpus_idle), (32, 16));
    assert_eq!((half.full_watts, half.watts), (32_000, 16_000));
    cluster.check();
}

#[test]
fn scavengers_stop_first_then_what_borrows_then_what_is_guaranteed() {
    let mut cluster = hall(4);
    let scavenger = cluster.job().project("public/b").gpus(8, "b200").scavenger().only_on(&["n1"]);
    let scavenger = scavenger.hours(20).submit();
    let sure = job_on(&mut cluster, "public/a", 8, &["n2", "n3"]);
    let borrows = job_on(&mut cluster, "public/b", 8, &["n4"]);
    cluster.start_all();
    assert_eq!(jobs(&to(&cluster, 75)), [scavenger]);
    assert_eq!(jobs(&to(&cluster, 50)), [scavenger, borrows]);
    let one_of_a_gang = to(&cluster, 25);
    assert_eq!(names(&one_of_a_gang), ["n1", "n2", "n3"]);
    // The gang frees two nodes: what borrows is not needed any more.
    assert_eq!(jobs(&one_of_a_gang), [scavenger, sure]);
    assert_eq!(jobs(&to(&cluster, 0)), [scavenger, sure, borrows]);
    cluster.check();
}

#[test]
fn of_one_claim_what_loses_least_stops_and_nothing_that_was_not_needed() {
    let mut cluster = hall(3);
    let old = job_on(&mut cluster, "public/b", 8, &["n1"]);
    let small = job_on(&mut cluster, "public/b", 1, &["n2"]);
    let large = job_on(&mut cluster, "public/b", 7, &["n2"]);
    cluster.start_all();
    cluster.later(3_600);
    let young = job_on(&mut cluster, "public/b", 8, &["n3"]);
    cluster.start_all();
    cluster.later(60);
    assert_eq!(jobs(&to(&cluster, 67)), [young]);
    assert_eq!(jobs(&to(&cluster, 34)), [small, large, young]);
    assert_eq!(jobs(&to(&cluster, 0)), [old, small, large, young]);
    cluster.check();
}

#[test]
fn what_stops_already_costs_nobody_anything() {
    let mut cluster = hall(2);
    let leaving = job_on(&mut cluster, "public/a", 8, &["n1"]);
    job_on(&mut cluster, "public/b", 8, &["n2"]);
    cluster.start_all();
    let wish = wish(&cluster, &["n1"], 0);
    drafted(&mut cluster, |draft| lifecycle::derate(draft, wish)).unwrap();
    let half = to(&cluster, 50);
    assert_eq!((names(&half), jobs(&half)), (vec!["n1".to_owned()], vec![]));
    assert!(cluster.world.attempts[&AttemptId { job: leaving, number: 1 }].stop.is_some());
    cluster.check();
}

#[test]
fn idle_gpus_draw_something_and_classes_differ() {
    let mut cluster = TestCluster::new();
    cluster.node("big").gpus(4, "b200").add();
    cluster.node("small").gpus(4, "l40s").add();
    let class = |name| GpuClass::new(name).unwrap();
    let gpu_watts = [(class("b200"), 1_000), (class("l40s"), 250)].into();
    let terms = PowerTerms { gpu_watts, idle_percent: 20, ..PowerTerms::default() };
    let nodes = all(&cluster);
    let found = |percent| choose(&cluster.world, &nodes, percent, &terms, cluster.now);
    let both = found(20).unwrap();
    assert_eq!((both.full_watts, both.watts, both.idle.len()), (5_000, 1_000, 2));
    assert_eq!(found(36).unwrap().watts, 1_800);
    assert_eq!(found(19), Err(DerateRefusal::TooLow { least_percent: 20 }));
    cluster.check();
}

#[test]
fn a_part_without_gpus_has_no_power_to_bring_down() {
    let mut cluster = TestCluster::new();
    cluster.node("login").gpus(0, "b200").add();
    let found = choose(&cluster.world, &all(&cluster), 50, &terms(), cluster.now);
    assert_eq!(found, Err(DerateRefusal::NoGpus));
    cluster.check();
}

fn wish(cluster: &TestCluster, nodes: &[&str], to_percent: u32) -> DerateWish {
    let nodes = match nodes {
        [] => all(cluster),
        named => named.iter().map(|name| NodeName::new(name).unwrap()).collect(),
    };
    let (reason, by) = ("heat wave".to_owned(), UserName::new("kim").unwrap());
    DerateWish { nodes, to_percent, duration_s: 7_200, reason, by }
}

fn drafted<T>(cluster: &mut TestCluster, change: impl FnOnce(&mut Draft<'_>) -> T) -> T {
    let TestCluster { world, policy, now, .. } = cluster;
    let mut policy = policy.clone();
    policy.power = terms();
    let mut draft = Draft::new(world, &policy, Epoch(1), *now);
    change(&mut draft)
}

#[test]
fn what_stops_is_told_why_at_the_sites_cost_and_the_nodes_come_back_by_themselves() {
    let mut cluster = hall(2);
    let sure = job_on(&mut cluster, "public/a", 8, &["n1"]);
    let borrows = job_on(&mut cluster, "public/b", 8, &["n2"]);
    cluster.run_all();
    let wish = wish(&cluster, &[], 50);
    let (choice, window) = drafted(&mut cluster, |draft| lifecycle::derate(draft, wish)).unwrap();
    assert_eq!((names(&choice), jobs(&choice)), (vec!["n2".to_owned()], vec![borrows]));
    assert_eq!(window.nodes, choice.idle);
    let stop = cluster.world.attempts[&AttemptId { job: borrows, number: 1 }].stop.clone().unwrap();
    assert_eq!((stop.cause, stop.grace_s), (Cause::Site, 30));
    assert_eq!(stop.reason, "stopped for maintenance by kim: power at 50 %: heat wave");
    assert!(cluster.world.attempts[&AttemptId { job: sure, number: 1 }].stop.is_none());
    cluster.let_go();
    cluster.expect_waiting(borrows);
    cluster.start_all();
    cluster.later(7_200);
    drafted(&mut cluster, turn_windows);
    cluster.expect_on(borrows, &["n2"]);
    cluster.check();
}

proptest! {
    /// Enough, of the part alone, on nodes that are really empty then, and not one attempt more than needed.
    #[test]
    fn the_power_is_brought_down_far_enough_by_no_more_than_is_needed(
        sizes in proptest::collection::vec((1..=4_u32, 1..=8_u32, 0..3_usize, any::<bool>()), 0..14),
        waits in proptest::collection::vec(0..400_i64, 14),
        percent in 0..100_u32,
        outside in 0..3_usize,
    ) {
        let mut cluster = hall(6);
        for ((nodes, gpus, project, scavenges), wait) in sizes.into_iter().zip(waits) {
            let project = ["public/a", "public/b", "public"][project];
            let job = cluster.job().project(project).nodes(nodes).gpus(gpus, "b200").hours(20);
            if scavenges { job.scavenger().submit() } else { job.submit() };
            cluster.start_unchecked();
            cluster.later(wait);
        }
        let part: BTreeSet<NodeName> = all(&cluster).into_iter().skip(outside).collect();
        let found = choose(&cluster.world, &part, percent, &terms(), cluster.now).unwrap();
        let full = part.len() as u64 * 8_000;
        prop_assert_eq!(found.full_watts, full);
        prop_assert_eq!(found.watts, full - found.idle.len() as u64 * 8_000);
        prop_assert!(found.watts * 100 <= full * u64::from(percent));
        prop_assert!(found.idle.is_subset(&part));
        for name in &found.idle {
            let there = &cluster.world.nodes[name].attempts;
            let goes = |id: &AttemptId| found.stopped.contains(id)
                || cluster.world.attempts[id].stop.is_some();
            prop_assert!(there.iter().all(goes));
        }
        for id in &found.stopped {
            let held = &cluster.world.attempts[id].placement.nodes;
            let kept = held.iter().filter(|held| found.idle.contains(&held.node)).count() as u64;
            prop_assert!((found.watts + kept * 8_000) * 100 > full * u64::from(percent));
        }
        prop_assert_eq!(check::world(&cluster.world), []);
        cluster.check();
    }
}
