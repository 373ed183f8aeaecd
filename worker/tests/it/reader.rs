//! The process that reads GPUs: what becomes of the others when one of them, or the whole process, hangs or dies.

use gotgan_proto::v1::{GpuFault, GpuReading};
use gotgan_worker::shim::tree;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal::{SIGKILL, SIGSTOP};
use serde_json::json;

use crate::cluster::{Cluster, Daemon, eventually};
use crate::double::{Double, gpus, uuid};
use crate::gpus::{daemon, patient_daemon, readings};

/// Processes of a daemon that read GPUs.
fn readers(parent: i32) -> Vec<i32> {
    let reads = |pid: i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == b"nvml-reader")
    };
    let found = tree::processes().unwrap().into_iter();
    let found = found.filter(|it| it.parent == parent && !it.zombie && reads(it.pid));
    found.map(|process| process.pid).collect()
}

fn reader(daemon: &Daemon) -> i32 {
    let found = readers(daemon.pid());
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]
}

fn faults(gpus: &[GpuReading]) -> Vec<GpuFault> {
    gpus.iter().map(GpuReading::fault).collect()
}

const WELL: GpuFault = GpuFault::Unspecified;
const SILENT: GpuFault = GpuFault::Unresponsive;

#[tokio::test]
async fn a_gpu_that_hangs_silences_only_itself() {
    let mut cluster = Cluster::start().await;
    let double = Double::new(&gpus(3));
    let _daemon = daemon(&cluster, &double);
    let mut peer = cluster.peer().await;
    readings(&mut peer, |gpus| faults(gpus) == [WELL; 3]).await;
    let mut state = gpus(3);
    state["gpus"][1]["answers"] = json!({ "nvmlDeviceGetTemperature": { "hang": true } });
    double.set(&state);
    let found = readings(&mut peer, |gpus| faults(gpus) == [WELL, SILENT, WELL]).await;
    assert!(found[1].error.starts_with("driver_unresponsive"), "{}", found[1].error);
    // The others are read on.
    state["gpus"][2]["temperature_c"] = json!(77);
    double.set(&state);
    let found = readings(&mut peer, |gpus| gpus[2].temperature_c == Some(77)).await;
    assert_eq!(faults(&found), [WELL, SILENT, WELL]);
    double.set(&gpus(3));
    let again = readings(&mut peer, |gpus| faults(gpus) == [WELL; 3]).await;
    assert_eq!((again[1].temperature_c, again[1].error.as_str()), (Some(40), ""));
}

#[tokio::test]
async fn a_reader_that_is_killed_is_started_again_and_no_gpu_is_blamed_for_it() {
    let mut cluster = Cluster::start().await;
    let double = Double::new(&gpus(2));
    let daemon = patient_daemon(&cluster, &double, 30_000);
    let mut peer = cluster.peer().await;
    readings(&mut peer, |gpus| faults(gpus) == [WELL; 2]).await;
    let first = reader(&daemon);
    tree::signal(first, SIGKILL);
    let again = |pids: Vec<i32>| pids.len() == 1 && pids[0] != first;
    readings(&mut peer, |gpus| {
        assert_eq!(faults(gpus), [WELL; 2], "{gpus:?}");
        again(readers(daemon.pid()))
    })
    .await;
    // The new one reads as the old one did.
    let mut state = gpus(2);
    state["gpus"][1]["temperature_c"] = json!(77);
    double.set(&state);
    readings(&mut peer, |gpus| {
        assert_eq!(faults(gpus), [WELL; 2], "{gpus:?}");
        gpus[1].temperature_c == Some(77)
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_hangs_as_a_whole_costs_readings_and_no_heartbeat_and_is_replaced() {
    let mut cluster = Cluster::start().await;
    let double = Double::new(&gpus(2));
    let daemon = daemon(&cluster, &double);
    let mut peer = cluster.peer().await;
    readings(&mut peer, |gpus| faults(gpus) == [WELL; 2]).await;
    let first = reader(&daemon);
    tree::signal(first, SIGSTOP);
    for _ in 0..3 {
        readings(&mut peer, |gpus| faults(gpus) == [SILENT; 2]).await;
    }
    readings(&mut peer, |gpus| faults(gpus) == [WELL; 2]).await;
    assert_ne!(reader(&daemon), first);
}

#[tokio::test]
async fn a_reader_ends_with_its_daemon_also_where_a_gpu_hangs() {
    let mut cluster = Cluster::start().await;
    let double = Double::new(&gpus(2));
    let mut daemon = daemon(&cluster, &double);
    let mut peer = cluster.peer().await;
    let mut state = gpus(2);
    state["gpus"][0]["answers"] = json!({ "nvmlDeviceGetMemoryInfo_v2": { "hang": true } });
    double.set(&state);
    readings(&mut peer, |gpus| faults(gpus) == [SILENT, WELL]).await;
    let process = reader(&daemon);
    daemon.kill();
    eventually("the reader has ended", || {
        let found = tree::processes().unwrap();
        found.iter().all(|it| it.pid != process || it.zombie)
    })
    .await;
}

/// Where the open files of a process lead.
fn files(pid: i32) -> Vec<String> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = files.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok());
    links.map(|link| link.to_string_lossy().into_owned()).collect()
}

#[tokio::test]
async fn the_reader_has_nothing_of_the_daemon_that_it_does_not_need() {
    let mut cluster = Cluster::start().await;
    let double = Double::new(&gpus(1));
    // A file that whoever starts the daemon leaves open for it.
    let path = cluster.output("inherited");
    let inherited = std::fs::File::create(&path).unwrap();
    fcntl(&inherited, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let daemon = daemon(&cluster, &double);
    drop(inherited);
    cluster.peer().await;
    let process = reader(&daemon);
    let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap();
    let names = environment.split(|byte| *byte == 0).filter_map(|it| {
        Some(String::from_utf8_lossy(it.split(|byte| *byte == b'=').next()?).into_owned())
    });
    let names: Vec<String> = names.filter(|name| !name.is_empty()).collect();
    let known = ["LD_LIBRARY_PATH", "PATH", "RUST_LOG"];
    assert!(names.iter().all(|name| known.contains(&name.as_str())), "{names:?}");
    let is_foreign = |file: &String| {
        file.contains("socket:") || file.contains("/state/") || *file == path.to_string_lossy()
    };
    assert!(files(daemon.pid()).iter().any(is_foreign));
    assert!(!files(process).iter().any(is_foreign), "{:?}", files(process));
}

#[tokio::test]
async fn a_machine_without_the_library_has_no_gpus_and_no_reader() {
    let mut cluster = Cluster::start().await;
    let daemon = cluster.daemon_with(&["--nvml-library", "/nowhere/libnvidia-ml.so.1"]);
    let peer = cluster.peer().await;
    assert!(peer.register.inventory.unwrap().gpus.is_empty());
    let children = || tree::processes().unwrap().into_iter().filter(|it| it.parent == daemon.pid());
    eventually("nothing is left of it", || children().all(|it| !it.zombie)).await;
    assert!(readers(daemon.pid()).is_empty());
}

#[tokio::test]
async fn after_a_restart_of_the_reader_the_registered_gpus_count_whatever_the_driver_lists() {
    let mut cluster = Cluster::start().await;
    let double = Double::new(&gpus(3));
    let daemon = daemon(&cluster, &double);
    let mut peer = cluster.peer().await;
    readings(&mut peer, |gpus| faults(gpus) == [WELL; 3]).await;
    let mut state = gpus(3);
    let list = state["gpus"].as_array_mut().unwrap();
    list.remove(0);
    list.reverse();
    double.set(&state);
    tree::signal(reader(&daemon), SIGKILL);
    // The reader that is about to end may see the loss as well, but numbers them as before.
    let is_read_anew = |gpus: &[GpuReading]| {
        faults(gpus) == [GpuFault::Lost, WELL, WELL] && gpus[2].index == Some(0)
    };
    let found = readings(&mut peer, is_read_anew).await;
    let uuids: Vec<_> = found.iter().map(|gpu| gpu.uuid.clone()).collect();
    assert_eq!(uuids, [uuid(0), uuid(1), uuid(2)]);
    assert_eq!(found[1].index, Some(1));
    assert!(found[0].error.contains("does not list"), "{}", found[0].error);
}

#[tokio::test]
async fn a_gpu_that_must_be_reset_and_one_that_is_lost_say_so() {
    let mut cluster = Cluster::start().await;
    let double = Double::new(&gpus(2));
    let _daemon = daemon(&cluster, &double);
    let mut peer = cluster.peer().await;
    let mut state = gpus(2);
    state["gpus"][0]["answers"] = json!({ "nvmlDeviceGetTemperature": { "code": 16 } });
    state["gpus"][1]["answers"] = json!({ "nvmlDeviceGetPowerUsage": { "code": 15 } });
    double.set(&state);
    let wanted = [GpuFault::ResetRequired, GpuFault::Lost];
    let found = readings(&mut peer, |gpus| faults(gpus) == wanted).await;
    assert!(found[0].error.contains("must be reset"), "{}", found[0].error);
    double.set(&gpus(2));
    readings(&mut peer, |gpus| faults(gpus) == [WELL; 2]).await;
}

#[tokio::test]
async fn a_fault_and_a_new_recovery_action_do_not_wait_for_the_next_heartbeat() {
    let mut cluster = Cluster::start().await;
    // Within the patience of a test no heartbeat but the first comes by itself.
    cluster.heartbeat_ms.store(3_600_000, std::sync::atomic::Ordering::Relaxed);
    let double = Double::new(&gpus(2));
    let _daemon = daemon(&cluster, &double);
    let mut peer = cluster.peer().await;
    readings(&mut peer, |gpus| faults(gpus) == [WELL; 2]).await;
    let mut state = gpus(2);
    state["gpus"][0]["recovery_action"] = json!(2);
    double.set(&state);
    readings(&mut peer, |gpus| gpus[0].recovery_action == 3).await;
    state["gpus"][1]["lost"] = json!(true);
    double.set(&state);
    readings(&mut peer, |gpus| faults(gpus) == [WELL, GpuFault::Lost]).await;
    state["gpus"][0]["answers"] = json!({ "nvmlDeviceGetTemperature": { "hang": true } });
    double.set(&state);
    readings(&mut peer, |gpus| faults(gpus) == [SILENT, GpuFault::Lost]).await;
}
