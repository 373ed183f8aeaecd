//! What the GPUs of an attempt did: told by heartbeats and with its end, also over a restart of the daemon.

use gotgan_proto::v1::report::Event;
use gotgan_proto::v1::scheduler_message::Message as Order;
use gotgan_proto::v1::worker_message::Message;
use gotgan_proto::v1::{AttemptUse, GpuAllocation, MeasuredUse, Report, RunAttempt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::{Cluster, PATIENCE, Peer, script};
use crate::double::{Double, gpus, uuid};
use crate::gpus::patient_daemon;

const TIMEOUT_MS: u32 = 5_000;

/// A script that runs until a file is there, on these GPUs.
fn until_told(cluster: &Cluster, job_id: u64, held: &[(u32, u32)]) -> RunAttempt {
    let end = cluster.output("end");
    let mut order =
        script(job_id, &format!("while ! [ -e {0} ]; do sleep 0.02; done", end.display()));
    let gpu = |(number, milli): &(u32, u32)| GpuAllocation { uuid: uuid(*number), milli: *milli };
    order.gpus = held.iter().map(gpu).collect();
    order
}

/// What is told of an attempt in the first heartbeat in which it is as wanted.
async fn use_of(peer: &mut Peer, wanted: impl Fn(&AttemptUse) -> bool) -> AttemptUse {
    let waiting = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Message::Heartbeat(beat) = peer.message().await
                && let Some(found) = beat.uses.into_iter().find(&wanted)
            {
                return found;
            }
        }
    });
    waiting.await.expect("no heartbeat tells it")
}

fn measured_at_end(reports: &[Report]) -> Option<MeasuredUse> {
    match reports.last().unwrap().event.as_ref().unwrap() {
        Event::Ended(ended) => ended.measured,
        other => panic!("not ended: {other:?}"),
    }
}

fn load(state: &mut Value, gpu: usize, percent: u32, energy_mj: u64) {
    state["gpus"][gpu]["utilisation_percent"] = json!(percent);
    state["gpus"][gpu]["energy_mj"] = json!(energy_mj);
}

/// Whether energy is known and at least this.
fn has_energy(found: &AttemptUse, least_mj: u64) -> bool {
    found.measured.is_some_and(|measured| measured.energy_mj >= Some(least_mj))
}

#[tokio::test]
async fn an_attempt_tells_what_its_gpus_did_with_every_heartbeat_and_with_its_end() {
    let mut cluster = Cluster::start().await;
    let mut state = gpus(2);
    load(&mut state, 0, 100, 1_000_000);
    state["gpus"][0]["memory_used_bytes"] = json!(3u64 << 30);
    let double = Double::new(&state);
    let _daemon = patient_daemon(&cluster, &double, TIMEOUT_MS);
    let mut peer = cluster.peer().await;
    peer.order(Order::RunAttempt(until_told(&cluster, 7, &[(0, 1000)]))).await;
    use_of(&mut peer, |found| has_energy(found, 0)).await;
    load(&mut state, 0, 100, 5_000_000);
    double.set(&state);
    let found = use_of(&mut peer, |found| has_energy(found, 4_000_000)).await;
    assert_eq!((found.job_id, found.attempt, found.idle_ms), (7, 1, 0));
    std::fs::write(cluster.output("end"), "").unwrap();
    let measured = measured_at_end(&peer.reports_until_end().await).unwrap();
    assert_eq!(measured.busy_gpu_ms, Some(measured.observed_gpu_ms), "it was busy all the time");
    assert!(measured.observed_gpu_ms > 0 && measured.energy_mj >= Some(4_000_000), "{measured:?}");
    assert_eq!((measured.peak_memory_mib, measured.longest_idle_ms), (Some(3_072), Some(0)));
    assert_eq!((measured.nodes, measured.estimated), (1, false));
}

#[tokio::test]
async fn a_restart_of_the_daemon_loses_no_energy_and_a_reset_counter_keeps_what_was_before() {
    let mut cluster = Cluster::start().await;
    let mut state = gpus(1);
    load(&mut state, 0, 50, 1_000_000);
    // Where there is no counter for it, little is counted.
    state["gpus"][0]["power_mw"] = json!(1_000);
    let double = Double::new(&state);
    let mut daemon = patient_daemon(&cluster, &double, TIMEOUT_MS);
    let mut peer = cluster.peer().await;
    peer.order(Order::RunAttempt(until_told(&cluster, 7, &[(0, 1000)]))).await;
    use_of(&mut peer, |found| has_energy(found, 0)).await;
    daemon.kill();
    load(&mut state, 0, 50, 9_000_000);
    double.set(&state);
    let _daemon = patient_daemon(&cluster, &double, TIMEOUT_MS);
    let mut peer = cluster.peer().await;
    let before = use_of(&mut peer, |found| has_energy(found, 8_000_000)).await.measured.unwrap();
    load(&mut state, 0, 50, 10);
    double.set(&state);
    load(&mut state, 0, 50, 1_000_010);
    // For the time in which it fell power counts: so it is known to have been seen.
    use_of(&mut peer, |found| found.measured.is_some_and(|now| now.energy_mj > before.energy_mj))
        .await;
    double.set(&state);
    let after = use_of(&mut peer, |found| has_energy(found, 9_000_000)).await.measured.unwrap();
    assert!(after.energy_mj < Some(9_900_000), "{after:?}");
}

#[tokio::test]
async fn gpus_that_do_nothing_are_told_as_idle_and_a_part_of_one_as_estimated() {
    let mut cluster = Cluster::start().await;
    let mut state = gpus(2);
    let double = Double::new(&state);
    let _daemon = patient_daemon(&cluster, &double, TIMEOUT_MS);
    let mut peer = cluster.peer().await;
    peer.order(Order::RunAttempt(until_told(&cluster, 7, &[(0, 500), (1, 1000)]))).await;
    let idle = use_of(&mut peer, |found| found.idle_ms >= 200).await.measured.unwrap();
    assert_eq!((idle.busy_gpu_ms, idle.estimated), (Some(0), true));
    load(&mut state, 1, 30, 2_440_325);
    double.set(&state);
    let busy = use_of(&mut peer, |found| found.idle_ms == 0).await.measured.unwrap();
    assert!(busy.busy_gpu_ms > Some(0) && busy.longest_idle_ms >= idle.longest_idle_ms, "{busy:?}");
}

#[tokio::test]
async fn an_attempt_without_gpus_tells_nothing() {
    let mut cluster = Cluster::start().await;
    let double = Double::new(&gpus(1));
    let _daemon = patient_daemon(&cluster, &double, TIMEOUT_MS);
    let mut peer = cluster.peer().await;
    peer.order(Order::RunAttempt(script(7, "true"))).await;
    assert_eq!(measured_at_end(&peer.reports_until_end().await), None);
}

/// The page for Prometheus, once it is there.
async fn page(port: u16) -> String {
    let waiting = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Ok(mut stream) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await {
                let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    waiting.await.expect("there is no page")
}

#[tokio::test]
async fn the_page_for_prometheus_shows_gpus_with_the_job_that_has_them() {
    let mut cluster = Cluster::start().await;
    let mut state = gpus(2);
    load(&mut state, 0, 42, 1_000_000);
    let double = Double::new(&state);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let settings = format!(
        "nvml_library = {:?}\nreading_interval_ms = 20\nmetrics_listen = \"127.0.0.1:{port}\"\n",
        double.library()
    );
    let _daemon = cluster.daemon_of(&settings, &[]);
    let mut peer = cluster.peer().await;
    peer.order(Order::RunAttempt(until_told(&cluster, 7, &[(0, 1000)]))).await;
    peer.until_started().await;
    let text = page(port).await;
    assert!(text.contains("content-type: text/plain; version=0.0.4"), "{text}");
    let of = |metric: &str, gpu: u32| {
        let wanted = format!("UUID=\"{}\"", uuid(gpu));
        let found = text.lines().find(|line| line.starts_with(metric) && line.contains(&wanted));
        found.unwrap_or_else(|| panic!("no {metric} in {text}")).to_owned()
    };
    let util = of("DCGM_FI_DEV_GPU_UTIL{", 0);
    assert!(util.contains("hpc_job=\"7\"") && util.ends_with(" 42"), "{util}");
    assert!(util.contains("Hostname=\"n1\""), "{util}");
    let energy = of("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{", 1);
    assert!(!energy.contains("hpc_job") && energy.ends_with(" 2440325"), "{energy}");
    std::fs::write(cluster.output("end"), "").unwrap();
}

#[tokio::test]
async fn a_worker_whose_port_for_metrics_is_taken_says_so_and_does_not_run() {
    let cluster = Cluster::start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = format!("metrics_listen = \"{}\"\n", taken.local_addr().unwrap());
    let mut daemon = cluster.daemon_of(&settings, &["--simulate", "1xB200"]);
    assert_eq!(daemon.exit_code().await, Some(1));
}
