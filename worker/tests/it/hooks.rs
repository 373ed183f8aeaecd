//! The site's programs before and after attempts, with a real daemon.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use gotgan_proto::v1::report::Event;
use gotgan_proto::v1::scheduler_message::Message as Order;
use gotgan_proto::v1::{Cause, ReadLog};

use crate::cluster::{Cluster, Daemon, end_of, eventually, script};

/// Writes a program; under another name first, since one that is open for writing cannot be run.
fn program(cluster: &Cluster, name: &str, body: &str) -> PathBuf {
    let (fresh, path) = (cluster.output("fresh"), cluster.output(name));
    std::fs::write(&fresh, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&fresh, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::rename(fresh, &path).unwrap();
    path
}

fn log(cluster: &Cluster) -> String {
    std::fs::read_to_string(cluster.output("log")).unwrap_or_default()
}

fn daemon(cluster: &Cluster, prolog: &str, epilog: &str) -> Daemon {
    let path = |name: &str, body: &str| match body {
        "" => String::new(),
        body => program(cluster, name, body).display().to_string(),
    };
    let (prolog, epilog) = (path("prolog", prolog), path("epilog", epilog));
    let settings = format!(
        "[hooks]\nprolog = {prolog:?}\nprolog_timeout_s = 20\nepilog = {epilog:?}\nepilog_timeout_s = 1\n"
    );
    cluster.daemon_of(&settings, &["--simulate", "2xB200"])
}

fn writes(log: &Path, word: &str) -> String {
    format!("echo {word} >> {}", log.display())
}

fn unfit(events: &[Event]) -> String {
    let reasons = events.iter().filter_map(|event| match event {
        Event::Unfit(unfit) => Some(unfit.reason.clone()),
        _ => None,
    });
    reasons.collect::<Vec<_>>().join(" | ")
}

#[tokio::test]
async fn the_prolog_comes_before_everything_of_an_attempt_and_the_epilog_after_it() {
    let mut cluster = Cluster::start().await;
    let file = cluster.output("log");
    let told =
        "\"$GOTGAN_HOOK $GOTGAN_NODE $GOTGAN_JOB_ID.$GOTGAN_ATTEMPT $GOTGAN_OWNER $GOTGAN_GPUS\"";
    let hook = format!("sleep 0.2; {}", writes(&file, told));
    let _daemon = daemon(&cluster, &hook, &hook);
    let mut peer = cluster.peer().await;
    let mut order = script(7, &writes(&file, "job"));
    order.owner = "mina".into();
    order.gpus = vec![gotgan_proto::v1::GpuAllocation { uuid: "GPU-SIM-n1-1".into(), milli: 1000 }];
    peer.order(Order::RunAttempt(order)).await;
    let reports = peer.reports_until_end().await;
    assert_eq!(end_of(&reports).0, Cause::User);
    assert_eq!(
        log(&cluster),
        "prolog n1 7.1 mina GPU-SIM-n1-1\njob\nepilog n1 7.1 mina GPU-SIM-n1-1\n"
    );
}

#[tokio::test]
async fn a_prolog_that_fails_makes_the_node_unfit_and_nothing_of_the_job_runs() {
    let mut cluster = Cluster::start().await;
    let file = cluster.output("log");
    let _daemon = daemon(&cluster, "echo GPU 1 is dirty; exit 3", &writes(&file, "epilog"));
    let mut peer = cluster.peer().await;
    peer.order(Order::RunAttempt(script(7, &writes(&file, "job")))).await;
    let reports = peer.reports_until_end().await;
    let events: Vec<Event> = reports.into_iter().filter_map(|report| report.event).collect();
    let Some(Event::Refused(refused)) = events.last() else { panic!("{events:?}") };
    assert_eq!(refused.cause(), Cause::Node);
    assert!(refused.reason.ends_with("failed (exit status: 3): GPU 1 is dirty"), "{refused:?}");
    assert_eq!(unfit(&events), refused.reason);
    assert_eq!(log(&cluster), "epilog\n");
}

#[tokio::test]
async fn an_epilog_that_hangs_makes_the_node_unfit_and_the_end_of_the_job_stays_its_own() {
    let mut cluster = Cluster::start().await;
    let _daemon = daemon(&cluster, "", "echo looking; sleep 1000");
    let mut peer = cluster.peer().await;
    peer.order(Order::RunAttempt(script(7, "exit 5"))).await;
    let reports = peer.reports_until_end().await;
    assert_eq!((end_of(&reports).0, end_of(&reports).2.code), (Cause::User, 5));
    let events: Vec<Event> = reports.into_iter().filter_map(|report| report.event).collect();
    assert!(unfit(&events).ends_with("did not end in 1 s and was killed: looking"), "{events:?}");
}

#[tokio::test]
async fn a_job_that_is_stopped_while_its_prolog_runs_never_starts_and_is_cleaned_up_after() {
    let mut cluster = Cluster::start().await;
    let (file, go) = (cluster.output("log"), cluster.output("go"));
    let waits = format!(
        "{}; while ! [ -e {} ]; do sleep 0.02; done",
        writes(&file, "prolog"),
        go.display()
    );
    let _daemon = daemon(&cluster, &waits, &writes(&file, "epilog"));
    let mut peer = cluster.peer().await;
    peer.order(Order::RunAttempt(script(7, &writes(&file, "job")))).await;
    eventually("the prolog runs", || log(&cluster) == "prolog\n").await;
    peer.stop(7, Cause::User, 20).await;
    // Its answer says that what was ordered before it has been taken in.
    peer.read_log(ReadLog { job_id: 7, attempt: 1, ..Default::default() }).await;
    std::fs::write(&go, "").unwrap();
    let reports = peer.reports_until_end().await;
    assert_eq!((end_of(&reports).0, end_of(&reports).1), (Cause::User, "told to".to_owned()));
    assert_eq!(log(&cluster), "prolog\nepilog\n");
}

#[tokio::test]
async fn a_gang_that_is_stopped_before_its_start_is_cleaned_up() {
    let mut cluster = Cluster::start().await;
    let file = cluster.output("log");
    let _daemon = daemon(&cluster, "", &writes(&file, "epilog"));
    let mut peer = cluster.peer().await;
    let mut order = script(7, &writes(&file, "job"));
    order.start_now = false;
    peer.order(Order::RunAttempt(order)).await;
    peer.reports_until(|event| matches!(event, Event::Accepted(_))).await;
    peer.stop(7, Cause::Node, 20).await;
    let reports = peer.reports_until_end().await;
    assert_eq!(end_of(&reports).0, Cause::Node);
    assert_eq!(log(&cluster), "epilog\n");
}

#[tokio::test]
async fn a_prolog_of_a_daemon_that_was_killed_is_ended_and_runs_again() {
    let mut cluster = Cluster::start().await;
    let (file, go) = (cluster.output("log"), cluster.output("go"));
    let waits = format!(
        "{}; while ! [ -e {} ]; do sleep 0.02; done; {}",
        writes(&file, "begun"),
        go.display(),
        writes(&file, "done")
    );
    let mut first = daemon(&cluster, &waits, "");
    let peer = cluster.peer().await;
    peer.order(Order::RunAttempt(script(7, &writes(&file, "job")))).await;
    eventually("the prolog runs", || log(&cluster) == "begun\n").await;
    first.kill();
    let _second = daemon(&cluster, &waits, "");
    let mut peer = cluster.peer().await;
    eventually("the prolog runs again", || log(&cluster) == "begun\nbegun\n").await;
    std::fs::write(&go, "").unwrap();
    assert_eq!(end_of(&peer.reports_until_end().await).0, Cause::User);
    // The first would have written its last word as well.
    assert_eq!(log(&cluster), "begun\nbegun\ndone\njob\n");
}

#[tokio::test]
async fn a_daemon_does_not_start_with_a_hook_that_cannot_be_run() {
    let cluster = Cluster::start().await;
    let mut daemon = cluster.daemon_of("[hooks]\nepilog = \"/no/such\"\n", &[]);
    eventually("the daemon has ended", || {
        !Path::new(&format!("/proc/{}/exe", daemon.pid())).exists()
    })
    .await;
    daemon.kill();
    assert!(!cluster.state().join("journal").exists());
}
