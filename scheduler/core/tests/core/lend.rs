//! What nodes keep of their guarantees, and by when they get back what they lent.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotgan_core::amount::{GpuMilli, UnixMicros};
use gotgan_core::attempt::{Attempt, AttemptState};
use gotgan_core::change::Change;
use gotgan_core::check;
use gotgan_core::explain::explain;
use gotgan_core::ids::{AttemptId, Epoch, GpuClass, JobId};
use gotgan_core::job::JobState;
use gotgan_core::lifecycle::{self, Draft};
use gotgan_core::plan::BlockerKind;
use gotgan_core::quota::bounds::{Bounds, ClassAmount};
use gotgan_core::world::World;
use insta::assert_snapshot;
use proptest::prelude::*;

use crate::cluster::TestCluster;
use crate::sketch::sketch;
use crate::terms::{every, of};

/// A node of eight GPUs; `a` is guaranteed six of them, `b` none.
fn cluster(bounds: Bounds) -> TestCluster {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").add();
    cluster.guarantee("public/a", 1, &[("b200", 6)]);
    cluster.guarantee("public/b", 1, &[]);
    cluster.bounds("public/a", bounds);
    cluster
}

#[test]
fn what_a_node_keeps_idle_goes_to_nobody_else() {
    let mut cluster = cluster(Bounds { keep_idle: every(2), ..Bounds::default() });
    let lent = cluster.job().project("public/b").gpus(6, "b200").submit();
    cluster.expect_on(lent, &["n1"]);
    cluster.start_all();
    let more = cluster.job().project("public/b").gpus(1, "b200").submit();
    let outcome = cluster.check();
    assert_eq!(outcome.blockers(more)[0].kind, BlockerKind::Kept);
    assert_snapshot!(outcome.sentences(more), @"
    needs 1 b200 GPU beyond its guarantee; of those free 2 are kept by public/a for their own, which leaves 0
    borrows, since public/b has no guarantee of b200 GPUs; jobs within a guarantee go first
    ");
    let own = cluster.job().project("public/a").gpus(2, "b200").submit();
    cluster.expect_on(own, &["n1"]);
    cluster.check();
}

#[test]
fn a_node_lends_no_more_than_it_says_and_keeps_nothing_that_it_uses() {
    let mut cluster = cluster(Bounds { lend_max: of("b200", 1), ..Bounds::default() });
    // Two are nobody's and one is lent.
    let three = cluster.job().project("public/b").gpus(3, "b200").submit();
    cluster.expect_on(three, &["n1"]);
    cluster.start_all();
    let fourth = cluster.job().project("public/b").gpus(1, "b200").submit();
    let used = cluster.job().project("public/a").gpus(4, "b200").submit();
    cluster.expect_on(used, &["n1"]);
    cluster.expect_waiting(fourth);
    cluster.start_all();
    // Of the two that it does not use now, it lends one; that one is lent already.
    assert_eq!(cluster.check().blockers(fourth)[0].kind, BlockerKind::Kept);
    cluster.end(three);
    cluster.expect_on(fourth, &["n1"]);
    cluster.check();
}

#[test]
fn what_is_kept_below_a_node_is_open_to_its_siblings_only_as_far_as_they_say() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").add();
    cluster.guarantee("public/p", 1, &[("b200", 8)]);
    cluster.guarantee("public/p/one", 1, &[("b200", 4)]);
    cluster.guarantee("public/p/two", 1, &[("b200", 4)]);
    cluster.guarantee("public/q", 1, &[]);
    cluster.bounds("public/p", Bounds { keep_idle: every(6), ..Bounds::default() });
    cluster.bounds("public/p/two", Bounds { keep_idle: every(1), ..Bounds::default() });
    let outside = cluster.job().project("public/q").gpus(3, "b200").submit();
    let inside = cluster.job().project("public/p/one").gpus(8, "b200").submit();
    let most = cluster.job().project("public/p/one").gpus(7, "b200").submit();
    cluster.expect_waiting(outside);
    cluster.expect_waiting(inside);
    cluster.expect_on(most, &["n1"]);
    cluster.check();
}

#[test]
fn a_start_that_takes_what_is_kept_is_found() {
    let mut cluster = cluster(Bounds { keep_idle: every(2), ..Bounds::default() });
    let large = cluster.job().project("public/b").gpus(7, "b200").submit();
    let mut free = cluster.copy();
    free.bounds("public/a", Bounds::default());
    let plan = free.check().plan;
    cluster.expect_waiting(large);
    cluster.check();
    let found = check::check(&cluster.world, &plan.decisions);
    assert!(found[0].text.contains("leaves 1000 thousandths of b200 free, of which 2000 are kept"));
}

#[test]
fn gpus_of_a_spare_node_that_stands_by_are_not_what_is_left_for_the_kept() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").label("cluster", "one").add();
    let spare = cluster.node("n2").gpus(8, "b200").label("cluster", "one");
    spare.label("spare", "true").add();
    cluster.guarantee("public/a", 1, &[("b200", 6)]);
    cluster.guarantee("public/b", 1, &[]);
    cluster.bounds("public/a", Bounds { keep_idle: every(2), ..Bounds::default() });
    let large = cluster.job().project("public/b").gpus(7, "b200").submit();
    let mut free = cluster.copy();
    free.bounds("public/a", Bounds::default());
    let without = free.check().plan;
    cluster.expect_waiting(large);
    let outcome = cluster.check();
    assert_eq!(outcome.blockers(large)[0].kind, BlockerKind::Kept);
    assert!(!check::check(&cluster.world, &without.decisions).is_empty(), "the check says so too");
}

fn recall(seconds: i64) -> Bounds {
    Bounds { recall_s: Some(seconds), ..Bounds::default() }
}

/// Commits what the planner decides, as the scheduler does.
fn commit_all(cluster: &mut TestCluster) {
    let plan = cluster.check().plan;
    let (policy, now) = (cluster.policy.clone(), cluster.now);
    let mut draft = Draft::new(&mut cluster.world, &policy, Epoch(1), now);
    for decision in &plan.decisions {
        lifecycle::commit(&mut draft, decision).unwrap();
    }
}

#[test]
fn a_recall_ends_the_protection_of_what_borrows_and_cuts_its_time_to_end() {
    let mut cluster = cluster(recall(20));
    cluster.policy.min_runtime_before_preemption_s = 3600;
    let lent = cluster.job().project("public/b").gpus(8, "b200").submit();
    commit_all(&mut cluster);
    let job = cluster.job().project("public/a").gpus(4, "b200").submit();
    let attempt = AttemptId { job: lent, number: 1 };
    // It has 30 s to end, more than there are: it is told at once, and has the 20.
    commit_all(&mut cluster);
    assert_eq!(cluster.world.attempts[&attempt].stop.as_ref().unwrap().grace_s, 20);
    let report = cluster.check().plan.report;
    let explained = explain(&cluster.world, job, Some(&report), Some(cluster.now)).unwrap();
    assert!(
        explained.summary.contains(", recalled by 1970-01-12T22:47:00+09:00"),
        "{}",
        explained.summary
    );
}

#[test]
fn what_may_run_on_until_its_time_to_end_reaches_the_moment_is_left_until_then() {
    let mut cluster = cluster(recall(60));
    cluster.policy.min_runtime_before_preemption_s = 3600;
    let lent = cluster.job().project("public/b").gpus(8, "b200").submit();
    cluster.start_all();
    let job = cluster.job().project("public/a").gpus(4, "b200").submit();
    cluster.now = cluster.now.plus_seconds(29);
    assert_eq!(cluster.check().victims(), []);
    cluster.now = cluster.now.plus_seconds(1);
    assert_eq!(cluster.check().victims(), [(lent, job)]);
}

#[test]
fn the_nearest_node_says_how_soon_and_a_moment_that_is_over_leaves_the_whole_time() {
    let mut cluster = cluster(recall(300));
    cluster.bounds("public", recall(10));
    let job = cluster.job().project("public/a").gpus(4, "b200").submit();
    let promise = cluster.world.quota.recall_of(&cluster.world.jobs[&job]).unwrap();
    assert_eq!(promise.by, cluster.now.plus_seconds(300));
    let later = cluster.now.plus_seconds(1000);
    assert_eq!((promise.grace_s(600, later), promise.grace_s(30, later)), (300, 30));
    cluster.check();
}

#[test]
fn nobody_stops_for_a_job_that_is_longer_than_its_project_allows() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").add();
    cluster.guarantee("public/a", 1, &[("b200", 8)]);
    cluster.limit("public/c", &[]);
    cluster.bounds("public/a", Bounds { max_walltime_s: Some(3600), ..Bounds::default() });
    cluster.job().project("public/c").gpus(8, "b200").submit();
    cluster.start_all();
    cluster.now = cluster.now.plus_seconds(3600);
    let long = cluster.job().project("public/a").gpus(8, "b200").hours(2).submit();
    cluster.expect_waiting(long);
    let outcome = cluster.check();
    assert_eq!(outcome.victims(), []);
    assert_eq!(outcome.blockers(long)[0].kind, BlockerKind::Term);
}

/// What nodes keep by the rule, counted plainly: of their scaled guarantee less what they hold.
fn kept(world: &World, path: &str, class: &GpuClass, sure: &dyn Fn(&str) -> u64) -> u64 {
    let children = world.quota.nodes.keys().filter(|child| child.parent() == Some(path));
    let below: u64 = children.map(|child| kept(world, child.as_str(), class, sure)).sum();
    let unused = sure(path).saturating_sub(world.usage.held(path, class).0);
    let bounds = &world.quota.nodes[path].bounds;
    let amount = |of: &Option<ClassAmount>, none: u64| {
        of.as_ref().and_then(|of| of.of(class)).map_or(none, |gpus| gpus.0)
    };
    let own = amount(&bounds.keep_idle, 0).min(unused);
    below.max(own).max(unused.saturating_sub(amount(&bounds.lend_max, u64::MAX)))
}

const PATHS: [&str; 6] =
    ["public", "public/a", "public/a/x", "public/a/y", "public/b", "public/lab"];

/// Gives every node terms made of these numbers.
fn bound(cluster: &mut TestCluster, numbers: &[[u32; 6]]) {
    for (path, [idle, max, borrow, gang, jobs, hours]) in PATHS.iter().zip(numbers) {
        let said =
            |number: u32| (number < 6).then_some(ClassAmount::Every(GpuMilli::whole(number)));
        let bounds = Bounds {
            keep_idle: said(idle % 9),
            lend_max: said(max % 9),
            borrow_max: said(borrow % 12),
            max_gang: said(gang % 24 + 2),
            max_jobs: (jobs % 3 == 0).then_some(u64::from(jobs % 9)),
            max_walltime_s: (hours % 9 == 0).then_some(3599 + i64::from(hours % 2)),
            ..Bounds::default()
        };
        cluster.bounds(path, bounds);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300.max(ProptestConfig::default().cases), failure_persistence: None, ..ProptestConfig::default() })]

    /// The check judges every plan by its own count; here the end is looked at, whatever the way to it.
    #[test]
    fn with_terms_every_job_starts_or_has_a_reason_and_a_second_pass_starts_nothing(
        sketch in sketch(), guarantees in any::<[u32; 8]>(), numbers in proptest::collection::vec(any::<[u32; 6]>(), 6),
    ) {
        let mut cluster = sketch.build_guaranteed(guarantees);
        bound(&mut cluster, &numbers);
        let outcome = cluster.start_all();
        for key in &cluster.world.queue {
            let reasons = outcome.blockers(key.job);
            prop_assert!(!reasons.is_empty(), "job {}", key.job);
            for blocker in reasons.iter().filter(|one| matches!(one.kind, BlockerKind::Term | BlockerKind::Kept)) {
                prop_assert!(blocker.available < blocker.needed, "job {}: {:?}", key.job, blocker);
            }
        }
        let second = cluster.check();
        prop_assert!(second.plan.decisions.is_empty(), "{:?}", second.plan.decisions);
    }

    #[test]
    fn no_borrower_takes_what_is_kept_or_more_than_it_may_borrow(
        borrowers in proptest::collection::vec((0..3_usize, 1..5_u32), 1..14), idle in 0..9_u32, max in 0..9_u32, borrow in 0..9_u32,
    ) {
        let mut cluster = TestCluster::new();
        for node in ["n1", "n2"] {
            cluster.node(node).gpus(8, "b200").add();
        }
        let sure = |path: &str| match path { "x" => 9, "x/one" => 5, "x/two" => 4, "y" => 3, _ => 0 } * 1000;
        for (path, gpus) in [("x", 9), ("x/one", 5), ("x/two", 4), ("y", 3)] {
            cluster.guarantee(path, 1, &[("b200", gpus)]);
        }
        cluster.bounds("x", Bounds { lend_max: every(max), ..Bounds::default() });
        cluster.bounds("x/two", Bounds { keep_idle: every(idle), ..Bounds::default() });
        cluster.bounds("y", Bounds { keep_idle: every(1), borrow_max: every(borrow), ..Bounds::default() });
        let class = GpuClass::new("b200").unwrap();
        for (project, gpus) in borrowers {
            let path = ["x/one", "y", "z"][project];
            cluster.guarantee("z", 1, &[]);
            cluster.job().project(path).gpus(gpus, "b200").submit();
            let before = cluster.world.clone();
            let outcome = cluster.start_all();
            let free = |world: &World| 16_000 - ["x", "y", "z"].map(|top| world.usage.held(top, &class).0).iter().sum::<u64>();
            if outcome.plan.decisions.len() == 1 && cluster.world.usage.held(path, &class).0 > sure(path) {
                let beside: &[&str] = match path { "x/one" => &["x/two", "y", "z"], "y" => &["x", "z"], _ => &["x", "y"] };
                let kept: u64 = beside.iter().map(|path| kept(&cluster.world, path, &class, &sure)).sum();
                prop_assert!(free(&cluster.world) >= kept || free(&before) == free(&cluster.world));
            }
            let held = cluster.world.usage.held("y", &class).0;
            prop_assert!(held <= 3000 + u64::from(borrow) * 1000, "y holds {held}");
        }
    }

    #[test]
    fn a_demand_within_a_guarantee_waits_no_longer_than_promised_and_a_round(
        recall_s in 5..90_i64, graces in proptest::collection::vec(0..200_u32, 1..9),
        arrivals in proptest::collection::vec((0..120_i64, 1..3_u32), 1..5),
    ) {
        let mut cluster = cluster(recall(recall_s));
        cluster.policy.min_runtime_before_preemption_s = 36_000;
        for grace_s in &graces {
            cluster.job().project("public/b").gpus(1, "b200").grace_s(*grace_s).hours(9).submit();
        }
        let begin = cluster.now;
        let mut asked: Vec<(JobId, UnixMicros)> = Vec::new();
        let (mut left, mut told) = (6, BTreeMap::new());
        for second in 0..240 {
            cluster.now = begin.plus_seconds(second);
            for (_, gpus) in arrivals.iter().filter(|(at, _)| *at == second) {
                if *gpus <= left {
                    left -= gpus;
                    asked.push((cluster.job().project("public/a").gpus(*gpus, "b200").hours(9).submit(), cluster.now));
                }
            }
            end_graces(&mut cluster, &told);
            commit_all(&mut cluster);
            for attempt in cluster.world.attempts.values().filter(|attempt| attempt.stop.is_some()) {
                told.entry(attempt.id).or_insert(cluster.now);
            }
            for (job, since) in &asked {
                let waits = cluster.world.jobs[job].status.state == JobState::Pending;
                let waited_s = cluster.now.millis_since(*since) / 1000;
                prop_assert!(!waits || waited_s <= recall_s, "job {job} waits for {waited_s} s");
            }
        }
    }
}

/// Ends every attempt whose time to end is over.
fn end_graces(cluster: &mut TestCluster, told: &BTreeMap<AttemptId, UnixMicros>) {
    let over = cluster.world.attempts.values().filter(|attempt| {
        let stop = attempt.stop.as_ref();
        stop.is_some_and(|stop| told[&attempt.id].plus_seconds(stop.grace_s.into()) <= cluster.now)
    });
    for attempt in over.cloned().collect::<Vec<Arc<Attempt>>>() {
        let ended = Attempt {
            state: AttemptState::Ended,
            ended: Some(cluster.now),
            ..Attempt::clone(&attempt)
        };
        cluster.apply(&Change::AttemptMoved(Arc::new(ended)));
        // It is not tried again, so that what is there only gets more.
        cluster.status(attempt.id.job, |status| status.state = JobState::Cancelled);
    }
}

#[test]
fn a_job_that_waits_for_the_rest_keeps_what_is_free_from_one_behind_it() {
    let mut cluster = cluster(recall(8));
    cluster.policy.min_runtime_before_preemption_s = 3600;
    for _ in 0..7 {
        cluster.job().project("public/b").gpus(1, "b200").grace_s(8).submit();
    }
    commit_all(&mut cluster);
    let first = cluster.job().project("public/a").gpus(2, "b200").submit();
    commit_all(&mut cluster);
    cluster.now = cluster.now.plus_seconds(1);
    let second = cluster.job().project("public/a").gpus(1, "b200").submit();
    commit_all(&mut cluster);
    cluster.now = cluster.now.plus_seconds(7);
    // A second attempt stops for the second job; of the two that will be free, one is as good as the other.
    cluster.expect_waiting(first);
    cluster.expect_waiting(second);
    cluster.check();
}
