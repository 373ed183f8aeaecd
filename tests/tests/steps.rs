//! Steps inside an allocation: told apart by exit codes, output and times, and named when they fail.

use gotgan_proto::v1::{Attempt, JobState, LogStream, LogsRequest, StepKind, TaskState};
use gotgan_tests::jobs::{Shape, script, shell};
use gotgan_tests::{Cluster, Database, audit};

on_each_database! {
    two_steps_are_told_apart_and_the_failing_rank_is_named,
    a_command_runs_one_task_a_gpu_with_its_place_in_the_environment,
    a_script_that_goes_on_after_a_failed_step_decides_its_own_end,
}

const TWO_STEPS: &str = r"
set -e
echo begin on $GOTGAN_NODE
gotgan run --name first -- sh -c 'echo first $RANK of $WORLD_SIZE on $GOTGAN_NODE'
echo between
gotgan run --name second --tasks-per-node 2 -- sh -c '
    echo second $RANK of $WORLD_SIZE
    echo complaint $RANK >&2
    if [ $RANK = 2 ]; then exit 5; fi'
echo never reached";

async fn two_steps_are_told_apart_and_the_failing_rank_is_named(database: Database) {
    let mut cluster = Cluster::start(database).await;
    cluster.add_worker("node-a", "2xB200").await;
    cluster.add_worker("node-b", "2xB200").await;
    let job = cluster.api.submit(script(TWO_STEPS).nodes(2).gpus(2)).await;
    let ended = cluster.api.wait_for_end(job).await;
    assert_eq!(ended.state(), JobState::Failed, "{ended:?}");
    assert_eq!(ended.exit.unwrap_or_default().code, 5, "{}", ended.detail);
    for word in ["rank 2", "exit code 5", "second"] {
        assert!(ended.detail.contains(word), "no {word:?} in {:?}", ended.detail);
    }
    let attempt = &ended.attempts[0];
    assert_eq!(codes(attempt, 0), [5], "the script ends as its last step did");
    assert_eq!(codes(attempt, 1), [0, 0]);
    let second = codes(attempt, 2);
    assert_eq!((second.len(), second[2]), (4, 5), "{second:?}");
    let kinds: Vec<StepKind> = attempt.steps.iter().map(|step| step.kind()).collect();
    assert_eq!(kinds, [StepKind::Batch, StepKind::Run, StepKind::Run]);
    let names: Vec<&str> = attempt.steps[1..].iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["first", "second"]);
    check_times(attempt);
    check_outputs(&cluster, job, &ended.nodes).await;
    check_command_line(&cluster, job);
    audit::ledger(&cluster.api).await;
}

/// Exit codes by rank; tasks that were stopped with their failing neighbour have no code of their own.
fn codes(attempt: &Attempt, step: usize) -> Vec<i32> {
    let tasks = &attempt.steps[step].tasks;
    assert!(tasks.iter().all(|task| task.state() == TaskState::Ended), "{tasks:?}");
    tasks.iter().map(|task| task.exit.unwrap_or_default().code).collect()
}

fn check_times(attempt: &Attempt) {
    let [batch, first, second] = attempt.steps.as_slice() else { panic!("three steps") };
    let order =
        [batch.started_us, first.started_us, first.ended_us, second.started_us, second.ended_us];
    assert!(order.is_sorted() && order[0] > 0, "steps are not one after the other: {order:?}");
    for task in first.tasks.iter().chain(&second.tasks) {
        assert!(task.started_us > 0 && task.ended_us >= task.started_us, "{task:?}");
    }
    assert!(first.tasks.iter().all(|task| task.ended_us <= second.started_us));
}

async fn check_outputs(cluster: &Cluster, job_id: u64, nodes: &[String]) {
    let api = &cluster.api;
    let script = api.output(job_id, 0, 0).await;
    assert!(script.starts_with(&format!("begin on {}\n", nodes[0])), "{script:?}");
    assert!(script.contains("between\n") && !script.contains("never reached"), "{script:?}");
    for (rank, node) in (0..2).zip(nodes) {
        assert_eq!(api.output(job_id, 1, rank).await, format!("first {rank} of 2 on {node}\n"));
    }
    assert_eq!(api.output(job_id, 2, 2).await, "second 2 of 4\n");
    let stream = LogStream::Stderr.into();
    let request = LogsRequest { job_id, step: 2, rank: 2, stream, ..Default::default() };
    assert_eq!(api.read_log(request).await.unwrap().0, b"complaint 2\n");
}

fn check_command_line(cluster: &Cluster, job: u64) {
    let id = job.to_string();
    let shown = cluster.gotgan().run(&["job", &id]).ok();
    for word in ["first", "second", "rank 2"] {
        assert!(shown.contains(word), "no {word:?} in\n{shown}");
    }
    let json = cluster.gotgan().run(&["job", &id, "--json"]).json();
    assert_eq!(json["state"], "failed", "{json}");
    assert_eq!(json["attempts"][0]["steps"][2]["tasks"][2]["exit"]["code"], 5, "{json}");
    cluster.gotgan().run(&["wait", &id]).fails_with(1, &[]);
}

async fn a_command_runs_one_task_a_gpu_with_its_place_in_the_environment(database: Database) {
    let mut cluster = Cluster::start(database).await;
    cluster.add_worker("node-a", "2xB200").await;
    cluster.add_worker("node-b", "2xB200").await;
    let line = "echo $RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $NODE_RANK $CUDA_VISIBLE_DEVICES $MASTER_PORT";
    let mut spec = shell(line).nodes(2).gpus(2);
    let Some(gotgan_proto::v1::job_spec::Work::Command(command)) = &mut spec.work else { panic!() };
    command.layout = gotgan_proto::v1::TaskLayout::PerGpu.into();
    let job = cluster.api.submit(spec).await;
    let ended = cluster.api.wait_for_end(job).await;
    assert_eq!(ended.state(), JobState::Completed, "{ended:?}");
    let mut seen = Vec::new();
    for rank in 0..4 {
        let output = cluster.api.output(job, 0, rank).await;
        let words: Vec<&str> = output.split_whitespace().collect();
        let [own, local, world, local_world, node, gpu, port] = words.as_slice() else {
            panic!("rank {rank}: {output:?}")
        };
        let place = [own, local, world, local_world, node].map(|word| word.parse::<u32>().unwrap());
        assert_eq!(place, [rank, rank % 2, 4, 2, rank / 2]);
        assert!(port.parse::<u16>().is_ok());
        seen.push((*gpu).to_owned());
    }
    let held = ended.attempts[0].allocation.iter().flat_map(|node| &node.gpus);
    let mut held: Vec<String> = held.map(|gpu| gpu.uuid.clone()).collect();
    seen.sort();
    held.sort();
    assert_eq!(seen, held, "each task sees one GPU of the allocation, and no two the same");
}

async fn a_script_that_goes_on_after_a_failed_step_decides_its_own_end(database: Database) {
    let mut cluster = Cluster::start(database).await;
    cluster.add_worker("node-a", "").await;
    let body = "gotgan run -- false && exit 1\ngotgan run -- true\nexit 0";
    let job = cluster.api.submit(script(body)).await;
    let ended = cluster.api.wait_for_end(job).await;
    assert_eq!(ended.state(), JobState::Completed, "{ended:?}");
    assert_eq!(codes(&ended.attempts[0], 1), [1]);
    assert_eq!(codes(&ended.attempts[0], 2), [0]);
}
