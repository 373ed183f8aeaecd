//! Passes for events between full ones, with everything real but the nodes: what ends makes room for the next at once, and
//! the scheduler finds no difference to the long way.

use std::time::Duration;

use gotgan_proto::v1::JobState;
use gotgan_tests::jobs::{Shape, command};
use gotgan_tests::virtual_worker::Script;
use gotgan_tests::{Cluster, Database, audit};

on_each_database! {
    by_passes_for_events_every_job_of_a_long_queue_runs_and_no_difference_is_found,
}

/// Passes for events whenever one can be made, and every one of them held against the long way after a second.
const EVENTS: &str = "[timing]\nevent_passes_beyond_ms = 0\ncross_check_every_s = 1\n";

/// What the scheduler logs when the two ways differ.
const DIFFERENCE: &str = "decides other than";

async fn by_passes_for_events_every_job_of_a_long_queue_runs_and_no_difference_is_found(
    database: Database,
) {
    let cluster = Cluster::builder(database).settings(EVENTS).start().await;
    let script = || Script::succeed_after(Duration::from_millis(150));
    let _one = cluster.add_virtual("v0", "b200", 8, script()).await;
    let _two = cluster.add_virtual("v1", "b200", 8, script()).await;
    let mut jobs = Vec::new();
    for at in 0..60_u32 {
        let (nodes, gpus) = if at % 10 == 0 { (2, 8) } else { (1, 1 << (at % 4)) };
        let job = command(&["/bin/true"]).nodes(nodes).gpus(gpus).limit(60 + i64::from(at));
        jobs.push(cluster.api.submit(job).await);
    }
    for job in jobs {
        assert_eq!(cluster.api.wait_for_end(job).await.state(), JobState::Completed);
    }
    let log = cluster.scheduler.output();
    assert!(!log.contains(DIFFERENCE), "{log}");
    audit::ledger(&cluster.api).await;
}
