//! Two schedulers: on one PostgreSQL one leads and the other stands by; on the same data there is but one.

use gotgan_proto::v1::{JobState, NodeLiveness};
use gotgan_tests::api::{Api, channel, told};
use gotgan_tests::cluster::QUICK_TO_GIVE_UP;
use gotgan_tests::jobs::{Shape, command};
use gotgan_tests::virtual_worker::{Journal, Script, VirtualWorker, inventory};
use gotgan_tests::{Cluster, Database, audit, deadline};

/// Lease of a leader with the settings used here.
const LEASE_US: i64 = 1_500_000;

on_each_database! {
    a_second_scheduler_on_the_same_data_is_refused,
}

async fn a_second_scheduler_on_the_same_data_is_refused(database: Database) {
    let cluster = Cluster::start(database).await;
    let mut rival = cluster.start_rival_scheduler();
    let status = rival.wait_until_ready().expect_err("it must not serve");
    assert!(!status.success());
    let said = rival.output();
    assert!(said.contains("another scheduler"), "it says why:\n{said}");
    cluster.api.submit(command(&["/bin/true"])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_scheduler_stands_by_and_takes_over_from_a_dead_leader() {
    let Some(database) = Database::postgres().await else { return };
    let mut cluster = Cluster::builder(database).settings(QUICK_TO_GIVE_UP).start().await;
    let link = cluster.link("v0").await;
    let journal = Journal::new(inventory("v0", "b200", 2), Script::forever());
    let mut node = VirtualWorker::start(link.clone(), journal);
    cluster.api.wait_for_node("v0", NodeLiveness::Ready).await;
    let running = cluster.api.submit(command(&["/bin/true"]).gpus(1)).await;
    cluster.api.wait_for_state(running, JobState::Running).await;
    let before = cluster.api.status().await.unwrap();

    let mut second = cluster.start_second_scheduler();
    // Longer than the lease: the leader has renewed it meanwhile.
    let renewed_us = before.started_us + 3 * LEASE_US;
    deadline::until("the leader to lead on", async || {
        let node = cluster.api.try_node("v0").await.map_err(|status| told(&status))?;
        if node.last_heartbeat_us > renewed_us { Ok(()) } else { Err("too early".to_owned()) }
    })
    .await;
    assert!(!second.is_ready(), "two lead");
    cluster.scheduler.kill();
    second.wait_until_ready().expect("it takes over");
    let line = channel(&second.url(), Some(&cluster.scheduler.ca_pem()));
    let api = Api::new(line, Some(&cluster.scheduler.admin_token()));
    let after = deadline::until("the second to lead", async || {
        api.status().await.map_err(|status| told(&status))
    })
    .await;
    assert!(after.epoch > before.epoch, "{before:?} {after:?}");

    node.reconnect_to(&link.at(&second.url()));
    api.wait_for_node("v0", NodeLiveness::Ready).await;
    let job = api.job(running).await;
    assert_eq!((job.state(), job.attempt), (JobState::Running, 1), "it has not noticed: {job:?}");
    let fresh = api.submit(command(&["/bin/true"]).gpus(1)).await;
    api.wait_for_state(fresh, JobState::Running).await;
    for job in [running, fresh] {
        api.jobs().cancel(Api::action(job, "")).await.unwrap();
        api.wait_for_state(job, JobState::Cancelled).await;
    }
    audit::runs(&node.runs());
    audit::ledger(&api).await;
}
