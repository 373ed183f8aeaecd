//! A gang starts on all its nodes or on none, and ends on all of them when one is gone.

use std::time::Duration;

use gotgan_proto::v1::{AttemptState, BlockerKind, Cause, JobState, NodeLiveness};
use gotgan_tests::cluster::QUICK_TO_GIVE_UP;
use gotgan_tests::jobs::{Shape, command, shell};
use gotgan_tests::virtual_worker::{Play, Script};
use gotgan_tests::{Api, Cluster, Database, audit, deadline};

on_each_database! {
    a_gang_that_loses_a_node_ends_everywhere_and_runs_again_at_no_cost,
    a_node_that_comes_back_is_told_to_stop_what_was_given_up,
    a_gang_waits_until_all_its_nodes_fit,
    a_gang_of_which_one_node_refuses_runs_elsewhere,
}

/// Runs for ever at first, and succeeds when tried again.
const LOST_ONCE: &str = "echo begun; if [ $GOTGAN_ATTEMPT = 1 ]; then sleep 1000; fi";

async fn a_gang_that_loses_a_node_ends_everywhere_and_runs_again_at_no_cost(database: Database) {
    let mut cluster = Cluster::builder(database).settings(QUICK_TO_GIVE_UP).start().await;
    for node in ["node-a", "node-b", "node-c"] {
        cluster.add_worker(node, "1xB200").await;
    }
    let job = cluster.api.submit(shell(LOST_ONCE).nodes(2).gpus(1).grace(1)).await;
    let running = cluster.api.wait_for_state(job, JobState::Running).await;
    let [kept, lost] = running.nodes.as_slice() else { panic!("two nodes, not {running:?}") };
    let charged_from = running.attempts[0].leased_us;
    cluster.worker(lost).kill_node();

    let ended = cluster.api.wait_for_end(job).await;
    assert_eq!(ended.state(), JobState::Completed, "{ended:?}");
    let [first, second] = ended.attempts.as_slice() else { panic!("two attempts, not {ended:?}") };
    assert_eq!((first.state(), first.cause()), (AttemptState::Ended, Cause::Node), "{first:?}");
    assert!(first.detail.contains(lost.as_str()), "{:?} does not name {lost}", first.detail);
    assert!(first.ended_us > charged_from);
    assert_eq!(first.refunded_gpu_milli_seconds, first.charged_gpu_milli_seconds);
    assert!(first.charged_gpu_milli_seconds > 0, "giving up a node takes over a second");
    assert!(second.allocation.iter().all(|held| held.node != *lost), "{second:?}");
    let second_cost = second.charged_gpu_milli_seconds - second.refunded_gpu_milli_seconds;
    assert_eq!(ended.paid_gpu_milli_seconds, second_cost, "the loss costs its user nothing");
    wait_for_no_jobs(&mut cluster, kept).await;
    audit::ledger(&cluster.api).await;

    cluster.worker(lost).restart();
    cluster.api.wait_for_node(lost, NodeLiveness::Ready).await;
    let after = cluster.api.submit(command(&["/bin/true"]).gpus(1).on(lost)).await;
    cluster.api.wait_for_state(after, JobState::Completed).await;
}

/// Waits until nothing is left of any job on a node.
async fn wait_for_no_jobs(cluster: &mut Cluster, node: &str) {
    let worker = cluster.worker(node);
    deadline::until(&format!("the processes of jobs on {node} to be gone"), async || match worker
        .job_processes()
        .len()
    {
        0 => Ok(()),
        more => Err(format!("{more} processes")),
    })
    .await;
}

async fn a_node_that_comes_back_is_told_to_stop_what_was_given_up(database: Database) {
    let mut cluster = Cluster::builder(database).settings(QUICK_TO_GIVE_UP).start().await;
    cluster.add_worker("node-a", "1xB200").await;
    let job = cluster.api.submit(shell(LOST_ONCE).gpus(1).grace(0)).await;
    cluster.api.wait_for_state(job, JobState::Running).await;
    // The daemon says nothing, but its job runs: nobody else may have the GPU until that is known to be over.
    cluster.worker("node-a").pause();
    cluster.api.wait_for_node("node-a", NodeLiveness::Lost).await;
    cluster
        .api
        .wait_for_job(job, "the attempt to end", |job| {
            job.attempts.first().is_some_and(|attempt| attempt.state() == AttemptState::Ended)
        })
        .await;
    cluster.worker("node-a").resume();

    let ended = cluster.api.wait_for_end(job).await;
    assert_eq!((ended.state(), ended.attempts.len()), (JobState::Completed, 2), "{ended:?}");
    assert_eq!(ended.attempts[0].cause(), Cause::Node);
    wait_for_no_jobs(&mut cluster, "node-a").await;
    audit::ledger(&cluster.api).await;
}

async fn a_gang_waits_until_all_its_nodes_fit(database: Database) {
    let cluster = Cluster::start(database).await;
    let first = cluster.add_virtual("v0", "b200", 2, Script::forever()).await;
    let second = cluster.add_virtual("v1", "b200", 2, Script::forever()).await;
    let api = &cluster.api;
    let small = api.submit(command(&["/bin/true"]).gpus(1).on("v1")).await;
    api.wait_for_state(small, JobState::Running).await;
    let gang = api.submit(command(&["/bin/true"]).nodes(2).gpus(2)).await;
    api.wait_for_blocker(gang, BlockerKind::Capacity).await;
    assert!(first.runs().is_empty(), "half a gang has started");
    api.jobs().cancel(Api::action(small, "")).await.unwrap();
    let running = api.wait_for_state(gang, JobState::Running).await;
    assert_eq!(running.nodes.len(), 2);
    assert_eq!((first.runs().len(), second.runs().len()), (1, 2));
    assert_eq!(first.runs()[0].gpus.len(), 2);
}

async fn a_gang_of_which_one_node_refuses_runs_elsewhere(database: Database) {
    let cluster = Cluster::start(database).await;
    let well = Script::succeed_after(Duration::ZERO);
    let ill = Script::by(|_| Play::Refuse(Cause::Hardware, "no room on the disk".into()));
    let first = cluster.add_virtual("v0", "b200", 1, well.clone()).await;
    let second = cluster.add_virtual("v1", "b200", 1, ill).await;
    let gang = cluster.api.submit(command(&["/bin/true"]).nodes(2).gpus(1)).await;
    let waiting = cluster
        .api
        .wait_for_job(gang, "the first attempt to end", |job| {
            job.attempts.first().is_some_and(|attempt| attempt.state() == AttemptState::Ended)
        })
        .await;
    assert_eq!(waiting.attempts[0].cause(), Cause::Hardware, "{waiting:?}");
    assert!(waiting.attempts[0].detail.contains("no room on the disk"), "{waiting:?}");
    let third = cluster.add_virtual("v2", "b200", 1, well).await;
    let ended = cluster.api.wait_for_end(gang).await;
    assert_eq!(ended.state(), JobState::Completed, "{ended:?}");
    let last = ended.attempts.last().unwrap();
    assert!(last.allocation.iter().all(|held| held.node != "v1"), "{last:?}");
    let runs: Vec<_> = [&first, &second, &third].iter().flat_map(|node| node.runs()).collect();
    audit::runs(&runs);
    audit::ledger(&cluster.api).await;
}
