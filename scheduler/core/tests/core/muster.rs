//! What starts while nodes come back to a scheduler that has just begun to lead.

use gotgan_core::amount::UnixMicros;
use gotgan_core::change::Change;
use gotgan_core::explain::sentence;
use gotgan_core::ids::{JobId, NodeName};
use gotgan_core::muster;
use gotgan_core::node::Liveness;
use gotgan_core::plan::{Decision, Plan};
use gotgan_core::planner::{plan_event, plan_event_in_full, plan_full};
use proptest::prelude::*;

use crate::cluster::TestCluster;

/// Nodes with eight GPUs each, which a scheduler knows that has just begun to lead.
fn after_a_start(nodes: &[&str]) -> TestCluster {
    let mut cluster = TestCluster::new();
    for name in nodes {
        cluster.node(name).gpus(8, "b200").add();
        cluster.heard(name, Liveness::Unknown);
    }
    muster::count_on_all(&mut cluster.world);
    cluster
}

impl TestCluster {
    /// A node that is awaited reports, as the planner's thread takes it.
    fn reports(&mut self, name: &str) {
        let node = NodeName::new(name).unwrap();
        self.bearings.see_reported(&node);
        let liveness = Liveness::Ready;
        self.world.apply(&Change::NodeHeard { node, liveness, at: UnixMicros::default() });
    }

    /// A full pass that leaves bearings for passes that follow events; nothing it decides has happened yet.
    fn full(&mut self) -> Plan {
        let (plan, bearings) = plan_full(&self.planned, &self.world, &self.policy, self.now);
        self.bearings = bearings;
        plan
    }

    /// A pass for an event, which must decide what it decides the long way.
    fn event(&mut self) -> Plan {
        let long = plan_event_in_full(&self.bearings, &self.world, &self.policy, self.now);
        let short = plan_event(&mut self.bearings, &self.world, &self.policy, self.now).unwrap();
        assert_eq!(short.decisions, long.unwrap().decisions);
        short
    }

    /// Lets happen what can be done of a plan.
    fn take_done(&mut self, mut plan: Plan) {
        muster::hold_back(&mut plan, &self.world);
        self.take(&plan);
    }
}

/// What is done of a plan, and of what was held back why.
fn done(cluster: &TestCluster, mut plan: Plan) -> (Vec<JobId>, Vec<String>) {
    muster::hold_back(&mut plan, &cluster.world);
    let starts = plan.decisions.iter().map(|decision| match decision {
        Decision::Start { job, .. } => *job,
        Decision::Preempt { .. } => panic!("nobody is stopped"),
    });
    let held = plan.report.jobs.values().flat_map(|list| list.iter().map(sentence));
    (starts.collect(), held.collect())
}

#[test]
fn of_equal_nodes_one_that_has_reported_comes_first() {
    let mut cluster = after_a_start(&["n1", "n2", "n3"]);
    cluster.reports("n2");
    let whole = cluster.job().gpus(1, "b200").submit();
    let share = cluster.job().share(500, "b200").submit();
    let none = cluster.job().submit();
    for job in [whole, share, none] {
        cluster.expect_on(job, &["n2"]);
    }
    let (started, held) = done(&cluster, cluster.copy().check().plan);
    assert_eq!((started.len(), held.len()), (3, 0));
    cluster.check();
}

#[test]
fn nobody_takes_the_place_of_a_gang_one_of_whose_nodes_has_yet_to_report() {
    let mut cluster = after_a_start(&["n1", "n2"]);
    cluster.reports("n1");
    let gang = cluster.job().gpus(8, "b200").nodes(2).submit();
    let small = cluster.job().gpus(1, "b200").submit();
    cluster.expect_on(gang, &["n1", "n2"]);
    cluster.expect_waiting(small);
    let plan = cluster.check().plan;
    let (started, held) = done(&cluster, plan);
    assert_eq!(started, []);
    assert_eq!(
        held,
        ["needs 2 nodes and 1 is free; would serve but take no work: \
          n2 (not heard since this scheduler began to lead)"]
    );
    cluster.reports("n2");
    let plan = cluster.check().plan;
    assert_eq!(done(&cluster, plan).0, [gang]);
}

#[test]
fn a_job_waits_a_moment_for_the_node_that_it_fills_up() {
    let mut cluster = TestCluster::new();
    for name in ["n1", "n2"] {
        cluster.node(name).gpus(8, "b200").add();
    }
    cluster.job().gpus(6, "b200").submit();
    cluster.start_all();
    for name in ["n1", "n2"] {
        cluster.heard(name, Liveness::Unknown);
    }
    muster::count_on_all(&mut cluster.world);
    cluster.reports("n2");
    let job = cluster.job().gpus(2, "b200").submit();
    cluster.expect_on(job, &["n1"]);
    let plan = cluster.check().plan;
    assert_eq!(done(&cluster, plan).0, []);
    // Once nobody is counted on any more, it takes what is there.
    muster::count_on_none(&mut cluster.world);
    cluster.expect_on(job, &["n2"]);
    cluster.copy().check();
}

#[test]
fn nodes_that_are_drained_are_not_counted_on() {
    let mut cluster = after_a_start(&["n1"]);
    cluster.drain("n1", "fan");
    let job = cluster.job().gpus(1, "b200").submit();
    cluster.expect_waiting(job);
    cluster.check();
}

#[test]
fn a_node_that_reports_calls_for_no_full_pass() {
    let mut cluster = after_a_start(&["n1", "n2"]);
    let job = cluster.job().gpus(8, "b200").submit();
    let plan = cluster.full();
    assert_eq!(done(&cluster, plan), (vec![], vec![held_for("n1")]));
    cluster.reports("n2");
    let plan = cluster.event();
    assert_eq!(done(&cluster, plan).0, [job]);
    cluster.check();
}

fn held_for(node: &str) -> String {
    format!(
        "needs 1 node and none is free; would serve but take no work: \
         {node} (not heard since this scheduler began to lead)"
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn in_whatever_order_nodes_report_jobs_start_on_those_that_have_and_in_the_end_all_that_fit(
        order in Just((0..6_usize).collect::<Vec<_>>()).prop_shuffle(),
        jobs in prop::collection::vec((1..=8_u32, 1..=3_u32), 1..8),
    ) {
        let names = ["n0", "n1", "n2", "n3", "n4", "n5"];
        let mut cluster = after_a_start(&names);
        for (gpus, nodes) in jobs {
            cluster.job().gpus(gpus, "b200").nodes(nodes).submit();
        }
        let plan = cluster.full();
        cluster.take_done(plan);
        for node in order {
            cluster.reports(names[node]);
            let plan = cluster.event();
            cluster.take_done(plan);
            let held = cluster.world.attempts.values().flat_map(|one| &one.placement.nodes);
            for held in held {
                prop_assert!(!cluster.world.nodes[&held.node].awaited, "{} has yet to report", held.node);
            }
        }
        prop_assert_eq!(cluster.check().plan.decisions, vec![]);
    }
}
