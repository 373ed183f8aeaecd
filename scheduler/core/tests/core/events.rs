//! Passes for events: they decide what the long way decides, and what a full pass would where nothing but room and turns
//! count.

use std::collections::BTreeSet;

use gotgan_core::check;
use gotgan_core::plan::{Decision, Plan};
use gotgan_core::planner::{Bearings, plan_event, plan_event_in_full};
use proptest::prelude::*;

use crate::cluster::TestCluster;
use crate::precedence::hold_against_record;
use crate::sketch::sketch;

/// Panics if a pass for an event does not decide what it decides the long way, by the bearings of the last full pass
/// and by new ones; or what the full pass has decided, where that is to be the same.
pub fn hold_events_against_full(cluster: &TestCluster, full: &Plan, bearings: &Bearings) {
    if let Some(plan) = hold_event(cluster, &cluster.bearings) {
        assert_eq!(check::plan(&cluster.world, &plan), [], "by old bearings");
    }
    let Some(plan) = hold_event(cluster, bearings) else { return };
    assert_eq!(check::plan(&cluster.world, &plan), [], "by new bearings");
    if only_turns_count(cluster) {
        assert_eq!(plan.decisions, full.decisions, "other than the full pass");
        // Why the others wait is told by full passes alone.
        hold_against_record(&cluster.world, &Plan { report: full.report.clone(), ..plan });
    }
}

fn hold_event(cluster: &TestCluster, bearings: &Bearings) -> Option<Plan> {
    let TestCluster { world, policy, now, .. } = cluster;
    let short = plan_event(&mut bearings.clone(), world, policy, *now);
    let long = plan_event_in_full(bearings, world, policy, *now);
    let decisions = |plan: &Option<Plan>| plan.as_ref().map(|plan| plan.decisions.clone());
    assert_eq!(decisions(&short), decisions(&long), "the short way and the long way differ");
    short
}

/// Whether a full pass has nothing else to decide: nobody is guaranteed anything or has a budget, no start is planned and
/// nothing is avoided.
fn only_turns_count(cluster: &TestCluster) -> bool {
    let TestCluster { world, policy, .. } = cluster;
    let mut nodes = world.quota.nodes.values();
    let promises = nodes
        .any(|node| node.budget.is_some() || node.guarantees.values().any(|gpus| !gpus.is_zero()));
    let avoids = world.jobs.values().any(|job| !job.status.avoid.is_empty());
    !promises && !avoids && policy.planned_gangs_per_project == 0
}

fn started(plan: &Plan) -> BTreeSet<u64> {
    let started = plan.decisions.iter().filter_map(|decision| match decision {
        Decision::Start { job, .. } => Some(job.0),
        Decision::Preempt { .. } => None,
    });
    started.collect()
}

#[test]
fn what_ends_makes_room_for_the_first_in_turn_alone() {
    let mut cluster = TestCluster::new();
    for name in ["n1", "n2"] {
        cluster.node(name).gpus(8, "b200").add();
    }
    let ending = cluster.job().gpus(8, "b200").submit();
    cluster.job().gpus(8, "b200").submit();
    cluster.run_all();
    let gang = cluster.job().gpus(8, "b200").nodes(2).submit();
    let first = cluster.job().gpus(8, "b200").submit();
    let second = cluster.job().gpus(8, "b200").submit();
    cluster.start_all();
    cluster.end(ending);
    let plan =
        plan_event(&mut cluster.bearings.clone(), &cluster.world, &cluster.policy, cluster.now);
    let plan = plan.unwrap();
    assert_eq!(
        started(&plan),
        BTreeSet::from([first.0]),
        "not {gang}, which lacks a node, nor {second}"
    );
    assert!(plan.report.considered < 3, "the gang is not even looked at");
    cluster.check();
}

#[test]
fn a_node_that_comes_or_goes_needs_a_full_pass() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").add();
    cluster.job().gpus(8, "b200").submit();
    cluster.start_all();
    assert!(cluster.bearings.suffice_for(&cluster.world));
    cluster.drain("n1", "fan");
    assert!(!cluster.bearings.suffice_for(&cluster.world));
    cluster.check();
}

#[test]
fn bearings_that_missed_a_change_are_of_no_use() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").add();
    cluster.job().gpus(8, "b200").submit();
    let mut before = cluster.bearings.clone();
    cluster.start_all();
    assert!(!before.suffice_for(&cluster.world));
    assert_eq!(plan_event(&mut before, &cluster.world, &cluster.policy, cluster.now), None);
}

#[test]
fn while_others_stop_for_somebody_only_full_passes_decide() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").add();
    cluster.guarantee("public/owner", 1, &[("b200", 8)]);
    cluster.policy.min_runtime_before_preemption_s = 0;
    cluster.job().gpus(8, "b200").submit();
    cluster.run_all();
    cluster.later(60);
    cluster.job().project("public/owner").gpus(8, "b200").submit();
    let plan = cluster.start_all().plan;
    assert!(matches!(plan.decisions[..], [Decision::Preempt { .. }]), "{:?}", plan.decisions);
    assert!(!cluster.bearings.suffice_for(&cluster.world));
}

#[test]
fn nobody_borrows_in_a_pass_for_an_event_what_somebody_within_a_guarantee_waits_for() {
    let mut cluster = TestCluster::new();
    for name in ["n1", "n2"] {
        cluster.node(name).gpus(8, "b200").add();
    }
    cluster.guarantee("public/owner", 1, &[("b200", 16)]);
    let young = cluster.job().gpus(8, "b200").submit();
    cluster.job().gpus(8, "b200").submit();
    cluster.run_all();
    let gang = cluster.job().project("public/owner").gpus(8, "b200").nodes(2).submit();
    let borrower = cluster.job().gpus(8, "b200").submit();
    cluster.expect_waiting(gang);
    cluster.start_all();
    cluster.end(young);
    let bearings = &mut cluster.bearings.clone();
    let plan = plan_event(bearings, &cluster.world, &cluster.policy, cluster.now).unwrap();
    assert_eq!(plan.decisions, [], "{borrower} would take what {gang} waits for");
    cluster.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200.max(ProptestConfig::default().cases), failure_persistence: None, ..ProptestConfig::default() })]

    /// `check` holds every pass for an event against the long way; this makes things end in between.
    #[test]
    fn as_jobs_end_passes_for_events_decide_what_the_long_way_decides(
        sketch in sketch(), guarantees in any::<[u32; 8]>(), has_guarantees in any::<bool>(),
        plans in any::<bool>(), ends in proptest::collection::vec(any::<prop::sample::Index>(), 1..6),
    ) {
        let mut cluster =
            if has_guarantees { sketch.build_guaranteed(guarantees) } else { sketch.build() };
        cluster.policy.planned_gangs_per_project = if plans { 2 } else { 0 };
        cluster.run_all();
        for end in ends {
            let running: Vec<_> = cluster.world.attempts.keys().map(|id| id.job).collect();
            if running.is_empty() {
                break;
            }
            cluster.later(30);
            cluster.end(*end.get(&running));
            let bearings = &mut cluster.bearings.clone();
            if let Some(plan) = plan_event(bearings, &cluster.world, &cluster.policy, cluster.now) {
                cluster.check();
                cluster.take(&plan);
            } else {
                cluster.run_all();
            }
        }
        cluster.check();
    }
}
