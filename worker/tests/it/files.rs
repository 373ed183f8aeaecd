//! Jobs on a node whose files cannot be written or are taken away.

use gotgan_proto::v1::Cause;
use gotgan_proto::v1::report::Event;
use gotgan_proto::v1::scheduler_message::Message as Order;

use crate::cluster::{Cluster, end_of, eventually, has_line, script, step, task_end};

#[tokio::test]
async fn a_script_that_removes_the_directory_of_its_attempt_goes_on_to_its_own_end() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    let (gone, go) = (cluster.output("gone"), cluster.output("go"));
    let body = format!(
        "rm -rf \"$GOTGAN_ATTEMPT_DIR\"; echo x > {}; while ! [ -e {} ]; do sleep 0.02; done; exit 3",
        gone.display(),
        go.display()
    );
    peer.order(Order::RunAttempt(script(7, &body))).await;
    eventually("the directory is gone", || has_line(&gone)).await;
    peer.order(step(7, 1, &["true"])).await;
    let one = |event: &Event| matches!(event, Event::TaskEnded(ended) if ended.step == 1);
    let ended = task_end(&peer.reports_until(one).await, 1, 0);
    assert_eq!(ended.exit.unwrap().code, 126);
    assert!(ended.detail.contains("no place"), "{}", ended.detail);
    std::fs::write(&go, "").unwrap();
    let (cause, reason, exit) = end_of(&peer.reports_until_end().await);
    assert_eq!((cause, exit.code), (Cause::User, 3), "{reason}");
}

#[tokio::test]
async fn a_shim_whose_file_of_events_cannot_be_written_tells_everything_over_its_socket() {
    let mut cluster = Cluster::start().await;
    // What cannot be opened for writing, whoever tries.
    std::fs::create_dir_all(cluster.state().join("attempts/7.1/events")).unwrap();
    std::fs::create_dir_all(cluster.state().join("attempts/7.1/step-0/rank-0.exit")).unwrap();
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    peer.order(Order::RunAttempt(script(7, "exit 3"))).await;
    let reports = peer.reports_until_end().await;
    assert_eq!(task_end(&reports, 0, 0).exit.unwrap().code, 3);
    let (cause, _, exit) = end_of(&reports);
    assert_eq!((cause, exit.code), (Cause::User, 3));
}
