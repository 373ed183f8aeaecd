//! What a worker tells once of its hardware: numbered, in order, with the attempts that were hit, and none lost.

use gotgan_proto::v1::finding::What;
use gotgan_proto::v1::report::Event;
use gotgan_proto::v1::scheduler_message::Message as Order;
use gotgan_proto::v1::worker_message::Message;
use gotgan_proto::v1::{Finding, FindingAck, GpuAllocation, GpuFault, RunAttempt};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Daemon, PATIENCE, Peer, eventually, script};
use crate::double::{Double, gpus, uuid};
use crate::gpus::readings;

const XID: u64 = 8;
const RECOVERY: u64 = 0x8000;

/// A machine whose calls are counted.
fn counted(count: u32) -> Value {
    let mut state = gpus(count);
    state["count_calls"] = json!(true);
    for (number, gpu) in state["gpus"].as_array_mut().unwrap().iter_mut().enumerate() {
        gpu["pci_bus_id"] = json!(format!("00000000:{:02X}:00.0", 0x3b + number));
    }
    state
}

fn event(number: u64, gpu: u32, kind: u64, data: u64) -> Value {
    json!({ "number": number, "uuid": uuid(gpu), "kind": kind, "data": data })
}

/// A daemon with these settings that waits for the events of all its GPUs.
async fn watching(cluster: &Cluster, double: &Double, settings: &str) -> Daemon {
    let before = double.counts();
    let all = format!(
        "nvml_library = {:?}\nreading_interval_ms = 20\nreading_timeout_ms = 2000\n\
         [health]\nkernel_log_path = {:?}\n{settings}",
        double.library(),
        double.path("kmsg"),
    );
    let daemon = cluster.daemon_of(&all, &[]);
    let text = std::fs::read_to_string(double.path("nvml.json")).unwrap();
    let state: Value = serde_json::from_str(&text).unwrap();
    let wanted = state["gpus"].as_array().unwrap().len() as u64;
    let registered = || double.calls_beyond("nvmlDeviceRegisterEvents", &before);
    eventually("events are waited for", || registered() >= wanted).await;
    daemon
}

/// The next finding, acknowledged if the peer acknowledges; one that never comes fails the test.
async fn finding(peer: &mut Peer) -> Finding {
    let waiting = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Message::Finding(finding) = peer.message().await {
                return finding;
            }
        }
    });
    let found = waiting.await.expect("the finding never came");
    acknowledge(peer, &found).await;
    found
}

/// Whether a finding comes before any report.
async fn begins_with_finding(peer: &mut Peer, wanted: &Finding) -> bool {
    loop {
        match peer.message().await {
            Message::Finding(found) => return found == *wanted,
            Message::Report(_) => return false,
            _ => {}
        }
    }
}

async fn acknowledge(peer: &Peer, finding: &Finding) {
    if peer.acknowledge {
        let Finding { journal_id, seq, .. } = finding.clone();
        peer.order(Order::FindingAck(FindingAck { journal_id, seq })).await;
    }
}

/// Number, error and GPU.
fn xid(finding: &Finding) -> (u64, u32, String) {
    match finding.what {
        Some(What::Xid(xid)) => (finding.seq, xid.number, finding.gpu_uuid.clone()),
        ref other => panic!("{other:?}"),
    }
}

fn on_gpu(job_id: u64, gpu: u32, text: &str) -> RunAttempt {
    let mut order = script(job_id, text);
    order.gpus = vec![GpuAllocation { uuid: uuid(gpu), milli: 1000 }];
    order
}

fn jobs(finding: &Finding) -> Vec<u64> {
    finding.attempts.iter().map(|attempt| attempt.job_id).collect()
}

#[tokio::test]
async fn errors_are_told_in_order_with_the_attempts_that_had_the_gpu() {
    let mut cluster = Cluster::start().await;
    let mut state = counted(3);
    let double = Double::new(&state);
    let _daemon = watching(&cluster, &double, "").await;
    let mut peer = cluster.peer().await;
    for gpu in 0..2 {
        peer.order(Order::RunAttempt(on_gpu(7 + u64::from(gpu), gpu, "sleep 1000"))).await;
        peer.until_started().await;
    }
    state["events"] = json!([event(1, 0, XID, 48), event(2, 0, XID, 63)]);
    double.set(&state);
    let (first, second) = (finding(&mut peer).await, finding(&mut peer).await);
    assert_eq!((xid(&first), xid(&second)), ((1, 48, uuid(0)), (2, 63, uuid(0))));
    assert_eq!((jobs(&first), jobs(&second)), (vec![7], vec![7]));
    assert_eq!(first.boot_id, peer.register.inventory.as_ref().unwrap().boot_id);
    assert!(!first.journal_id.is_empty() && first.journal_id == second.journal_id);
    assert!(first.at_us > 0 && second.at_us >= first.at_us);
    // Nobody has the third; what is acknowledged does not come again.
    state["events"] = json!([event(3, 2, XID, 79)]);
    double.set(&state);
    let third = finding(&mut peer).await;
    assert_eq!((xid(&third), jobs(&third)), ((3, 79, uuid(2)), vec![]));
}

#[tokio::test]
async fn no_finding_is_lost_or_numbered_anew_over_restarts_of_the_daemon() {
    let mut cluster = Cluster::start().await;
    let mut state = counted(1);
    let double = Double::new(&state);
    let mut daemon = watching(&cluster, &double, "").await;
    let mut peer = cluster.peer().await;
    peer.acknowledge = false;
    state["events"] = json!([event(1, 0, XID, 31), event(2, 0, XID, 43), event(3, 0, XID, 13)]);
    double.set(&state);
    let mut first = Vec::new();
    for _ in 0..3 {
        first.push(finding(&mut peer).await);
    }
    peer.order(Order::RunAttempt(script(9, "true"))).await;
    peer.reports_until_end().await;
    drop(peer);
    // A new stream begins with them, and so does a new daemon: nothing that was written later comes first.
    let mut peer = cluster.peer().await;
    peer.acknowledge = false;
    assert!(begins_with_finding(&mut peer, &first[0]).await);
    daemon.kill();
    drop(peer);
    let mut daemon = watching(&cluster, &double, "").await;
    let mut peer = cluster.peer().await;
    for known in &first {
        assert_eq!(finding(&mut peer).await, *known);
    }
    state["events"] = json!([event(4, 0, XID, 79)]);
    double.set(&state);
    let fourth = finding(&mut peer).await;
    assert_eq!((fourth.seq, &fourth.journal_id), (4, &first[0].journal_id));
    peer.order(Order::RunAttempt(script(7, "true"))).await;
    // Once a later order was carried out, so was the acknowledgement before it.
    while peer.report().await.job_id != 7 {}
    daemon.kill();
    drop(peer);
    let _daemon = watching(&cluster, &double, "").await;
    let mut peer = cluster.peer().await;
    state["events"] = json!([event(5, 0, XID, 8)]);
    double.set(&state);
    assert_eq!(xid(&finding(&mut peer).await), (5, 8, uuid(0)));
}

#[tokio::test]
async fn a_storm_of_errors_is_told_whole_and_beyond_ten_thousand_by_the_second() {
    let mut cluster = Cluster::start().await;
    let mut state = gpus(2);
    state["count_calls"] = json!(true);
    let double = Double::new(&state);
    let _daemon = watching(&cluster, &double, "kernel_log = false\n").await;
    let mut peer = cluster.peer().await;
    peer.acknowledge = false;
    let mut storm = event(1, 0, XID, 31);
    storm["repeat"] = json!(10_500);
    state["count_calls"] = json!(false);
    state["events"] = json!([storm]);
    double.set(&state);
    let (mut count, mut seq, mut beats) = (0, 0, 0);
    while count < 10_500 {
        match peer.message().await {
            Message::Finding(finding) if finding.seq > seq => {
                assert_eq!(finding.seq, seq + 1);
                seq = finding.seq;
                let times = finding.detail.split(' ').next().and_then(|it| it.parse().ok());
                count += times.unwrap_or(1);
            }
            Message::Heartbeat(_) => beats += 1,
            _ => {}
        }
    }
    assert_eq!(count, 10_500);
    assert!(seq < 10_500 && seq > 10_000, "{seq}");
    assert!(beats > 0);
}

#[tokio::test]
async fn a_gpu_may_be_lost_with_an_error_and_without_one() {
    let mut cluster = Cluster::start().await;
    let mut state = counted(2);
    let double = Double::new(&state);
    std::fs::write(double.path("kmsg"), "").unwrap();
    let _daemon = watching(&cluster, &double, "").await;
    let mut peer = cluster.peer().await;
    state["events"] = json!([event(1, 0, XID, 79)]);
    double.set(&state);
    assert_eq!(xid(&finding(&mut peer).await), (1, 79, uuid(0)));
    state["gpus"][0]["lost"] = json!(true);
    // The other one falls off the bus without a number: the reading tells, and nothing is invented.
    state["gpus"][1]["lost"] = json!(true);
    double.set(&state);
    let lost = |gpus: &[gotgan_proto::v1::GpuReading]| {
        gpus.iter().all(|gpu| gpu.fault() == GpuFault::Lost)
    };
    log(&double, "3,1,1,-;NVRM: GPU 0000:3c:00.0: GPU has fallen off the bus.");
    readings(&mut peer, lost).await;
    log(&double, "3,2,1,-;NVRM: Xid (PCI:0000:3c:00): 119, pid=5, name=x, Timeout waiting");
    assert_eq!(xid(&finding(&mut peer).await), (2, 119, uuid(1)));
}

fn log(double: &Double, line: &str) {
    use std::io::Write;
    let mut file = std::fs::File::options().append(true).open(double.path("kmsg")).unwrap();
    writeln!(file, "{line}").unwrap();
}

#[tokio::test]
async fn the_kernels_log_adds_the_process_and_tells_what_the_driver_does_not() {
    let mut cluster = Cluster::start().await;
    let mut state = counted(1);
    let double = Double::new(&state);
    std::fs::write(double.path("kmsg"), "4,1,1,-;NVRM: Xid (PCI:0000:3b:00): 48, old\n").unwrap();
    let _daemon = watching(&cluster, &double, "").await;
    let mut peer = cluster.peer().await;
    readings(&mut peer, |gpus| gpus.len() == 1).await;
    // Anybody may write this; only what the kernel wrote counts.
    log(&double, "12,2,1,-;NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.");
    log(&double, "4,3,1,-;NVRM: Xid (PCI:0000:3b:00): 31, pid=4242, name=python, Ch 00000008");
    let first = finding(&mut peer).await;
    let Some(What::Xid(error)) = first.what else { panic!("{first:?}") };
    assert_eq!((error.number, error.pid), (31, 4242));
    assert!(first.detail.contains("Ch 00000008"), "{}", first.detail);
    // The event of the same error is no second finding; that of another is.
    state["events"] = json!([event(1, 0, XID, 31), event(2, 0, XID, 43)]);
    double.set(&state);
    assert_eq!(xid(&finding(&mut peer).await), (2, 43, uuid(0)));
    log(&double, "4,4,1,-;NVRM: Xid (PCI:0000:99:00): 13, pid=1, name=x, elsewhere");
    assert_eq!(xid(&finding(&mut peer).await), (3, 13, String::new()));
}

#[tokio::test]
async fn what_the_kernel_wrote_while_no_daemon_ran_is_told_by_the_next_one_and_nothing_twice() {
    let mut cluster = Cluster::start().await;
    let double = Double::new(&counted(1));
    std::fs::write(double.path("kmsg"), "6,7,1,-;something else\n").unwrap();
    let mut daemon = watching(&cluster, &double, "").await;
    let mut peer = cluster.peer().await;
    peer.order(Order::RunAttempt(on_gpu(7, 0, "sleep 1000"))).await;
    peer.until_started().await;
    log(&double, "4,8,1,-;NVRM: Xid (PCI:0000:3b:00): 31, pid=1, name=x, first");
    assert_eq!(xid(&finding(&mut peer).await), (1, 31, uuid(0)));
    daemon.kill();
    drop(peer);
    log(&double, "4,9,1,-;NVRM: Xid (PCI:0000:3b:00): 94, pid=1, name=x, second");
    let _daemon = watching(&cluster, &double, "").await;
    let mut peer = cluster.peer().await;
    let mut found = finding(&mut peer).await;
    if found.seq == 1 {
        // Its acknowledgement was lost with the daemon.
        found = finding(&mut peer).await;
    }
    assert_eq!((xid(&found), jobs(&found)), ((2, 94, uuid(0)), vec![7]));
    log(&double, "4,10,1,-;NVRM: Xid (PCI:0000:3b:00): 13, pid=1, name=x, third");
    assert_eq!(xid(&finding(&mut peer).await), (3, 13, uuid(0)));
    peer.stop(7, gotgan_proto::v1::Cause::User, 1).await;
    peer.reports_until_end().await;
}

#[tokio::test]
async fn the_end_of_a_failing_attempt_waits_for_what_the_driver_says() {
    let mut cluster = Cluster::start().await;
    let mut state = counted(2);
    let double = Double::new(&state);
    let _daemon = watching(&cluster, &double, "settle_ms = 10000\n").await;
    let mut peer = cluster.peer().await;
    peer.order(Order::RunAttempt(on_gpu(7, 0, "exit 3"))).await;
    peer.reports_until(|event| matches!(event, Event::TaskEnded(_))).await;
    // Meanwhile nothing else waits: one that succeeds, and one that fails without a GPU.
    peer.order(Order::RunAttempt(on_gpu(8, 1, "exit 0"))).await;
    assert_eq!(peer.reports_until_end().await.last().unwrap().job_id, 8);
    peer.order(Order::RunAttempt(script(9, "exit 3"))).await;
    assert_eq!(peer.reports_until_end().await.last().unwrap().job_id, 9);
    state["events"] = json!([event(1, 0, XID, 94)]);
    double.set(&state);
    let hit = loop {
        match peer.message().await {
            Message::Finding(finding) => break finding,
            Message::Report(report) => panic!("before the finding: {report:?}"),
            _ => {}
        }
    };
    assert_eq!((xid(&hit), jobs(&hit)), ((1, 94, uuid(0)), vec![7]));
    let reports = peer.reports_until_end().await;
    assert_eq!(crate::cluster::end_of(&reports).2.code, 3);
    assert_eq!(reports.last().unwrap().job_id, 7);
}

#[tokio::test]
async fn an_end_that_is_kept_back_is_not_lost_with_the_daemon() {
    let mut cluster = Cluster::start().await;
    let double = Double::new(&counted(1));
    let mut daemon = watching(&cluster, &double, "settle_ms = 10000\n").await;
    let mut peer = cluster.peer().await;
    peer.order(Order::RunAttempt(on_gpu(7, 0, "exit 3"))).await;
    peer.reports_until(|event| matches!(event, Event::TaskEnded(_))).await;
    daemon.kill();
    drop(peer);
    let _daemon = watching(&cluster, &double, "settle_ms = 0\n").await;
    let mut peer = cluster.peer().await;
    let reports = peer.reports_until_end().await;
    assert_eq!(crate::cluster::end_of(&reports).2.code, 3);
}

#[tokio::test]
async fn memory_errors_that_rise_are_told_once_and_a_count_that_falls_is_not() {
    let mut cluster = Cluster::start().await;
    let mut state = counted(1);
    let double = Double::new(&state);
    let mut daemon = watching(&cluster, &double, "").await;
    let mut peer = cluster.peer().await;
    readings(&mut peer, |gpus| gpus[0].ecc_uncorrected == Some(0)).await;
    let rose = |finding: &Finding| match finding.what {
        Some(What::UncorrectedErrors(rose)) => (rose.before, rose.after),
        ref other => panic!("{other:?}"),
    };
    state["gpus"][0]["ecc_since_load"] = json!([0, 4]);
    double.set(&state);
    assert_eq!(rose(&finding(&mut peer).await), (0, 4));
    // Reset, and then one more.
    state["gpus"][0]["ecc_since_load"] = json!([0, 0]);
    double.set(&state);
    readings(&mut peer, |gpus| gpus[0].ecc_uncorrected == Some(0)).await;
    state["gpus"][0]["ecc_since_load"] = json!([0, 1]);
    double.set(&state);
    assert_eq!(rose(&finding(&mut peer).await), (0, 1));
    // What rises while no daemon runs is found by the next one.
    daemon.kill();
    drop(peer);
    state["gpus"][0]["ecc_since_load"] = json!([0, 9]);
    double.set(&state);
    let _daemon = watching(&cluster, &double, "").await;
    let mut peer = cluster.peer().await;
    let found = loop {
        let found = finding(&mut peer).await;
        // The last acknowledgement may have been lost with the daemon.
        if found.seq > 2 {
            break found;
        }
    };
    assert_eq!(rose(&found), (1, 9));
}

#[tokio::test]
async fn an_event_makes_its_gpu_read_at_once() {
    let mut cluster = Cluster::start().await;
    cluster.heartbeat_ms.store(3_600_000, std::sync::atomic::Ordering::Relaxed);
    let mut state = counted(2);
    let double = Double::new(&state);
    let rarely = format!(
        "nvml_library = {:?}\nreading_interval_ms = 3600000\n[health]\nkernel_log = false\n",
        double.library()
    );
    let _daemon = cluster.daemon_of(&rarely, &[]);
    let mut peer = cluster.peer().await;
    readings(&mut peer, |gpus| gpus.len() == 2).await;
    eventually("events are waited for", || double.calls("nvmlDeviceRegisterEvents") >= 2).await;
    state["gpus"][1]["recovery_action"] = json!(1);
    state["events"] = json!([event(1, 1, RECOVERY, 1)]);
    double.set(&state);
    readings(&mut peer, |gpus| gpus[1].recovery_action == 2).await;
    state["gpus"][0]["recovery_action"] = json!(2);
    state["events"] = json!([event(2, 0, XID, 154)]);
    double.set(&state);
    readings(&mut peer, |gpus| gpus[0].recovery_action == 3).await;
}

#[tokio::test]
async fn processes_on_a_gpu_that_no_attempt_has_are_leftover_ones() {
    let mut cluster = Cluster::start().await;
    let mut state = counted(2);
    state["gpus"][0]["processes"] = json!([{ "pid": 4711 }]);
    let double = Double::new(&state);
    let mut daemon = watching(&cluster, &double, "leftover_after_ms = 2000\n").await;
    let mut peer = cluster.peer().await;
    let left = |gpus: &[gotgan_proto::v1::GpuReading]| {
        gpus.iter().map(|gpu| gpu.leftover_processes).collect::<Vec<_>>()
    };
    // There since before the daemon began.
    readings(&mut peer, |gpus| left(gpus) == [true, false]).await;
    peer.order(Order::RunAttempt(on_gpu(7, 0, "sleep 1000"))).await;
    peer.until_started().await;
    let used = readings(&mut peer, |gpus| left(gpus) == [false, false]).await;
    assert_eq!(used[0].processes.len(), 1, "they may be the attempt's own");
    peer.stop(7, gotgan_proto::v1::Cause::User, 1).await;
    peer.reports_until_end().await;
    // Cleaning up takes its time.
    let next = readings(&mut peer, |_| true).await;
    assert_eq!(left(&next), [false, false]);
    readings(&mut peer, |gpus| left(gpus) == [true, false]).await;
    state["gpus"][0]["processes"] = json!([]);
    double.set(&state);
    readings(&mut peer, |gpus| left(gpus) == [false, false]).await;
    daemon.kill();
    drop(peer);
    state["gpus"][0]["processes"] = json!([{ "pid": 4711 }]);
    double.set(&state);
    let ignore = "leftover_after_ms = 0\nleftover_processes = \"ignore\"\n";
    let _daemon = watching(&cluster, &double, ignore).await;
    let mut peer = cluster.peer().await;
    for _ in 0..3 {
        let found = readings(&mut peer, |gpus| gpus[0].processes.len() == 1).await;
        assert_eq!(left(&found), [false, false]);
    }
}

#[tokio::test]
async fn waiting_for_events_that_hangs_or_fails_costs_no_readings() {
    let mut cluster = Cluster::start().await;
    let mut state = counted(2);
    let double = Double::new(&state);
    let _daemon = watching(&cluster, &double, "").await;
    let mut peer = cluster.peer().await;
    state["gpus"][0]["answers"] = json!({ "nvmlEventSetWait_v2": { "hang": true } });
    state["gpus"][1]["answers"] = json!({ "nvmlEventSetWait_v2": { "code": 15 } });
    state["gpus"][0]["temperature_c"] = json!(51);
    state["gpus"][1]["temperature_c"] = json!(52);
    double.set(&state);
    let found = readings(&mut peer, |gpus| gpus[1].fault() == GpuFault::Lost).await;
    assert_eq!((found[0].fault(), found[1].temperature_c), (GpuFault::Unspecified, Some(52)));
    readings(&mut peer, |gpus| gpus[0].temperature_c == Some(51)).await;
    state["gpus"][0]["answers"] = json!({});
    state["events"] = json!([event(1, 0, XID, 13)]);
    double.set(&state);
    assert_eq!(xid(&finding(&mut peer).await), (1, 13, uuid(0)));
}
