//! The site's own programs around attempts: a node that they find unfit costs nobody anything.

use std::os::unix::fs::PermissionsExt;

use gotgan_proto::v1::{Cause, JobState};
use gotgan_tests::jobs::{Shape, shell};
use gotgan_tests::{Cluster, Database, audit};

on_each_database! {
    a_job_whose_prolog_fails_runs_elsewhere_for_nothing_and_the_node_is_drained,
}

async fn a_job_whose_prolog_fails_runs_elsewhere_for_nothing_and_the_node_is_drained(
    database: Database,
) {
    let mut cluster = Cluster::start(database).await;
    let prolog = cluster.scratch("site").join("prolog");
    std::fs::write(&prolog, "#!/bin/sh\necho '/scratch is not mounted'\nexit 1\n").unwrap();
    std::fs::set_permissions(&prolog, PermissionsExt::from_mode(0o755)).unwrap();
    let settings = format!("[hooks]\nprolog = {:?}\n", prolog.display().to_string());
    cluster.add_worker_with("node-a", "2xB200", &settings).await;
    let job = cluster.api.submit(shell("echo here").gpus(2)).await;
    let failed = cluster.api.wait_for_job(job, "its first attempt has ended", |job| {
        job.attempts.first().is_some_and(|first| first.ended_us > 0)
    });
    let failed = failed.await;
    assert_eq!(failed.attempts[0].cause(), Cause::Node, "{failed:?}");
    assert!(failed.attempts[0].detail.contains("/scratch is not mounted"), "{failed:?}");
    let shown = cluster.gotgan().run(&["node", "node-a"]).ok();
    assert!(shown.contains("drain") && shown.contains("/scratch is not mounted"), "{shown}");

    cluster.add_worker("node-b", "2xB200").await;
    let ended = cluster.api.wait_for_end(job).await;
    assert_eq!((ended.state(), ended.attempts.len()), (JobState::Completed, 2), "{ended:?}");
    assert_eq!(ended.nodes, ["node-b"]);
    // Of the clock's seconds one may begin within an attempt however short: it is given back.
    let failed = &ended.attempts[0];
    assert_eq!(failed.charged_gpu_milli_seconds, failed.refunded_gpu_milli_seconds, "{ended:?}");
    assert_eq!(ended.queued_us, ended.submitted_us, "it keeps its age");
    audit::ledger(&cluster.api).await;
}
