//! Jobs that can do with different numbers of nodes: as many as they can have when they start.

use std::collections::BTreeSet;

use gotgan_core::amount::GpuMilli;
use gotgan_core::explain::explain;
use gotgan_core::ids::JobId;
use gotgan_core::quota::bounds::{Bounds, ClassAmount};
use gotgan_core::topology::Level;
use insta::assert_snapshot;
use proptest::prelude::*;

use crate::builders::JobBuilder;
use crate::cluster::{Outcome, TestCluster};
use crate::sketch::{Sketch, sketch};

/// So many nodes of 8 b200.
fn nodes(count: u32) -> TestCluster {
    let mut cluster = TestCluster::new();
    for number in 1..=count {
        cluster.node(&format!("n{number}")).gpus(8, "b200").add();
    }
    cluster
}

fn job(cluster: &mut TestCluster, least: u32, most: u32) -> JobBuilder<'_> {
    cluster.job().gpus(8, "b200").between(least, most)
}

fn given(outcome: &Outcome, job: JobId) -> usize {
    outcome.placement(job).map_or(0, |placement| placement.nodes.len())
}

#[test]
fn it_starts_with_as_many_nodes_as_are_free_and_no_more_than_it_asks() {
    let mut cluster = nodes(7);
    let all = job(&mut cluster, 2, 4).submit();
    let some = job(&mut cluster, 2, 4).submit();
    let none = job(&mut cluster, 2, 4).submit();
    cluster.expect_waiting(none);
    let outcome = cluster.start_all();
    assert_eq!((given(&outcome, all), given(&outcome, some)), (4, 3));
    assert_snapshot!(outcome.sentences(none), @"needs 16 b200 GPUs; 0 of 56 are free");
    let report = &outcome.plan.report;
    let why = explain(&cluster.world, none, Some(report), None).unwrap();
    assert_snapshot!(why.summary, @"needs 16 b200 GPUs; 0 of 56 are free, and 1 more reason");
    let words: Vec<String> = why.blockers.iter().map(gotgan_core::explain::sentence).collect();
    assert_snapshot!(words[1], @"starts with 2 nodes or more, as many as it can have then, up to 4");
}

#[test]
fn limits_and_terms_bound_it_and_keep_it_from_nothing_else() {
    let mut cluster = nodes(6);
    cluster.limit("public/lab", &[("b200", 24)]);
    let limited = job(&mut cluster, 1, 6).submit();
    cluster.limit("public/small", &[]);
    let most = Some(ClassAmount::Every(GpuMilli::whole(16)));
    cluster.bounds("public/small", Bounds { max_gang: most, ..Bounds::default() });
    let bounded = job(&mut cluster, 1, 6).project("public/small").submit();
    let outcome = cluster.check();
    assert_eq!((given(&outcome, limited), given(&outcome, bounded)), (3, 2));
}

#[test]
fn within_a_guarantee_it_takes_no_more_before_others_that_are_within_theirs_and_the_rest_last() {
    let mut cluster = nodes(6);
    cluster.limit("public/a", &[]);
    cluster.limit("public/b", &[]);
    cluster.guarantee("public/a", 1, &[("b200", 16)]);
    cluster.guarantee("public/b", 1, &[("b200", 16)]);
    let elastic = job(&mut cluster, 1, 6).project("public/a").waiting_since_s(9).submit();
    let other = cluster.job().gpus(8, "b200").nodes(2).project("public/b").submit();
    let borrows = cluster.job().gpus(8, "b200").project("public/lab").submit();
    let outcome = cluster.check();
    let all = [elastic, other, borrows].map(|job| given(&outcome, job));
    assert_eq!(all, [3, 2, 1]);
}

#[test]
fn it_takes_no_node_for_longer_than_until_a_planned_start() {
    let mut cluster = nodes(3);
    cluster.policy.planned_gangs_per_project = 1;
    cluster.job().gpus(8, "b200").hours(1).submit();
    cluster.run_all();
    cluster.limit("public/big", &[]);
    let gang = cluster.job().gpus(8, "b200").nodes(3).project("public/big").submit();
    let outcome = cluster.start_all();
    assert!(outcome.planned(gang).is_some());
    let long = job(&mut cluster, 1, 3).hours(2).submit();
    cluster.expect_waiting(long);
    let short = cluster.job().gpus(8, "b200").between(1, 3).minutes(30).submit();
    assert_eq!(given(&cluster.start_all(), short), 2);
}

#[test]
fn a_planned_start_is_made_for_the_fewest_nodes_and_gets_what_is_left_as_well() {
    let mut cluster = nodes(4);
    cluster.policy.planned_gangs_per_project = 1;
    let first: Vec<JobId> = (0..3).map(|_| cluster.job().gpus(8, "b200").submit()).collect();
    cluster.run_all();
    let elastic = job(&mut cluster, 2, 4).submit();
    let outcome = cluster.start_all();
    assert_eq!(outcome.planned(elastic).unwrap().1.len(), 2);
    first.into_iter().for_each(|job| cluster.end(job));
    assert_eq!(given(&cluster.check(), elastic), 4);
}

#[test]
fn segments_of_it_are_whole() {
    let mut cluster = TestCluster::new();
    for number in 1..=7 {
        let domain = if number <= 3 { "d1" } else { "d2" };
        let node = cluster.node(&format!("n{number}")).gpus(4, "b200");
        node.label("nvlink", domain).add();
    }
    let job = cluster.job().gpus(4, "b200").between(2, 8).segments(2, Level::Nvlink).submit();
    let outcome = cluster.check();
    assert_eq!(given(&outcome, job), 6);
}

#[test]
fn of_several_classes_it_takes_the_one_with_the_most_nodes() {
    let mut cluster = TestCluster::new();
    cluster.node("a1").gpus(8, "a100").add();
    for name in ["b1", "b2", "b3"] {
        cluster.node(name).gpus(8, "b200").add();
    }
    let job = cluster.job().gpus(8, "").between(1, 4).submit();
    cluster.expect_on(job, &["b1", "b2", "b3"]);
    cluster.check();
}

#[test]
fn a_scavenger_takes_as_many_nodes_as_are_left() {
    let mut cluster = nodes(5);
    cluster.job().gpus(8, "b200").nodes(2).submit();
    let job = job(&mut cluster, 1, 9).scavenger().submit();
    assert_eq!(given(&cluster.check(), job), 3);
}

#[test]
fn others_stop_for_the_fewest_nodes_and_a_job_that_was_stopped_goes_on_with_fewer() {
    let mut cluster = nodes(4);
    cluster.limit("public/a", &[]);
    cluster.guarantee("public/a", 1, &[("b200", 16)]);
    let borrower = job(&mut cluster, 2, 4).submit();
    assert_eq!(given(&cluster.run_all(), borrower), 4);
    cluster.later(cluster.policy.min_runtime_before_preemption_s + 1);
    let within = job(&mut cluster, 2, 4).project("public/a").submit();
    let outcome = cluster.start_all();
    assert_eq!(outcome.victims(), [(borrower, within)]);
    cluster.let_go();
    let outcome = cluster.start_all();
    assert_eq!((given(&outcome, within), given(&outcome, borrower)), (2, 2));
    cluster.check();
}

/// How many nodes a job between the two gets, and the largest of the same jobs with a fixed number that starts.
fn both(cluster: &TestCluster, least: u32, most: u32, rest: &Rest) -> (usize, usize) {
    let placed = |least: u32, most: u32| {
        let mut cluster = cluster.copy();
        let job = rest.of(cluster.job().between(least, most)).submit();
        given(&cluster.start_all(), job)
    };
    let fixed = (least..=most).map(|nodes| placed(nodes, nodes)).max().unwrap_or(0);
    (placed(least, most), fixed)
}

/// What an elastic job asks for beside nodes.
#[derive(Debug, Clone)]
struct Rest {
    gpus: u32,
    cpus: u64,
    class: usize,
    project: usize,
    scavenges: bool,
}

impl Rest {
    fn of<'a>(&self, job: JobBuilder<'a>) -> JobBuilder<'a> {
        let project = ["public/a/x", "public/a/y", "public/b", "public/lab"][self.project];
        let job =
            job.project(project).cpus(self.cpus).gpus(self.gpus, ["a100", "b200"][self.class]);
        if self.scavenges { job.scavenger() } else { job }
    }
}

fn rest() -> impl Strategy<Value = Rest> {
    (1..4_u32, 0..4_u64, 0..2_usize, 0..4_usize, any::<bool>()).prop_map(
        |(gpus, cpus, class, project, scavenges)| Rest { gpus, cpus, class, project, scavenges },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300.max(ProptestConfig::default().cases), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_gets_as_many_nodes_as_the_largest_job_of_its_kind_that_starts(
        sketch in sketch().prop_map(Sketch::without_new), guarantees in any::<[u32; 8]>(),
        least in 1..3_u32, more in 0..6_u32, rest in rest(),
    ) {
        let mut cluster = sketch.build_guaranteed(guarantees);
        cluster.start_all();
        let (elastic, fixed) = both(&cluster, least, least + more, &rest);
        prop_assert_eq!(elastic, fixed);
    }

    #[test]
    fn no_attempt_has_fewer_or_more_nodes_than_its_job_asks(
        sketch in sketch().prop_map(Sketch::with_elastic), guarantees in any::<[u32; 8]>(),
    ) {
        let mut cluster = sketch.build_guaranteed(guarantees);
        let outcome = cluster.start_all();
        for attempt in cluster.world.attempts.values() {
            let spec = &cluster.world.jobs[&attempt.id.job].spec;
            let names: BTreeSet<_> = attempt.placement.nodes.iter().map(|held| &held.node).collect();
            let asked = spec.nodes as usize..=spec.most_nodes() as usize;
            prop_assert!(asked.contains(&names.len()), "{} of {:?}", names.len(), asked);
            prop_assert_eq!(names.len(), attempt.placement.nodes.len());
        }
        for job in cluster.world.queue.iter().map(|key| key.job) {
            prop_assert!(!outcome.blockers(job).is_empty(), "job {}", job);
        }
        let second = cluster.check();
        prop_assert!(second.plan.decisions.is_empty(), "{:?}", second.plan.decisions);
    }
}
