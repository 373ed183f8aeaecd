//! What comes in over the network and is no request: nobody else notices.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use gotgan_proto::v1::{self, JobState};
use gotgan_proto::{MESSAGE_MAX_BYTES, v1::JobSpec};
use gotgan_tests::api::fresh_key;
use gotgan_tests::jobs::{Shape, command};
use gotgan_tests::virtual_worker::Script;
use gotgan_tests::{Cluster, Database, audit};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tonic::Code;

on_each_database! {
    garbage_on_the_port_disturbs_nobody,
    a_message_over_the_limit_is_refused_and_the_rest_is_served,
    reports_of_a_worker_that_lies_do_no_harm,
    a_repeated_report_counts_once,
}

async fn submit_and_run(cluster: &Cluster) {
    let job = cluster.api.submit(command(&["/bin/true"]).gpus(1)).await;
    cluster.api.wait_for_state(job, JobState::Completed).await;
}

async fn garbage_on_the_port_disturbs_nobody(database: Database) {
    let mut cluster = Cluster::start(database).await;
    let _node = cluster.add_virtual("v0", "b200", 1, Script::succeed_after(Duration::ZERO)).await;
    let before = cluster.scheduler.id();
    let mut noise = vec![0; 1 << 16];
    StdRng::seed_from_u64(7).fill_bytes(&mut noise);
    let mut open = Vec::new();
    for number in 0..64 {
        let mut stream = TcpStream::connect(cluster.scheduler.address()).expect("a connection");
        let text: &[u8] = match number % 4 {
            0 => &noise,
            1 => b"GET / HTTP/1.1\r\nHost: gotgan\r\n\r\n",
            2 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            // Says nothing and stays.
            _ => b"",
        };
        // The other side may have hung up already.
        let _ = stream.write_all(text);
        open.push(stream);
    }
    submit_and_run(&cluster).await;
    drop(open);
    submit_and_run(&cluster).await;
    assert_eq!(cluster.scheduler.id(), before);
    let status = cluster.scheduler.terminate();
    assert!(status.success(), "{status}");
}

async fn a_message_over_the_limit_is_refused_and_the_rest_is_served(database: Database) {
    let cluster = Cluster::start(database).await;
    let _node = cluster.add_virtual("v0", "b200", 1, Script::succeed_after(Duration::ZERO)).await;
    let mut spec: JobSpec = command(&["/bin/true"]);
    spec.comment = "x".repeat(MESSAGE_MAX_BYTES + 1);
    let large = cluster.api.try_submit(spec);
    let (refused, ()) = tokio::join!(large, submit_and_run(&cluster));
    let code = refused.expect_err("a message over the limit").code();
    assert!(matches!(code, Code::OutOfRange | Code::ResourceExhausted), "{code:?}");
    submit_and_run(&cluster).await;
    assert_eq!(cluster.api.all_jobs().await.len(), 2);
}

/// Sends these messages as a worker, and gives the scheduler the time of another call to take them in.
async fn say(cluster: &Cluster, node: &str, reports: Vec<v1::Report>) {
    use v1::worker_message::Message;
    let link = cluster.link(node).await;
    let inventory = gotgan_tests::virtual_worker::inventory(node, "b200", 1);
    let register = v1::Register { inventory: Some(inventory), ..Default::default() };
    let all = std::iter::once(Message::Register(register))
        .chain(reports.into_iter().map(Message::Report))
        .map(|message| v1::WorkerMessage { message: Some(message) });
    let messages: Vec<_> = all.collect();
    let mut client = link.connect().await.unwrap();
    let answer = client.session(link.request(tokio_stream::iter(messages))).await;
    let Ok(answer) = answer else { return };
    let mut orders = answer.into_inner();
    // To the end of the stream: then everything was taken in.
    while let Ok(Some(_)) = orders.message().await {}
}

async fn reports_of_a_worker_that_lies_do_no_harm(database: Database) {
    let cluster = Cluster::start(database).await;
    let _node = cluster.add_virtual("v0", "b200", 1, Script::forever()).await;
    let job_id = cluster.api.submit(command(&["/bin/true"]).gpus(1).on("v0")).await;
    cluster.api.wait_for_state(job_id, JobState::Running).await;
    let ended = |job_id, attempt, seq| v1::Report {
        job_id,
        attempt,
        seq,
        at_us: -1,
        event: Some(v1::report::Event::Ended(v1::AttemptEnded::default())),
    };
    let nothing = v1::Report { job_id, attempt: 1, seq: 1, at_us: i64::MAX, event: None };
    let lies = vec![
        // About another node's attempt, a job and an attempt that never were, and with numbers out of order.
        ended(job_id, 1, 1),
        ended(job_id, 1, u64::MAX),
        ended(4_000_000, 1, 1),
        ended(u64::MAX, u32::MAX, 0),
        nothing,
    ];
    say(&cluster, "v1", lies).await;
    assert_eq!(cluster.api.job(job_id).await.state(), JobState::Running, "it is not v1's to end");
    cluster.api.jobs().cancel(gotgan_tests::Api::action(job_id, "")).await.unwrap();
    cluster.api.wait_for_state(job_id, JobState::Cancelled).await;
    audit::ledger(&cluster.api).await;
}

async fn a_repeated_report_counts_once(database: Database) {
    let mut cluster = Cluster::start(database).await;
    let mut node =
        cluster.add_virtual("v0", "b200", 1, Script::succeed_after(Duration::ZERO)).await;
    let mut known = Vec::new();
    for _ in 0..3 {
        let spec = command(&["/bin/true"]).gpus(1);
        let key = fresh_key();
        let request = v1::SubmitRequest { idempotency_key: key, spec: Some(spec), dry_run: false };
        let job = cluster.api.jobs().submit(request).await.unwrap().into_inner().job_id;
        // The stream breaks while reports are on their way; what is not acknowledged comes again.
        node.cut();
        node.connect();
        cluster.api.wait_for_state(job, JobState::Completed).await;
        known.push(job);
    }
    cluster.scheduler.kill();
    cluster.scheduler.start();
    cluster.api.wait_for_node("v0", v1::NodeLiveness::Ready).await;
    for job in known {
        assert_eq!(cluster.api.job(job).await.attempts.len(), 1);
    }
    audit::runs(&node.runs());
    audit::ledger(&cluster.api).await;
}
