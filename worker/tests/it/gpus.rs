//! A daemon whose GPUs come from a double of the driver's library: what it registers and what its heartbeats say.

use gotgan_proto::v1::{GpuFault, GpuReading, GpuRecoveryAction, worker_message::Message};
use serde_json::json;

use crate::cluster::{Cluster, Daemon, PATIENCE, Peer};
use crate::double::{Double, gpus, uuid};

/// A daemon that reads its GPUs quickly.
pub fn daemon(cluster: &Cluster, double: &Double) -> Daemon {
    patient_daemon(cluster, double, 200)
}

/// As [`daemon`], which waits so long for a reading.
pub fn patient_daemon(cluster: &Cluster, double: &Double, timeout_ms: u32) -> Daemon {
    let config = cluster.output("worker.toml");
    let text = format!(
        "nvml_library = {:?}\nreading_interval_ms = 20\nreading_timeout_ms = {timeout_ms}\n",
        double.library()
    );
    std::fs::write(&config, text).unwrap();
    cluster.daemon_with(&["--config", config.to_str().unwrap()])
}

/// The readings of the first heartbeat in which they are as wanted; one that never comes fails the test.
pub async fn readings(peer: &mut Peer, wanted: impl Fn(&[GpuReading]) -> bool) -> Vec<GpuReading> {
    let waiting = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Message::Heartbeat(beat) = peer.message().await
                && wanted(&beat.gpus)
            {
                return beat.gpus;
            }
        }
    });
    waiting.await.expect("readings are never as wanted")
}

#[tokio::test]
async fn gpus_are_registered_and_readings_follow_the_driver() {
    let mut cluster = Cluster::start().await;
    let double = Double::new(&gpus(2));
    let _daemon = daemon(&cluster, &double);
    let mut peer = cluster.peer().await;
    let inventory = peer.register.inventory.clone().unwrap();
    assert_eq!(inventory.driver_version, "580.159.04-nvml-double");
    assert_eq!(inventory.gpus[1].uuid, uuid(1));
    assert_eq!(
        (inventory.gpus[1].gpu_class.as_str(), inventory.gpus[1].memory_mib),
        ("h100", 81_559)
    );
    assert!(inventory.simulated, "GPUs of a double are never shown as real ones");
    let first = readings(&mut peer, |gpus| gpus.len() == 2).await;
    assert_eq!((first[0].temperature_c, first[0].power_limit_mw), (Some(40), Some(700_000)));
    let mut state = gpus(2);
    state["gpus"][1]["temperature_c"] = json!(77);
    double.set(&state);
    let next = readings(&mut peer, |gpus| gpus[1].temperature_c == Some(77)).await;
    assert_eq!((next[0].temperature_c, next[0].error.as_str()), (Some(40), ""));
}

#[tokio::test]
async fn what_health_and_placement_need_is_registered_and_read() {
    let mut cluster = Cluster::start().await;
    let mut state = gpus(1);
    let device = json!({
        "uuid": "MIG-00000000-0000-4000-8000-000000000009", "profile": "1g.10gb",
        "gpu_instance": 9, "compute_instance": 0, "memory_mib": 9_856, "slices": [1, 1],
    });
    let gpu = state["gpus"][0].as_object_mut().unwrap();
    gpu.insert(
        "fabric".into(),
        json!({ "cluster": "a1b2c3d4000000000000000000000001", "clique": 7 }),
    );
    gpu.insert("recovery_action".into(), json!(1));
    gpu.insert("remapped_rows".into(), json!([0, 2, 1, 0]));
    gpu.insert("clock_reasons".into(), json!(0x84));
    gpu.insert("mig_mode".into(), json!([1, 1]));
    gpu.insert("mig_devices".into(), json!([device]));
    gpu.insert("nvlinks".into(), json!([{}, { "active": false }]));
    let double = Double::new(&state);
    let _daemon = daemon(&cluster, &double);
    let mut peer = cluster.peer().await;
    let registered = peer.register.inventory.clone().unwrap().gpus.remove(0);
    assert_eq!(registered.nvlink_domain, "a1b2c3d4-0000-0000-0000-000000000001.7");
    assert_eq!(registered.serial, "1650000000000");
    let found = readings(&mut peer, |gpus| gpus.len() == 1).await.remove(0);
    assert_eq!(found.recovery_action(), GpuRecoveryAction::ResetGpu);
    assert_eq!(found.remapped_rows.map(|rows| (rows.uncorrectable, rows.pending)), Some((2, true)));
    assert_eq!((found.clock_reasons, found.energy_mj), (Some(0x84), Some(2_440_325)));
    assert_eq!((found.nvlinks, found.nvlinks_up, found.index), (Some(2), Some(1), Some(0)));
    assert_eq!(found.mig_devices[0].profile, "1g.10gb");
    let fabric = found.fabric.unwrap();
    assert_eq!((fabric.nvlink_domain, fabric.status), (registered.nvlink_domain, 0));
    assert_eq!(found.error, "");
}

#[tokio::test]
async fn a_lost_gpu_leaves_the_others_read_and_positions_do_not_matter() {
    let mut cluster = Cluster::start().await;
    let double = Double::new(&gpus(3));
    let _daemon = daemon(&cluster, &double);
    let mut peer = cluster.peer().await;
    let first = readings(&mut peer, |gpus| gpus.len() == 3).await;
    assert!(first.iter().all(|gpu| gpu.fault() == GpuFault::Unspecified));
    let mut state = gpus(3);
    state["gpus"][0]["lost"] = json!(true);
    state["gpus"][1]["temperature_c"] = json!(51);
    state["gpus"][2]["temperature_c"] = json!(52);
    state["gpus"].as_array_mut().unwrap().reverse();
    double.set(&state);
    // Each GPU is looked at by itself: a beat may have some as they were before.
    let as_now = [None, Some(51), Some(52)];
    let is_now = |gpus: &[GpuReading]| gpus.iter().map(|gpu| gpu.temperature_c).eq(as_now);
    let found = readings(&mut peer, is_now).await;
    assert!(found[0].error.contains("GPU is lost"), "{}", found[0].error);
    assert_eq!(found[0].fault(), GpuFault::Lost);
    assert_eq!((found[0].uuid.clone(), found[1].error.as_str()), (uuid(0), ""));
    assert_eq!((found[2].index, found[1].index), (Some(0), Some(1)), "shifted, and told");
}

#[tokio::test]
async fn the_driver_is_started_once_and_only_asked_when_it_is_time() {
    let mut cluster = Cluster::start().await;
    let mut state = gpus(1);
    state["count_calls"] = json!(true);
    let double = Double::new(&state);
    let _daemon = daemon(&cluster, &double);
    let mut peer = cluster.peer().await;
    readings(&mut peer, |gpus| gpus[0].error.is_empty()).await;
    // At the start the reader starts the driver, and whoever looks whether GPUs can be capped.
    let asked = || {
        let functions =
            ["nvmlInit_v2", "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceSetPowerManagementLimit"];
        functions.map(|function| double.calls(function))
    };
    let at_the_start = asked();
    assert!(at_the_start[0] <= 2, "{at_the_start:?}");
    for _ in 0..3 {
        readings(&mut peer, |gpus| gpus[0].error.is_empty()).await;
    }
    assert_eq!(asked(), at_the_start);
}

#[tokio::test]
async fn a_fabric_that_is_being_joined_is_waited_for() {
    let mut cluster = Cluster::start().await;
    let mut state = gpus(2);
    let fabric = |state: u8| json!({ "cluster": "b".repeat(32), "clique": 1, "state": state });
    state["gpus"][0]["fabric"] = fabric(2);
    state["gpus"][1]["fabric"] = fabric(2);
    let double = Double::new(&state);
    let _daemon = daemon(&cluster, &double);
    state["gpus"][0]["fabric"] = fabric(3);
    state["gpus"][1]["fabric"] = fabric(3);
    double.set(&state);
    let registered = cluster.peer().await.register.inventory.unwrap().gpus;
    assert!(registered.iter().all(|gpu| gpu.nvlink_domain.ends_with("bbbb.1")), "{registered:?}");
}
