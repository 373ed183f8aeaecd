//! Less power for a hall: who stops, who pays, and that it is given back.

use gotgan_proto::v1::{Cause, JobState};
use gotgan_tests::jobs::{BETA, Shape, shell};
use gotgan_tests::virtual_worker::Script;
use gotgan_tests::{Cluster, Database, audit};

on_each_database! {
    a_hall_at_half_its_power_stops_what_borrows_for_nothing_and_takes_it_back_after,
}

const QUOTA: &str = r#"
[node.centre]
decision = "D-1"
guarantee = { b200 = 16 }
[node."centre/alpha"]
guarantee = { b200 = 16 }
[node."centre/beta"]
"#;

async fn a_hall_at_half_its_power_stops_what_borrows_for_nothing_and_takes_it_back_after(
    database: Database,
) {
    let cluster = Cluster::builder(database).quota(QUOTA).start().await;
    let mut workers = Vec::new();
    for node in ["h1-a", "h1-b", "h1-c"] {
        let mut inventory = gotgan_tests::virtual_worker::inventory(node, "b200", 8);
        inventory.labels.insert("hall".to_owned(), "h1".to_owned());
        workers.push(cluster.add_virtual_with(inventory, Script::forever()).await);
    }
    let sure = cluster.api.submit(shell("sleep 1").gpus(8)).await;
    cluster.api.wait_for_state(sure, JobState::Running).await;
    let borrows = cluster.api.submit(shell("sleep 1").project(BETA).gpus(8)).await;
    cluster.api.wait_for_state(borrows, JobState::Running).await;
    let gotgan = cluster.gotgan();
    let derate = ["admin", "derate", "hall=h1", "--to", "50%", "--for", "2h", "--reason", "heat"];

    let rehearsed = gotgan.run(&[&derate[..], &["--dry-run", "--json"]].concat()).json();
    assert_eq!(rehearsed["stopped_attempts"][0]["job_id"], borrows);
    assert_eq!((&rehearsed["gpus"], &rehearsed["gpus_idle"]), (&24.into(), &16.into()));
    assert_eq!(cluster.api.job(borrows).await.state(), JobState::Running);

    let done = gotgan.run(&[&derate[..], &["--json"]].concat()).json();
    assert_eq!(done["idle_nodes"], rehearsed["idle_nodes"]);
    let waits = cluster.api.wait_for_job(borrows, "its attempt has ended", |job| {
        job.attempts.first().is_some_and(|first| first.ended_us > 0)
    });
    let waits = waits.await;
    assert_eq!(waits.attempts[0].cause(), Cause::Site, "{waits:?}");
    let stopped = &waits.attempts[0];
    let (charged, refunded) =
        (stopped.charged_gpu_milli_seconds, stopped.refunded_gpu_milli_seconds);
    assert_eq!(charged, refunded, "{waits:?}");
    assert_eq!(cluster.api.job(sure).await.state(), JobState::Running);
    let shown = gotgan.run(&["nodes"]).ok();
    assert_eq!(shown.matches("maintenance").count(), 2, "{shown}");
    let listed = gotgan.run(&["node", "maintenance", "--list", "--json"]).json();
    assert_eq!(listed["maintenance"][0]["reason"], "power at 50 %: heat");

    let id = done["maintenance"]["id"].to_string();
    gotgan.run(&["node", "maintenance", "--cancel", &id]).ok();
    cluster.api.wait_for_state(borrows, JobState::Running).await;
    for job in [sure, borrows] {
        gotgan.run(&["cancel", &job.to_string()]).ok();
        cluster.api.wait_for_end(job).await;
    }
    audit::ledger(&cluster.api).await;

    gotgan
        .run(&["admin", "derate", "hall=h1", "--to", "10%", "--for", "2h", "--reason", "heat"])
        .fails_with(3, &["to_percent", "15 %", "policy.power.idle_percent"]);
    gotgan
        .run(&["admin", "derate", "hall=h9", "--to", "10%", "--for", "2h", "--reason", "heat"])
        .fails_with(3, &["no node is like that"]);
}
