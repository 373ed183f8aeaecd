//! Output by offset.

use gotgan_proto::v1::scheduler_message::Message as Order;
use gotgan_proto::v1::{LogStream, ReadLog};

use crate::cluster::{Cluster, script};

fn read(job_id: u64, offset: u64, wait_ms: u32) -> ReadLog {
    ReadLog { request: 1, job_id, attempt: 1, offset, wait_ms, ..Default::default() }
}

#[tokio::test]
async fn output_is_followed_while_it_grows_and_its_end_is_told() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    let go = cluster.output("go");
    let body = format!(
        "echo first; while ! [ -e {} ]; do sleep 0.02; done; echo second; echo err >&2",
        go.display()
    );
    peer.order(Order::RunAttempt(script(7, &body))).await;
    peer.until_started().await;
    let first = peer.read_log(read(7, 0, 9000)).await;
    assert_eq!((first.data.as_slice(), first.end), (&b"first\n"[..], false));
    let nothing = peer.read_log(read(7, 6, 10)).await;
    assert_eq!((nothing.data.len(), nothing.end), (0, false));
    std::fs::write(&go, "").unwrap();
    peer.reports_until_end().await;
    let second = peer.read_log(read(7, 6, 9000)).await;
    assert_eq!((second.data.as_slice(), second.end), (&b"second\n"[..], true));
    let after = peer.read_log(read(7, 13, 9000)).await;
    assert_eq!((after.data.len(), after.end), (0, true));
    let stderr = LogStream::Stderr.into();
    let err = peer.read_log(ReadLog { stream: stderr, ..read(7, 0, 0) }).await;
    assert_eq!((err.data.as_slice(), err.end), (&b"err\n"[..], true));
}

#[tokio::test]
async fn a_read_takes_no_more_than_asked_for_and_large_output_is_complete() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    peer.order(Order::RunAttempt(script(7, "seq 1 200000"))).await;
    peer.reports_until_end().await;
    let some = peer.read_log(ReadLog { max_bytes: 4, ..read(7, 2, 0) }).await;
    assert_eq!((some.data.as_slice(), some.offset, some.end), (&b"2\n3\n"[..], 2, false));
    let mut all = Vec::new();
    loop {
        let data = peer.read_log(read(7, all.len() as u64, 0)).await;
        all.extend_from_slice(&data.data);
        if data.end {
            break;
        }
    }
    let wanted: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert!(all == wanted.as_bytes());
}

#[tokio::test]
async fn the_users_own_file_is_read_like_any_other() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    let mut order = script(7, "echo here");
    let spec = order.spec.as_mut().unwrap();
    spec.output_path = "out-%j-%N.txt".into();
    spec.working_directory = cluster.directory.path().to_string_lossy().into_owned();
    peer.order(Order::RunAttempt(order)).await;
    peer.reports_until_end().await;
    assert_eq!(std::fs::read_to_string(cluster.output("out-7-n1.txt")).unwrap(), "here\n");
    let data = peer.read_log(read(7, 0, 0)).await;
    assert_eq!((data.data.as_slice(), data.end), (&b"here\n"[..], true));
}

#[tokio::test]
async fn output_that_never_was_is_an_error_at_once() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    let data = peer.read_log(read(99, 0, 9000)).await;
    assert!(data.end);
    assert!(data.error.contains("no output"), "{}", data.error);
}

#[tokio::test]
async fn many_who_wait_for_output_hold_up_neither_orders_nor_other_readers() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    peer.order(Order::RunAttempt(script(7, "sleep 1000"))).await;
    peer.until_started().await;
    for request in 1..200 {
        peer.order(Order::ReadLog(ReadLog { request, ..read(7, 0, 9000) })).await;
    }
    let waiting_since = std::time::Instant::now();
    peer.order(Order::RunAttempt(script(8, "echo hello"))).await;
    peer.reports_until_end().await;
    let data = peer.read_log(ReadLog { request: 1000, ..read(8, 0, 9000) }).await;
    // The first answer of all: those who wait are still waiting.
    assert_eq!(data.request, 1000, "{:?}", waiting_since.elapsed());
    peer.stop(7, gotgan_proto::v1::Cause::User, 1).await;
    peer.reports_until_end().await;
}
