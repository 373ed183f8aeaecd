//! What jobs really used, through the whole system: a double of the driver's library, the real worker, the scheduler, its
//! store, the command line.

use std::path::PathBuf;

use gotgan_proto::v1::{self, JobState};
use gotgan_tests::jobs::{Shape, shell};
use gotgan_tests::{Cluster, Database, deadline, nvml_double};
use serde_json::{Value, json};

const SETTINGS: &str = "\
[timing]
heartbeat_ms = 200
[policy]
idle_warning_s = 1
";

const WORKER: &str = "\
reading_interval_ms = 50
reading_timeout_ms = 5000
[health]
kernel_log = false
";

/// A node with two GPUs of a double, whose state can be changed.
struct Machine {
    directory: PathBuf,
    state: Value,
}

impl Machine {
    async fn add(cluster: &mut Cluster, name: &str) -> Self {
        let directory = cluster.directory().join(format!("driver-{name}"));
        let gpu = |number: u32| {
            json!({
                "uuid": format!("GPU-{name}-{number}"), "minor_number": number,
                "pci_bus_id": format!("00000000:0{number}:00.0"), "energy_mj": 1_000_000, "power_mw": 1_000,
                "memory_used_bytes": 1u64 << 30,
            })
        };
        let state = json!({ "gpus": [gpu(0), gpu(1)] });
        let library = nvml_double::place(&directory, &state);
        let settings = format!("labels = {{ machine = \"{name}\" }}\n{WORKER}");
        cluster.add_worker_with(name, library.to_str().unwrap(), &settings).await;
        Self { directory, state }
    }

    /// Both GPUs work so hard, and have used so much energy.
    fn work(&mut self, percent: u32, energy_mj: u64) {
        for gpu in self.state["gpus"].as_array_mut().unwrap() {
            gpu["utilisation_percent"] = json!(percent);
            gpu["energy_mj"] = json!(energy_mj);
        }
        let (path, fresh) = (self.directory.join("nvml.json"), self.directory.join("new"));
        std::fs::write(&fresh, self.state.to_string()).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
    }
}

/// A job that runs until the file is there.
fn until_told(cluster: &Cluster, machine: &str) -> (v1::JobSpec, PathBuf) {
    let end = cluster.directory().join(format!("end-{machine}"));
    let mut spec = shell(&format!("while [ ! -e {} ]; do sleep 0.05; done", end.display()));
    spec = spec.gpus(2).grace(0);
    let constraints = spec.constraints.get_or_insert_default();
    constraints.labels.insert("machine".to_owned(), machine.to_owned());
    (spec, end)
}

fn measured(job: &v1::Job) -> v1::MeasuredUse {
    job.attempts[0].measured.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_job_used_is_told_while_it_runs_and_kept_with_its_attempt() {
    let mut cluster = Cluster::builder(Database::Sqlite).settings(SETTINGS).start().await;
    let mut machine = Machine::add(&mut cluster, "n1").await;
    machine.work(60, 1_000_000);
    let (spec, end) = until_told(&cluster, "n1");
    let job = cluster.api.submit(spec).await;
    cluster.api.wait_for_state(job, JobState::Running).await;
    let running = cluster
        .api
        .wait_for_job(job, "the counter of energy to be read", |job| {
            measured(job).energy_mj.is_some()
        })
        .await;
    assert_eq!((measured(&running).nodes, running.idle_told_us), (1, 0));
    machine.work(60, 3_000_000);
    let used = |job: &v1::Job| measured(job).energy_mj >= Some(4_000_000);
    cluster.api.wait_for_job(job, "energy of both GPUs", used).await;
    let shown = cluster.gotgan().run(&["job", &job.to_string()]).ok();
    assert!(shown.contains("Used:") && shown.contains("so far"), "{shown}");
    std::fs::write(&end, "").unwrap();
    let ended = cluster.api.wait_for_end(job).await;
    let found = measured(&ended);
    assert_eq!(found.peak_memory_mib, Some(2_048), "{found:?}");
    let (busy, observed) = (found.busy_gpu_ms.unwrap(), found.observed_gpu_ms);
    assert!(busy * 100 <= observed * 60 && busy * 100 >= observed * 55, "{found:?}");
    let attempt = &ended.attempts[0];
    let held_ms = 2 * (attempt.ended_us - attempt.leased_us).unsigned_abs() / 1000;
    // Clocks of other processes may stand a little apart.
    assert!(observed <= held_ms + 500, "{observed} of {held_ms} ms");
    assert!(found.energy_mj < Some(5_000_000), "{found:?}");
    cluster.scheduler.kill();
    cluster.scheduler.start();
    let kept = cluster.api.job(job).await;
    assert_eq!((measured(&kept), kept.measured), (found, Some(found)));
    let shown = cluster.gotgan().run(&["job", &job.to_string()]).ok();
    assert!(shown.contains("peak 2 GiB") && !shown.contains("so far"), "{shown}");
    let used = shown.lines().find(|line| line.contains("Used:")).unwrap();
    assert!(used.chars().count() <= 80, "{used}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_is_told_once_of_gpus_that_do_nothing() {
    let mut cluster = Cluster::builder(Database::Sqlite).settings(SETTINGS).start().await;
    let mut machine = Machine::add(&mut cluster, "n1").await;
    let (spec, end) = until_told(&cluster, "n1");
    let job = cluster.api.submit(spec).await;
    let told = |job: &v1::Job| job.idle_told_us > 0 && job.attempts[0].idle_ms >= 1_000;
    let idle = cluster.api.wait_for_job(job, "its owner to be told", told).await;
    assert_eq!(idle.attempts[0].idle_told_us, idle.idle_told_us);
    let listed = cluster.gotgan().run(&["jobs"]).ok();
    assert!(listed.contains("idle"), "{listed}");
    // Another scheduler does not tell it again.
    cluster.scheduler.kill();
    cluster.scheduler.start();
    cluster.api.wait_for_job(job, "beats of idle GPUs", |job| job.attempts[0].idle_ms > 0).await;
    machine.work(60, 2_000_000);
    cluster.api.wait_for_job(job, "work", |job| job.attempts[0].idle_ms == 0).await;
    std::fs::write(&end, "").unwrap();
    let ended = cluster.api.wait_for_end(job).await;
    assert!(measured(&ended).longest_idle_ms >= Some(1_000), "{ended:?}");
    deadline::until("the history of the job", async || {
        let events =
            cluster.gotgan().run(&["--json", "watch", "--after", "1", &job.to_string()]).ok();
        let told = events.matches("its 2 GPUs have done nothing for ").count();
        if told == 1 { Ok(()) } else { Err(format!("told {told} times: {events}")) }
    })
    .await;
}
