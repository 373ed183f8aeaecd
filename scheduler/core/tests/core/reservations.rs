//! Reservations by command: who starts on their nodes, what is said of it, which nodes they get, and what becomes of jobs
//! that ask for them.

use std::collections::BTreeSet;
use std::sync::Arc;

use gotgan_core::amount::UnixMicros;
use gotgan_core::change::{Change, EventKind, Subject};
use gotgan_core::check;
use gotgan_core::estimate::lengths::RunLengths;
use gotgan_core::explain::hint;
use gotgan_core::ids::{Epoch, GpuClass, JobId, NodeName, ProjectPath, ReservationName, UserName};
use gotgan_core::lifecycle::{
    Draft, MaintenanceWish, NodesWish, ReservationRefusal, ReservationWish, cancel_maintenance,
    cancel_reservation, check_reservation, extend_reservation, plan_maintenance, reserve,
    turn_windows,
};
use gotgan_core::plan::{BlockerKind, Decision};
use gotgan_core::planner::foresee;
use gotgan_core::quota::Interval;
use gotgan_core::reservation::Wanted;
use gotgan_core::topology::Level;
use gotgan_core::window::{Window, WindowState, staying};
use gotgan_core::world::{Snapshot, World};
use insta::assert_snapshot;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cluster::TestCluster;

const HOUR_S: i64 = 3600;
const TEAM: &str = "public/team";
const OTHER: &str = "public/other";

fn user() -> UserName {
    UserName::new("kim").unwrap()
}

fn name(text: &str) -> ReservationName {
    ReservationName::new(text).unwrap()
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

fn span(cluster: &TestCluster, [from, until]: [i64; 2]) -> Interval {
    Interval { from: cluster.now.plus_seconds(from), until: cluster.now.plus_seconds(until) }
}

/// Nodes for the team, from and until so many seconds from now.
fn wish(cluster: &TestCluster, nodes: &[&str], during: [i64; 2]) -> ReservationWish {
    ReservationWish {
        name: name("r"),
        holders: BTreeSet::from([ProjectPath::new(TEAM).unwrap()]),
        nodes: NodesWish::Named(nodes.iter().map(|name| NodeName::new(name).unwrap()).collect()),
        during: span(cluster, during),
        reason: "course".to_owned(),
        by: user(),
    }
}

fn try_reserve(
    cluster: &mut TestCluster,
    wish: ReservationWish,
) -> Result<Arc<Window>, ReservationRefusal> {
    drafted(cluster, |draft| reserve(draft, wish)).0
}

fn reserved(cluster: &mut TestCluster, nodes: &[&str], during: [i64; 2]) -> Arc<Window> {
    let wish = wish(cluster, nodes, during);
    try_reserve(cluster, wish).unwrap()
}

fn maintained(cluster: &mut TestCluster, nodes: &[&str], during: [i64; 2]) -> Arc<Window> {
    let wish = MaintenanceWish {
        nodes: nodes.iter().map(|name| NodeName::new(name).unwrap()).collect(),
        during: span(cluster, during),
        stop_running: false,
        reason: "fans".to_owned(),
        by: user(),
    };
    drafted(cluster, |draft| plan_maintenance(draft, wish)).0.unwrap()
}

/// Two nodes with 8 GPUs each, and two projects.
fn pair() -> TestCluster {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").add();
    cluster.node("n2").gpus(8, "b200").add();
    cluster.limit("public/team", &[]);
    cluster.limit("public/team/x", &[]);
    cluster.limit("public/other", &[]);
    cluster
}

fn full(cluster: &mut TestCluster, project: &str, hours: i64) -> JobId {
    cluster.job().project(project).gpus(8, "b200").hours(hours).submit()
}

/// The same on the nodes of the reservation alone.
fn asking(cluster: &mut TestCluster, project: &str, hours: i64) -> JobId {
    cluster.job().project(project).gpus(8, "b200").hours(hours).reservation("r").submit()
}

#[test]
fn before_it_begins_others_start_there_only_if_they_are_over_by_then_with_their_grace() {
    let mut cluster = pair();
    reserved(&mut cluster, &["n1", "n2"], [4 * HOUR_S, 6 * HOUR_S]);
    let exact = cluster.job().project(OTHER).gpus(8, "b200").hours(4).grace_s(30).submit();
    let in_time = cluster.job().project(OTHER).gpus(8, "b200").hours(4).grace_s(0).submit();
    cluster.expect_waiting(exact);
    cluster.expect_on(in_time, &["n1"]);
    cluster.check();
}

#[test]
fn while_it_holds_only_its_holders_and_those_below_start_there_and_only_what_is_over_by_its_end() {
    let mut cluster = pair();
    reserved(&mut cluster, &["n1", "n2"], [0, 6 * HOUR_S]);
    let other = full(&mut cluster, OTHER, 1);
    let late = full(&mut cluster, TEAM, 7);
    let own = cluster.job().project("public/team/x").gpus(8, "b200").hours(6).submit();
    cluster.expect_waiting(other);
    cluster.expect_waiting(late);
    cluster.expect_on(own, &["n1"]);
    cluster.check();
}

#[test]
fn holders_start_on_their_nodes_first_and_then_on_all_others() {
    let mut cluster = pair();
    reserved(&mut cluster, &["n2"], [0, 6 * HOUR_S]);
    let other = full(&mut cluster, OTHER, 1);
    let first = full(&mut cluster, TEAM, 1);
    let second = full(&mut cluster, TEAM, 1);
    // Its turn is first, and the reserved node takes nothing from it.
    cluster.expect_on(other, &["n1"]);
    cluster.expect_on(first, &["n2"]);
    cluster.expect_waiting(second);
    cluster.start_all();
    cluster.end(other);
    cluster.expect_on(second, &["n1"]);
    cluster.check();
}

#[test]
fn a_holder_needs_no_guarantee_and_is_bound_by_its_limit() {
    let mut cluster = pair();
    cluster.limit(TEAM, &[("b200", 8)]);
    cluster.guarantee(OTHER, 1, &[("b200", 16)]);
    reserved(&mut cluster, &["n1", "n2"], [0, 6 * HOUR_S]);
    let guaranteed = full(&mut cluster, OTHER, 1);
    let own = full(&mut cluster, TEAM, 1);
    let more = full(&mut cluster, TEAM, 1);
    cluster.expect_waiting(guaranteed);
    cluster.expect_on(own, &["n1"]);
    cluster.expect_waiting(more);
    let outcome = cluster.check();
    assert_eq!(outcome.blockers(guaranteed)[0].kind, BlockerKind::Reservation);
    assert_eq!(outcome.blockers(more)[0].kind, BlockerKind::ProjectLimit);
}

#[test]
fn nothing_that_runs_is_stopped_and_it_is_named_when_nodes_are_reserved() {
    let mut cluster = pair();
    let long = full(&mut cluster, OTHER, 8);
    cluster.expect_on(long, &["n1"]);
    cluster.run_all();
    let window = reserved(&mut cluster, &["n1", "n2"], [4 * HOUR_S, 6 * HOUR_S]);
    let found = staying(&cluster.world, &window, cluster.now);
    assert_eq!(found.iter().map(|one| one.attempt.job).collect::<Vec<_>>(), [long]);
    cluster.later(5 * HOUR_S);
    let (_, changes) = drafted(&mut cluster, turn_windows);
    assert_eq!(told(&changes, EventKind::ReservationBegan), ["n1", "n2"]);
    assert!(cluster.world.attempts.values().all(|attempt| attempt.stop.is_none()));
    assert_eq!(cluster.world.nodes["n1"].maintenance, None);
    let own = full(&mut cluster, TEAM, 1);
    cluster.expect_on(own, &["n2"]);
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

#[test]
fn who_is_kept_off_is_told_by_what_for_whom_until_when_and_with_which_limit_it_could_start() {
    let mut cluster = pair();
    reserved(&mut cluster, &["n1", "n2"], [4 * HOUR_S, 6 * HOUR_S]);
    let job = full(&mut cluster, OTHER, 8);
    cluster.expect_waiting(job);
    let outcome = cluster.check();
    assert_eq!(outcome.blockers(job)[0].kind, BlockerKind::Reservation);
    assert_snapshot!(outcome.sentences(job), @"2 nodes it could use are reserved for public/team from 1970-01-13T02:46:40+09:00 until 1970-01-13T04:46:40+09:00 (r), and its time limit is not over before then");
    assert_snapshot!(hint(&outcome.blockers(job)[0]), @"with a time limit of 239m or less it could start now");
    cluster.later(4 * HOUR_S);
    drafted(&mut cluster, turn_windows);
    let outcome = cluster.check();
    assert_eq!(outcome.blockers(job)[0].kind, BlockerKind::Reservation);
    assert_eq!(hint(&outcome.blockers(job)[0]), "");
}

#[test]
fn a_job_that_asks_for_it_waits_until_it_begins_and_has_none_but_its_nodes() {
    let mut cluster = pair();
    reserved(&mut cluster, &["n2"], [HOUR_S, 3 * HOUR_S]);
    let first = asking(&mut cluster, TEAM, 2);
    let second = asking(&mut cluster, TEAM, 2);
    let outcome = cluster.check();
    assert_eq!([outcome.nodes_of(first), outcome.nodes_of(second)], [None, None]);
    assert_eq!(outcome.blockers(first)[0].kind, BlockerKind::AskedReservation);
    assert_snapshot!(outcome.sentences(first), @"waits for reservation r, which begins at 1970-01-12T23:46:40+09:00");
    cluster.later(HOUR_S);
    drafted(&mut cluster, turn_windows);
    cluster.expect_on(first, &["n2"]);
    cluster.expect_waiting(second);
    let outcome = cluster.start_all();
    assert_eq!(outcome.blockers(second)[0].kind, BlockerKind::Capacity);
    // Its time limit is no longer over by the end.
    cluster.end(first);
    cluster.later(600);
    let outcome = cluster.check();
    assert_snapshot!(outcome.sentences(second), @"asks for reservation r, which is over at 1970-01-13T01:46:40+09:00, before its time limit would be");
    assert_snapshot!(hint(&outcome.blockers(second)[0]), @"submit it with a time limit of 110m or less, or without --reservation");
}

#[test]
fn a_job_that_asks_for_one_that_is_cancelled_or_over_is_told_so_and_how_to_go_on() {
    let mut cluster = pair();
    reserved(&mut cluster, &["n1"], [HOUR_S, 3 * HOUR_S]);
    let job = asking(&mut cluster, TEAM, 1);
    let array =
        cluster.job().project(TEAM).gpus(8, "b200").reservation("r").array(3, None).submit();
    drafted(&mut cluster, |draft| cancel_reservation(draft, &name("r"), &user())).0.unwrap();
    let outcome = cluster.check();
    assert_eq!(outcome.nodes_of(job), None);
    assert_snapshot!(outcome.sentences(job), @"asks for reservation r, which kim cancelled at 1970-01-12T22:46:40+09:00");
    assert_snapshot!(hint(&outcome.blockers(job)[0]), @"cancel it and submit it without --reservation");
    let said = outcome.plan.report.of(&cluster.world.arrays[&array]).unwrap();
    assert_eq!(said[0].kind, BlockerKind::AskedReservation);
    // Another of the name is as good.
    reserved(&mut cluster, &["n2"], [0, 2 * HOUR_S]);
    assert_eq!(cluster.check().nodes_of(job), Some(vec!["n2".to_owned()]));
    cluster.later(2 * HOUR_S);
    let (_, changes) = drafted(&mut cluster, turn_windows);
    assert_eq!(told(&changes, EventKind::ReservationEnded), ["n2"]);
    let outcome = cluster.check();
    assert_eq!(outcome.nodes_of(job), None);
    assert_snapshot!(outcome.sentences(job), @"asks for reservation r, which was over at 1970-01-13T00:46:40+09:00");
}

#[test]
fn a_job_may_ask_only_for_one_that_is_there_is_for_it_and_has_room() {
    let mut cluster = pair();
    reserved(&mut cluster, &["n1"], [HOUR_S, 3 * HOUR_S]);
    let refused = |cluster: &mut TestCluster, project: &str, nodes: u32, hours: i64, of: &str| {
        let job = cluster.job().project(project).nodes(nodes).hours(hours).reservation(of);
        let spec = job.into_spec();
        let found = check_reservation(&cluster.world, &spec, cluster.now);
        found.map_or_else(|refusal| refusal.to_string(), |()| String::new())
    };
    assert_eq!(refused(&mut cluster, TEAM, 1, 2, "r"), "");
    assert_snapshot!(refused(&mut cluster, TEAM, 1, 3, "r"), @"asks for reservation r, which is over at 1970-01-13T01:46:40+09:00, before its time limit would be; submit it with a time limit of 120m or less, or without --reservation");
    assert_snapshot!(refused(&mut cluster, OTHER, 1, 1, "r"), @"asks for reservation r, which is for public/team; submit it for one of these, or without --reservation");
    assert_snapshot!(refused(&mut cluster, TEAM, 2, 1, "r"), @"asks for reservation r, which has 1 nodes; this job needs 2; submit it with fewer nodes, or without --reservation");
    assert_snapshot!(refused(&mut cluster, TEAM, 1, 1, "s"), @"asks for reservation s, and there is none of that name; see `gotgan admin reservation list`, or submit it without --reservation");
    drafted(&mut cluster, |draft| cancel_reservation(draft, &name("r"), &user())).0.unwrap();
    assert!(refused(&mut cluster, TEAM, 1, 1, "r").contains("kim cancelled"));
    cluster.check();
}

#[test]
fn nodes_are_open_again_when_it_is_cancelled_or_over() {
    let mut cluster = pair();
    reserved(&mut cluster, &["n1", "n2"], [0, HOUR_S]);
    let (_, changes) =
        drafted(&mut cluster, |draft| cancel_reservation(draft, &name("r"), &user()));
    assert_eq!(told(&changes, EventKind::ReservationCancelled), ["n1", "n2"]);
    let again = drafted(&mut cluster, |draft| cancel_reservation(draft, &name("r"), &user())).0;
    assert_eq!(again, Err(ReservationRefusal::Unknown(name("r"))));
    reserved(&mut cluster, &["n1"], [0, HOUR_S]);
    let one = full(&mut cluster, OTHER, 50);
    cluster.expect_on(one, &["n2"]);
    cluster.start_all();
    let other = full(&mut cluster, OTHER, 50);
    assert_eq!(cluster.check().nodes_of(other), None);
    // The moment counts, not the round that moves it on.
    cluster.later(HOUR_S);
    cluster.expect_on(other, &["n1"]);
    cluster.check();
}

#[test]
fn maintenance_and_a_reservation_know_nothing_of_each_other() {
    let mut cluster = pair();
    let window = reserved(&mut cluster, &["n1", "n2"], [0, 9 * HOUR_S]);
    maintained(&mut cluster, &["n1"], [HOUR_S, 2 * HOUR_S]);
    let refused = drafted(&mut cluster, |draft| cancel_maintenance(draft, window.id, &user())).0;
    assert!(refused.is_err(), "a reservation is no maintenance");
    let long = full(&mut cluster, TEAM, 2);
    let short = cluster.job().project(TEAM).gpus(8, "b200").minutes(59).submit();
    cluster.expect_on(long, &["n2"]);
    cluster.expect_on(short, &["n1"]);
    cluster.check();
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let mut cluster = pair();
    reserved(&mut cluster, &["n1"], [HOUR_S, 2 * HOUR_S]);
    maintained(&mut cluster, &["n2"], [5 * HOUR_S, 6 * HOUR_S]);
    let before = cluster.world.clone();
    let of = |cluster: &TestCluster, called: &str, nodes: &[&str], during| ReservationWish {
        name: name(called),
        ..wish(cluster, nodes, during)
    };
    let foreign = ReservationWish {
        holders: BTreeSet::from([ProjectPath::new("public/nobody").unwrap()]),
        ..of(&cluster, "s", &["n2"], [0, 10])
    };
    let for_nobody =
        ReservationWish { holders: BTreeSet::new(), ..of(&cluster, "s", &["n2"], [0, 10]) };
    let many = ReservationWish {
        nodes: NodesWish::Chosen(Wanted { count: 2, class: None, block: None }),
        ..of(&cluster, "s", &[], [HOUR_S, 2 * HOUR_S])
    };
    let bad = [
        (of(&cluster, "r", &["n2"], [0, 10]), "name", "there is a reservation r until"),
        (of(&cluster, "s", &["n1"], [0, HOUR_S + 1]), "nodes", "node n1 is reserved by r from"),
        (of(&cluster, "s", &["n2"], [0, 6 * HOUR_S]), "nodes", "node n2 is in maintenance 2 from"),
        (of(&cluster, "s", &["n9"], [0, 10]), "nodes", "there is no node n9"),
        (of(&cluster, "s", &[], [0, 10]), "nodes", "no node is like that"),
        (of(&cluster, "s", &["n2"], [10, 10]), "duration_s", "takes 1s to 30d"),
        (of(&cluster, "s", &["n2"], [-99, 10]), "from_us", "would begin at"),
        (foreign, "holders", "there is no project public/nobody"),
        (for_nobody, "holders", "is for 0 projects"),
        (many, "count", "2 nodes are wanted; 2 like that are there, and 1 of them are"),
    ];
    for (wish, field, words) in bad {
        let (refusal, changes) = drafted(&mut cluster, |draft| reserve(draft, wish));
        let refusal = refusal.unwrap_err();
        assert_eq!(refusal.field(), field, "{refusal}");
        assert!(refusal.to_string().starts_with(words), "{refusal}");
        assert!(changes.is_empty());
    }
    assert_eq!(cluster.world, before);
    // One begins when the other ends.
    let behind = of(&cluster, "s", &["n1"], [2 * HOUR_S, 3 * HOUR_S]);
    try_reserve(&mut cluster, behind).unwrap();
    cluster.check();
}

#[test]
fn nodes_of_a_reservation_of_the_quota_files_are_reserved_only_for_those_it_is_for() {
    let mut cluster = pair();
    cluster.node("n3").gpus(8, "b200").label("cluster", "c").add();
    cluster.reserve("book", TEAM, (8, "b200", "c"), [1, 9]);
    let own = wish(&cluster, &["n3"], [2 * HOUR_S, 3 * HOUR_S]);
    let holders = BTreeSet::from([ProjectPath::new(OTHER).unwrap()]);
    let foreign = ReservationWish { holders, ..own.clone() };
    let refusal = try_reserve(&mut cluster, foreign).unwrap_err();
    assert!(refusal.to_string().contains("reserved by book of the quota files"), "{refusal}");
    let named = ReservationWish { name: name("book"), ..own.clone() };
    let refusal = try_reserve(&mut cluster, named).unwrap_err();
    assert_eq!(refusal, ReservationRefusal::NameInBook(name("book")));
    try_reserve(&mut cluster, own).unwrap();
    cluster.check();
}

#[test]
fn it_is_extended_as_long_as_nothing_is_in_the_way() {
    let mut cluster = pair();
    let window = reserved(&mut cluster, &["n1", "n2"], [0, HOUR_S]);
    maintained(&mut cluster, &["n2"], [3 * HOUR_S, 4 * HOUR_S]);
    let extend = |cluster: &mut TestCluster, hours: i64| {
        let until = window.during.from.plus_seconds(hours * HOUR_S);
        drafted(cluster, |draft| extend_reservation(draft, &name("r"), until, &user()))
    };
    let refusal = extend(&mut cluster, 1).0.unwrap_err();
    assert_eq!(
        (refusal.field(), refusal),
        ("until_us", ReservationRefusal::NotLonger(window.during.until))
    );
    let refusal = extend(&mut cluster, 4).0.unwrap_err();
    assert!(refusal.to_string().starts_with("node n2 is in maintenance 2"), "{refusal}");
    let (longer, changes) = extend(&mut cluster, 3);
    assert_eq!(told(&changes, EventKind::ReservationExtended), ["n1", "n2"]);
    assert_eq!(longer.unwrap().id, window.id);
    cluster.later(HOUR_S);
    drafted(&mut cluster, turn_windows);
    let other = full(&mut cluster, OTHER, 1);
    let own = asking(&mut cluster, TEAM, 1);
    cluster.expect_waiting(other);
    cluster.expect_on(own, &["n1"]);
    cluster.check();
}

#[test]
fn a_planned_start_goes_behind_a_reservation_of_others_and_not_over_the_end_of_its_own() {
    let mut cluster = pair();
    cluster.policy.planned_gangs_per_project = 2;
    reserved(&mut cluster, &["n1", "n2"], [0, 6 * HOUR_S]);
    let gang = |cluster: &mut TestCluster, project: &str, hours: i64| {
        cluster.job().project(project).gpus(8, "b200").nodes(2).hours(hours).submit()
    };
    let foreign = gang(&mut cluster, OTHER, 1);
    let late = gang(&mut cluster, TEAM, 8);
    cluster.expect_waiting(foreign);
    cluster.expect_waiting(late);
    let outcome = cluster.start_all();
    let nodes = vec!["n1".to_owned(), "n2".to_owned()];
    let moments = [outcome.planned(foreign), outcome.planned(late)];
    assert!(moments.contains(&Some((6 * HOUR_S, nodes))), "{moments:?}");
    assert!(moments.iter().flatten().all(|(at, _)| *at >= 6 * HOUR_S), "{moments:?}");
    // What is planned for after its end keeps no holder off its nodes.
    let own = full(&mut cluster, TEAM, 6);
    cluster.expect_on(own, &["n1"]);
    cluster.start_all();
}

#[test]
fn the_look_ahead_counts_on_no_node_that_is_reserved_now_and_says_nothing_of_who_asks_for_it() {
    let mut cluster = pair();
    reserved(&mut cluster, &["n2"], [0, 6 * HOUR_S]);
    let first = full(&mut cluster, OTHER, 2);
    let second = full(&mut cluster, OTHER, 2);
    let asks = asking(&mut cluster, TEAM, 2);
    cluster.check();
    let TestCluster { world, policy, planned, now, .. } = &cluster;
    let seen = foresee(&world.sketch(), policy, planned, &RunLengths::default(), *now);
    assert_eq!(seen.jobs[&first].latest, Some(*now));
    assert!(seen.jobs[&second].latest.is_some_and(|at| at > *now), "one node is open");
    assert!(!seen.jobs.contains_key(&asks));
}

#[test]
fn a_start_on_nodes_of_others_or_beside_those_asked_for_is_refused_by_the_check_too() {
    let mut cluster = pair();
    let job = full(&mut cluster, OTHER, 8);
    let own = full(&mut cluster, TEAM, 1);
    let outcome = cluster.check();
    let decision = |job: JobId, from: JobId| {
        let placement = Arc::new(outcome.placement(from).unwrap().clone());
        Decision::Start { job, placement }
    };
    let refused = |cluster: &TestCluster, job, from| {
        let found = check::decision(&cluster.world, &decision(job, from), cluster.now);
        found.map_or_else(|refusal| refusal.reason, |()| String::new())
    };
    reserved(&mut cluster, &["n1"], [4 * HOUR_S, 6 * HOUR_S]);
    assert_eq!(refused(&cluster, job, job), "node n1 is reserved by r");
    cluster.later(4 * HOUR_S);
    let asks = asking(&mut cluster, TEAM, 1);
    assert_eq!(refused(&cluster, own, job), "");
    assert_eq!(refused(&cluster, asks, job), "");
    assert_eq!(refused(&cluster, asks, own), "node n2 is not of reservation r now");
    let late = full(&mut cluster, TEAM, 3);
    assert_eq!(refused(&cluster, late, job), "node n1 is reserved by r");
    cluster.check();
}

#[test]
fn a_restart_knows_reservations_and_those_that_are_over() {
    let mut cluster = pair();
    reserved(&mut cluster, &["n1"], [0, 2 * HOUR_S]);
    drafted(&mut cluster, |draft| cancel_reservation(draft, &name("r"), &user())).0.unwrap();
    let second = ReservationWish { name: name("s"), ..wish(&cluster, &["n2"], [0, HOUR_S]) };
    try_reserve(&mut cluster, second).unwrap();
    let world = &cluster.world;
    let windows = world.windows.iter().chain(world.windows.ended());
    let snapshot = Snapshot {
        sequences: world.sequences,
        windows: windows.map(|window| Window::clone(window)).collect(),
        ..Snapshot::default()
    };
    let again = World::restore(snapshot, cluster.now);
    assert_eq!(again.windows, world.windows);
    let state = |of: &str| again.windows.reservation(&name(of)).unwrap().state;
    assert_eq!([state("r"), state("s")], [WindowState::Cancelled, WindowState::Open]);
    cluster.check();
}

/// Nodes of two racks, three in the first and four in the second.
fn racks() -> TestCluster {
    let mut cluster = TestCluster::new();
    for (node, rack) in
        [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("b2", "b"), ("b3", "b"), ("b4", "b")]
    {
        cluster.node(node).gpus(8, "b200").label("rack", rack).add();
    }
    cluster.limit(TEAM, &[]);
    cluster.limit(OTHER, &[]);
    cluster
}

fn chosen(cluster: &mut TestCluster, wanted: Wanted, during: [i64; 2]) -> Vec<String> {
    let wish = ReservationWish { nodes: NodesWish::Chosen(wanted), ..wish(cluster, &[], during) };
    let window = try_reserve(cluster, wish).unwrap();
    window.nodes.iter().map(ToString::to_string).collect()
}

fn some(count: u32) -> Wanted {
    Wanted { count, class: None, block: None }
}

#[test]
fn nodes_that_are_free_at_its_beginning_are_chosen_and_those_in_one_block_before_others() {
    let mut cluster = racks();
    assert_eq!(
        chosen(&mut cluster, some(3), [HOUR_S, 2 * HOUR_S]),
        ["a1", "a2", "a3"],
        "a tight rack"
    );
    cluster.check();
    let mut cluster = racks();
    let long = cluster.job().project(OTHER).gpus(8, "b200").hours(9).only_on(&["a2"]).submit();
    let short = cluster.job().project(OTHER).gpus(8, "b200").hours(1).only_on(&["b1"]).submit();
    cluster.expect_on(long, &["a2"]);
    cluster.expect_on(short, &["b1"]);
    cluster.run_all();
    let during = [2 * HOUR_S, 3 * HOUR_S];
    assert_eq!(chosen(&mut cluster, some(3), during), ["b2", "b3", "b4"], "the soonest free");
    drafted(&mut cluster, |draft| cancel_reservation(draft, &name("r"), &user())).0.unwrap();
    assert_eq!(chosen(&mut cluster, some(6), during), ["a1", "a3", "b1", "b2", "b3", "b4"]);
    cluster.check();
}

#[test]
fn a_rack_a_class_and_what_is_busy_bound_the_choice() {
    let mut cluster = racks();
    maintained(&mut cluster, &["a1"], [HOUR_S, 5 * HOUR_S]);
    cluster.drain("b1", "fan");
    let of_rack = Wanted { block: Some((Level::Rack, "a".to_owned())), ..some(2) };
    assert_eq!(chosen(&mut cluster, of_rack.clone(), [2 * HOUR_S, 3 * HOUR_S]), ["a2", "a3"]);
    let next = ReservationWish {
        name: name("s"),
        nodes: NodesWish::Chosen(of_rack),
        ..wish(&cluster, &[], [2 * HOUR_S, 3 * HOUR_S])
    };
    let refusal = try_reserve(&mut cluster, next.clone()).unwrap_err().to_string();
    assert_snapshot!(refusal, @"2 nodes are wanted; 3 like that are there, and 3 of them are in maintenance or reserved at that time");
    let rest = ReservationWish { nodes: NodesWish::Chosen(some(3)), ..next.clone() };
    let window = try_reserve(&mut cluster, rest).unwrap();
    let names: Vec<&str> = window.nodes.iter().map(NodeName::as_str).collect();
    assert_eq!(names, ["b2", "b3", "b4"], "a drained node is none");
    cluster.node("c1").gpus(8, "h200").add();
    let unclear = ReservationWish {
        name: name("t"),
        nodes: NodesWish::Chosen(some(1)),
        ..wish(&cluster, &[], [0, 10])
    };
    let refusal = try_reserve(&mut cluster, unclear.clone()).unwrap_err();
    assert_eq!(
        (refusal.field(), refusal.to_string().as_str()),
        ("gpu_class", "there are nodes with b200, h200: say which class")
    );
    let class = Some(GpuClass::new("h200").unwrap());
    let clear =
        ReservationWish { nodes: NodesWish::Chosen(Wanted { class, ..some(1) }), ..unclear };
    assert_eq!(try_reserve(&mut cluster, clear).unwrap().nodes.len(), 1);
    cluster.check();
}

/// Whether a start on the node is open, by walking through every window.
fn naive_closed(cluster: &TestCluster, job: JobId, node: &str) -> bool {
    let spec = &cluster.world.jobs[&job].spec;
    let ends = UnixMicros(cluster.now.0 + spec.time_limit_s * 1_000_000);
    let gone = UnixMicros(ends.0 + i64::from(spec.grace_s) * 1_000_000);
    let asked = spec.constraints.reservation.as_ref();
    let mut within = asked.is_none();
    let mut closed = false;
    for window in cluster.world.windows.iter() {
        if !window.nodes.iter().any(|name| name.as_str() == node) {
            continue;
        }
        let Interval { from, until } = window.during;
        let open = match &window.reserved {
            None => gone <= from || cluster.now >= until,
            Some(reserved) => {
                let own = reserved.holders.iter().any(|holder| {
                    let path = spec.project.as_str();
                    path == holder.as_str() || path.starts_with(&format!("{holder}/"))
                });
                let holds = from <= cluster.now && cluster.now < until;
                within |= holds && asked == Some(&reserved.name);
                gone <= from || cluster.now >= until || (own && ends <= until)
            }
        };
        closed |= !open;
    }
    closed || !within
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300.max(ProptestConfig::default().cases), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_start_ever_violates_a_reservation_and_what_could_start_does(
        windows in vec((0..4_usize, 0..5_usize, 1..4_usize, -3..6_i64, 1..9_i64), 0..7),
        jobs in vec((0..3_usize, 1..4_u32, 1..9_u32, 1..9_i64, 0..6_usize), 1..12),
        guarantees in any::<[u32; 2]>(),
    ) {
        const HOLDERS: [&str; 3] = ["public", "public/team", "public/other"];
        const PROJECTS: [&str; 3] = ["public/lab", "public/team/x", "public/other"];
        let mut cluster = pair();
        for node in ["n3", "n4", "n5"] {
            cluster.node(node).gpus(8, "b200").add();
        }
        cluster.guarantee("public/team", 1, &[("b200", guarantees[0] % 17)]);
        cluster.guarantee("public/other", 1, &[("b200", guarantees[1] % 17)]);
        let now = cluster.now;
        cluster.now = now.plus_seconds(-4 * HOUR_S);
        for (index, (holder, first, count, from, hours)) in windows.into_iter().enumerate() {
            let all = ["n1", "n2", "n3", "n4", "n5"];
            let nodes: Vec<&str> = (0..count).map(|at| all[(first + at) % 5]).collect();
            let during = [(from + 4) * HOUR_S, (from + hours + 4) * HOUR_S];
            match HOLDERS.get(holder) {
                Some(holder) => {
                    let holders = BTreeSet::from([ProjectPath::new(holder).unwrap()]);
                    let name = name(&format!("r{index}"));
                    let wish = ReservationWish { name, holders, ..wish(&cluster, &nodes, during) };
                    // Where another one is in the way it is refused, and as good.
                    let _ = try_reserve(&mut cluster, wish);
                }
                None => _ = maintained(&mut cluster, &nodes, during),
            }
        }
        cluster.now = now;
        drafted(&mut cluster, turn_windows);
        for (project, nodes, gpus, hours, asks) in jobs {
            let job = cluster.job().project(PROJECTS[project]).gpus(gpus, "b200");
            let job = job.nodes(nodes).hours(hours);
            if asks < 2 { job.reservation(&format!("r{asks}")).submit() } else { job.submit() };
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
