//! What people do to jobs: cancel, hold, release, requeue, and jobs that wait for each other.

use std::time::Duration;

use gotgan_proto::v1::{
    Cause, DependencyKind, ExitStatus, JobState, ListJobsRequest, WatchJobsRequest,
};
use gotgan_tests::jobs::{Shape, command, script, shell};
use gotgan_tests::virtual_worker::{Play, Script};
use gotgan_tests::{Api, Cluster, Database, audit, deadline};
use tonic::Code;

on_each_database! {
    a_job_is_cancelled_in_every_state_once,
    a_held_job_does_not_start_until_released,
    a_requeued_job_keeps_its_place_and_runs_again,
    a_drained_node_gets_nothing_new_and_keeps_what_it_has,
    jobs_wait_for_each_other_and_fall_with_each_other,
    a_job_that_fails_is_tried_again_as_often_as_it_asked,
    shared_gpus_add_up,
    events_tell_the_whole_story_in_order,
    listings_page_and_filter,
    a_listing_of_long_jobs_comes_in_answers_that_every_client_takes,
}

async fn a_job_is_cancelled_in_every_state_once(database: Database) {
    let mut cluster = Cluster::start(database).await;
    cluster.add_worker("node-a", "1xB200").await;
    let api = cluster.api.clone();
    let cancel = async |job| {
        let mut jobs = api.jobs();
        jobs.cancel(Api::action(job, "no longer wanted")).await.unwrap().into_inner()
    };
    let held = api.submit(command(&["/bin/true"]).held()).await;
    let running = api.submit(shell("sleep 1000").gpus(1).grace(5)).await;
    api.wait_for_state(running, JobState::Running).await;
    let pending = api.submit(command(&["/bin/true"]).gpus(1)).await;
    for job in [held, pending, running] {
        assert!(cancel(job).await.changed, "job {job}");
        let ended = api.wait_for_state(job, JobState::Cancelled).await;
        assert!(ended.detail.contains("no longer wanted"), "{ended:?}");
        assert!(!cancel(job).await.changed, "it is cancelled already");
    }
    let ended = api.job(running).await;
    assert_eq!(ended.attempts[0].cause(), Cause::User, "{ended:?}");
    let status = api.jobs().release(Api::action(held, "")).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "a terminal job is left alone: {status:?}");
    audit::ledger(&api).await;
}

async fn a_held_job_does_not_start_until_released(database: Database) {
    let cluster = Cluster::start(database).await;
    let node = cluster.add_virtual("v0", "b200", 1, Script::succeed_after(Duration::ZERO)).await;
    let api = &cluster.api;
    let held = api.submit(command(&["/bin/true"]).gpus(1).held()).await;
    let after = api.submit(command(&["/bin/true"]).gpus(1)).await;
    api.wait_for_state(after, JobState::Completed).await;
    assert_eq!(api.job(held).await.state(), JobState::Held, "one behind it has overtaken it");
    assert!(api.jobs().release(Api::action(held, "")).await.unwrap().into_inner().changed);
    api.wait_for_state(held, JobState::Completed).await;
    assert_eq!(node.runs().len(), 2);
}

async fn a_requeued_job_keeps_its_place_and_runs_again(database: Database) {
    let mut cluster = Cluster::start(database).await;
    cluster.add_worker("node-a", "1xB200").await;
    let api = cluster.api.clone();
    let line = "echo attempt $GOTGAN_ATTEMPT; if [ $GOTGAN_ATTEMPT = 1 ]; then sleep 1000; fi";
    let first = api.submit(shell(line).gpus(1).grace(5)).await;
    let running = api.wait_for_state(first, JobState::Running).await;
    let second = api.submit(command(&["/bin/true"]).gpus(1)).await;
    api.jobs().requeue(Api::action(first, "node needs a look")).await.unwrap();
    let ended = api.wait_for_end(first).await;
    assert_eq!((ended.state(), ended.attempts.len()), (JobState::Completed, 2), "{ended:?}");
    assert_eq!(ended.attempts[0].cause(), Cause::Site, "an administrator's requeue: {ended:?}");
    assert_eq!(ended.queued_us, running.queued_us, "its queue time is kept");
    let other = api.wait_for_end(second).await;
    assert!(other.attempts[0].leased_us >= ended.attempts[1].leased_us, "it came first again");
    assert_eq!(api.output(first, 0, 0).await, "attempt 2\n");
    audit::ledger(&api).await;
}

async fn a_drained_node_gets_nothing_new_and_keeps_what_it_has(database: Database) {
    use gotgan_proto::v1::NodeAdmin;
    let cluster = Cluster::start(database).await;
    let script = Script::by(|order| match order.job_id % 2 {
        1 => Play::Forever,
        _ => Play::Run(Duration::ZERO, ExitStatus::default()),
    });
    let _node = cluster.add_virtual("v0", "b200", 2, script).await;
    let api = &cluster.api;
    let running = api.submit(command(&["/bin/true"]).gpus(1)).await;
    api.wait_for_state(running, JobState::Running).await;
    api.drain("v0", "new fan").await;
    assert_eq!(api.try_node("v0").await.unwrap().admin(), NodeAdmin::Draining);
    let waiting = api.submit(command(&["/bin/true"]).gpus(1)).await;
    api.wait_for_blocker(waiting, gotgan_proto::v1::BlockerKind::NodesUnavailable).await;
    assert_eq!(api.job(running).await.state(), JobState::Running);
    api.jobs().cancel(Api::action(running, "")).await.unwrap();
    api.wait_for_state(running, JobState::Cancelled).await;
    let node = api.try_node("v0").await.unwrap();
    assert_eq!(node.admin(), NodeAdmin::Drained);
    assert!(node.admin_reason.contains("new fan"), "{:?}", node.admin_reason);
    let text = cluster.gotgan().run(&["nodes"]).ok();
    assert!(text.contains("drained"), "{text}");
    cluster.gotgan().run(&["node", "resume", "v0"]).ok();
    api.wait_for_job(waiting, "the waiting job to start", |job| job.attempt == 1).await;
}

async fn jobs_wait_for_each_other_and_fall_with_each_other(database: Database) {
    let cluster = Cluster::start(database).await;
    let script = Script::by(|order| {
        let fails = order.spec.as_ref().is_some_and(|spec| spec.name == "fails");
        let exit = ExitStatus { code: i32::from(fails), signal: 0 };
        Play::Run(Duration::ZERO, exit)
    });
    let api = &cluster.api;
    let named = |name: &str| {
        let mut spec = command(&["/bin/true"]).gpus(1);
        spec.name = name.to_owned();
        spec
    };
    let mut unstarted = named("fails");
    unstarted.hold = true;
    // The node comes last, so that all of them are judged by what is stored, in any order.
    let node = cluster.add_virtual("v0", "b200", 1, script).await;
    let first = api.submit(unstarted).await;
    let after_ok = api.submit(named("ok").after(DependencyKind::AfterOk, first)).await;
    let behind = api.submit(named("behind").after(DependencyKind::AfterOk, after_ok)).await;
    let after_not_ok = api.submit(named("sorry").after(DependencyKind::AfterNotOk, first)).await;
    let after_any = api.submit(named("any").after(DependencyKind::AfterAny, first)).await;
    api.wait_for_blocker(after_any, gotgan_proto::v1::BlockerKind::Dependency).await;
    api.jobs().release(Api::action(first, "")).await.unwrap();

    api.wait_for_state(first, JobState::Failed).await;
    let fallen = api.wait_for_state(after_ok, JobState::Cancelled).await;
    assert!(fallen.detail.contains(&first.to_string()), "{:?}", fallen.detail);
    api.wait_for_state(behind, JobState::Cancelled).await;
    api.wait_for_state(after_not_ok, JobState::Completed).await;
    api.wait_for_state(after_any, JobState::Completed).await;
    assert_eq!(node.runs().len(), 3);
}

async fn a_job_that_fails_is_tried_again_as_often_as_it_asked(database: Database) {
    let cluster = Cluster::start(database).await;
    let fail = ExitStatus { code: 4, signal: 0 };
    let node = cluster
        .add_virtual("v0", "b200", 1, Script::by(move |_| Play::Run(Duration::ZERO, fail)))
        .await;
    let mut spec = command(&["/bin/false"]).gpus(1);
    spec.max_retries = 1;
    let job = cluster.api.submit(spec).await;
    let ended = cluster.api.wait_for_end(job).await;
    assert_eq!((ended.state(), ended.attempts.len()), (JobState::Failed, 2), "{ended:?}");
    assert_eq!(ended.exit, Some(fail));
    assert_eq!(node.runs().iter().map(|run| run.attempt).collect::<Vec<_>>(), [1, 2]);
}

async fn shared_gpus_add_up(database: Database) {
    let cluster = Cluster::start(database).await;
    let node = cluster.add_virtual("v0", "b200", 1, Script::forever()).await;
    let api = &cluster.api;
    let share = |milli| {
        let mut spec = command(&["/bin/true"]);
        spec.resources.get_or_insert_default().gpu_share_milli = milli;
        spec
    };
    let mut running = Vec::new();
    for milli in [500, 250, 250] {
        let job = api.submit(share(milli)).await;
        api.wait_for_state(job, JobState::Running).await;
        running.push(job);
    }
    let over = api.submit(share(1)).await;
    let blocker = api.wait_for_blocker(over, gotgan_proto::v1::BlockerKind::Capacity).await;
    assert_eq!((blocker.needed, blocker.available), (1, 0), "{blocker:?}");
    assert_eq!(api.try_node("v0").await.unwrap().gpu_allocated_milli, [1000]);
    api.jobs().cancel(Api::action(running[1], "")).await.unwrap();
    api.wait_for_state(over, JobState::Running).await;
    for job in [running[0], running[2], over] {
        api.jobs().cancel(Api::action(job, "")).await.unwrap();
        api.wait_for_end(job).await;
    }
    audit::runs(&node.runs());
    audit::ledger(api).await;
}

async fn events_tell_the_whole_story_in_order(database: Database) {
    let cluster = Cluster::start(database).await;
    let _node = cluster.add_virtual("v0", "b200", 1, Script::succeed_after(Duration::ZERO)).await;
    let job = cluster.api.submit(command(&["/bin/true"]).gpus(1).held()).await;
    let request = WatchJobsRequest { job_ids: vec![job], after_seq: 0 };
    let mut events = cluster.api.jobs().watch(request).await.unwrap().into_inner();
    let first = deadline::within("the present state", events.message()).await.unwrap().unwrap();
    assert_eq!((first.seq, first.state()), (0, JobState::Held), "{first:?}");
    cluster.api.jobs().release(Api::action(job, "")).await.unwrap();
    let mut seen = Vec::new();
    while let Some(event) = deadline::within("an event", events.message()).await.unwrap() {
        seen.push(event);
    }
    assert!(seen.is_sorted_by(|a, b| a.seq < b.seq), "{seen:?}");
    let kinds: Vec<&str> = seen.iter().map(|event| event.kind.as_str()).collect();
    for kind in ["released", "leased", "started"] {
        assert!(kinds.contains(&kind), "no {kind} in {kinds:?}");
    }
    assert_eq!(seen.last().unwrap().state(), JobState::Completed, "the stream ends with the job");

    // From a number on: nothing again, nothing missing.
    let middle = seen[1].seq;
    let request = WatchJobsRequest { job_ids: vec![job], after_seq: middle };
    let mut events = cluster.api.jobs().watch(request).await.unwrap().into_inner();
    let mut rest = Vec::new();
    while let Some(event) = deadline::within("the rest", events.message()).await.unwrap() {
        rest.push(event.seq);
    }
    let expected: Vec<u64> =
        seen.iter().map(|event| event.seq).filter(|seq| *seq > middle).collect();
    assert_eq!(rest, expected);
}

async fn listings_page_and_filter(database: Database) {
    use gotgan_proto::v1::PageRequest;
    let cluster = Cluster::start(database).await;
    let mut submitted = Vec::new();
    for number in 0..25 {
        let project = if number % 5 == 0 { "centre/beta" } else { "centre/alpha" };
        submitted.push(cluster.api.submit(command(&["/bin/true"]).project(project).held()).await);
    }
    let (mut pages, mut found, mut token) = (0, Vec::new(), String::new());
    loop {
        let page = Some(PageRequest { size: 10, token });
        let request = ListJobsRequest { page, ..Default::default() };
        let answer = cluster.api.jobs().list(request).await.unwrap().into_inner();
        found.extend(answer.jobs.iter().map(|job| job.job_id));
        (pages, token) = (pages + 1, answer.next_token);
        if token.is_empty() {
            break;
        }
    }
    submitted.reverse();
    assert_eq!((pages, &found), (3, &submitted), "newest first, each once");
    let request = ListJobsRequest { project: "centre/beta".into(), ..Default::default() };
    let answer = cluster.api.jobs().list(request).await.unwrap().into_inner();
    assert_eq!(answer.jobs.len(), 5);
    let json = cluster.gotgan().run(&["jobs", "--project", "centre/beta", "--json"]).json();
    assert_eq!(json["jobs"].as_array().map(Vec::len), Some(5), "{json}");
    let table = cluster.gotgan().run(&["jobs"]).ok();
    assert!(table.lines().all(|line| line.chars().count() <= 80), "wider than 80:\n{table}");
}

async fn a_listing_of_long_jobs_comes_in_answers_that_every_client_takes(database: Database) {
    use gotgan_proto::MESSAGE_MAX_BYTES;
    use gotgan_proto::v1::PageRequest;
    use prost::Message;
    let cluster = Cluster::start(database).await;
    // A listing does not carry scripts; arguments it does.
    let body = format!("exit 0\n#{}", "x".repeat(900_000));
    let argument = "y".repeat(120_000);
    let mut submitted = Vec::new();
    for number in 0..45 {
        let job = if number < 5 { script(&body) } else { command(&["/bin/echo", &argument]) };
        submitted.push(cluster.api.submit(job.held()).await);
    }
    submitted.reverse();
    let (mut sizes, mut found, mut token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let page = Some(PageRequest { size: 1000, token });
        let request = ListJobsRequest { page, ..Default::default() };
        let answer = cluster.api.jobs().list(request).await.unwrap().into_inner();
        sizes.push(answer.encoded_len());
        found.extend(answer.jobs.iter().map(|job| job.job_id));
        token = answer.next_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(found, submitted, "newest first, each once");
    assert!(sizes.len() == 2 && sizes.iter().all(|size| *size < MESSAGE_MAX_BYTES), "{sizes:?}");
    let json = cluster.gotgan().run(&["jobs", "--all", "--json"]).json();
    assert_eq!(json["jobs"].as_array().map(Vec::len), Some(45));
    let whole = cluster.api.job(*submitted.last().unwrap()).await;
    let work = whole.spec.and_then(|spec| spec.work);
    let Some(gotgan_proto::v1::job_spec::Work::Script(script)) = work else { panic!("{work:?}") };
    assert!(script.text.contains(&body), "the job itself is told whole");
}
