//! Planned starts: who gets one, what may start beside them, and that they are kept.

use gotgan_core::ids::JobId;
use gotgan_core::node::Liveness;
use gotgan_core::power::{PowerLimits, PowerTerms};
use insta::assert_snapshot;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cluster::{LAB, TestCluster};

const HOUR: i64 = 3600;
/// What a job may take beyond its limit to end.
const GRACE: i64 = 30;

/// Nodes with eight GPUs each.
fn cluster(nodes: &[&str]) -> TestCluster {
    let mut cluster = TestCluster::new();
    cluster.policy.planned_gangs_per_project = 2;
    for name in nodes {
        cluster.node(name).gpus(8, "b200").add();
    }
    cluster
}

/// Two nodes, of which one is taken for four hours, and a gang that wants both.
fn gang_behind_four_hours() -> (TestCluster, JobId, JobId) {
    let mut cluster = cluster(&["n1", "n2"]);
    let first = cluster.job().gpus(8, "b200").hours(4).grace_s(30).submit();
    cluster.run_all();
    let gang = cluster.job().gpus(8, "b200").nodes(2).hours(2).grace_s(30).submit();
    (cluster, first, gang)
}

fn names(nodes: &[&str]) -> Vec<String> {
    nodes.iter().map(ToString::to_string).collect()
}

#[test]
fn a_gang_that_lacks_a_node_is_planned_for_when_the_last_one_is_free() {
    let (mut cluster, _, gang) = gang_behind_four_hours();
    let outcome = cluster.check();
    assert_eq!(outcome.planned(gang), Some((4 * HOUR + GRACE, names(&["n1", "n2"]))));
    assert_snapshot!(outcome.sentences(gang), @r"
    needs 16 b200 GPUs; 8 of 16 are free
    is planned to start by 1970-01-13T02:47:10+09:00 on 2 nodes, n1 first
    ");
}

#[test]
fn beside_a_planned_start_only_that_starts_which_is_over_by_then() {
    let (mut cluster, _, gang) = gang_behind_four_hours();
    let short = cluster.job().gpus(2, "b200").hours(3).submit();
    let long = cluster.job().gpus(2, "b200").hours(5).submit();
    cluster.expect_waiting(gang);
    cluster.expect_on(short, &["n2"]);
    cluster.expect_waiting(long);
    let outcome = cluster.check();
    assert_snapshot!(outcome.sentences(long), @"there is room, but it would still be there when job 2 is to start, by 1970-01-13T02:47:10+09:00");
    let blocker = &outcome.blockers(long)[0];
    assert_eq!((blocker.needed, blocker.available), (5 * 3_600_000, 4 * 3_600_000));
    assert_eq!(
        gotgan_core::explain::hint(blocker),
        "with a time limit of 240m or less it could start now"
    );
}

#[test]
fn what_ends_early_brings_a_planned_start_forward() {
    let (mut cluster, first, gang) = gang_behind_four_hours();
    let short = cluster.job().gpus(2, "b200").hours(3).grace_s(30).submit();
    cluster.run_all();
    cluster.later(HOUR);
    cluster.end(first);
    let outcome = cluster.run_all();
    assert_eq!(outcome.planned(gang), Some((2 * HOUR + GRACE, names(&["n1", "n2"]))));
    cluster.later(600);
    cluster.end(short);
    cluster.expect_on(gang, &["n1", "n2"]);
    cluster.check();
}

#[test]
fn a_planned_start_is_kept_against_whoever_has_a_better_turn() {
    let (mut cluster, first, gang) = gang_behind_four_hours();
    cluster.run_all();
    cluster.later(HOUR);
    let urgent = cluster.job().gpus(8, "b200").hours(4).priority(1).submit();
    cluster.limit("public/other", &[]);
    let other = cluster.job().project("public/other").gpus(8, "b200").hours(4).submit();
    cluster.expect_waiting(urgent);
    cluster.expect_waiting(other);
    cluster.run_all();
    cluster.later(3 * HOUR);
    cluster.end(first);
    cluster.expect_on(gang, &["n1", "n2"]);
    cluster.expect_waiting(urgent);
    cluster.expect_waiting(other);
    cluster.check();
}

#[test]
fn better_nodes_are_taken_when_they_are_free_sooner() {
    let mut cluster = cluster(&["n1", "n2", "n3"]);
    for (node, hours) in [("n1", 4), ("n2", 6), ("n3", 8)] {
        cluster.job().gpus(8, "b200").only_on(&[node]).hours(hours).grace_s(30).submit();
    }
    cluster.run_all();
    let gang = cluster.job().gpus(8, "b200").nodes(2).submit();
    let outcome = cluster.run_all();
    assert_eq!(outcome.planned(gang), Some((6 * HOUR + GRACE, names(&["n1", "n2"]))));
    cluster.later(HOUR);
    cluster.end(JobId(3));
    let outcome = cluster.run_all();
    assert_eq!(outcome.planned(gang), Some((3 * HOUR + GRACE, names(&["n1", "n3"]))));
}

#[test]
fn a_start_is_planned_anew_when_one_of_its_nodes_is_gone() {
    let mut cluster = cluster(&["n1", "n2", "n3"]);
    for (node, hours) in [("n1", 4), ("n2", 6), ("n3", 8)] {
        cluster.job().gpus(8, "b200").only_on(&[node]).hours(hours).grace_s(30).submit();
    }
    cluster.run_all();
    let gang = cluster.job().gpus(8, "b200").nodes(2).submit();
    cluster.run_all();
    cluster.heard("n1", Liveness::Lost);
    let outcome = cluster.check();
    assert_eq!(outcome.planned(gang), Some((8 * HOUR + GRACE, names(&["n2", "n3"]))));
}

#[test]
fn what_a_planned_start_leaves_over_on_its_nodes_is_for_anybody() {
    let mut cluster = cluster(&["n1", "n2"]);
    cluster.job().gpus(6, "b200").only_on(&["n1"]).hours(4).submit();
    cluster.run_all();
    let gang = cluster.job().gpus(4, "b200").nodes(2).submit();
    let beside = cluster.job().gpus(2, "b200").hours(100).submit();
    let too_many = cluster.job().gpus(5, "b200").hours(100).submit();
    let rest = cluster.job().gpus(4, "b200").only_on(&["n2"]).hours(100).submit();
    cluster.expect_waiting(gang);
    cluster.expect_on(beside, &["n1"]);
    cluster.expect_waiting(too_many);
    cluster.expect_on(rest, &["n2"]);
    cluster.check();
}

#[test]
fn a_second_gang_is_planned_behind_the_first() {
    let (mut cluster, _, gang) = gang_behind_four_hours();
    cluster.policy.planned_percent_max = 1_000;
    let second = cluster.job().gpus(8, "b200").nodes(2).hours(2).submit();
    let third = cluster.job().gpus(8, "b200").nodes(2).hours(2).submit();
    let outcome = cluster.check();
    assert_eq!(outcome.planned(gang).unwrap().0, 4 * HOUR + GRACE);
    assert_eq!(outcome.planned(second).unwrap().0, 6 * HOUR + 2 * GRACE);
    assert_eq!(outcome.planned(third), None, "a project has two planned gangs at a time");
}

#[test]
fn a_job_of_one_node_waits_longer_for_a_plan_the_smaller_it_is() {
    let mut cluster = cluster(&["n1"]);
    cluster.job().gpus(8, "b200").hours(4).submit();
    cluster.run_all();
    for (gpus, hours) in [(8, 24), (4, 48), (1, 192)] {
        for (more, planned) in [(-1, false), (0, true)] {
            let mut cluster = cluster.copy();
            let since = hours * HOUR + more;
            let job = cluster.job().gpus(gpus, "b200").waiting_since_s(since).submit();
            let found = cluster.check().planned(job);
            assert_eq!(found.is_some(), planned, "{gpus} GPUs after {since} s");
        }
    }
}

#[test]
fn nothing_is_planned_for_a_job_that_its_limit_or_the_machine_keeps_from_starting() {
    let (mut cluster, ..) = gang_behind_four_hours();
    cluster.limit("public/none", &[("b200", 8)]);
    let limited = cluster.job().project("public/none").gpus(8, "b200").nodes(2).submit();
    let impossible = cluster.job().gpus(8, "b200").nodes(3).submit();
    let outcome = cluster.check();
    assert_eq!((outcome.planned(limited), outcome.planned(impossible)), (None, None));
}

#[test]
fn a_start_is_not_planned_into_the_time_of_a_reservation_of_others() {
    let mut cluster = TestCluster::new();
    cluster.policy.planned_gangs_per_project = 2;
    for name in ["n1", "n2"] {
        cluster.node(name).gpus(8, "b200").label("cluster", "a").add();
    }
    cluster.limit("public/other", &[]);
    cluster.reserve("exam", "public/other", (16, "b200", "a"), [3, 10]);
    cluster.job().gpus(8, "b200").hours(2).grace_s(30).submit();
    cluster.run_all();
    let gang = cluster.job().gpus(8, "b200").nodes(2).hours(2).submit();
    assert_eq!(cluster.check().planned(gang).unwrap().0, 10 * HOUR);
}

#[test]
fn a_project_within_its_guarantee_does_not_wait_for_what_is_planned_for_one_that_borrows() {
    let (mut cluster, _, gang) = gang_behind_four_hours();
    cluster.limit("public/owner", &[]);
    cluster.guarantee("public/owner", 1, &[("b200", 8)]);
    cluster.run_all();
    let owner = cluster.job().project("public/owner").gpus(8, "b200").hours(100).submit();
    cluster.expect_on(owner, &["n2"]);
    cluster.expect_waiting(gang);
    cluster.check();
}

#[test]
fn at_most_the_part_of_a_class_is_planned_for_that_the_site_says() {
    let mut cluster = cluster(&["n1", "n2", "n3", "n4"]);
    cluster.limit("public/other", &[]);
    for _ in 0..4 {
        cluster.job().gpus(8, "b200").hours(4).submit();
    }
    cluster.run_all();
    let first = cluster.job().gpus(8, "b200").nodes(2).submit();
    let second = cluster.job().project("public/other").gpus(8, "b200").nodes(2).submit();
    let outcome = cluster.check();
    assert!(outcome.planned(first).is_some() != outcome.planned(second).is_some());
    cluster.policy.planned_percent_max = 100;
    let outcome = cluster.check();
    assert!(outcome.planned(first).is_some() && outcome.planned(second).is_some());
}

/// A job: when it comes, hours; its nodes, GPUs on each, longest time in hours, how much of that it takes in percent.
type Wish = (i64, u32, u32, i64, i64);

fn wishes() -> impl Strategy<Value = Vec<Wish>> {
    vec((0..12_i64, 1..4_u32, 1..5_u32, 1..9_i64, 1..101_i64), 1..40)
}

/// Lets the wishes come and go on four nodes of four GPUs, a quarter of an hour at a time, and looks at every pass.
fn play(wishes: &[Wish], projects: &[&str], look: &mut dyn FnMut(&TestCluster)) {
    play_with(PowerTerms::default(), wishes, projects, look);
}

/// The same with so much power.
fn play_with(
    power: PowerTerms,
    wishes: &[Wish],
    projects: &[&str],
    look: &mut dyn FnMut(&TestCluster),
) {
    let mut cluster = cluster(&[]);
    cluster.power(power);
    for (name, hall) in [("n1", "a"), ("n2", "a"), ("n3", "b"), ("n4", "b")] {
        cluster.node(name).gpus(4, "b200").label("hall", hall).add();
    }
    projects.iter().for_each(|project| cluster.limit(project, &[]));
    let (began, mut takes) = (cluster.now, std::collections::BTreeMap::new());
    for quarter in 0..4 * 200 {
        let hour = (cluster.now.0 - began.0) / (HOUR * 1_000_000);
        let over = cluster.world.attempts.values().filter_map(|attempt| {
            let ran_s = (cluster.now.0 - attempt.started?.0) / 1_000_000;
            (ran_s >= takes[&attempt.id.job]).then_some(attempt.id.job)
        });
        over.collect::<Vec<_>>().into_iter().for_each(|job| cluster.end(job));
        if quarter % 4 == 0 {
            for (at, (_, nodes, gpus, hours, percent)) in
                wishes.iter().enumerate().filter(|(_, wish)| wish.0 == hour)
            {
                let job = cluster.job().project(projects[at % projects.len()]);
                let job = job.gpus(*gpus, "b200").nodes(*nodes).hours(*hours).submit();
                takes.insert(job, hours * HOUR * percent / 100);
            }
        }
        cluster.run_all();
        look(&cluster);
        if hour > 12 && cluster.world.jobs.is_empty() {
            return;
        }
        cluster.later(900);
    }
    panic!("some never started");
}

/// With so much power, what was planned once for a gang stays planned until it starts, and no later than that.
fn no_plan_is_put_off(power: PowerTerms, wishes: &[Wish], projects: &[&str]) {
    let mut promised = std::collections::BTreeMap::<JobId, i64>::new();
    play_with(power, wishes, projects, &mut |cluster| {
        for (job, by) in &promised {
            let waits = cluster.world.queue.iter().any(|key| key.job == *job);
            let planned = cluster.planned.of(*job);
            assert!(!waits || planned.is_some(), "the plan of job {job} was given up");
            assert!(!waits || cluster.now.0 <= *by, "job {job} should run by now");
            assert!(planned.is_none_or(|start| start.at.0 <= *by), "job {job} was put off");
        }
        let gangs = cluster.planned.iter().filter(|(_, start)| start.nodes.len() > 1);
        promised = gangs.map(|(job, start)| (job, start.at.0)).collect();
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// As long as no node is lost and nobody is guaranteed anything, what was planned once for a gang stays planned until
    /// it starts, and is never put off.
    #[test]
    fn no_planned_start_is_ever_put_off(wishes in wishes(), projects in 1..4_usize) {
        let projects = [LAB, "public/a", "public/b"].split_at(projects).0;
        no_plan_is_put_off(PowerTerms::default(), &wishes, projects);
    }

    /// The same where there is too little power for all GPUs, in one hall and in all.
    #[test]
    fn no_planned_start_is_ever_put_off_for_want_of_power(
        wishes in wishes(), site in 12..17_u64, hall in 4..9_u64,
    ) {
        no_plan_is_put_off(power(site, hall), &wishes, &[LAB, "public/a"]);
    }

    /// All gangs that are planned have the power for it, beside all that runs.
    #[test]
    fn there_is_power_for_all_that_is_planned(
        wishes in wishes(), site in 12..17_u64, hall in 4..9_u64,
    ) {
        play_with(power(site, hall), &wishes, &[LAB, "public/a"], &mut |cluster| {
            for (_, start) in cluster.planned.iter().filter(|(_, start)| start.nodes.len() > 1) {
                assert!(kilowatts(cluster, &["n1", "n2"], start.at) <= hall);
                assert!(kilowatts(cluster, &["n1", "n2", "n3", "n4"], start.at) <= site);
            }
        });
    }

    /// All gangs that are planned can start as planned, beside all that runs.
    #[test]
    fn what_is_planned_fits_at_every_moment(wishes in wishes(), projects in 1..4_usize) {
        let projects = [LAB, "public/a", "public/b"].split_at(projects).0;
        play(&wishes, projects, &mut |cluster| {
            for (_, start) in cluster.planned.iter().filter(|(_, start)| start.nodes.len() > 1) {
                for node in &start.nodes {
                    assert_room(cluster, node, start.at);
                }
            }
        });
    }
}

/// So many kilowatts for all, and for hall a.
fn power(site: u64, hall: u64) -> PowerTerms {
    let limits = PowerLimits {
        site_watts: Some(site * 1_000),
        hall_watts: [("a".to_owned(), hall * 1_000)].into(),
        ..PowerLimits::default()
    };
    PowerTerms { idle_percent: 0, limits, ..PowerTerms::default() }
}

/// What these nodes draw at a moment by what runs and what is planned for gangs: a GPU one.
fn kilowatts(cluster: &TestCluster, nodes: &[&str], at: gotgan_core::amount::UnixMicros) -> u64 {
    nodes.iter().map(|node| gpu_milli_at(cluster, node, at) / 1_000).sum()
}

/// Of the four GPUs of a node no more are taken at that moment than there are.
fn assert_room(
    cluster: &TestCluster,
    node: &gotgan_core::ids::NodeName,
    at: gotgan_core::amount::UnixMicros,
) {
    let taken = gpu_milli_at(cluster, node.as_str(), at);
    assert!(taken <= 4000, "{node}: {taken} thousandths are taken");
}

/// Thousandths of GPUs of a node that are taken at a moment, by what runs and what is planned for gangs.
fn gpu_milli_at(cluster: &TestCluster, node: &str, at: gotgan_core::amount::UnixMicros) -> u64 {
    let gpus_of = |job: &JobId| cluster.world.jobs[job].spec.per_node.gpus.amount().0;
    let limit_s = |job: &JobId| cluster.world.jobs[job].spec.time_limit_s;
    let running = cluster.world.attempts.values().filter(|attempt| {
        let there = attempt.placement.nodes.iter().any(|given| given.node.as_str() == node);
        let end = attempt.started.unwrap_or(cluster.now).plus_seconds(limit_s(&attempt.id.job));
        there && end > at
    });
    let running: u64 = running.map(|attempt| gpus_of(&attempt.id.job)).sum();
    let planned = cluster.planned.iter().filter(|(job, start)| {
        let until = start.at.plus_seconds(limit_s(job));
        let there = start.nodes.iter().any(|planned| planned.as_str() == node);
        start.nodes.len() > 1 && there && start.at <= at && at < until
    });
    let planned: u64 = planned.map(|(job, _)| gpus_of(&job)).sum();
    running + planned
}
