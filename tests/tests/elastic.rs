//! Elastic jobs: as many nodes as there are at the start, and all that follows goes by what they got.

use std::time::Duration;

use gotgan_proto::v1::{self, Cause, ExitStatus, JobState};
use gotgan_tests::cluster::QUICK_TO_GIVE_UP;
use gotgan_tests::jobs::{Shape, command, shell};
use gotgan_tests::virtual_worker::{Play, Script};
use gotgan_tests::{Cluster, Database, audit};

on_each_database! {
    a_job_that_loses_a_node_goes_on_with_those_that_are_left,
    an_elastic_job_is_shown_as_what_it_asks_for_and_then_as_what_it_has,
}

fn up_to(mut spec: v1::JobSpec, nodes_max: u32) -> v1::JobSpec {
    spec.resources.get_or_insert_default().nodes_max = nodes_max;
    spec
}

async fn a_job_that_loses_a_node_goes_on_with_those_that_are_left(database: Database) {
    let mut cluster = Cluster::builder(database).settings(QUICK_TO_GIVE_UP).start().await;
    for node in ["node-a", "node-b", "node-c"] {
        cluster.add_worker(node, "1xB200").await;
    }
    let line = "echo $RANK of $WORLD_SIZE on $GOTGAN_NNODES; \
                if [ $GOTGAN_ATTEMPT = 1 ]; then sleep 1000; fi";
    let spec = up_to(shell(line).nodes(2).gpus(1).grace(1), 8);
    let job = cluster.api.submit(spec).await;
    let running = cluster.api.wait_for_state(job, JobState::Running).await;
    assert_eq!(running.nodes.len(), 3, "{running:?}");
    assert_eq!(running.attempts[0].steps[0].tasks.len(), 3, "{running:?}");
    let lost = running.nodes[1].clone();
    cluster.worker(&lost).kill_node();

    let ended = cluster.api.wait_for_end(job).await;
    assert_eq!((ended.state(), ended.attempts.len()), (JobState::Completed, 2), "{ended:?}");
    assert_eq!(ended.attempts[0].cause(), Cause::Node, "{ended:?}");
    assert!(ended.nodes.len() == 2 && !ended.nodes.contains(&lost), "{ended:?}");
    for rank in 0..2 {
        let told = cluster.api.output(job, 0, rank).await;
        assert_eq!(told, format!("{rank} of 2 on 2\n"));
    }
    audit::ledger(&cluster.api).await;
}

async fn an_elastic_job_is_shown_as_what_it_asks_for_and_then_as_what_it_has(database: Database) {
    let cluster = Cluster::start(database).await;
    let script = Script::by(|_| Play::Run(Duration::ZERO, ExitStatus::default()));
    let first = cluster.add_virtual("v0", "b200", 8, script).await;
    let api = &cluster.api;
    let gotgan = cluster.gotgan();
    let submit = |nodes: &str| {
        let words = ["submit", "--parsable", "-A", "centre/alpha", "--gpus-per-node", "8"];
        gotgan.run(&[&words[..], &["-N", nodes, "--", "true"]].concat())
    };
    submit("3-2").fails_with(2, &["the lower number first"]);
    let refused = up_to(command(&["/bin/true"]).nodes(1).gpus(8), 20_000);
    let refused = api.try_submit(refused).await.unwrap_err();
    assert!(refused.message().contains("spec.resources.nodes_max: is 20000"), "{refused:?}");
    // Two nodes are needed and one is there: said to be more than the machine has.
    submit("2-4").fails_with(3, &["--nodes", "the machine has 1 of them"]);
    let blocking = api.submit(up_to(command(&["/bin/true"]).nodes(1).gpus(8).held(), 3)).await;
    let told = gotgan.run(&["jobs"]).ok();
    assert!(told.contains("1-3") && told.contains("8-24"), "{told}");
    let told = gotgan.run(&["job", &blocking.to_string()]).ok();
    assert!(told.contains("1 to 3 nodes"), "{told}");
    gotgan.run(&["release", &blocking.to_string()]).ok();
    let ended = api.wait_for_end(blocking).await;
    assert_eq!((ended.state(), ended.nodes.len()), (JobState::Completed, 1), "{ended:?}");
    let told = gotgan.run(&["jobs"]).ok();
    assert!(!told.contains("1-3"), "{told}");
    assert_eq!(first.runs().len(), 1);
    audit::ledger(api).await;
}
