//! Two schedulers on one PostgreSQL: one leads, the other stands by and takes over.

use gotgan_proto::v1::{JobState, NodeLiveness};
use gotgan_tests::api::{Api, channel, told};
use gotgan_tests::cluster::QUICK_TO_GIVE_UP;
use gotgan_tests::jobs::{Shape, command};
use gotgan_tests::virtual_worker::{Journal, Script, VirtualWorker, inventory};
use gotgan_tests::{Cluster, Database, audit, deadline};

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
