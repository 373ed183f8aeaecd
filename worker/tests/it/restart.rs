//! What survives the daemon, and what a dead shim leaves behind.

use std::sync::atomic::Ordering::Relaxed;

use gotgan_proto::v1::Cause;
use gotgan_proto::v1::scheduler_message::Message as Order;
use gotgan_worker::shim::{events, protocol::ShimEvent, tree};

use crate::cluster::{Cluster, end_of, eventually, has_line, lives, script, task_end};

#[tokio::test]
async fn a_job_does_not_notice_that_its_daemon_is_killed_and_its_end_is_told_later() {
    let mut cluster = Cluster::start().await;
    let mut daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    let go = cluster.output("go");
    let body = format!("while ! [ -e {} ]; do sleep 0.02; done; echo done; exit 3", go.display());
    peer.order(Order::RunAttempt(script(7, &body))).await;
    peer.until_started().await;
    daemon.kill();
    std::fs::write(&go, "").unwrap();
    let exit = cluster.state().join("attempts/7.1/step-0/rank-0.exit");
    eventually("the script has ended", || exit.exists()).await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    let reports = peer.reports_until_end().await;
    assert_eq!(task_end(&reports, 0, 0).exit.unwrap().code, 3);
    assert_eq!(end_of(&reports).2.code, 3);
    let output = cluster.state().join("attempts/7.1/step-0/rank-0.stdout");
    assert_eq!(std::fs::read_to_string(output).unwrap(), "done\n");
}

#[tokio::test]
async fn a_new_daemon_finds_a_running_attempt_and_can_stop_it() {
    let mut cluster = Cluster::start().await;
    let mut daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    peer.order(Order::RunAttempt(script(7, "sleep 1000"))).await;
    peer.until_started().await;
    daemon.kill();
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    assert_eq!(peer.register.epoch, crate::cluster::EPOCH);
    assert!(!peer.register.held[0].ended);
    peer.stop(7, Cause::User, 20).await;
    let reports = peer.reports_until_end().await;
    assert_eq!(task_end(&reports, 0, 0).exit.unwrap().signal, 15);
    assert_eq!(end_of(&reports).0, Cause::User);
}

#[tokio::test]
async fn reports_that_were_not_acknowledged_come_again_with_the_same_numbers() {
    let mut cluster = Cluster::start().await;
    let mut daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    peer.acknowledge = false;
    peer.order(Order::RunAttempt(script(7, "true"))).await;
    let first = peer.reports_until_end().await;
    daemon.kill();
    let mut daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    peer.acknowledge = false;
    let second = peer.reports_until_end().await;
    assert_eq!(first, second);
    drop(peer);
    // Also without a restart of the daemon: the next stream begins with them.
    let mut peer = cluster.peer().await;
    assert_eq!(peer.reports_until_end().await, first);
    daemon.kill();
}

#[tokio::test]
async fn a_killed_shim_costs_the_attempt_and_nothing_it_started_is_left() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    let (own, hidden) = (cluster.output("own"), cluster.output("hidden"));
    let body = format!(
        "echo $$ > {}; setsid sh -c 'echo $$ > {}; exec sleep 1000'",
        own.display(),
        hidden.display()
    );
    peer.order(Order::RunAttempt(script(7, &body))).await;
    peer.until_started().await;
    eventually("ready", || has_line(&own) && has_line(&hidden)).await;
    let lines = events::read(&cluster.state().join("attempts/7.1")).unwrap();
    let ShimEvent::Started { pid, .. } = lines[0].event else { panic!("{lines:?}") };
    tree::signal(pid, nix::sys::signal::Signal::SIGKILL);
    let (cause, reason, _) = end_of(&peer.reports_until_end().await);
    assert_eq!(cause, Cause::Node);
    assert!(reason.contains("killed"), "{reason}");
    assert!(!lives(&own));
    assert!(!lives(&hidden));
}

#[tokio::test]
async fn an_attempt_that_the_journal_does_not_know_is_ended_before_the_node_registers() {
    let mut cluster = Cluster::start().await;
    let mut daemon = cluster.daemon();
    let peer = cluster.peer().await;
    let own = cluster.output("own");
    let body = format!("echo $$ > {}; sleep 1000", own.display());
    peer.order(Order::RunAttempt(script(7, &body))).await;
    eventually("ready", || has_line(&own)).await;
    daemon.kill();
    std::fs::remove_file(cluster.state().join("journal")).unwrap();
    let _daemon = cluster.daemon();
    let peer = cluster.peer().await;
    assert!(peer.register.held.is_empty());
    assert!(!lives(&own));
}

#[tokio::test]
async fn a_launcher_that_is_killed_is_replaced_unnoticed() {
    let mut cluster = Cluster::start().await;
    let daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    for job_id in 7..10 {
        for process in tree::processes().unwrap() {
            if process.parent == daemon.pid() {
                tree::signal(process.pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
        peer.order(Order::RunAttempt(script(job_id, "exit 3"))).await;
        assert_eq!(end_of(&peer.reports_until_end().await).2.code, 3);
    }
}

#[tokio::test]
async fn what_forks_without_end_is_ended_with_its_attempt() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    let mut peer = cluster.peer().await;
    let mark = cluster.output("mark");
    // Each process starts its successor and ends: whoever looks is always late.
    let body = format!(
        "cat > next <<'END'\n#!/bin/sh\ntrap '' TERM\necho x >> {}\nsetsid ./next &\nEND\n\
         chmod +x next; ./next; sleep 1000",
        mark.display()
    );
    let mut order = script(7, &body);
    order.grace_s = 1;
    peer.order(Order::RunAttempt(order)).await;
    eventually("it has begun", || has_line(&mark)).await;
    peer.stop(7, Cause::User, 0).await;
    let (cause, ..) = end_of(&peer.reports_until_end().await);
    assert_eq!(cause, Cause::User);
    let directory = cluster.state().join("attempts/7.1");
    let mark = format!("GOTGAN_ATTEMPT_DIR={}", directory.display());
    assert_eq!(tree::leftovers(None, &mark).unwrap(), []);
}

#[tokio::test]
async fn a_scheduler_of_an_older_epoch_is_left_and_a_newer_one_is_found() {
    let mut cluster = Cluster::start().await;
    let _daemon = cluster.daemon();
    drop(cluster.peer().await);
    cluster.epoch.store(crate::cluster::EPOCH - 1, Relaxed);
    // The stream that was open when the epoch changed may have been a good one.
    let mut old = cluster.peer().await;
    assert_eq!(old.register.epoch, crate::cluster::EPOCH);
    assert!(old.is_left().await);
    cluster.epoch.store(crate::cluster::EPOCH + 1, Relaxed);
    let mut new = cluster.peer().await;
    while new.is_left().await {
        new = cluster.peer().await;
    }
}
