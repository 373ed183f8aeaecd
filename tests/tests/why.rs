//! `gotgan why`: each blocker by its name and with its numbers, in the API and on the command line.

use gotgan_proto::v1::{self, Blocker, BlockerKind, DependencyKind, JobState};
use gotgan_tests::jobs::{Shape, command};
use gotgan_tests::virtual_worker::{Script, VirtualWorker};
use gotgan_tests::{Api, Cluster, Database};

on_each_database! {
    a_job_over_the_limit_of_its_project_is_told_the_limit,
    a_job_over_the_limit_of_a_parent_is_told_which,
    a_job_without_enough_free_gpus_is_told_how_many_there_are,
    a_job_for_a_drained_node_is_told_who_drained_it_and_why,
    a_job_that_depends_on_another_is_told_on_which,
    a_held_job_is_told_who_holds_it,
    a_limit_that_is_raised_lets_the_job_start,
    a_job_that_waits_is_told_when_it_starts_and_a_held_one_why_not,
}

const QUOTA: &str = r#"
[node."centre"]
title = "Test centre"
[node."centre/small"]
title = "Small"
limit = { b200 = 2 }
[node."centre/group"]
title = "Group"
limit = { b200 = 3 }
[node."centre/group/one"]
title = "One"
[node."centre/group/two"]
title = "Two"
[node."centre/free"]
title = "Free"
"#;

async fn cluster(database: Database) -> (Cluster, Vec<VirtualWorker>) {
    let cluster = Cluster::builder(database).quota(QUOTA).start().await;
    let nodes = vec![
        cluster.add_virtual("big", "b200", 8, Script::forever()).await,
        cluster.add_virtual("old", "h200", 4, Script::forever()).await,
    ];
    (cluster, nodes)
}

async fn run(api: &Api, project: &str, class: &str, gpus: u32) -> u64 {
    let spec = command(&["/bin/true"]).project(project).class(class).gpus(gpus);
    let job = api.submit(spec).await;
    api.wait_for_state(job, JobState::Running).await;
    job
}

async fn wait(api: &Api, project: &str, class: &str, gpus: u32) -> u64 {
    api.submit(command(&["/bin/true"]).project(project).class(class).gpus(gpus)).await
}

#[track_caller]
fn check(blocker: &Blocker, subject: &str, [needed, available, limit]: [i64; 3]) {
    assert!(blocker.subject.contains(subject), "no {subject:?} in {blocker:?}");
    assert_eq!(
        (blocker.needed, blocker.available, blocker.limit),
        (needed, available, limit),
        "{blocker:?}"
    );
    assert_eq!(blocker.unit, "gpu_milli");
}

/// The command line says the same, in a sentence with these words.
#[track_caller]
fn check_line(cluster: &Cluster, job: u64, words: &[&str]) {
    let id = job.to_string();
    let text = cluster.gotgan().run(&["why", &id]).ok();
    // Tables and paragraphs are wrapped; the words are what counts.
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(flat.contains(word), "no {word:?} in\n{text}");
    }
    let json = cluster.gotgan().run(&["why", &id, "--json"]).json();
    assert_eq!(json["job_id"], job, "{json}");
    assert!(json["blockers"].as_array().is_some_and(|list| !list.is_empty()), "{json}");
}

async fn a_job_over_the_limit_of_its_project_is_told_the_limit(database: Database) {
    let (cluster, _nodes) = cluster(database).await;
    run(&cluster.api, "centre/small", "b200", 2).await;
    let job = wait(&cluster.api, "centre/small", "b200", 1).await;
    let blocker = cluster.api.wait_for_blocker(job, BlockerKind::ProjectLimit).await;
    check(&blocker, "centre/small", [1000, 0, 2000]);
    check_line(&cluster, job, &["centre/small", "2", "b200"]);
}

async fn a_job_over_the_limit_of_a_parent_is_told_which(database: Database) {
    let (cluster, _nodes) = cluster(database).await;
    run(&cluster.api, "centre/group/one", "b200", 2).await;
    let job = wait(&cluster.api, "centre/group/two", "b200", 2).await;
    let blocker = cluster.api.wait_for_blocker(job, BlockerKind::ParentLimit).await;
    check(&blocker, "centre/group", [2000, 1000, 3000]);
    assert!(!blocker.subject.contains("two"), "{blocker:?}");
    check_line(&cluster, job, &["centre/group", "3", "b200"]);
}

async fn a_job_without_enough_free_gpus_is_told_how_many_there_are(database: Database) {
    let (cluster, _nodes) = cluster(database).await;
    run(&cluster.api, "centre/free", "h200", 3).await;
    let job = wait(&cluster.api, "centre/free", "h200", 2).await;
    let blocker = cluster.api.wait_for_blocker(job, BlockerKind::Capacity).await;
    check(&blocker, "h200", [2000, 1000, 4000]);
    check_line(&cluster, job, &["h200", "2", "1", "4"]);
}

async fn a_job_for_a_drained_node_is_told_who_drained_it_and_why(database: Database) {
    let (cluster, _nodes) = cluster(database).await;
    cluster.api.drain("old", "fan is loud").await;
    let job = wait(&cluster.api, "centre/free", "h200", 1).await;
    let blocker = cluster.api.wait_for_blocker(job, BlockerKind::NodesUnavailable).await;
    let told = format!("{} {}", blocker.subject, blocker.text);
    assert!(told.contains("old") && told.contains("fan is loud"), "{blocker:?}");
    check_line(&cluster, job, &["old", "drained", "fan is loud"]);
}

async fn a_job_that_depends_on_another_is_told_on_which(database: Database) {
    let (cluster, _nodes) = cluster(database).await;
    let first = run(&cluster.api, "centre/free", "b200", 1).await;
    let spec = command(&["/bin/true"]).project("centre/free").after(DependencyKind::AfterOk, first);
    let job = cluster.api.submit(spec).await;
    let blocker = cluster.api.wait_for_blocker(job, BlockerKind::Dependency).await;
    assert!(blocker.subject.contains(&first.to_string()), "{blocker:?}");
    check_line(&cluster, job, &[&first.to_string(), "running"]);
}

async fn a_held_job_is_told_who_holds_it(database: Database) {
    let (cluster, _nodes) = cluster(database).await;
    let spec = command(&["/bin/true"]).project("centre/free");
    let job =
        cluster
            .api
            .submit(spec.after(DependencyKind::AfterAny, {
                run(&cluster.api, "centre/free", "b200", 1).await
            }))
            .await;
    cluster.api.jobs().hold(Api::action(job, "look at the input first")).await.unwrap();
    cluster.api.wait_for_blocker(job, BlockerKind::Held).await;
    check_line(&cluster, job, &["held", "look at the input first"]);
}

async fn a_limit_that_is_raised_lets_the_job_start(database: Database) {
    let (cluster, _nodes) = cluster(database).await;
    run(&cluster.api, "centre/small", "b200", 2).await;
    let job = wait(&cluster.api, "centre/small", "b200", 1).await;
    cluster.api.wait_for_blocker(job, BlockerKind::ProjectLimit).await;
    cluster.api.apply_quota(&QUOTA.replace("b200 = 2", "b200 = 4")).await.unwrap();
    cluster.api.wait_for_state(job, JobState::Running).await;
}

async fn a_job_that_waits_is_told_when_it_starts_and_a_held_one_why_not(database: Database) {
    let (cluster, _nodes) = cluster(database).await;
    run(&cluster.api, "centre/free", "h200", 4).await;
    let job = wait(&cluster.api, "centre/free", "h200", 2).await;
    let told = |job: &v1::Job| job.start.as_ref().is_some_and(|start| start.until_us > 0);
    let found = cluster.api.wait_for_job(job, "told when it starts", told).await;
    let start = found.start.unwrap();
    assert!(start.from_us <= start.until_us && start.looked_us > 0, "{start:?}");
    let id = job.to_string();
    let text = cluster.gotgan().run(&["why", &id]).ok();
    assert!(text.contains("starts: between"), "{text}");
    cluster.gotgan().run(&["hold", &id]).ok();
    let start = cluster.api.explain(job).await.unwrap().start.unwrap();
    assert!(start.until_us == 0 && start.reason.contains("held"), "{start:?}");
}
