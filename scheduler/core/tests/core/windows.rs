//! Windows of maintenance: who starts beside them, what is said of it, and what becomes of who is there.

use std::collections::BTreeSet;
use std::sync::Arc;

use gotgan_core::attempt::Cause;
use gotgan_core::change::{Change, EventKind, Subject};
use gotgan_core::check;
use gotgan_core::explain::hint;
use gotgan_core::ids::{AttemptId, Epoch, JobId, NodeName, UserName};
use gotgan_core::lifecycle::{
    self, Draft, MaintenanceWish, WindowRefusal, cancel_maintenance, plan_maintenance, turn_windows,
};
use gotgan_core::node::Liveness;
use gotgan_core::plan::{BlockerKind, Decision};
use gotgan_core::quota::Interval;
use gotgan_core::window::{Window, WindowState, staying};
use gotgan_core::world::{Node, Snapshot, World};
use insta::assert_snapshot;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cluster::TestCluster;
use crate::sketch::sketch;

const HOUR_S: i64 = 3600;

fn user() -> UserName {
    UserName::new("kim").unwrap()
}

fn drafted<T>(
    cluster: &mut TestCluster,
    change: impl FnOnce(&mut Draft<'_>) -> T,
) -> (T, Vec<Change>) {
    let TestCluster { world, policy, now, .. } = cluster;
    let mut draft = Draft::new(world, policy, Epoch(1), *now);
    let value = change(&mut draft);
    (value, draft.into_changes())
}

/// Nodes from and until so many seconds from now.
fn wish(cluster: &TestCluster, nodes: &[&str], [from, until]: [i64; 2]) -> MaintenanceWish {
    MaintenanceWish {
        nodes: nodes.iter().map(|name| NodeName::new(name).unwrap()).collect(),
        during: Interval {
            from: cluster.now.plus_seconds(from),
            until: cluster.now.plus_seconds(until),
        },
        stop_running: false,
        reason: "new switch".to_owned(),
        by: user(),
    }
}

fn plan(cluster: &mut TestCluster, nodes: &[&str], during: [i64; 2]) -> Arc<Window> {
    let wish = wish(cluster, nodes, during);
    drafted(cluster, |draft| plan_maintenance(draft, wish)).0.unwrap()
}

/// Two nodes with 8 GPUs each.
fn pair() -> TestCluster {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").label("rack", "r1").add();
    cluster.node("n2").gpus(8, "b200").label("rack", "r2").add();
    cluster
}

fn full(cluster: &mut TestCluster, hours: i64) -> JobId {
    cluster.job().gpus(8, "b200").hours(hours).submit()
}

#[test]
fn what_would_not_be_over_by_then_starts_elsewhere_or_waits() {
    let mut cluster = pair();
    plan(&mut cluster, &["n1"], [4 * HOUR_S, 6 * HOUR_S]);
    let first = full(&mut cluster, 8);
    let second = full(&mut cluster, 8);
    let short = full(&mut cluster, 3);
    cluster.expect_on(first, &["n2"]);
    cluster.expect_waiting(second);
    cluster.expect_on(short, &["n1"]);
    cluster.check();
}

#[test]
fn the_grace_counts_so_a_limit_that_ends_just_then_is_too_long() {
    let mut cluster = pair();
    plan(&mut cluster, &["n1", "n2"], [4 * HOUR_S, 6 * HOUR_S]);
    let exact = cluster.job().gpus(8, "b200").hours(4).grace_s(30).submit();
    let at_once = cluster.job().gpus(8, "b200").hours(4).grace_s(0).submit();
    cluster.expect_waiting(exact);
    cluster.expect_on(at_once, &["n1"]);
    cluster.check();
}

#[test]
fn a_job_that_waits_for_it_is_told_the_moment_and_the_limit_with_which_it_could_start() {
    let mut cluster = pair();
    plan(&mut cluster, &["n1", "n2"], [4 * HOUR_S, 6 * HOUR_S]);
    let job = full(&mut cluster, 8);
    cluster.expect_waiting(job);
    let outcome = cluster.check();
    assert_eq!(outcome.blockers(job)[0].kind, BlockerKind::Maintenance);
    assert_snapshot!(outcome.sentences(job), @"2 nodes it could use will be in maintenance from 1970-01-13T02:46:40+09:00 until 1970-01-13T04:46:40+09:00 (1: new switch), and its time limit is not over before then");
    assert_snapshot!(hint(&outcome.blockers(job)[0]), @"with a time limit of 239m or less it could start now");
}

#[test]
fn a_gang_is_told_the_limit_for_as_many_nodes_as_it_lacks() {
    let mut cluster = pair();
    plan(&mut cluster, &["n1"], [2 * HOUR_S, 6 * HOUR_S]);
    plan(&mut cluster, &["n2"], [4 * HOUR_S, 6 * HOUR_S]);
    let one = full(&mut cluster, 8);
    let both = cluster.job().gpus(8, "b200").nodes(2).hours(8).submit();
    cluster.expect_waiting(one);
    cluster.expect_waiting(both);
    let outcome = cluster.check();
    assert_snapshot!(hint(&outcome.blockers(one)[0]), @"with a time limit of 239m or less it could start now");
    assert_snapshot!(hint(&outcome.blockers(both)[0]), @"with a time limit of 119m or less it could start now");
}

#[test]
fn where_nothing_is_free_no_limit_is_promised() {
    let mut cluster = pair();
    let running = [full(&mut cluster, 1), full(&mut cluster, 1)];
    cluster.expect_on(running[0], &["n1"]);
    cluster.expect_on(running[1], &["n2"]);
    cluster.start_all();
    plan(&mut cluster, &["n1", "n2"], [4 * HOUR_S, 6 * HOUR_S]);
    let job = full(&mut cluster, 8);
    cluster.expect_waiting(job);
    let outcome = cluster.check();
    assert_eq!(outcome.blockers(job)[0].kind, BlockerKind::Maintenance);
    assert_eq!(hint(&outcome.blockers(job)[0]), "");
}

#[test]
fn in_a_window_nodes_take_nothing_and_afterwards_everything_by_themselves() {
    let mut cluster = pair();
    let window = plan(&mut cluster, &["n1", "n2"], [HOUR_S, 3 * HOUR_S]);
    cluster.later(HOUR_S);
    let (_, changes) = drafted(&mut cluster, turn_windows);
    assert_eq!(told(&changes, EventKind::MaintenanceBegan), ["n1", "n2"]);
    let job = cluster.job().gpus(8, "b200").hours(1).submit();
    let outcome = cluster.check();
    assert_eq!(outcome.nodes_of(job), None);
    assert_snapshot!(outcome.sentences(job).lines().next().unwrap(), @"needs 1 node and none is free; would serve but take no work: n1 (in maintenance until 1970-01-13T01:46:40+09:00: new switch (by kim)), n2 (in maintenance until 1970-01-13T01:46:40+09:00: new switch (by kim))");
    assert_eq!(cluster.world.windows.get(window.id).unwrap().state, WindowState::Open);
    cluster.later(2 * HOUR_S);
    let (_, changes) = drafted(&mut cluster, turn_windows);
    assert_eq!(told(&changes, EventKind::MaintenanceEnded), ["n1", "n2"]);
    assert!(cluster.world.windows.is_empty());
    cluster.start_all();
    assert!(cluster.world.queue.is_empty());
}

#[test]
fn a_node_that_was_drained_meanwhile_stays_drained() {
    let mut cluster = pair();
    plan(&mut cluster, &["n1", "n2"], [0, HOUR_S]);
    drafted(&mut cluster, |draft| {
        lifecycle::drain(draft, &NodeName::new("n1").unwrap(), &user(), "fan")
    });
    cluster.later(HOUR_S);
    drafted(&mut cluster, turn_windows);
    let job = full(&mut cluster, 1);
    cluster.expect_on(job, &["n2"]);
    cluster.check();
}

/// Nodes that an event of that kind is told of.
fn told(changes: &[Change], kind: EventKind) -> Vec<String> {
    let nodes = changes.iter().filter_map(|change| match change {
        Change::Happened(event) if event.kind == kind => match &event.subject {
            Subject::Node(node) => Some(node.to_string()),
            Subject::Job { .. } | Subject::Quota => None,
        },
        _ => None,
    });
    nodes.collect()
}

/// A job on each node: one that is over before four hours are, one that is not.
fn running() -> (TestCluster, [JobId; 2]) {
    let mut cluster = pair();
    let jobs = [full(&mut cluster, 2), full(&mut cluster, 8)];
    cluster.expect_on(jobs[0], &["n1"]);
    cluster.expect_on(jobs[1], &["n2"]);
    cluster.run_all();
    (cluster, jobs)
}

#[test]
fn what_runs_past_the_beginning_is_named() {
    let (mut cluster, jobs) = running();
    let window = plan(&mut cluster, &["n1", "n2"], [4 * HOUR_S, 6 * HOUR_S]);
    let found = staying(&cluster.world, &window, cluster.now);
    let named: Vec<_> = found.iter().map(|one| (one.attempt.job, one.nodes)).collect();
    assert_eq!(named, [(jobs[1], 1)]);
    assert_eq!(found[0].ends, cluster.now.plus_seconds(8 * HOUR_S + 30));
    cluster.check();
}

#[test]
fn what_runs_goes_on_unless_it_is_to_be_stopped() {
    for stop_running in [false, true] {
        let (mut cluster, jobs) = running();
        let during = [4 * HOUR_S, 6 * HOUR_S];
        let wish = MaintenanceWish { stop_running, ..wish(&cluster, &["n1", "n2"], during) };
        drafted(&mut cluster, |draft| plan_maintenance(draft, wish)).0.unwrap();
        cluster.later(4 * HOUR_S);
        drafted(&mut cluster, turn_windows);
        for job in jobs {
            let attempt = &cluster.world.attempts[&AttemptId { job, number: 1 }];
            let stop = attempt.stop.as_ref().map(|stop| (stop.cause, stop.grace_s));
            assert_eq!(stop, stop_running.then_some((Cause::Site, 30)));
        }
        cluster.check();
    }
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let mut cluster = pair();
    let before = cluster.world.clone();
    let bad = [
        (wish(&cluster, &["n1", "n9"], [0, 10]), "there is no node n9; see `gotgan nodes`"),
        (wish(&cluster, &[], [0, 10]), "no node is like that; see `gotgan nodes`"),
        (wish(&cluster, &["n1"], [-61, 10]), "would begin at"),
        (wish(&cluster, &["n1"], [-20, -10]), "would begin at"),
        (wish(&cluster, &["n1"], [10, 10]), "takes 1s to 30d"),
        (wish(&cluster, &["n1"], [0, 31 * 86_400]), "takes 1s to 30d"),
        (wish(&cluster, &["n1"], [400 * 86_400, 401 * 86_400]), "would begin at"),
    ];
    for (wish, words) in bad {
        let (refusal, changes) = drafted(&mut cluster, |draft| plan_maintenance(draft, wish));
        let text = refusal.unwrap_err().to_string();
        assert!(text.starts_with(words), "{text}");
        assert!(changes.is_empty());
    }
    assert_eq!(cluster.world, before);
    cluster.check();
}

#[test]
fn a_window_that_is_cancelled_closes_nothing_any_more() {
    let mut cluster = pair();
    let window = plan(&mut cluster, &["n1", "n2"], [0, HOUR_S]);
    let (_, changes) = drafted(&mut cluster, |draft| cancel_maintenance(draft, window.id, &user()));
    assert_eq!(told(&changes, EventKind::MaintenanceCancelled), ["n1", "n2"]);
    let (again, _) = drafted(&mut cluster, |draft| cancel_maintenance(draft, window.id, &user()));
    assert_eq!(again, Err(WindowRefusal::Unknown(window.id)));
    let job = full(&mut cluster, 50);
    cluster.expect_on(job, &["n1"]);
    cluster.check();
}

#[test]
fn windows_may_lie_over_each_other_and_the_last_to_end_decides() {
    let mut cluster = pair();
    plan(&mut cluster, &["n1", "n2"], [0, 2 * HOUR_S]);
    plan(&mut cluster, &["n1"], [HOUR_S, 3 * HOUR_S]);
    cluster.later(2 * HOUR_S);
    drafted(&mut cluster, turn_windows);
    let job = full(&mut cluster, 1);
    let other = full(&mut cluster, 1);
    cluster.expect_on(job, &["n2"]);
    cluster.expect_waiting(other);
    cluster.check();
}

#[test]
fn a_window_that_passed_while_no_scheduler_led_is_over_at_once() {
    let mut cluster = pair();
    plan(&mut cluster, &["n1"], [HOUR_S, 2 * HOUR_S]);
    cluster.later(9 * HOUR_S);
    let (_, changes) = drafted(&mut cluster, turn_windows);
    assert_eq!(told(&changes, EventKind::MaintenanceEnded), ["n1"]);
    let job = full(&mut cluster, 50);
    cluster.expect_on(job, &["n1"]);
    cluster.check();
}

#[test]
fn a_restart_knows_windows_and_the_nodes_that_are_in_them() {
    let mut cluster = pair();
    plan(&mut cluster, &["n1"], [0, 2 * HOUR_S]);
    plan(&mut cluster, &["n2"], [HOUR_S, 2 * HOUR_S]);
    let world = &cluster.world;
    let snapshot = Snapshot {
        sequences: world.sequences,
        nodes: world.nodes.values().map(Node::stored).collect(),
        windows: world.windows.iter().map(|window| Window::clone(window)).collect(),
        ..Snapshot::default()
    };
    let again = World::restore(snapshot, cluster.now);
    assert_eq!(again.windows, world.windows);
    assert_eq!(again.nodes["n1"].maintenance, world.nodes["n1"].maintenance);
    assert!(again.nodes["n1"].maintenance.is_some());
    assert_eq!(check::world(&again), []);
    cluster.check();
}

#[test]
fn a_start_that_runs_into_a_window_is_refused_by_the_check_too() {
    let mut cluster = pair();
    let job = full(&mut cluster, 8);
    let outcome = cluster.check();
    plan(&mut cluster, &["n1"], [4 * HOUR_S, 6 * HOUR_S]);
    let decision: &Decision = &outcome.plan.decisions[0];
    let refusal = check::decision(&cluster.world, decision, cluster.now).unwrap_err();
    assert_eq!(refusal.job, job);
    assert_eq!(refusal.reason, "would still be on node n1 in window 1");
    cluster.check();
}

#[test]
fn a_gang_is_planned_for_when_the_window_is_over() {
    let mut cluster = pair();
    cluster.policy.planned_gangs_per_project = 2;
    plan(&mut cluster, &["n1"], [4 * HOUR_S, 6 * HOUR_S]);
    let gang = cluster.job().gpus(8, "b200").nodes(2).hours(8).submit();
    cluster.expect_waiting(gang);
    let outcome = cluster.start_all();
    let nodes = vec!["n1".to_owned(), "n2".to_owned()];
    assert_eq!(outcome.planned(gang), Some((6 * HOUR_S, nodes.clone())));
    // It stands while the window is open, and nobody takes the other node from it.
    cluster.later(4 * HOUR_S);
    drafted(&mut cluster, turn_windows);
    let long = full(&mut cluster, 3);
    let short = full(&mut cluster, 1);
    cluster.expect_waiting(long);
    cluster.expect_on(short, &["n2"]);
    let outcome = cluster.start_all();
    assert_eq!(outcome.planned(gang), Some((2 * HOUR_S, nodes)));
    cluster.end(short);
    cluster.later(2 * HOUR_S);
    drafted(&mut cluster, turn_windows);
    cluster.expect_on(gang, &["n1", "n2"]);
    cluster.check();
}

#[test]
fn a_spare_node_stands_in_for_one_in_maintenance() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").label("cluster", "c").add();
    cluster.node("n2").gpus(8, "b200").label("cluster", "c").label("spare", "true").add();
    plan(&mut cluster, &["n1"], [0, HOUR_S]);
    let job = full(&mut cluster, 1);
    cluster.expect_on(job, &["n2"]);
    cluster.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300.max(ProptestConfig::default().cases), failure_persistence: None, ..ProptestConfig::default() })]

    /// All jobs of these worlds may take an hour: for what starts now, a node that closes before that is no other than one
    /// that was not heard lately, and one that closes later no other than an open one.
    #[test]
    fn a_node_that_closes_too_soon_is_like_one_that_is_not_heard(
        sketch in sketch(), from_s in vec(proptest::option::of(1..7300_i64), 6),
    ) {
        let mut cluster = sketch.build();
        let mut unheard = cluster.copy();
        let names: Vec<NodeName> = cluster.world.nodes.keys().cloned().collect();
        for (name, from_s) in names.iter().zip(&from_s) {
            let Some(from_s) = from_s else { continue };
            let from = cluster.now.plus_seconds(*from_s);
            let wish = MaintenanceWish {
                nodes: BTreeSet::from([name.clone()]),
                during: Interval { from, until: from.plus_seconds(60) },
                ..wish(&cluster, &[], [0, 0])
            };
            drafted(&mut cluster, |draft| plan_maintenance(draft, wish)).0.unwrap();
            if *from_s < 3630 && unheard.world.nodes[name].takes_work() {
                unheard.heard(name.as_str(), Liveness::Suspect);
            }
        }
        let ran: BTreeSet<AttemptId> = cluster.world.attempts.keys().copied().collect();
        let starts = |cluster: &mut TestCluster| cluster.start_all().plan.decisions;
        prop_assert_eq!(starts(&mut cluster), starts(&mut unheard));
        let began = cluster.world.attempts.values().filter(|one| !ran.contains(&one.id));
        for attempt in began {
            let ends = attempt.leased.plus_seconds(3630);
            let held = attempt.placement.nodes.iter();
            let mut windows = held.flat_map(|held| cluster.world.windows.of_node(&held.node));
            prop_assert!(windows.all(|window| ends <= window.during.from));
        }
    }
}
