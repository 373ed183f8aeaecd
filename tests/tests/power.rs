//! Power, through the whole system: GPUs of a double of the driver's library that are capped for jobs, and halls that have too
//! little for all of their GPUs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use gotgan_proto::v1::{self, BlockerKind, Cause, JobState};
use gotgan_tests::jobs::{Shape, shell};
use gotgan_tests::virtual_worker::Script;
use gotgan_tests::{Cluster, Database, audit, deadline, nvml_double};
use serde_json::{Value, json};

on_each_database! {
    a_gpu_that_refuses_its_cap_costs_the_job_nothing_and_drains_the_node,
    a_hall_has_power_for_one_of_two_jobs_and_the_other_starts_after_it,
}

const WORKER: &str = "\
reading_interval_ms = 50
reading_timeout_ms = 5000
[health]
kernel_log = false
";

/// A node with two GPUs of a double.
struct Machine {
    directory: PathBuf,
}

impl Machine {
    async fn add(cluster: &mut Cluster, name: &str, with: Value) -> Self {
        let directory = cluster.directory().join(format!("driver-{name}"));
        let gpu = |number: u32| {
            let mut gpu = with.clone();
            gpu["uuid"] = json!(format!("GPU-{name}-{number}"));
            gpu["minor_number"] = json!(number);
            gpu
        };
        let library = nvml_double::place(&directory, &json!({ "gpus": [gpu(0), gpu(1)] }));
        cluster.add_worker_with(name, library.to_str().unwrap(), WORKER).await;
        Self { directory }
    }

    /// Limits that were set, in watts.
    fn limits(&self) -> Vec<u32> {
        let text = std::fs::read(self.directory.join("nvml-limits.json")).unwrap();
        let limits: BTreeMap<String, u32> = serde_json::from_slice(&text).unwrap();
        limits.into_values().map(|mw| mw / 1000).collect()
    }
}

fn capped(mut spec: v1::JobSpec, watts: u32) -> v1::JobSpec {
    spec.resources.get_or_insert_default().gpu_cap_watts = watts;
    spec
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gpus_are_capped_for_a_job_shown_so_and_as_before_after_it() {
    let settings = "\
[policy.power]
cap_watts = { h100 = 600 }
[policy.power.modes]
efficient = { h100 = 400 }
";
    let mut cluster = Cluster::builder(Database::Sqlite).settings(settings).start().await;
    let machine = Machine::add(&mut cluster, "n1", json!({})).await;
    let shown = cluster.gotgan().run(&["node", "n1"]).ok();
    assert!(shown.contains("Power caps are between 200 and 700 W a GPU"), "{shown}");

    let end = cluster.directory().join("end");
    let waits = format!("while [ ! -e {} ]; do sleep 0.05; done", end.display());
    let submit = ["submit", "--project", "centre/alpha", "--gpus", "h100:2"];
    let work = ["--gpu-power", "efficient", "--", "sh", "-c", waits.as_str()];
    let told = cluster.gotgan().run(&[&submit[..], &["--json"], &work].concat()).json();
    let job = told["job_id"].as_u64().unwrap();
    cluster.api.wait_for_state(job, JobState::Running).await;
    assert_eq!(machine.limits(), [400, 400]);
    deadline::until("the limit in force is read", async || {
        let node = cluster.gotgan().run(&["node", "n1", "--json"]).json();
        match node["gpus"][0]["power_limit_mw"].as_u64() {
            Some(400_000) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let shown = cluster.gotgan().run(&["job", &job.to_string()]).ok();
    assert!(shown.contains("at most 400 W a GPU"), "{shown}");
    assert!(shown.contains("each GPU capped at 400 W"), "{shown}");
    let asked = shown.lines().find(|line| line.starts_with("Asked for:")).unwrap();
    assert!(asked.chars().count() <= 80, "{asked}");
    std::fs::write(&end, "").unwrap();
    assert_eq!(cluster.api.wait_for_end(job).await.state(), JobState::Completed);
    assert_eq!(machine.limits(), [700, 700]);

    // Without a word of its own it gets what the site orders.
    let plain = cluster.api.submit(shell("test \"$GOTGAN_GPU_CAP_WATTS\" = 600").gpus(2)).await;
    let ended = cluster.api.wait_for_end(plain).await;
    assert_eq!((ended.state(), ended.attempts[0].gpu_cap_watts), (JobState::Completed, 600));
    cluster
        .gotgan()
        .run(&[&submit[..], &["--gpu-power", "100", "--", "true"]].concat())
        .fails_with(3, &["--gpu-power", "h100 GPUs here take 200 to 700 W"]);
    cluster
        .gotgan()
        .run(&[&submit[..], &["--gpu-power", "eficient", "--", "true"]].concat())
        .fails_with(3, &["--gpu-power", "did you mean \"efficient\"?"]);
    audit::ledger(&cluster.api).await;
}

async fn a_gpu_that_refuses_its_cap_costs_the_job_nothing_and_drains_the_node(database: Database) {
    let mut cluster = Cluster::start(database).await;
    // A board that knows steps of 300 W alone gives more than it is told to.
    Machine::add(&mut cluster, "node-a", json!({ "power_step_mw": 300_000 })).await;
    let job = cluster.api.submit(capped(shell("echo here").gpus(2), 400)).await;
    let failed = cluster.api.wait_for_job(job, "its first attempt has ended", |job| {
        job.attempts.first().is_some_and(|first| first.ended_us > 0)
    });
    let failed = failed.await;
    assert_eq!(failed.attempts[0].cause(), Cause::Node, "{failed:?}");
    let reason = "was capped at 400 W and may draw 600 W";
    assert!(failed.attempts[0].detail.contains(reason), "{failed:?}");
    let shown = cluster.gotgan().run(&["node", "node-a"]).ok();
    assert!(shown.contains("drain") && shown.contains("may draw 600 W"), "{shown}");

    let sound = Machine::add(&mut cluster, "node-b", json!({})).await;
    let ended = cluster.api.wait_for_end(job).await;
    assert_eq!((ended.state(), ended.attempts.len()), (JobState::Completed, 2), "{ended:?}");
    assert_eq!(ended.nodes, ["node-b"]);
    // Of the clock's seconds one may begin within an attempt however short: it is given back.
    let refused = &ended.attempts[0];
    assert_eq!(refused.charged_gpu_milli_seconds, refused.refunded_gpu_milli_seconds, "{ended:?}");
    assert_eq!(ended.paid_gpu_milli_seconds, ended.attempts[1].charged_gpu_milli_seconds);
    assert_eq!(sound.limits(), [700, 700]);
    audit::ledger(&cluster.api).await;
}

async fn a_hall_has_power_for_one_of_two_jobs_and_the_other_starts_after_it(database: Database) {
    // Two idle nodes reserve 2,400 W, and a job on one of them 6,800 W more.
    let settings = "\
[policy.power]
gpu_watts = { b200 = 1000 }
node_watts = 0
[policy.power.limits]
site_watts = 1000000
hall_watts = { h1 = 12000 }
";
    let cluster = Cluster::builder(database).settings(settings).start().await;
    let mut workers = Vec::new();
    for node in ["h1-a", "h1-b"] {
        let mut inventory = gotgan_tests::virtual_worker::inventory(node, "b200", 8);
        inventory.labels.insert("hall".to_owned(), "h1".to_owned());
        workers.push(cluster.add_virtual_with(inventory, Script::forever()).await);
    }
    let first = cluster.api.submit(shell("sleep 1").gpus(8)).await;
    cluster.api.wait_for_state(first, JobState::Running).await;
    let second = cluster.api.submit(shell("sleep 1").gpus(8)).await;
    let blocker = cluster.api.wait_for_blocker(second, BlockerKind::Power).await;
    assert_eq!((blocker.needed, blocker.available, blocker.limit), (6_800, 2_800, 12_000));
    let why = cluster.gotgan().run(&["why", &second.to_string()]).ok();
    let flowing = why.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        flowing.contains("needs 6,800 W more in hall h1; 2,800 W of 12,000 W are left"),
        "{why}"
    );
    let shown = cluster.gotgan().run(&["cluster"]).ok();
    let hall = shown.lines().find(|line| line.starts_with("hall h1")).unwrap();
    assert_eq!(
        hall.split_whitespace().collect::<Vec<_>>().join(" "),
        "hall h1 2 9,200 W 12,000 W 76 %"
    );
    cluster.gotgan().run(&["cancel", &first.to_string()]).ok();
    cluster.api.wait_for_end(first).await;
    cluster.api.wait_for_state(second, JobState::Running).await;
    cluster.gotgan().run(&["cancel", &second.to_string()]).ok();
    cluster.api.wait_for_end(second).await;
    let status = cluster.gotgan().run(&["cluster", "--json"]).json();
    assert_eq!(status["power"][1]["reserved_watts"], 2_400, "{status}");
    audit::ledger(&cluster.api).await;
}
