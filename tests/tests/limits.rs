//! Time limits, warnings ahead of them, and processes that do not want to end.

use gotgan_proto::v1::{Cause, JobState, WarningSignal};
use gotgan_tests::jobs::{Shape, script, shell};
use gotgan_tests::{Api, Cluster, Database, audit, deadline};

on_each_database! {
    a_job_past_its_time_limit_is_ended_with_cause_limit,
    a_warning_comes_before_the_end_and_a_job_can_use_it,
    a_job_that_ignores_term_is_killed_with_all_its_processes,
    a_worker_that_is_cut_off_enforces_the_time_limit_itself,
}

async fn a_job_past_its_time_limit_is_ended_with_cause_limit(database: Database) {
    let mut cluster = Cluster::start(database).await;
    cluster.add_worker("node-a", "1xB200").await;
    let job = cluster.api.submit(shell("echo begun; sleep 1000").gpus(1).limit(1).grace(1)).await;
    let ended = cluster.api.wait_for_end(job).await;
    assert_eq!((ended.state(), ended.cause()), (JobState::TimedOut, Cause::Limit), "{ended:?}");
    assert_eq!(ended.attempts.len(), 1, "not tried again");
    assert!(ended.paid_gpu_milli_seconds >= 1000, "the project pays: {ended:?}");
    assert_eq!(cluster.api.output(job, 0, 0).await, "begun\n");
    cluster.gotgan().run(&["wait", &job.to_string()]).fails_with(11, &[]);
    audit::ledger(&cluster.api).await;
}

async fn a_warning_comes_before_the_end_and_a_job_can_use_it(database: Database) {
    let mut cluster = Cluster::start(database).await;
    cluster.add_worker("node-a", "").await;
    let body = "trap 'echo warned; exit 0' USR1\necho ready\nwhile :; do sleep 0.05; done";
    let mut spec = script(body).limit(600);
    // So long ahead that the warning comes one second after the start.
    spec.warning_signal = Some(WarningSignal { signal: 10, ahead_s: 599, batch_only: true });
    let job = cluster.api.submit(spec).await;
    let ended = cluster.api.wait_for_end(job).await;
    assert_eq!(ended.state(), JobState::Completed, "{ended:?}");
    assert_eq!(cluster.api.output(job, 0, 0).await, "ready\nwarned\n");
}

async fn a_job_that_ignores_term_is_killed_with_all_its_processes(database: Database) {
    let mut cluster = Cluster::start(database).await;
    cluster.add_worker("node-a", "1xB200").await;
    // A child in a session of its own, and a grandchild whose parent is gone: both are of the job.
    let line = "trap '' TERM; setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' & \
                (sh -c 'trap \"\" TERM; while :; do sleep 1; done' &) ; echo ready; while :; do sleep 0.1; done";
    let job = cluster.api.submit(shell(line).gpus(1).grace(1)).await;
    deadline::until("the job to be ready", async || {
        let request = gotgan_proto::v1::LogsRequest { job_id: job, ..Default::default() };
        let read = cluster.api.read_log(request).await.map_err(|status| status.to_string())?;
        if read.0 == b"ready\n" { Ok(()) } else { Err(format!("{read:?}")) }
    })
    .await;
    // One that becomes another program at this moment has no environment to be known by.
    deadline::until("all its processes", async || {
        let seen = cluster.worker("node-a").job_processes();
        if seen.len() > 3 { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    cluster.api.jobs().cancel(Api::action(job, "")).await.unwrap();
    let ended = cluster.api.wait_for_state(job, JobState::Cancelled).await;
    let left = cluster.worker("node-a").tasks();
    assert!(left.is_empty(), "left of a job that has ended: {left:?}");
    let exit = ended.attempts[0].steps[0].tasks[0].exit.unwrap_or_default();
    assert_eq!(exit.signal, 9, "{ended:?}");
    audit::ledger(&cluster.api).await;
}

async fn a_worker_that_is_cut_off_enforces_the_time_limit_itself(database: Database) {
    let mut cluster = Cluster::start(database).await;
    cluster.add_worker("node-a", "1xB200").await;
    let job = cluster.api.submit(shell("sleep 1000").gpus(1).limit(2).grace(1)).await;
    cluster.api.wait_for_state(job, JobState::Running).await;
    cluster.scheduler.kill();
    let worker = cluster.worker("node-a");
    deadline::until("the job to be ended by its node", async || match worker.tasks().len() {
        0 => Ok(()),
        more => Err(format!("{more} processes")),
    })
    .await;
    cluster.scheduler.start();
    let ended = cluster.api.wait_for_end(job).await;
    assert_eq!((ended.state(), ended.attempts.len()), (JobState::TimedOut, 1), "{ended:?}");
    audit::ledger(&cluster.api).await;
}
