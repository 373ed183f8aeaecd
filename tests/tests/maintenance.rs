//! Maintenance: planned by an operator, kept by time limits, over by itself, and known to another leader.

use gotgan_proto::v1::{self, BlockerKind, JobState, MaintenanceState, NodeAdmin};
use gotgan_tests::jobs::{Shape, command};
use gotgan_tests::virtual_worker::Script;
use gotgan_tests::{Api, Cluster, Database};
use tonic::Code;

on_each_database! {
    a_job_that_would_run_into_maintenance_waits_and_is_told_the_limit_that_would_do,
    maintenance_stops_what_runs_if_it_is_told_to_and_is_over_by_itself,
    maintenance_survives_a_restart_and_is_planned_once_for_a_key,
}

/// Exit code of `gotgan` where there is no such thing.
const NOT_FOUND: i32 = 4;

fn request(nodes: &[&str], duration_s: i64) -> v1::PlanMaintenanceRequest {
    v1::PlanMaintenanceRequest {
        idempotency_key: gotgan_tests::api::fresh_key(),
        nodes: nodes.iter().map(ToString::to_string).collect(),
        duration_s,
        reason: "new switch".to_owned(),
        ..Default::default()
    }
}

async fn node(api: &Api, name: &str) -> v1::Node {
    api.try_node(name).await.unwrap()
}

async fn a_job_that_would_run_into_maintenance_waits_and_is_told_the_limit_that_would_do(
    database: Database,
) {
    let cluster = Cluster::start(database).await;
    let _nodes = cluster.add_virtual("v0", "b200", 2, Script::forever()).await;
    let api = &cluster.api;
    let text = cluster
        .gotgan()
        .run(&["node", "maintenance", "v0", "--from", "+2h", "--for", "1h", "--reason", "fans"])
        .ok();
    assert!(text.contains("fans") && text.contains("nothing runs past"), "{text}");
    let long = api.submit(command(&["/bin/true"]).gpus(1).limit(3 * 3600)).await;
    let blocker = api.wait_for_blocker(long, BlockerKind::Maintenance).await;
    assert!(blocker.text.contains("fans"), "{blocker:?}");
    assert!(blocker.hint.contains("or less it could start now"), "{blocker:?}");
    let short = api.submit(command(&["/bin/true"]).gpus(1).limit(3600)).await;
    api.wait_for_state(short, JobState::Running).await;
    let planned = node(api, "v0").await;
    assert_eq!(planned.admin(), NodeAdmin::Active);
    assert_eq!(planned.maintenance.unwrap().state(), MaintenanceState::Planned);
    let listed = cluster.gotgan().run(&["node", "maintenance", "--list"]).ok();
    assert!(listed.contains("fans"), "{listed}");
    cluster.gotgan().run(&["node", "maintenance", "--cancel", "1"]).ok();
    api.wait_for_state(long, JobState::Running).await;
    cluster.gotgan().run(&["node", "maintenance", "--cancel", "1"]).fails_with(NOT_FOUND, &["1"]);
}

async fn maintenance_stops_what_runs_if_it_is_told_to_and_is_over_by_itself(database: Database) {
    let cluster = Cluster::start(database).await;
    let _node = cluster.add_virtual("v0", "b200", 1, Script::forever()).await;
    let api = &cluster.api;
    let job = api.submit(command(&["/bin/true"]).gpus(1).grace(1)).await;
    api.wait_for_state(job, JobState::Running).await;
    let plan = v1::PlanMaintenanceRequest { stop_running: true, ..request(&["v0"], 5) };
    let planned = api.nodes().plan_maintenance(plan).await.unwrap().into_inner();
    let staying: Vec<u64> = planned.staying.iter().map(|one| one.job_id).collect();
    assert_eq!(staying, [job]);
    // It is back when the maintenance is over, without anybody's help.
    let again = api.wait_for_job(job, "a second attempt", |job| job.attempt == 2).await;
    assert_eq!(again.attempts[0].cause(), v1::Cause::Site, "{again:?}");
    assert_eq!(node(api, "v0").await.maintenance, None);
}

async fn maintenance_survives_a_restart_and_is_planned_once_for_a_key(database: Database) {
    let mut cluster = Cluster::start(database).await;
    let _node = cluster.add_virtual("v0", "b200", 1, Script::forever()).await;
    let api = cluster.api.clone();
    let plan = request(&["v0"], 3600);
    let first = api.nodes().plan_maintenance(plan.clone()).await.unwrap().into_inner();
    let again = api.nodes().plan_maintenance(plan).await.unwrap().into_inner();
    assert_eq!(first, again);
    cluster.scheduler.kill();
    cluster.scheduler.start();
    let known = node(&api, "v0").await;
    assert_eq!(known.admin(), NodeAdmin::Maintenance);
    assert_eq!(known.maintenance.unwrap().id, first.maintenance.unwrap().id);
    let bad = [
        (request(&["nowhere"], 60), Code::NotFound),
        (request(&["v0"], 0), Code::InvalidArgument),
        (request(&["v0"], 366 * 86_400), Code::InvalidArgument),
        (request(&[], 60), Code::InvalidArgument),
        (v1::PlanMaintenanceRequest { from_us: 1, ..request(&["v0"], 60) }, Code::InvalidArgument),
        (
            v1::PlanMaintenanceRequest { reason: String::new(), ..request(&["v0"], 60) },
            Code::InvalidArgument,
        ),
    ];
    for (request, code) in bad {
        let refused = api.nodes().plan_maintenance(request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
    }
}
