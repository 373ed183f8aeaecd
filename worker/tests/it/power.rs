//! Caps of GPUs through a double of the driver's library: what it was told, and what becomes of attempts whose GPUs refuse.

use std::collections::BTreeMap;

use gotgan_proto::v1::report::Event;
use gotgan_proto::v1::scheduler_message::Message as Order;
use gotgan_proto::v1::{Cause, GpuAllocation, RunAttempt};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Daemon, end_of, eventually, script};
use crate::double::{Double, gpus, uuid};
use crate::gpus::readings;

fn daemon(cluster: &Cluster, double: &Double) -> Daemon {
    let settings = format!(
        "nvml_library = {:?}\nreading_interval_ms = 20\nreading_timeout_ms = 2000\n[power]\nlimit_timeout_s = 2\n",
        double.library()
    );
    cluster.daemon_of(&settings, &[])
}

/// An order for a script on one GPU that is capped.
fn capped(job_id: u64, gpu: u32, watts: u32, text: &str) -> RunAttempt {
    let gpus = vec![GpuAllocation { uuid: uuid(gpu), milli: 1000 }];
    RunAttempt { gpus, gpu_cap_watts: watts, ..script(job_id, text) }
}

/// Limits that were set, in watts.
fn limits(double: &Double) -> BTreeMap<String, u32> {
    let text = std::fs::read(double.path("nvml-limits.json")).unwrap_or_default();
    let limits: BTreeMap<String, u32> = serde_json::from_slice(&text).unwrap_or_default();
    limits.into_iter().map(|(uuid, mw)| (uuid, mw / 1000)).collect()
}

fn limit(double: &Double, gpu: u32) -> Option<u32> {
    limits(double).get(&uuid(gpu)).copied()
}

fn one_gpu_with(key: &str, value: Value) -> Value {
    let mut state = gpus(2);
    state["gpus"][0][key] = value;
    state
}

fn refusal(events: &[Event]) -> (Cause, String) {
    let Some(Event::Refused(refused)) = events.last() else { panic!("{events:?}") };
    let unfit = events.iter().any(|event| matches!(event, Event::Unfit(_)));
    assert!(unfit, "the node is not drained: {events:?}");
    (refused.cause(), refused.reason.clone())
}

#[tokio::test]
async fn a_gpu_is_capped_before_its_job_starts_and_has_its_own_limit_again_at_the_end() {
    let mut cluster = Cluster::start().await;
    let double = Double::new(&gpus(2));
    let _daemon = daemon(&cluster, &double);
    let mut peer = cluster.peer().await;
    let inventory = peer.register.inventory.clone().unwrap();
    assert!(inventory.power_caps.unwrap().able);
    assert_eq!((inventory.gpus[0].cap_min_watts, inventory.gpus[0].cap_max_watts), (200, 700));
    let (seen, go) = (cluster.output("seen"), cluster.output("go"));
    let body = format!(
        "cp {} {}; echo $GOTGAN_GPU_CAP_WATTS >> {1}; while ! [ -e {} ]; do sleep 0.02; done",
        double.path("nvml-limits.json").display(),
        seen.display(),
        go.display()
    );
    peer.order(Order::RunAttempt(capped(7, 0, 400, &body))).await;
    let enforced = readings(&mut peer, |gpus| gpus[0].power_limit_mw == Some(400_000)).await;
    assert_eq!(enforced[1].power_limit_mw, Some(700_000));
    std::fs::write(&go, "").unwrap();
    let reports = peer.reports_until_end().await;
    assert_eq!(end_of(&reports).2.code, 0);
    let seen = std::fs::read_to_string(seen).unwrap();
    assert!(seen.contains(&format!("\"{}\":400000", uuid(0))), "{seen}");
    assert!(seen.ends_with("400\n"), "{seen}");
    assert_eq!((limit(&double, 0), limit(&double, 1)), (Some(700), Some(700)));
}

#[tokio::test]
async fn a_gpu_that_refuses_its_cap_makes_the_node_unfit_and_nothing_of_the_job_runs() {
    let mut cluster = Cluster::start().await;
    let double = Double::new(&gpus(2));
    let _daemon = daemon(&cluster, &double);
    let mut peer = cluster.peer().await;
    let refuses = json!({ "nvmlDeviceSetPowerManagementLimit": { "code": 3 } });
    double.set(&one_gpu_with("answers", refuses));
    let ran = cluster.output("ran");
    let body = format!("touch {}", ran.display());
    peer.order(Order::RunAttempt(capped(7, 0, 400, &body))).await;
    let reports = peer.reports_until_end().await;
    let events: Vec<Event> = reports.into_iter().filter_map(|report| report.event).collect();
    let (cause, reason) = refusal(&events);
    assert_eq!(cause, Cause::Node);
    assert!(
        reason.ends_with("does not take a power limit of 400 W: not supported by this GPU"),
        "{reason}"
    );
    assert!(!ran.exists());
}

#[tokio::test]
async fn a_gpu_that_may_draw_more_than_its_cap_makes_the_node_unfit() {
    let mut cluster = Cluster::start().await;
    let double = Double::new(&one_gpu_with("power_step_mw", json!(300_000)));
    let _daemon = daemon(&cluster, &double);
    let mut peer = cluster.peer().await;
    peer.order(Order::RunAttempt(capped(7, 0, 400, "true"))).await;
    let reports = peer.reports_until_end().await;
    let events: Vec<Event> = reports.into_iter().filter_map(|report| report.event).collect();
    let (cause, reason) = refusal(&events);
    assert_eq!(cause, Cause::Node);
    assert!(reason.ends_with("was capped at 400 W and may draw 600 W"), "{reason}");
}

#[tokio::test]
async fn a_driver_that_hangs_costs_the_start_and_not_the_daemon() {
    let mut cluster = Cluster::start().await;
    let double = Double::new(&gpus(2));
    let _daemon = daemon(&cluster, &double);
    let mut peer = cluster.peer().await;
    let hangs = json!({ "nvmlDeviceSetPowerManagementLimit": { "hang": true } });
    double.set(&one_gpu_with("answers", hangs));
    peer.order(Order::RunAttempt(capped(7, 0, 400, "true"))).await;
    let reports = peer.reports_until_end().await;
    let events: Vec<Event> = reports.into_iter().filter_map(|report| report.event).collect();
    assert_eq!(refusal(&events).1, "the driver did not set power limits within 2 s");
    double.set(&gpus(2));
}

#[tokio::test]
async fn a_worker_that_may_not_set_limits_says_so() {
    let mut cluster = Cluster::start().await;
    let refuses = json!({ "nvmlDeviceSetPowerManagementLimit": { "code": 4 } });
    let double = Double::new(&one_gpu_with("answers", refuses));
    let _daemon = daemon(&cluster, &double);
    let peer = cluster.peer().await;
    let caps = peer.register.inventory.clone().unwrap().power_caps.unwrap();
    assert!(!caps.able);
    assert_eq!(caps.missing, format!("GPU {}: no permission (code 4)", uuid(0)));
}

#[tokio::test]
async fn caps_outlive_the_daemon_and_are_taken_back_by_the_next_one_once_nobody_holds_the_gpu() {
    let mut cluster = Cluster::start().await;
    let double = Double::new(&gpus(2));
    let mut first = daemon(&cluster, &double);
    let mut peer = cluster.peer().await;
    let go = cluster.output("go");
    let body = format!("while ! [ -e {} ]; do sleep 0.02; done", go.display());
    peer.order(Order::RunAttempt(capped(7, 0, 400, &body))).await;
    peer.until_started().await;
    first.kill();
    assert_eq!(limit(&double, 0), Some(400));
    // A driver that was loaded anew has forgotten it.
    std::fs::remove_file(double.path("nvml-limits.json")).unwrap();
    let mut second = daemon(&cluster, &double);
    let mut peer = cluster.peer().await;
    eventually("it is capped again", || limit(&double, 0) == Some(400)).await;
    second.kill();
    std::fs::write(&go, "").unwrap();
    let exit = cluster.state().join("attempts/7.1/step-0/rank-0.exit");
    eventually("the script has ended", || exit.exists()).await;
    assert_eq!(limit(&double, 0), Some(400), "the safe direction");
    drop(peer);
    let _third = daemon(&cluster, &double);
    peer = cluster.peer().await;
    assert_eq!(end_of(&peer.reports_until_end().await).2.code, 0);
    assert_eq!(limit(&double, 0), Some(700));
}

#[tokio::test]
async fn what_a_daemon_left_capped_is_as_it_was_before_the_next_one_registers() {
    let mut cluster = Cluster::start().await;
    let double = Double::new(&gpus(2));
    let set = json!({ (uuid(0)): 400_000 }).to_string();
    std::fs::write(double.path("nvml-limits.json"), set).unwrap();
    let before = json!({ (uuid(0)): 650_000 }).to_string();
    std::fs::create_dir_all(cluster.state()).unwrap();
    std::fs::write(cluster.state().join("power-limits.json"), before).unwrap();
    let _daemon = daemon(&cluster, &double);
    let _peer = cluster.peer().await;
    assert_eq!(limit(&double, 0), Some(650));
    let left = std::fs::read_to_string(cluster.state().join("power-limits.json")).unwrap();
    assert_eq!(left, "{}");
}
