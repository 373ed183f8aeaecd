//! Jobs do not notice the death of their worker, and nothing of what they did meanwhile is lost.

use std::path::Path;

use gotgan_proto::v1::{Cause, JobState, LogStream, LogsRequest};
use gotgan_tests::jobs::{Shape, shell};
use gotgan_tests::{Cluster, Database, audit, deadline};

on_each_database! {
    jobs_end_while_their_worker_is_dead_and_are_told_later,
    a_worker_that_ends_gracefully_leaves_its_jobs_running,
}

/// Lines that a job prints on each of its two streams before and after the sign.
const LINES: u32 = 2_000;

/// Prints, waits for a sign, prints on, leaves a sign of its own, ends.
fn job_that_waits(go: &Path, done: &Path, end: &str) -> String {
    let print =
        format!("i=0; while [ $i -lt {LINES} ]; do echo out $i; echo err $i >&2; i=$((i+1)); done");
    let (go, done) = (go.display(), done.display());
    format!(
        "{print}; echo half; while [ ! -e {go} ]; do sleep 0.02; done; {print}; : > {done}; {end}"
    )
}

fn expected(word: &str, half: &str) -> String {
    let lines: String = (0..LINES).map(|n| format!("{word} {n}\n")).collect();
    format!("{lines}{half}{lines}")
}

async fn jobs_end_while_their_worker_is_dead_and_are_told_later(database: Database) {
    let mut cluster = Cluster::start(database).await;
    cluster.add_worker("node-a", "4xB200").await;
    let signs = cluster.scratch("signs");
    let ends = ["exit 0", "exit 7", "kill -9 $$", "exit 0"];
    let mut jobs = Vec::new();
    for (number, end) in ends.iter().enumerate() {
        let (go, done) = (signs.join(format!("go-{number}")), signs.join(format!("done-{number}")));
        let job = cluster.api.submit(shell(&job_that_waits(&go, &done, end)).gpus(1)).await;
        jobs.push((job, go, done));
    }
    for (job, ..) in &jobs {
        wait_for_output(&cluster, *job, "half\n").await;
    }

    cluster.worker("node-a").kill();
    // All but the last end while nobody looks; the last is still there when the worker comes back.
    for (_, go, done) in &jobs[..3] {
        std::fs::write(go, "").unwrap();
        deadline::until("a job to do its last", async || {
            if done.exists() { Ok(()) } else { Err("no sign of it".to_owned()) }
        })
        .await;
    }
    cluster.worker("node-a").restart();
    std::fs::write(&jobs[3].1, "").unwrap();

    let exits = [(0, 0), (7, 0), (0, 9), (0, 0)];
    for ((job, ..), (code, signal)) in jobs.iter().zip(exits) {
        let ended = cluster.api.wait_for_end(*job).await;
        let exit = ended.exit.unwrap_or_default();
        assert_eq!((exit.code, exit.signal), (code, signal), "{ended:?}");
        let wanted = if code + signal == 0 { JobState::Completed } else { JobState::Failed };
        assert_eq!((ended.state(), ended.attempts.len()), (wanted, 1), "{ended:?}");
        assert_eq!(ended.attempts[0].cause(), Cause::User, "{ended:?}");
        check_output(&cluster, *job).await;
    }
    audit::ledger(&cluster.api).await;
}

async fn wait_for_output(cluster: &Cluster, job_id: u64, end: &str) {
    deadline::until(&format!("output of job {job_id}"), async || {
        let request = LogsRequest { job_id, ..Default::default() };
        let read = cluster.api.read_log(request).await.map_err(|status| status.to_string())?;
        let text = String::from_utf8_lossy(&read.0).into_owned();
        if text.ends_with(end) { Ok(()) } else { Err(format!("{} bytes", text.len())) }
    })
    .await;
}

async fn check_output(cluster: &Cluster, job_id: u64) {
    let out = cluster.api.output(job_id, 0, 0).await;
    assert!(out == expected("out", "half\n"), "standard output has {} bytes", out.len());
    let request = LogsRequest { job_id, stream: LogStream::Stderr.into(), ..Default::default() };
    let (errors, _) = cluster.api.read_log(request).await.unwrap();
    assert!(
        errors == expected("err", "").into_bytes(),
        "standard error has {} bytes",
        errors.len()
    );
}

async fn a_worker_that_ends_gracefully_leaves_its_jobs_running(database: Database) {
    let mut cluster = Cluster::start(database).await;
    cluster.add_worker("node-a", "1xB200").await;
    let signs = cluster.scratch("signs");
    let line = job_that_waits(&signs.join("go"), &signs.join("done"), "exit 0");
    let job = cluster.api.submit(shell(&line).gpus(1)).await;
    wait_for_output(&cluster, job, "half\n").await;

    cluster.worker("node-a").terminate();
    assert!(!cluster.worker("node-a").tasks().is_empty(), "its job goes on");
    cluster.worker("node-a").restart();
    std::fs::write(signs.join("go"), "").unwrap();

    let ended = cluster.api.wait_for_end(job).await;
    assert_eq!((ended.state(), ended.attempts.len()), (JobState::Completed, 1), "{ended:?}");
    check_output(&cluster, job).await;
}
