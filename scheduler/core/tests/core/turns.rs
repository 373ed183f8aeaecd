//! Whose turn it is by what was used before: stories of weeks, hour by hour, on one small machine.

use gotgan_core::amount::{GpuMilli, UnixMicros};
use gotgan_core::attempt::{Cause, Outcome};
use gotgan_core::change::Change;
use gotgan_core::fairshare::{HeldFor, History, OrderRule};
use gotgan_core::ids::{AttemptId, GpuClass, JobId, ProjectPath};
use gotgan_core::job::JobState;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::TestCluster;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// Eight GPUs; projects with these weights and no guarantee.
fn cluster(projects: &[(&str, u32)]) -> TestCluster {
    let mut cluster = TestCluster::new();
    cluster.now = UnixMicros(1_790_000_000_000_000);
    cluster.node("n1").gpus(8, "b200").add();
    for (path, weight) in projects {
        cluster.guarantee(path, *weight, &[]);
    }
    cluster.check();
    cluster
}

/// Writes down that a project held GPUs for so many days until some days ago.
fn used(cluster: &mut TestCluster, path: &str, gpus: u32, days: i64, until_days_ago: i64) {
    let until = cluster.now.plus_seconds(-until_days_ago * DAY);
    cluster.world.history.add(&HeldFor {
        project: ProjectPath::new(path).unwrap(),
        class: GpuClass::new("b200").unwrap(),
        gpus: GpuMilli::whole(gpus),
        from: until.plus_seconds(-days * DAY),
        until,
        refunded: false,
    });
}

/// Who of these gets the machine that is free now, each with a job for all of it.
fn first(cluster: &TestCluster, projects: &[&str]) -> String {
    let mut cluster = cluster.copy();
    let jobs: Vec<_> =
        projects.iter().map(|path| cluster.job().project(path).gpus(8, "b200").submit()).collect();
    let outcome = cluster.check();
    let starts = projects.iter().zip(jobs).filter(|(_, job)| outcome.placement(*job).is_some());
    starts.map(|(path, _)| *path).collect::<Vec<_>>().join(" ")
}

/// Lets hours pass in which each project keeps so many jobs of one GPU and an hour waiting; GPU-hours of each.
fn hours(
    cluster: &mut TestCluster,
    hours: i64,
    waiting: &[(&str, usize)],
) -> BTreeMap<String, i64> {
    let mut got = BTreeMap::new();
    for _ in 0..hours {
        for (path, jobs) in waiting {
            let all = cluster.world.jobs.values();
            let own = all.filter(|job| job.spec.project.as_str() == *path);
            let waits = own.filter(|job| job.status.state == JobState::Pending).count();
            for _ in waits..*jobs {
                cluster.job().project(path).gpus(1, "b200").submit();
            }
        }
        cluster.start_all();
        cluster.now = cluster.now.plus_seconds(HOUR);
        let running: Vec<JobId> = cluster.world.attempts.keys().map(|id| id.job).collect();
        for job in running {
            *got.entry(cluster.world.jobs[&job].spec.project.to_string()).or_default() += 1;
            cluster.end(job);
        }
    }
    got
}

#[test]
fn without_guarantees_whoever_used_least_for_its_weight_goes_first() {
    let mut cluster = cluster(&[("public/a", 1), ("public/b", 3)]);
    used(&mut cluster, "public/a", 2, 10, 1);
    used(&mut cluster, "public/b", 4, 10, 1);
    assert_eq!(first(&cluster, &["public/a", "public/b"]), "public/b");
    used(&mut cluster, "public/b", 4, 10, 1);
    assert_eq!(first(&cluster, &["public/a", "public/b"]), "public/a");
}

#[test]
fn a_priority_counts_among_the_jobs_of_a_project_and_not_against_others() {
    let mut cluster = cluster(&[("public/a", 1), ("public/b", 1)]);
    used(&mut cluster, "public/a", 2, 10, 1);
    let loud = cluster.job().project("public/a").gpus(8, "b200").priority(1000).submit();
    let low = cluster.job().project("public/b").gpus(8, "b200").priority(-1000).submit();
    let high = cluster.job().project("public/b").gpus(8, "b200").priority(-999).submit();
    cluster.expect_on(high, &["n1"]);
    cluster.expect_waiting(loud);
    cluster.expect_waiting(low);
    cluster.check();
}

#[test]
fn the_tree_is_walked_level_by_level_by_use() {
    let mut cluster = cluster(&[("x", 1), ("x/one", 1), ("x/two", 1), ("y", 1), ("y/one", 1)]);
    used(&mut cluster, "x/one", 4, 10, 1);
    used(&mut cluster, "y/one", 3, 10, 1);
    // x used more than y, so y/one goes first though x/two used nothing at all.
    assert_eq!(first(&cluster, &["x/one", "x/two", "y/one"]), "y/one");
    used(&mut cluster, "y/one", 3, 10, 1);
    assert_eq!(first(&cluster, &["x/one", "x/two", "y/one"]), "x/two");
}

#[test]
fn use_fades_and_what_was_given_back_never_counted() {
    let mut cluster = cluster(&[("public/a", 1), ("public/b", 1)]);
    used(&mut cluster, "public/a", 8, 10, 60);
    used(&mut cluster, "public/b", 8, 10, 30);
    assert_eq!(first(&cluster, &["public/a", "public/b"]), "public/a");
    let lost = cluster.job().project("public/a").gpus(8, "b200").submit();
    cluster.start_all();
    cluster.now = cluster.now.plus_seconds(5 * DAY);
    let id = AttemptId { job: lost, number: 1 };
    let attempt = gotgan_core::attempt::Attempt::clone(&cluster.world.attempts[&id]);
    let outcome = Some(Outcome { cause: Cause::Hardware, exit: None, detail: String::new() });
    let state = gotgan_core::attempt::AttemptState::Ended;
    let ended =
        gotgan_core::attempt::Attempt { state, outcome, ended: Some(cluster.now), ..attempt };
    cluster.apply(&Change::AttemptMoved(Arc::new(ended)));
    cluster.status(lost, |status| status.state = JobState::Completed);
    assert_eq!(first(&cluster, &["public/a", "public/b"]), "public/a");
}

#[test]
fn a_newcomer_with_endless_small_jobs_does_not_starve_an_old_project() {
    for rule in [OrderRule::UsePerShare, OrderRule::FairTree] {
        let mut cluster = cluster(&[("public/old", 1), ("public/new", 1)]);
        cluster.policy.fair_share_rule = rule;
        used(&mut cluster, "public/old", 8, 60, 0);
        let waiting = [("public/old", 12), ("public/new", 12)];
        let first_days = hours(&mut cluster, 3 * 24, &waiting);
        let (old, new) =
            (first_days.get("public/old").copied().unwrap_or(0), first_days["public/new"]);
        match rule {
            // Both are at the mean, so they share from the first hour on.
            OrderRule::UsePerShare => assert!(old.abs_diff(new) * 10 < 8 * 72, "{old} {new}"),
            OrderRule::FairTree => assert!(new > old, "{old} {new}"),
        }
        hours(&mut cluster, 30 * 24, &waiting);
        let later = hours(&mut cluster, 5 * 24, &waiting);
        let (old, new) = (later["public/old"], later["public/new"]);
        assert!(old * 10 >= new * 6 && new > old * 8 / 10, "{rule:?}: {old} {new}");
    }
}

#[test]
fn a_project_idle_for_months_comes_back_to_the_middle_and_to_its_share() {
    let mut cluster = cluster(&[("public/busy", 1), ("public/modest", 1), ("public/idle", 2)]);
    used(&mut cluster, "public/idle", 8, 30, 200);
    used(&mut cluster, "public/busy", 6, 60, 0);
    used(&mut cluster, "public/modest", 2, 60, 0);
    let all = ["public/busy", "public/idle", "public/modest"];
    assert_eq!(first(&cluster, &all), "public/modest");
    assert_eq!(first(&cluster, &all[..2]), "public/idle");
    cluster.policy.fair_share_rule = OrderRule::FairTree;
    assert_eq!(first(&cluster, &all), "public/idle");
    cluster.policy.fair_share_rule = OrderRule::UsePerShare;
    let waiting = [("public/busy", 12), ("public/modest", 12), ("public/idle", 12)];
    hours(&mut cluster, 20 * 24, &waiting);
    let later = hours(&mut cluster, 5 * 24, &waiting);
    let (idle, all) = (later["public/idle"], later.values().sum::<i64>());
    assert!(idle * 100 > all * 45 && idle * 100 < all * 62, "{later:?}");
}

#[test]
fn asking_for_less_or_more_now_moves_nobody() {
    let mut cluster = cluster(&[("public/a", 1), ("public/b", 1)]);
    used(&mut cluster, "public/a", 3, 10, 1);
    used(&mut cluster, "public/b", 4, 10, 1);
    let small = cluster.job().project("public/a").gpus(8, "b200").submit();
    for _ in 0..50 {
        cluster.job().project("public/b").gpus(8, "b200").waiting_since_s(60).submit();
    }
    cluster.expect_on(small, &["n1"]);
    cluster.check();
}

#[test]
fn where_others_are_guaranteed_everything_the_rest_is_in_order_by_weight() {
    let mut cluster = cluster(&[("public/a", 1), ("public/b", 2)]);
    cluster.guarantee("public/sure", 1, &[("b200", 8)]);
    used(&mut cluster, "public/a", 2, 10, 1);
    used(&mut cluster, "public/b", 3, 10, 1);
    assert_eq!(first(&cluster, &["public/a", "public/b"]), "public/b");
}

#[test]
fn one_project_alone_goes_by_priority_and_age() {
    let mut cluster = cluster(&[("public/a", 1)]);
    let old = cluster.job().project("public/a").gpus(8, "b200").waiting_since_s(900).submit();
    let high = cluster.job().project("public/a").gpus(8, "b200").priority(1).submit();
    cluster.expect_on(high, &["n1"]);
    cluster.expect_waiting(old);
    cluster.check();
}

proptest! {
    /// Of three projects, whoever is first stays first if any other one used more, and does not become first by it.
    #[test]
    fn more_use_never_moves_a_project_forward(
        use_of in proptest::collection::vec((1..9_u32, 1..40_i64, 0..40_i64), 3), more in 1..9_u32, tree in any::<bool>(),
    ) {
        let names = ["public/a", "public/b", "public/c"];
        let mut cluster = cluster(&[("public/a", 1), ("public/b", 2), ("public/c", 3)]);
        cluster.policy.fair_share_rule = if tree { OrderRule::FairTree } else { OrderRule::UsePerShare };
        for (name, (gpus, days, ago)) in names.iter().zip(&use_of) {
            used(&mut cluster, name, *gpus, *days, *ago);
        }
        let before = first(&cluster, &names);
        prop_assert!(names.contains(&before.as_str()));
        // The same days again, so that nobody asked for longer than before.
        let (_, days, ago) = use_of[0];
        used(&mut cluster, "public/a", more, days, ago);
        let after = first(&cluster, &names);
        prop_assert!(after == before || after != "public/a", "{} {}", before, after);
        let nothing = History::default();
        cluster.world.history = nothing;
        prop_assert!(!first(&cluster, &names).is_empty());
    }
}

#[test]
fn why_says_who_goes_first_by_fair_share_and_with_which_numbers() {
    let mut cluster = cluster(&[("public/a", 1), ("public/b", 3)]);
    used(&mut cluster, "public/a", 2, 10, 1);
    used(&mut cluster, "public/b", 1, 10, 1);
    let small = cluster.job().project("public/a").gpus(8, "b200").submit();
    cluster.start_all();
    let behind = cluster.job().project("public/a").gpus(8, "b200").submit();
    let ahead = cluster.job().project("public/b").gpus(8, "b200").submit();
    let outcome = cluster.check();
    let why = |job| {
        let report = Some(&outcome.plan.report);
        let found = gotgan_core::explain::explain(&cluster.world, job, report, None).unwrap();
        found.blockers.iter().map(gotgan_core::explain::sentence).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(why(behind), @"
    needs 8 b200 GPUs; 0 of 8 are free
    1 of those beside public/a that wait for the same goes first by fair share: public/a has 19.9 % of the shares there and 95.9 % of the use that counts
    ");
    insta::assert_snapshot!(why(ahead), @"needs 8 b200 GPUs; 0 of 8 are free");
    cluster.end(small);
}
