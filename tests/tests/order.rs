//! `gotgan why A --before B`: what decided between two jobs, from the record of the start, checked by the client; and
//! what somebody is told who may see only one of them.

use gotgan_proto::v1::{self, JobState, OrderRule, OrderVerdict, Role};
use gotgan_tests::jobs::{Shape, command};
use gotgan_tests::virtual_worker::{Script, VirtualWorker};
use gotgan_tests::{Api, Cluster, Database};
use tonic::Status;
use tonic_types::StatusExt;

on_each_database! {
    a_start_is_explained_by_its_record_and_the_client_checks_it,
    who_may_see_one_of_two_jobs_learns_of_the_other_only_what_was_compared,
    what_cannot_be_answered_says_why,
}

const QUOTA: &str = r#"
[node."centre"]
title = "Test centre"
[node."centre/one"]
title = "One"
[node."centre/two"]
title = "Two"
[node."centre/three"]
title = "Three"
"#;

async fn cluster(database: Database) -> (Cluster, VirtualWorker) {
    let cluster = Cluster::builder(database).quota(QUOTA).start().await;
    let node = cluster.add_virtual("big", "b200", 4, Script::forever()).await;
    (cluster, node)
}

async fn submit(api: &Api, project: &str, gpus: u32) -> u64 {
    api.submit(command(&["/bin/true"]).project(project).class("b200").gpus(gpus)).await
}

async fn run(api: &Api, project: &str, gpus: u32) -> u64 {
    let job = submit(api, project, gpus).await;
    api.wait_for_state(job, JobState::Running).await;
    job
}

async fn order(api: &Api, job_id: u64, before_job_id: u64) -> Result<v1::OrderExplanation, Status> {
    let request = v1::ExplainOrderRequest { job_id, before_job_id };
    api.jobs().explain_order(request).await.map(tonic::Response::into_inner)
}

/// One node of 4 GPUs: a job of the first project holds 2 of them and goes on, one of the second project holds the others
/// until it is cancelled; two wait for these then, of which that of the second project starts.
async fn two_that_wait(cluster: &Cluster) -> (u64, u64) {
    let api = &cluster.api;
    run(api, "centre/one", 2).await;
    let ends = run(api, "centre/two", 2).await;
    let waits = submit(api, "centre/one", 2).await;
    let starts = submit(api, "centre/two", 2).await;
    api.wait_for_blocker(waits, v1::BlockerKind::Capacity).await;
    api.wait_for_blocker(starts, v1::BlockerKind::Capacity).await;
    api.jobs().cancel(Api::action(ends, "")).await.unwrap();
    api.wait_for_state(starts, JobState::Running).await;
    (starts, waits)
}

async fn a_start_is_explained_by_its_record_and_the_client_checks_it(database: Database) {
    let (cluster, _node) = cluster(database).await;
    let (starts, waits) = two_that_wait(&cluster).await;
    let told = order(&cluster.api, starts, waits).await.unwrap();
    assert_eq!(told.verdict(), OrderVerdict::First, "{told:?}");
    assert_eq!(told.rule(), OrderRule::Share, "{told:?}");
    let other = told.other.clone().unwrap();
    assert_eq!(other.rungs.last().unwrap().node, "centre/one", "{told:?}");
    assert!(other.own.is_some() && told.epoch > 0 && told.pass > 0, "{told:?}");
    let words = ["why", &starts.to_string(), "--before", &waits.to_string(), "--check"];
    let text = cluster.gotgan().run(&words).ok();
    assert!(text.contains("by fair share") && text.contains("check: holds"), "{text}");
    assert!(text.contains("decides") && text.contains("centre/one"), "{text}");
    let json = cluster.gotgan().run(&[&words[..], &["--json"]].concat()).json();
    assert_eq!(json["check"]["holds"], true, "{json}");
    assert_eq!((&json["verdict"], &json["rule"]), (&"first".into(), &"share".into()), "{json}");
    let later = submit(&cluster.api, "centre/two", 1).await;
    let told = order(&cluster.api, starts, later).await.unwrap();
    assert_eq!(told.verdict(), OrderVerdict::Absent, "{told:?}");
    assert!(told.text.contains("submitted later"), "{told:?}");
}

async fn who_may_see_one_of_two_jobs_learns_of_the_other_only_what_was_compared(
    database: Database,
) {
    let (cluster, _node) = cluster(database).await;
    let (starts, waits) = two_that_wait(&cluster).await;
    for project in ["centre/one", "centre/two"] {
        let member = cluster.api.as_member("lee", &[project]).await;
        let told = order(&member, starts, waits).await.unwrap();
        assert_eq!(told.rule(), OrderRule::Share, "{told:?}");
        let foreign = if project == "centre/one" { &told.first } else { &told.other };
        let foreign = foreign.as_ref().unwrap();
        assert!(foreign.own.is_none() && foreign.rungs.len() == 1, "{told:?}");
        assert!(foreign.rungs.iter().all(|rung| rung.node.is_empty()), "{told:?}");
        let hidden = if project == "centre/one" { "centre/two" } else { "centre/one" };
        assert!(!told.text.contains(hidden), "{told:?}");
    }
    let token = cluster.api.create_token("kim", Role::Member, &["centre/one"], 0).await.token;
    let words = ["why", &starts.to_string(), "--before", &waits.to_string(), "--check"];
    let text = cluster.gotgan_as(&token).run(&words).ok();
    assert!(text.contains("check: holds"), "{text}");
    let stranger = cluster.api.as_member("park", &["centre/three"]).await;
    assert_eq!(reason(&order(&stranger, starts, waits).await.unwrap_err()), "UNKNOWN_JOB");
}

fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    details.error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

async fn what_cannot_be_answered_says_why(database: Database) {
    let (cluster, _node) = cluster(database).await;
    let first = run(&cluster.api, "centre/one", 2).await;
    let second = run(&cluster.api, "centre/two", 2).await;
    let waits = submit(&cluster.api, "centre/two", 1).await;
    let refused = async |job, before| reason(&order(&cluster.api, job, before).await.unwrap_err());
    assert_eq!(refused(first, first).await, "CONFLICT");
    assert_eq!(refused(waits, first).await, "NOT_STARTED");
    assert_eq!(refused(second, first).await, "STARTED_FIRST");
    assert_eq!(refused(first, 9_999).await, "UNKNOWN_JOB");
    let words = ["why", &second.to_string(), "--before", &first.to_string()];
    cluster.gotgan().run(&words).fails_with(7, &["started first", "--before"]);
}
