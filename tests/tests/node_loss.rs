//! Ways to lose what runs on a node, short of losing the node: a shim killed, a memory wiped, an order ignored.

use std::time::Duration;

use gotgan_proto::v1::{AttemptState, Cause, ExitStatus, JobState, LogsRequest};
use gotgan_tests::jobs::{Shape, command, shell};
use gotgan_tests::process;
use gotgan_tests::virtual_worker::{Play, Script, VirtualWorker};
use gotgan_tests::{Cluster, Database, audit, deadline};

on_each_database! {
    a_job_whose_shim_was_killed_leaves_nothing_behind_and_runs_again,
    a_node_that_forgot_its_attempts_loses_them,
    an_attempt_that_is_not_confirmed_is_taken_back,
    a_gang_of_a_hundred_nodes_starts_and_ends,
}

async fn a_job_whose_shim_was_killed_leaves_nothing_behind_and_runs_again(database: Database) {
    let mut cluster = Cluster::start(database).await;
    cluster.add_worker("node-a", "1xB200").await;
    let line = "if [ $GOTGAN_ATTEMPT = 1 ]; then echo begun; sleep 1000; fi; echo again";
    let job_id = cluster.api.submit(shell(line).gpus(1)).await;
    deadline::until("the job to begin", async || {
        let request = LogsRequest { job_id, ..Default::default() };
        let read = cluster.api.read_log(request).await.map_err(|status| status.to_string())?;
        if read.0 == b"begun\n" { Ok(()) } else { Err(format!("{read:?}")) }
    })
    .await;
    let worker = cluster.worker("node-a");
    let shims: Vec<u32> = worker
        .job_processes()
        .into_iter()
        .filter(|id| process::name(*id) == "gotgan-shim")
        .collect();
    assert_eq!(shims.len(), 1, "one shim an attempt");
    process::kill(shims[0]);

    let ended = cluster.api.wait_for_end(job_id).await;
    assert_eq!((ended.state(), ended.attempts.len()), (JobState::Completed, 2), "{ended:?}");
    assert_eq!(ended.attempts[0].cause(), Cause::Node, "{ended:?}");
    assert_eq!(cluster.api.output(job_id, 0, 0).await, "again\n");
    let left = cluster.worker("node-a").tasks();
    assert!(left.is_empty(), "left of what the shim had started: {left:?}");
    audit::ledger(&cluster.api).await;
}

async fn a_node_that_forgot_its_attempts_loses_them(database: Database) {
    let cluster = Cluster::start(database).await;
    let script = Script::by(|order| match order.attempt {
        1 => Play::Forever,
        _ => Play::Run(Duration::ZERO, ExitStatus::default()),
    });
    let mut node = cluster.add_virtual("v0", "b200", 1, script).await;
    let job = cluster.api.submit(command(&["/bin/true"]).gpus(1)).await;
    cluster.api.wait_for_state(job, JobState::Running).await;
    node.lose_everything();
    node.connect();
    let ended = cluster.api.wait_for_end(job).await;
    assert_eq!((ended.state(), ended.attempts.len()), (JobState::Completed, 2), "{ended:?}");
    assert_eq!(ended.attempts[0].cause(), Cause::Node, "{ended:?}");
    audit::ledger(&cluster.api).await;
}

async fn an_attempt_that_is_not_confirmed_is_taken_back(database: Database) {
    let settings = "[timing]\nconfirm_within_ms = 500\n";
    let cluster = Cluster::builder(database).settings(settings).start().await;
    let deaf = cluster.add_virtual("v0", "b200", 1, Script::by(|_| Play::Ignore)).await;
    let job = cluster.api.submit(command(&["/bin/true"]).gpus(1)).await;
    let waiting = cluster
        .api
        .wait_for_job(job, "the attempt to be taken back", |job| {
            job.attempts.first().is_some_and(|attempt| attempt.state() == AttemptState::Ended)
        })
        .await;
    assert_eq!(waiting.attempts[0].cause(), Cause::Node, "{waiting:?}");
    assert!(waiting.attempts[0].detail.contains("v0"), "{waiting:?}");
    let well = Script::succeed_after(Duration::ZERO);
    let other = cluster.add_virtual("v1", "b200", 1, well).await;
    let ended = cluster.api.wait_for_end(job).await;
    assert_eq!(
        (ended.state(), ended.nodes.as_slice()),
        (JobState::Completed, &["v1".to_owned()][..])
    );
    assert!(deaf.runs().iter().all(|run| run.starts == 0));
    assert_eq!(other.runs().len(), 1);
    audit::ledger(&cluster.api).await;
}

async fn a_gang_of_a_hundred_nodes_starts_and_ends(database: Database) {
    const NODES: u32 = 100;
    let cluster = Cluster::builder(database).insecure().start().await;
    let mut nodes = Vec::new();
    for number in 0..NODES {
        let script = Script::succeed_after(Duration::from_millis(50));
        nodes.push(cluster.add_virtual(&format!("v{number}"), "b200", 8, script).await);
    }
    let gang = cluster.api.submit(command(&["/bin/true"]).nodes(NODES).gpus(8)).await;
    let next = cluster.api.submit(command(&["/bin/true"]).nodes(NODES / 2).gpus(4)).await;
    for job in [gang, next] {
        let ended = cluster.api.wait_for_end(job).await;
        assert_eq!(
            (ended.state(), ended.attempts.len()),
            (JobState::Completed, 1),
            "{}",
            ended.detail
        );
    }
    let runs: Vec<_> = nodes.iter().flat_map(VirtualWorker::runs).collect();
    assert_eq!(runs.len(), (NODES + NODES / 2) as usize);
    audit::runs(&runs);
    audit::ledger(&cluster.api).await;
}
