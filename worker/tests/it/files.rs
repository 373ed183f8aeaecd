//! Jobs on a node whose files cannot be written or are taken away.

use gotgan_proto::v1::report::Event;
use gotgan_proto::v1::scheduler_message::Message as Order;
use gotgan_proto::v1::{Cause, ReadLog};

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

#[tokio::test]
async fn output_into_a_pipe_that_nobody_reads_is_an_error_and_holds_up_nothing() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    let pipe = cluster.output("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut order = script(7, "echo hello");
    order.spec.as_mut().unwrap().output_path = pipe.to_string_lossy().into_owned();
    peer.order(Order::RunAttempt(order)).await;
    let reports = peer.reports_until_end().await;
    let ended = task_end(&reports, 0, 0);
    assert_eq!(ended.exit.unwrap().code, 126);
    assert!(ended.detail.contains("pipe"), "{}", ended.detail);
    let data = peer.read_log(ReadLog { job_id: 7, attempt: 1, ..Default::default() }).await;
    assert!(data.error.contains("no regular file"), "{}", data.error);
}

#[tokio::test]
async fn the_tokens_of_the_daemon_are_in_no_process_of_its_jobs() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    let out = cluster.output("out");
    // The shim, or the first process of the attempt's namespace.
    let body = format!(
        "[ $PPID = 0 ] && parent=1 || parent=$PPID\n\
         tr '\\0' '\\n' < /proc/$parent/environ > {}; echo end >> {0}",
        out.display()
    );
    peer.order(Order::RunAttempt(script(7, &body))).await;
    peer.reports_until_end().await;
    let seen = std::fs::read_to_string(&out).unwrap();
    assert!(seen.contains("PATH=") && !seen.contains("GOTGAN_JOIN_TOKEN"), "{seen}");
}
