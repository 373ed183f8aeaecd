//! Quotas over time: what has a date takes effect at that date, and files are judged the same with and without a
//! scheduler.

use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gotgan_core::amount::UnixMicros;
use gotgan_core::quota::show_moment;
use gotgan_proto::v1::{BlockerKind, JobState, Role};
use gotgan_tests::jobs::{Shape, command};
use gotgan_tests::programs;
use gotgan_tests::virtual_worker::Script;
use gotgan_tests::{Api, Cluster, Database, audit, deadline};

#[path = "../../scheduler/core/tests/core/broken.rs"]
mod broken;

on_each_database! {
    a_limit_with_a_date_counts_from_that_date_with_nobody_typing_anything,
    a_date_that_comes_while_the_scheduler_is_down_counts_when_it_is_back,
    a_project_that_ends_by_its_date_starts_nothing_and_loses_nothing_that_runs,
    a_budget_that_is_gone_stops_nothing_and_a_supplement_lets_the_next_job_start,
    a_term_that_is_not_known_cannot_be_applied,
    an_allocator_changes_only_what_lies_below_the_nodes_that_name_them,
    a_batch_counts_from_its_acceptance,
    the_tree_of_a_coming_date_can_be_shown,
    a_lender_is_told_who_holds_what_it_is_guaranteed,
}

/// A whole second some time from now, as files have it.
fn soon(after: Duration) -> (i64, String) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + after;
    let at = i64::try_from(now.as_secs()).unwrap() * 1_000_000;
    (at, show_moment(UnixMicros(at)))
}

/// No GPU until the date, four from then on.
fn opens_at(date: &str) -> String {
    format!(
        "[node.centre]\n[node.\"centre/lab\"]\n\
         limit = [{{ class = \"b200\", gpus = 0 }}, {{ class = \"b200\", gpus = 4, from = \"{date}\" }}]\n"
    )
}

async fn submit(api: &Api) -> u64 {
    api.submit(command(&["/bin/true"]).project("centre/lab").class("b200").gpus(1)).await
}

/// Waits until the job runs, and answers since when.
async fn started(api: &Api, job: u64) -> i64 {
    api.wait_for_state(job, JobState::Running).await;
    api.job(job).await.started_us
}

async fn a_limit_with_a_date_counts_from_that_date_with_nobody_typing_anything(database: Database) {
    let (at, date) = soon(Duration::from_secs(3));
    let cluster = Cluster::builder(database).quota(&opens_at(&date)).start().await;
    let _node = cluster.add_virtual("n1", "b200", 8, Script::forever()).await;
    let job = submit(&cluster.api).await;
    assert!(started(&cluster.api, job).await >= at, "started before {date}");
}

async fn a_date_that_comes_while_the_scheduler_is_down_counts_when_it_is_back(database: Database) {
    let (at, date) = soon(Duration::from_secs(2));
    let mut cluster = Cluster::builder(database).quota(&opens_at(&date)).start().await;
    let _node = cluster.add_virtual("n1", "b200", 8, Script::forever()).await;
    let job = submit(&cluster.api).await;
    cluster.scheduler.kill();
    cluster.scheduler.start();
    assert!(started(&cluster.api, job).await >= at, "started before {date}");
}

async fn a_project_that_ends_by_its_date_starts_nothing_and_loses_nothing_that_runs(
    database: Database,
) {
    let tree = "[node.centre]\n[node.\"centre/lab\"]\n";
    let cluster = Cluster::builder(database).quota(tree).start().await;
    let _node = cluster.add_virtual("n1", "b200", 8, Script::forever()).await;
    let running = submit(&cluster.api).await;
    started(&cluster.api, running).await;
    let held = command(&["/bin/true"]).project("centre/lab").class("b200").gpus(1).held();
    let held = cluster.api.submit(held).await;
    let (_, date) = soon(Duration::from_secs(1));
    cluster.api.apply_quota(&format!("{tree}until = \"{date}\"\n")).await.unwrap();
    deadline::until("the project to end", async || {
        let shown = cluster.gotgan().run(&["quota", "show", "--json"]).json();
        let paths: Vec<_> =
            shown["nodes"].as_array().unwrap().iter().map(|node| node["path"].clone()).collect();
        if paths == ["centre"] { Ok(()) } else { Err(format!("{paths:?}")) }
    })
    .await;
    cluster.api.jobs().release(Api::action(held, "")).await.unwrap();
    let blocker = cluster.api.wait_for_blocker(held, BlockerKind::ProjectLimit).await;
    assert!(blocker.text.contains("not in the quota tree"), "{blocker:?}");
    assert_eq!(cluster.api.job(running).await.state(), JobState::Running);
}

async fn a_budget_that_is_gone_stops_nothing_and_a_supplement_lets_the_next_job_start(
    database: Database,
) {
    let tree = |ngh: u32| {
        format!(
            "[class.b200]\nweight_milli = 2000\n[node.centre]\n[node.\"centre/lab\"]\n\
             budget = {{ period = \"year\", ngh = {ngh} }}\n"
        )
    };
    let mut cluster = Cluster::builder(database).quota(&tree(1)).start().await;
    let _node = cluster.add_virtual("n1", "b200", 8, Script::forever()).await;
    let spec = command(&["/bin/true"]).project("centre/lab").class("b200").gpus(4);
    // Four GPUs at a weight of two for seven minutes and a half.
    let running = cluster.api.submit(spec.clone().limit(450)).await;
    started(&cluster.api, running).await;
    let waiting = cluster.api.submit(spec.limit(60)).await;
    let blocker = cluster.api.wait_for_blocker(waiting, BlockerKind::Budget).await;
    assert_eq!((blocker.subject.as_str(), blocker.unit.as_str()), ("centre/lab", "ngh_milli"));
    assert_eq!((blocker.limit, blocker.available, blocker.needed), (1000, 0, 134), "{blocker:?}");
    assert!(blocker.text.contains("1 NGH, 0 used, 1 held; this job needs 0.134"), "{blocker:?}");
    let budget = |cluster: &Cluster| {
        let shown = cluster.gotgan().run(&["quota", "show", "centre/lab", "--json"]).json();
        shown["nodes"][0]["budget"].clone()
    };
    let before = budget(&cluster);
    assert_eq!((&before["used_ngh_milli"], &before["held_ngh_milli"]), (&0.into(), &1000.into()));
    cluster.scheduler.kill();
    cluster.scheduler.start();
    assert_eq!(budget(&cluster), before, "a restart changes no number");
    cluster.api.apply_quota(&tree(2)).await.unwrap();
    started(&cluster.api, waiting).await;
    assert_eq!(cluster.api.job(running).await.state(), JobState::Running);
    for job in [running, waiting] {
        cluster.api.jobs().cancel(Api::action(job, "")).await.unwrap();
        cluster.api.wait_for_state(job, JobState::Cancelled).await;
    }
    audit::ledger(&cluster.api).await;
}

async fn a_term_that_is_not_known_cannot_be_applied(database: Database) {
    let cluster = Cluster::builder(database).quota("[node.centre]\n").start().await;
    let file = cluster.directory().join("tree.toml");
    fs::write(&file, "[node.centre]\nprice = 16\n").unwrap();
    let file = file.to_string_lossy();
    let refused = cluster.gotgan().run(&["quota", "apply", &file]);
    refused.fails_with(3, &["node.\"centre\".price", "not enforced"]);
    let shown = cluster.gotgan().run(&["quota", "show", "--json"]).json();
    assert_eq!(shown["revision"], 1, "nothing was stored");
}

async fn an_allocator_changes_only_what_lies_below_the_nodes_that_name_them(database: Database) {
    let tree = |own: u32, other: u32| {
        format!(
            "[node.centre]\n[node.\"centre/own\"]\nallocator = \"office\"\n[node.\"centre/own/lab\"]\n\
             limit = {{ b200 = {own} }}\n[node.\"centre/other\"]\nlimit = {{ b200 = {other} }}\n"
        )
    };
    let cluster = Cluster::builder(database).quota(&tree(1, 1)).start().await;
    let made = cluster.api.create_token("office", Role::Allocator, &[], 0).await;
    let office = cluster.api.with_token(&made.token);
    office.apply_quota(&tree(2, 1)).await.unwrap();
    let refused = office.apply_quota(&tree(3, 2)).await.unwrap_err();
    assert!(refused.message().contains("centre/other"), "{refused:?}");
    let shown = cluster.gotgan().run(&["quota", "show", "--json"]).json();
    assert_eq!(shown["revision"], 2, "nothing of a refused apply is stored");
    cluster.api.apply_quota(&tree(3, 2)).await.unwrap();
}

async fn a_batch_counts_from_its_acceptance(database: Database) {
    let (at, date) = soon(Duration::from_secs(3));
    let tree = format!(
        "[node.centre]\n[node.\"centre/lab\"]\n[cluster.a]\nclass = \"b200\"\n[lot.first]\n\
         cluster = \"a\"\ndue = \"2026-01-01\"\nbatch = [{{ gpus = 4, accepted = \"{date}\" }}, {{ gpus = 4 }}]\n"
    );
    let cluster = Cluster::builder(database).quota(&tree).start().await;
    let _node = cluster.add_virtual("n1", "b200", 8, Script::forever()).await;
    let spec = command(&["/bin/true"]).project("centre/lab").class("b200").gpus(4);
    let first = cluster.api.submit(spec.clone()).await;
    let second = cluster.api.submit(spec).await;
    assert!(started(&cluster.api, first).await >= at, "started before {date}");
    let blocker = cluster.api.wait_for_blocker(second, BlockerKind::ParentLimit).await;
    assert_eq!((blocker.available, blocker.limit), (0, 4000), "{blocker:?}");
}

async fn a_lender_is_told_who_holds_what_it_is_guaranteed(database: Database) {
    let tree = "[node.centre]\ndecision = \"D-1\"\nguarantee = { b200 = 4 }\n[node.\"centre/lab\"]\n\
                guarantee = { b200 = 4 }\n[node.\"centre/guest\"]\n";
    let cluster = Cluster::builder(database).quota(tree).start().await;
    let _node = cluster.add_virtual("n1", "b200", 8, Script::forever()).await;
    let spec = command(&["/bin/true"]).project("centre/guest").class("b200").gpus(8);
    let job = cluster.api.submit(spec).await;
    started(&cluster.api, job).await;
    let explained = cluster.gotgan().run(&["quota", "explain", "centre/lab"]).ok();
    assert!(explained.contains("holds 0 of 4 guaranteed"), "{explained}");
    assert!(explained.contains("4 are lent"), "{explained}");
    assert!(explained.contains("centre/guest 8"), "{explained}");
    let of_job = cluster.gotgan().run(&["quota", "explain", &job.to_string()]).ok();
    assert!(of_job.contains("running"), "{of_job}");
    cluster.gotgan().run(&["quota", "explain", "centre/nobody"]).fails_with(4, &["no node"]);
}

async fn the_tree_of_a_coming_date_can_be_shown(database: Database) {
    let cluster = Cluster::builder(database).quota(&opens_at("2100-01-01")).start().await;
    let limit = |words: &[&str]| {
        let shown = cluster.gotgan().run(words).json();
        let nodes = shown["nodes"].as_array().unwrap().clone();
        let lab = nodes.into_iter().find(|node| node["path"] == "centre/lab").unwrap();
        lab["classes"][0]["limit_gpu_milli"].clone()
    };
    assert_eq!(limit(&["quota", "show", "--json"]), 0);
    assert_eq!(limit(&["quota", "show", "--json", "--at", "2100-01-01"]), 4000);
}

#[tokio::test]
async fn the_reference_allocation_is_sound_by_the_program_as_well() {
    let cluster = Cluster::builder(Database::Sqlite).quota("[node.centre]\n").start().await;
    let reference = programs::checkout().join("examples/quota/public-50k");
    let folder = reference.to_string_lossy();
    let checked = cluster.gotgan().run(&["quota", "validate", &folder, "--json"]).json();
    let guaranteed =
        |moment: &serde_json::Value| moment["guaranteed_gpu_milli"].as_u64().unwrap() / 1000;
    let sums: Vec<u64> = checked["moments"].as_array().unwrap().iter().map(guaranteed).collect();
    assert_eq!(sums, [0, 10_000, 18_000, 31_000, 35_000, 50_000]);
}

/// Without any scheduler: the variants that the core is tested with, through the program.
#[test]
fn every_broken_variant_of_the_reference_ends_with_exit_code_3_and_names_its_fault() {
    let reference = programs::checkout().join("examples/quota/public-50k");
    let texts: Vec<(String, String)> = fs::read_dir(&reference)
        .unwrap()
        .flatten()
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read_to_string(entry.path()).unwrap())
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    for broken @ (file, from, to, wanted) in broken::all() {
        for (name, text) in &texts {
            let text = if name == file { text.replacen(from, to, 1) } else { text.clone() };
            fs::write(folder.path().join(name), text).unwrap();
        }
        let mut validate = Command::new(programs::path("gotgan"));
        let ran = validate.args(["quota", "validate"]).arg(folder.path()).output().unwrap();
        let said = String::from_utf8(ran.stdout).unwrap();
        assert_eq!(ran.status.code(), Some(3), "{broken:?}: {said}");
        let named = said.lines().any(|line| wanted.iter().all(|word| line.contains(word)));
        assert!(named, "{broken:?}: {said}");
        count += 1;
    }
    assert!(count >= 40);
}
