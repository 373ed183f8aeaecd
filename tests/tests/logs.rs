//! Output as a stream of bytes with offsets, live and afterwards.

use gotgan_proto::v1::{JobState, LogStream, LogsRequest};
use gotgan_tests::jobs::{Shape, command, shell};
use gotgan_tests::{Cluster, Database, deadline};
use tonic::Code;

on_each_database! {
    output_is_followed_live_and_ends_with_its_task,
    output_is_read_from_any_offset,
    the_command_line_shows_and_follows_output,
    a_large_output_arrives_whole,
}

async fn output_is_followed_live_and_ends_with_its_task(database: Database) {
    let mut cluster = Cluster::start(database).await;
    cluster.add_worker("node-a", "").await;
    let go = cluster.scratch("signs").join("go");
    let line = format!("echo one; while [ ! -e {} ]; do sleep 0.02; done; echo two", go.display());
    let job_id = cluster.api.submit(shell(&line)).await;
    let request = LogsRequest { job_id, follow: true, ..Default::default() };
    let mut chunks = deadline::until("output to begin", async || {
        let answer = cluster.api.jobs().logs(request).await;
        answer.map_err(|status| status.to_string())
    })
    .await
    .into_inner();
    let mut read = Vec::new();
    while read != b"one\n" {
        let chunk = deadline::within("the first line", chunks.message()).await.unwrap().unwrap();
        assert!(!chunk.end, "the task runs");
        assert_eq!(chunk.offset, read.len() as u64);
        read.extend(chunk.data);
    }
    assert_eq!(cluster.api.job(job_id).await.state(), JobState::Running, "it came while it ran");
    std::fs::write(go, "").unwrap();
    let mut end = false;
    while let Some(chunk) = deadline::within("the rest", chunks.message()).await.unwrap() {
        assert!(!end, "something follows the end");
        assert_eq!(chunk.offset, read.len() as u64);
        read.extend(chunk.data);
        end = chunk.end;
    }
    assert!(end, "the stream ends with the task");
    assert_eq!(read, b"one\ntwo\n");
}

async fn output_is_read_from_any_offset(database: Database) {
    let mut cluster = Cluster::start(database).await;
    cluster.add_worker("node-a", "").await;
    let job_id = cluster.api.submit(shell("printf 0123456789; printf errors >&2")).await;
    cluster.api.wait_for_state(job_id, JobState::Completed).await;
    for (offset, expected) in [(0, "0123456789"), (1, "123456789"), (9, "9"), (10, "")] {
        let request = LogsRequest { job_id, offset, ..Default::default() };
        let (bytes, end) = cluster.api.read_log(request).await.unwrap();
        assert_eq!(
            (String::from_utf8(bytes).unwrap().as_str(), end),
            (expected, true),
            "from {offset}"
        );
    }
    let stream = LogStream::Stderr.into();
    let request = LogsRequest { job_id, stream, offset: 3, ..Default::default() };
    assert_eq!(cluster.api.read_log(request).await.unwrap().0, b"ors");
    for (step, rank) in [(0, 7), (7, 0)] {
        let request = LogsRequest { job_id, step, rank, ..Default::default() };
        let code = cluster.api.read_log(request).await.unwrap_err().code();
        assert_eq!(code, Code::NotFound, "step {step} rank {rank}");
    }
}

async fn the_command_line_shows_and_follows_output(database: Database) {
    let mut cluster = Cluster::start(database).await;
    cluster.add_worker("node-a", "").await;
    let go = cluster.scratch("signs").join("go");
    let line =
        format!("echo one; while [ ! -e {} ]; do sleep 0.02; done; echo two; exit 3", go.display());
    let job = cluster.api.submit(shell(&line)).await;
    let log = cluster.directory().join("follow.log");
    let mut follower = cluster.gotgan().start(&["logs", "-f", &job.to_string()], &log);
    deadline::until_blocking("the first line", || {
        let seen = follower.output();
        if seen.contains("one\n") { Ok(()) } else { Err(seen) }
    });
    assert!(follower.ended().is_none(), "it follows");
    std::fs::write(go, "").unwrap();
    deadline::until_blocking("the follower to end", || {
        follower.ended().ok_or_else(|| follower.output())
    });
    assert_eq!(follower.output(), "one\ntwo\n");
    let shown = cluster.gotgan().run(&["logs", &job.to_string()]).ok();
    assert_eq!(shown, "one\ntwo\n");
    cluster.gotgan().run(&["wait", &job.to_string()]).fails_with(1, &[]);
}

async fn a_large_output_arrives_whole(database: Database) {
    let mut cluster = Cluster::start(database).await;
    cluster.add_worker("node-a", "").await;
    let bytes: usize = 3 << 20;
    let job = cluster.api.submit(shell(&format!("head -c {bytes} /dev/zero | tr '\\0' x"))).await;
    cluster.api.wait_for_state(job, JobState::Completed).await;
    let text = cluster.api.output(job, 0, 0).await;
    assert!(text.len() == bytes && text.bytes().all(|byte| byte == b'x'), "{} bytes", text.len());
    // A job that prints nothing has an end as well.
    let silent = cluster.api.submit(command(&["/bin/true"]).grace(1)).await;
    assert_eq!(cluster.api.output(silent, 0, 0).await, "");
}
