//! Job arrays: submitted as one, run task by task.

use std::time::Duration;

use gotgan_proto::v1::{self, ExitStatus, JobState};
use gotgan_tests::jobs::{Shape, command, shell};
use gotgan_tests::virtual_worker::{Play, Script};
use gotgan_tests::{Cluster, Database, audit};

on_each_database! {
    every_task_of_an_array_runs_once_and_knows_its_index,
    an_array_goes_on_after_the_scheduler_was_killed_in_the_middle,
    tasks_are_named_by_array_and_index_on_the_command_line,
    a_job_waits_for_one_task_of_an_array,
}

fn array(mut spec: v1::JobSpec, tasks: &str) -> v1::JobSpec {
    spec.array = tasks.to_owned();
    spec
}

async fn every_task_of_an_array_runs_once_and_knows_its_index(database: Database) {
    let mut cluster = Cluster::start(database).await;
    cluster.add_worker("node-a", "2xB200").await;
    let api = cluster.api.clone();
    let line = "echo $GOTGAN_ARRAY_TASK_ID of $GOTGAN_ARRAY_TASK_COUNT in $GOTGAN_ARRAY_JOB_ID; \
                exit $((GOTGAN_ARRAY_TASK_ID == 20))";
    let spec = array(shell(line).gpus(1), "0-20:10%1");
    let request =
        v1::SubmitRequest { idempotency_key: "sweep".to_owned(), spec: Some(spec), dry_run: false };
    let first = api.jobs().submit(request.clone()).await.unwrap().into_inner();
    let again = api.jobs().submit(request).await.unwrap().into_inner();
    assert_eq!((again.job_id, again.repeated, again.tasks), (first.job_id, true, 3));
    let id = first.job_id;
    let after = api
        .submit(array(command(&["/bin/true"]).after(v1::DependencyKind::AfterAny, id), "0-1"))
        .await;
    let ended = api.wait_for_end(id).await;
    assert_eq!(ended.state(), JobState::Failed, "{ended:?}");
    assert_eq!(ended.detail, "2 completed, 1 failed");
    for (place, index) in [(1, 0), (2, 10), (3, 20)] {
        let task = api.job(id + place).await;
        assert_eq!((task.array_job_id, task.task_index), (id, index));
        assert_eq!(api.output(id + place, 0, 0).await, format!("{index} of 3 in {id}\n"));
        assert_eq!(task.queued_us, ended.queued_us, "it has the age of its array");
    }
    let starts: Vec<i64> = {
        let mut starts = Vec::new();
        for place in 1..=3 {
            let task = api.job(id + place).await;
            starts.push((task.attempts[0].leased_us, task.attempts[0].ended_us));
        }
        starts.windows(2).map(|pair| pair[1].0 - pair[0].1).collect()
    };
    assert!(starts.iter().all(|gap| *gap >= 0), "one at a time: {starts:?}");
    assert_eq!(api.wait_for_end(after).await.state(), JobState::Completed);
    audit::ledger(&api).await;
}

async fn an_array_goes_on_after_the_scheduler_was_killed_in_the_middle(database: Database) {
    let mut cluster = Cluster::start(database).await;
    let script = Script::by(|_| Play::Run(Duration::from_millis(20), ExitStatus::default()));
    let _node = cluster.add_virtual("v0", "b200", 4, script).await;
    let api = cluster.api.clone();
    let id = api.submit(array(command(&["/bin/true"]).gpus(1), "0-199")).await;
    let started = |job: &v1::Job| job.array_tasks.is_some_and(|tasks| tasks.completed >= 20);
    api.wait_for_job(id, "some of its tasks to end", started).await;
    cluster.scheduler.kill();
    cluster.scheduler.start();
    let ended = api.wait_for_end(id).await;
    assert_eq!(ended.detail, "200 completed", "{ended:?}");
    let status = api.status().await.unwrap();
    assert_eq!(status.jobs_pending, 0);
    audit::ledger(&api).await;
}

async fn tasks_are_named_by_array_and_index_on_the_command_line(database: Database) {
    let cluster = Cluster::start(database).await;
    let _node = cluster.add_virtual("v0", "b200", 1, Script::by(|_| Play::Forever)).await;
    let api = &cluster.api;
    let gotgan = cluster.gotgan();
    let told = gotgan
        .run(&["submit", "--array", "5-9", "--gpus", "1", "-A", "centre/alpha", "--", "true"])
        .ok();
    let id: u64 = told.split([' ', ',']).nth(1).unwrap().parse().unwrap();
    assert_eq!(told.trim(), format!("job {id}, an array of 5 tasks"));
    api.wait_for_state(id, JobState::Running).await;
    let listed = gotgan.run(&["jobs"]).ok();
    assert!(listed.contains("pending 4 running 1"), "{listed}");
    assert!(gotgan.run(&["jobs", "--tasks"]).ok().contains(&format!("{id}_5")));
    let why = gotgan.run(&["why", &format!("{id}_7")]).ok();
    assert!(why.contains("b200") && why.contains("jobs ahead: 1"), "{why}");
    let held = gotgan.run(&["hold", &format!("{id}_[6-7]")]).ok();
    assert_eq!(held.trim(), format!("job {id}_[6-7] running"));
    assert_eq!(api.job(id + 2).await.state(), JobState::Held);
    gotgan.run(&["cancel", &format!("{id}_9"), "--reason", "enough"]).ok();
    gotgan.run(&["wait", &format!("{id}_9")]).fails_with(10, &[]);
    gotgan.run(&["cancel", &format!("{id}_4")]).fails_with(4, &["has no task 4; it has 5-9"]);
    gotgan.run(&["cancel", &id.to_string()]).ok();
    let ended = api.wait_for_end(id).await;
    assert_eq!(ended.state(), JobState::Cancelled);
    assert!(ended.detail.starts_with("5 cancelled"), "{ended:?}");
    let spec = array(command(&["/bin/true"]), "0-100000");
    let refused = api.try_submit(spec).await.unwrap_err();
    assert!(refused.message().contains("more than 100000 tasks"), "{refused:?}");
}

async fn a_job_waits_for_one_task_of_an_array(database: Database) {
    let mut cluster = Cluster::start(database).await;
    cluster.add_worker("node-a", "2xB200").await;
    let api = cluster.api.clone();
    let gotgan = cluster.gotgan();
    let line = "test $GOTGAN_ARRAY_TASK_ID = 8";
    let held = v1::JobSpec { hold: true, ..array(shell(line).gpus(1), "7-8") };
    let id = api.submit(held).await;
    let submit = |after: String| {
        let words = ["submit", "--parsable", "-A", "centre/alpha", "--after"];
        gotgan.run(&[&words[..], &[after.as_str(), "--", "true"]].concat())
    };
    let number = |text: String| text.trim().parse::<u64>().unwrap();
    let good = number(submit(format!("afterok:{id}_8")).ok());
    let bad = number(submit(format!("afterok:{id}_7")).ok());
    // A pass must have looked at it first.
    api.wait_for_blocker(good, v1::BlockerKind::Dependency).await;
    let why = gotgan.run(&["why", &good.to_string()]).ok();
    assert!(why.contains(&format!("waits for job {id}_8 to complete, which is held")), "{why}");
    let shown = gotgan.run(&["job", &good.to_string()]).ok();
    assert!(shown.contains(&format!("after_ok {id}_8")), "{shown}");
    let told = format!("afterok:{id}_9: array {id} has the tasks 7-8");
    submit(format!("afterok:{id}_9")).fails_with(3, &["--dependency", &told]);
    submit(format!("afterok:{good}_0")).fails_with(3, &["is no array"]);
    submit("afterok:999999_0".to_owned()).fails_with(3, &["job 999999 does not exist"]);
    gotgan.run(&["release", &id.to_string()]).ok();
    assert_eq!(api.wait_for_end(good).await.state(), JobState::Completed);
    let cancelled = api.wait_for_end(bad).await;
    assert_eq!(cancelled.state(), JobState::Cancelled);
    let detail = format!("afterok:{id}_7 cannot be fulfilled: job {id}_7 has failed");
    assert_eq!(cancelled.detail, detail);
    submit(format!("afterok:{id}_7")).fails_with(3, &["cannot be fulfilled"]);
}
