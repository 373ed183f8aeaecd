//! The books of budgets: what moves between nodes is durable, voided once, provable, and in the account's own lines.

use gotgan_proto::v1::JobState;
use gotgan_tests::jobs::{Shape, command};
use gotgan_tests::virtual_worker::Script;
use gotgan_tests::{Api, Cluster, Database, Gotgan, deadline};
use serde_json::Value;

on_each_database! {
    a_transfer_survives_a_kill_is_voided_once_and_is_in_the_books_and_in_the_chain,
    a_part_of_a_budget_that_is_used_is_told_while_the_job_runs,
}

const TREE: &str = "[class.b200]\nweight_milli = 2000\n[node.centre]\n\
                    [node.\"centre/lab\"]\nbudget = { period = \"year\", ngh = 10 }\n\
                    [node.\"centre/other\"]\nbudget = { period = \"year\", ngh = 5 }\n";

const GROUNDS: [&str; 4] = ["--decision", "D-7", "--reason", "they asked for it"];

fn budget(gotgan: &Gotgan, node: &str) -> Value {
    let shown = gotgan.run(&["quota", "show", node, "--json"]).json();
    shown["nodes"][0]["budget"]["ngh_milli"].clone()
}

fn with_grounds<'a>(words: &[&'a str]) -> Vec<&'a str> {
    words.iter().copied().chain(GROUNDS).collect()
}

async fn a_transfer_survives_a_kill_is_voided_once_and_is_in_the_books_and_in_the_chain(
    database: Database,
) {
    let mut cluster = Cluster::builder(database).quota(TREE).start().await;
    let _node = cluster.add_virtual("n1", "b200", 8, Script::forever()).await;
    // Four GPUs at a weight of two for seven minutes and a half: one normalised GPU-hour is set aside.
    let spec = command(&["/bin/true"]).project("centre/lab").class("b200").gpus(4).limit(450);
    let job = cluster.api.submit(spec).await;
    cluster.api.wait_for_state(job, JobState::Running).await;
    let gotgan = cluster.gotgan();
    let words = ["quota", "transfer", "centre/other", "centre/lab", "--ngh", "2.5", "--json"];
    let keyed = with_grounds(&[&words[..], &["--idempotency-key", "once"]].concat());
    assert_eq!(gotgan.run(&keyed).json()["movement"], 1);
    assert_eq!(gotgan.run(&keyed).json()["movement"], 1, "the key was used");
    let larger = ["quota", "transfer", "centre/other", "centre/lab", "--ngh", "3"];
    gotgan.run(&with_grounds(&larger)).fails_with(7, &["2.5 NGH"]);
    cluster.scheduler.kill();
    cluster.scheduler.start();
    let gotgan = cluster.gotgan();
    assert_eq!(budget(&gotgan, "centre/lab"), 12_500);
    assert_eq!(budget(&gotgan, "centre/other"), 2_500);

    let books = gotgan.run(&["quota", "ledger", "centre/lab", "--json"]).json();
    let period = &books["periods"][0];
    let lines = period["lines"].as_array().unwrap();
    let kinds: Vec<&str> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["grant", "hold", "transfer"]);
    assert_eq!(period["closing"], (11_500 * 3_600_000_i64).to_string(), "what show has as left");
    let again = gotgan.run(&["quota", "ledger", "centre/lab", "--json"]).json();
    assert_eq!(again["periods"][0]["lines"], period["lines"]);

    let void = with_grounds(&["quota", "void", "1"]);
    assert_eq!(gotgan.run(&void).ok().trim(), "movement 2; revision 3");
    assert_eq!(budget(&gotgan, "centre/lab"), 10_000);
    gotgan.run(&void).fails_with(7, &["was voided by movement 2"]);
    gotgan.run(&["quota", "audit", "verify"]).ok();
}

async fn a_part_of_a_budget_that_is_used_is_told_while_the_job_runs(database: Database) {
    let tree = TREE.replace("ngh = 10 }", "ngh = 1 }\nalert = [1, 100]");
    let mut cluster = Cluster::builder(database).quota(&tree).start().await;
    let _node = cluster.add_virtual("n1", "b200", 8, Script::forever()).await;
    let spec = command(&["/bin/true"]).project("centre/lab").class("b200").gpus(8).limit(200);
    let job = cluster.api.submit(spec).await;
    cluster.api.wait_for_state(job, JobState::Running).await;
    // A hundredth of the budget is 2.25 seconds of the job.
    let told = |cluster: &Cluster| {
        let listed = cluster.gotgan().run(&["quota", "alerts", "centre", "--json"]).json();
        listed["alerts"].as_array().unwrap().clone()
    };
    let alerts = deadline::until("an alert", async || match told(&cluster) {
        none if none.is_empty() => Err("no alerts".to_owned()),
        alerts => Ok(alerts),
    });
    let alerts = alerts.await;
    let first = &alerts[0];
    assert_eq!((&first["path"], &first["percent"]), (&"centre/lab".into(), &1.into()));
    assert_eq!(first["kind"], "passed");
    let used = first["used_ngh_milli"].as_u64().unwrap();
    assert!((10..100).contains(&used), "long before the job ends: {used}");
    cluster.scheduler.kill();
    cluster.scheduler.start();
    cluster.api.jobs().cancel(Api::action(job, "")).await.unwrap();
    cluster.api.wait_for_state(job, JobState::Cancelled).await;
    assert_eq!(told(&cluster), alerts, "nothing is told twice");
}
