//! Clusters, reservations of them, and spare nodes, as the planner and the check see them.

use gotgan_core::amount::UnixMicros;
use gotgan_core::check;
use gotgan_core::fabric;
use gotgan_core::forecast::forecast;
use gotgan_core::ids::JobId;
use gotgan_core::node::Liveness;
use gotgan_core::plan::{BlockerKind, Decision};
use insta::assert_snapshot;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cluster::TestCluster;

/// Two clusters of b200 nodes with 8 GPUs each, `a` with three and `b` with two.
fn clusters() -> TestCluster {
    let mut cluster = TestCluster::new();
    for (name, fabric) in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("b2", "b")] {
        cluster.node(name).gpus(8, "b200").label("cluster", fabric).add();
    }
    cluster.limit("public/team", &[]);
    cluster.limit("public/other", &[]);
    cluster
}

fn full(cluster: &mut TestCluster, project: &str, nodes: u32, hours: i64) -> JobId {
    cluster.job().project(project).gpus(8, "b200").nodes(nodes).hours(hours).submit()
}

#[test]
fn a_gang_of_one_cluster_takes_the_smallest_that_has_room() {
    let mut cluster = clusters();
    let two = cluster.job().gpus(8, "b200").nodes(2).same_cluster().submit();
    let three = cluster.job().gpus(8, "b200").nodes(3).same_cluster().submit();
    cluster.expect_on(two, &["b1", "b2"]);
    cluster.expect_on(three, &["a1", "a2", "a3"]);
    cluster.check();
}

#[test]
fn a_gang_of_one_cluster_waits_though_enough_is_free_in_two() {
    let mut cluster = clusters();
    let one = cluster.job().gpus(8, "b200").label("cluster", "a").submit();
    cluster.expect_on(one, &["a1"]);
    cluster.start_all();
    let three = cluster.job().gpus(8, "b200").nodes(3).same_cluster().submit();
    cluster.expect_waiting(three);
    let outcome = cluster.check();
    assert_snapshot!(outcome.sentences(three), @"needs 3 nodes with 8 free b200 GPUs, 1 free CPU and 1 GiB free memory in one cluster; the best, a, has 2 of 3");
}

#[test]
fn a_gang_larger_than_every_cluster_can_never_be_of_one() {
    let mut cluster = clusters();
    let four = cluster.job().gpus(8, "b200").nodes(4).same_cluster().submit();
    cluster.expect_waiting(four);
    let outcome = cluster.check();
    assert_eq!(outcome.blockers(four)[0].kind, BlockerKind::Constraints);
}

#[test]
fn before_a_reservation_only_what_is_over_in_time_starts_there() {
    let mut cluster = clusters();
    cluster.reserve("r", "public/team", (24, "b200", "a"), [10, 20]);
    let long = full(&mut cluster, "public/other", 3, 11);
    let short = full(&mut cluster, "public/other", 3, 10);
    cluster.expect_waiting(long);
    cluster.expect_on(short, &["a1", "a2", "a3"]);
    let outcome = cluster.check();
    assert_eq!(outcome.blockers(long)[0].kind, BlockerKind::Reservation);
    assert_snapshot!(outcome.sentences(long).lines().next().unwrap(), @"3 nodes it could use are reserved for public/team from 1970-01-13T08:46:40+09:00 until 1970-01-13T18:46:40+09:00 (r), and its time limit is not over before then");
}

#[test]
fn in_its_window_only_the_holder_starts_there_and_only_what_is_over_by_the_end() {
    let mut cluster = clusters();
    cluster.reserve("r", "public/team", (24, "b200", "a"), [-1, 20]);
    let late = full(&mut cluster, "public/team", 3, 21);
    let own = full(&mut cluster, "public/team", 3, 20);
    let other = full(&mut cluster, "public/other", 2, 1);
    let more = full(&mut cluster, "public/other", 1, 1);
    cluster.expect_waiting(late);
    cluster.expect_on(own, &["a1", "a2", "a3"]);
    cluster.expect_on(other, &["b1", "b2"]);
    cluster.expect_waiting(more);
    cluster.check();
}

#[test]
fn a_reservation_that_is_over_closes_nothing() {
    let mut cluster = clusters();
    cluster.reserve("r", "public/team", (24, "b200", "a"), [-9, 1]);
    cluster.now = cluster.now.plus_seconds(3600);
    let other = cluster.job().project("public/other").gpus(8, "b200").nodes(3).hours(50);
    let other = other.same_cluster().submit();
    cluster.expect_on(other, &["a1", "a2", "a3"]);
    cluster.check();
}

#[test]
fn a_reservation_of_a_part_takes_the_first_nodes_by_name_and_leaves_the_rest_open() {
    let mut cluster = clusters();
    cluster.reserve("r", "public/team", (12, "b200", "a"), [1, 20]);
    let other = cluster.job().project("public/other").gpus(8, "b200").hours(5);
    let other = other.label("cluster", "a").submit();
    let more = cluster.job().project("public/other").gpus(8, "b200").hours(5);
    let more = more.label("cluster", "a").submit();
    cluster.expect_on(other, &["a3"]);
    cluster.expect_waiting(more);
    cluster.check();
}

#[test]
fn a_reservation_moves_on_from_a_node_that_is_lost_or_drained() {
    let mut cluster = clusters();
    cluster.reserve("r", "public/team", (8, "b200", "a"), [1, 20]);
    cluster.heard("a1", Liveness::Lost);
    cluster.drain("a2", "fan");
    let other = cluster.job().project("public/other").gpus(8, "b200").hours(5);
    let other = other.label("cluster", "a").submit();
    cluster.expect_waiting(other);
    let outcome = cluster.check();
    assert!(outcome.blockers(other).iter().any(|one| one.kind == BlockerKind::Reservation));
}

#[test]
fn the_holder_goes_first_on_its_own_nodes_whoever_is_within_a_guarantee() {
    let mut cluster = clusters();
    cluster.limit("public", &[("b200", 24)]);
    cluster.guarantee("public/other", 1, &[("b200", 24)]);
    cluster.reserve("r", "public/team", (24, "b200", "a"), [-1, 20]);
    let other = full(&mut cluster, "public/other", 1, 1);
    let own = full(&mut cluster, "public/team", 3, 5);
    cluster.expect_on(own, &["a1", "a2", "a3"]);
    cluster.expect_waiting(other);
    cluster.check();
}

#[test]
fn nothing_that_runs_is_stopped_when_a_reservation_begins() {
    let mut cluster = clusters();
    let long = full(&mut cluster, "public/other", 3, 50);
    let rest = full(&mut cluster, "public/other", 2, 50);
    cluster.expect_on(long, &["a1", "a2", "a3"]);
    cluster.expect_on(rest, &["b1", "b2"]);
    cluster.start_all();
    cluster.reserve("r", "public/team", (24, "b200", "a"), [1, 20]);
    cluster.now = cluster.now.plus_seconds(2 * 3600);
    let own = full(&mut cluster, "public/team", 3, 5);
    cluster.expect_waiting(own);
    let outcome = cluster.check();
    assert_eq!(outcome.victims(), []);
    let book = &cluster.world.book;
    let found = forecast(&cluster.world, &cluster.policy, book, cluster.now).overstay;
    let found: Vec<_> =
        found.iter().map(|one| (one.reservation.as_str(), one.attempt.job)).collect();
    assert_eq!(found, [("r", long)], "the plan tells which job is longer than the lead time");
}

#[test]
fn a_spare_node_stands_by_until_another_one_of_its_cluster_is_down() {
    let mut cluster = TestCluster::new();
    cluster.node("a1").gpus(8, "b200").label("cluster", "a").add();
    cluster.node("a2").gpus(8, "b200").label("cluster", "a").add();
    for spare in ["a3", "a4"] {
        let node = cluster.node(spare).gpus(8, "b200").label("cluster", "a");
        node.label("spare", "true").add();
    }
    let gang = cluster.job().gpus(8, "b200").nodes(3).submit();
    cluster.expect_waiting(gang);
    cluster.check();
    assert_eq!(standby(&cluster), ["a3", "a4"]);

    cluster.heard("a1", Liveness::Lost);
    let pair = cluster.job().gpus(8, "b200").nodes(2).submit();
    cluster.expect_on(pair, &["a2", "a3"]);
    cluster.check();
    assert_eq!(standby(&cluster), ["a4"]);

    cluster.heard("a3", Liveness::Lost);
    assert_eq!(standby(&cluster), [""; 0], "a spare one that is lost is replaced by the next");
    cluster.heard("a1", Liveness::Ready);
    assert_eq!(standby(&cluster), ["a4"]);
}

fn standby(cluster: &TestCluster) -> Vec<&str> {
    fabric::standby(&cluster.world).into_iter().map(|name| name.as_str()).collect()
}

#[test]
fn the_check_finds_every_way_into_a_fabric_that_is_not_open() {
    let mut cluster = clusters();
    cluster.node("c1").gpus(8, "b200").label("cluster", "c").label("spare", "true").add();
    let gang = cluster.job().gpus(8, "b200").nodes(3).same_cluster().hours(5).submit();
    let placement = cluster.check().placement(gang).unwrap().clone();
    let found = |cluster: &TestCluster, placement| {
        let decision = Decision::Start { job: gang, placement: std::sync::Arc::new(placement) };
        check::decision(&cluster.world, &decision, cluster.now).unwrap_err().reason
    };
    let moved = |to: &str| {
        let mut other = placement.clone();
        other.nodes[2].node = gotgan_core::ids::NodeName::new(to).unwrap();
        for gpu in other.nodes[2].gpus.iter_mut().enumerate() {
            gpu.1.uuid = gotgan_core::ids::GpuUuid::new(&format!("GPU-{to}-{}", gpu.0)).unwrap();
        }
        other
    };
    assert!(found(&cluster, moved("b1")).contains("one cluster"));
    assert!(found(&cluster, moved("c1")).contains("one cluster"));
    cluster.reserve("r", "public/team", (8, "b200", "a"), [4, 20]);
    assert_eq!(found(&cluster, placement.clone()), "node a1 is reserved by r");
}

/// Whether a start on these nodes is open, by walking through every node and every reservation.
fn naive_closed(cluster: &TestCluster, job: JobId, node: &str) -> bool {
    let world = &cluster.world;
    let spec = &world.jobs[&job].spec;
    let ends = UnixMicros(cluster.now.0 + spec.time_limit_s * 1_000_000);
    world.quota.reservations.values().any(|terms| {
        let own = spec.project.as_str().starts_with(terms.holder.as_str());
        let open = ends <= terms.during.from
            || cluster.now >= terms.during.until
            || (own && ends <= terms.during.until);
        let mut left = i128::from(terms.gpus.0);
        let taken = world.nodes.iter().any(|(name, own)| {
            let there = own.inventory.labels.get("cluster").map(String::as_str)
                == terms.fabric.cluster().map(|cluster| cluster.as_str());
            let down =
                own.liveness == Liveness::Lost || own.admin != gotgan_core::node::Admin::Active;
            if !there || down || left <= 0 {
                return false;
            }
            left -= own.inventory.gpus.len() as i128 * 1000;
            name.as_str() == node
        });
        taken && !open
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300.max(ProptestConfig::default().cases), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_start_ever_violates_a_reservation_and_what_could_start_does(
        reservations in vec((0..3_usize, 1..30_u32, 0..2_usize, -5..10_i64, 1..20_i64), 0..5),
        jobs in vec((0..3_usize, 1..4_u32, 1..9_u32, 1..12_i64, any::<bool>()), 1..12),
        gone in vec(0..5_usize, 0..2),
        guarantees in any::<[u32; 2]>(),
    ) {
        const HOLDERS: [&str; 3] = ["public", "public/team", "public/other"];
        const PROJECTS: [&str; 3] = ["public/lab", "public/team", "public/other"];
        let mut cluster = clusters();
        cluster.guarantee("public/team", 1, &[("b200", guarantees[0] % 17)]);
        cluster.guarantee("public/other", 1, &[("b200", guarantees[1] % 17)]);
        for (index, (holder, gpus, fabric, from, hours)) in reservations.into_iter().enumerate() {
            let what = (gpus, "b200", ["a", "b"][fabric]);
            cluster.reserve(&format!("r{index}"), HOLDERS[holder], what, [from, from + hours]);
        }
        for node in gone {
            cluster.heard(["a1", "a2", "a3", "b1", "b2"][node], Liveness::Lost);
        }
        for (project, nodes, gpus, hours, same) in jobs {
            let job = cluster.job().project(PROJECTS[project]).gpus(gpus, "b200");
            let job = job.nodes(nodes).hours(hours);
            if same { job.same_cluster().submit() } else { job.submit() };
        }
        let outcome = cluster.check();
        for decision in &outcome.plan.decisions {
            if let Decision::Start { job, placement } = decision {
                for given in &placement.nodes {
                    prop_assert!(!naive_closed(&cluster, *job, given.node.as_str()));
                }
            }
        }
        for key in &cluster.world.queue {
            let starts = outcome.placement(key.job).is_some();
            prop_assert_eq!(starts, outcome.blockers(key.job).is_empty());
        }
        cluster.start_all();
        let second = cluster.check();
        prop_assert!(second.plan.decisions.is_empty(), "{:?}", second.plan.decisions);
    }
}
