//! A guarantee that was lent out is given back: the planner stops what borrows, no more than needed, and what was
//! stopped goes on from its checkpoint when there is room again.

use std::fs;
use std::path::Path;

use gotgan_proto::v1::{self, Cause, Job, JobState};
use gotgan_tests::jobs::{Shape, command, shell};
use gotgan_tests::virtual_worker::Script;
use gotgan_tests::{Api, Cluster, Database, audit, deadline};

on_each_database! {
    a_guarantee_that_was_lent_out_is_given_back_and_no_more_than_needed_is_stopped,
    a_job_that_was_stopped_for_a_guarantee_goes_on_from_its_checkpoint,
    nothing_is_stopped_for_a_job_beyond_its_guarantee,
    a_guarantee_with_a_time_is_given_back_although_what_borrows_is_young,
    a_scavenger_stops_for_a_job_that_borrows_and_costs_nothing,
}

/// Two labs share eight GPUs: six are one's, two the other's.
const QUOTA: &str = r#"
[node.centre]
decision = "D-1"
guarantee = { b200 = 8 }
[node."centre/large"]
guarantee = { b200 = 6 }
[node."centre/small"]
guarantee = { b200 = 2 }
"#;

/// Borrowers are not safe for a minute, so that a test need not last one.
const SETTINGS: &str = "[policy]\nmin_runtime_before_preemption_s = 0\n";

async fn cluster(database: Database) -> Cluster {
    Cluster::builder(database).quota(QUOTA).settings(SETTINGS).start().await
}

async fn submit(api: &Api, project: &str, gpus: u32) -> u64 {
    api.submit(command(&["/bin/true"]).project(project).class("b200").gpus(gpus)).await
}

async fn run(api: &Api, project: &str, gpus: u32) -> u64 {
    let job = submit(api, project, gpus).await;
    api.wait_for_state(job, JobState::Running).await;
    job
}

/// Waits until the job has run in a first attempt that was stopped for another.
async fn preempted(api: &Api, job: u64) -> Job {
    deadline::until(&format!("job {job} to be preempted"), async || {
        let found = api.job(job).await;
        let first = found.attempts.first().map(|attempt| attempt.cause());
        if first == Some(Cause::Preempted) { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .await
}

async fn a_guarantee_that_was_lent_out_is_given_back_and_no_more_than_needed_is_stopped(
    database: Database,
) {
    let cluster = cluster(database).await;
    let api = &cluster.api;
    let _node = cluster.add_virtual("n1", "b200", 8, Script::forever()).await;
    let own = run(api, "centre/small", 2).await;
    let lent = run(api, "centre/small", 2).await;
    let lent_later = run(api, "centre/small", 4).await;
    let entitled = run(api, "centre/large", 4).await;
    preempted(api, lent_later).await;
    for safe in [own, lent] {
        let job = api.job(safe).await;
        assert_eq!((job.state(), job.attempts.len()), (JobState::Running, 1), "{job:?}");
    }
    assert_eq!(api.job(lent_later).await.state(), JobState::Pending);
    // When the guarantee is not used any more, what was stopped runs again.
    api.jobs().cancel(Api::action(entitled, "")).await.unwrap();
    api.wait_for_state(lent_later, JobState::Running).await;
    for job in [own, lent, lent_later] {
        api.jobs().cancel(Api::action(job, "")).await.unwrap();
        api.wait_for_end(job).await;
    }
    audit::ledger(api).await;
}

/// Counts on from what the file says, and says where it began.
fn counting(checkpoint: &Path) -> String {
    let file = checkpoint.display();
    format!(
        "n=$(cat {file} 2>/dev/null || echo 0); echo $n >> {file}.begun; \
         while true; do n=$((n+1)); echo $n > {file}.new && mv {file}.new {file}; sleep 0.02; done"
    )
}

async fn a_job_that_was_stopped_for_a_guarantee_goes_on_from_its_checkpoint(database: Database) {
    let mut cluster = cluster(database).await;
    cluster.add_worker("node-a", "8xB200").await;
    let checkpoint = cluster.scratch("state").join("checkpoint");
    let spec = shell(&counting(&checkpoint)).project("centre/small").class("b200").gpus(4);
    let lent = cluster.api.submit(spec).await;
    deadline::until("a checkpoint", async || {
        let text = fs::read_to_string(&checkpoint).unwrap_or_default();
        let count: u32 = text.trim().parse().unwrap_or(0);
        if count >= 10 { Ok(()) } else { Err(text) }
    })
    .await;
    let spec = shell("exit 0").project("centre/large").class("b200").gpus(6);
    let entitled = cluster.api.submit(spec).await;
    let ended = cluster.api.wait_for_end(entitled).await;
    assert_eq!(ended.state(), JobState::Completed, "{ended:?}");
    preempted(&cluster.api, lent).await;
    let begun = checkpoint.with_extension("begun");
    let begun = deadline::until("the job to begin again", async || {
        let text = fs::read_to_string(&begun).unwrap_or_default();
        let begun: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        if begun.len() == 2 { Ok(begun) } else { Err(text) }
    })
    .await;
    assert!(begun[0] == 0 && begun[1] >= 10, "began at {begun:?}");
    cluster.api.jobs().cancel(Api::action(lent, "")).await.unwrap();
    cluster.api.wait_for_end(lent).await;
    audit::ledger(&cluster.api).await;
}

async fn nothing_is_stopped_for_a_job_beyond_its_guarantee(database: Database) {
    let cluster = cluster(database).await;
    let api = &cluster.api;
    let _node = cluster.add_virtual("n1", "b200", 8, Script::forever()).await;
    let lent = run(api, "centre/small", 8).await;
    // More than the six it is sure of: it borrows itself, and borrowers do not stop borrowers.
    let waiting = submit(api, "centre/large", 7).await;
    let passes = async || api.status().await.unwrap().passes;
    let before = passes().await;
    deadline::until("some passes", async || {
        let now = passes().await;
        if now >= before + 3 { Ok(()) } else { Err(format!("{now} passes")) }
    })
    .await;
    assert_eq!(api.job(waiting).await.state(), JobState::Pending);
    assert_eq!(api.job(lent).await.attempts.len(), 1);
    assert_eq!(api.job(lent).await.state(), JobState::Running);
}

/// As [`QUOTA`], with the time in which the larger lab gets back what it lent.
const QUOTA_WITH_RECALL: &str = r#"
[node.centre]
decision = "D-1"
guarantee = { b200 = 8 }
[node."centre/large"]
guarantee = { b200 = 6 }
lend = { recall = "5s" }
[node."centre/small"]
guarantee = { b200 = 2 }
"#;

async fn a_guarantee_with_a_time_is_given_back_although_what_borrows_is_young(database: Database) {
    // Far longer than any test waits, and more time to end than the recall leaves.
    let settings = "[policy]\nmin_runtime_before_preemption_s = 36000\ndefault_grace_s = 3000\n";
    let mut cluster =
        Cluster::builder(database).quota(QUOTA_WITH_RECALL).settings(settings).start().await;
    cluster.add_worker("node-a", "8xB200").await;
    let stubborn = shell("trap '' TERM; while true; do sleep 1; done");
    let lent = cluster.api.submit(stubborn.project("centre/small").class("b200").gpus(8)).await;
    cluster.api.wait_for_state(lent, JobState::Running).await;
    let spec = shell("exit 0").project("centre/large").class("b200").gpus(6);
    let entitled = cluster.api.submit(spec).await;
    let ended = cluster.api.wait_for_end(entitled).await;
    assert_eq!(ended.state(), JobState::Completed, "{ended:?}");
    preempted(&cluster.api, lent).await;
    cluster.api.jobs().cancel(Api::action(lent, "")).await.unwrap();
}

async fn a_scavenger_stops_for_a_job_that_borrows_and_costs_nothing(database: Database) {
    let safe = "[policy]\nmin_runtime_before_preemption_s = 3600\n";
    let cluster = Cluster::builder(database).quota(QUOTA).settings(safe).start().await;
    let api = &cluster.api;
    let _node = cluster.add_virtual("n1", "b200", 8, Script::forever()).await;
    let spec = command(&["/bin/true"]).project("centre/small").class("b200").gpus(8);
    let scavenger = api.submit(v1::JobSpec { scavenger: true, ..spec }).await;
    api.wait_for_state(scavenger, JobState::Running).await;
    let borrower = run(api, "centre/small", 4).await;
    let stopped = preempted(api, scavenger).await;
    assert_eq!(stopped.state(), JobState::Pending, "four GPUs are too few: {stopped:?}");
    for job in [borrower, scavenger] {
        api.jobs().cancel(Api::action(job, "")).await.unwrap();
        api.wait_for_end(job).await;
    }
    audit::ledger(api).await;
    let free = command(&["/bin/true"]).project("centre/small");
    let refused = api.try_submit(v1::JobSpec { scavenger: true, ..free }).await.unwrap_err();
    assert!(refused.message().contains("scavenger"), "{refused:?}");
}
