//! The program itself against a scheduler that answers what the test tells it: what people see, with which exit
//! code, and what is sent again.
#![allow(clippy::unwrap_used)]

use std::{
    collections::VecDeque,
    pin::Pin,
    process::{Command, Output},
    sync::{Arc, Mutex},
};

use futures::{Stream, stream};
use gotgan_proto::v1::{
    self, JobState,
    jobs_server::{Jobs, JobsServer},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

type Answers<T> = Mutex<VecDeque<Result<T, Status>>>;

/// Answers in the order given, and what it was asked.
#[derive(Debug, Default)]
struct Scheduler {
    submits: Answers<v1::SubmitResponse>,
    gets: Answers<v1::Job>,
    watches: Answers<Vec<v1::JobEvent>>,
    logs: Answers<Vec<Result<v1::LogChunk, Status>>>,
    steps: Answers<v1::StartStepResponse>,
    submitted: Mutex<Vec<v1::SubmitRequest>>,
    logs_asked: Mutex<Vec<v1::LogsRequest>>,
    steps_asked: Mutex<Vec<v1::StartStepRequest>>,
    authorization: Mutex<Option<String>>,
}

/// The next answer; the last one is given again and again.
fn next<T: Clone>(answers: &Answers<T>) -> Result<T, Status> {
    let mut answers = answers.lock().unwrap();
    let last = answers.len() == 1;
    let front = if last { answers.front().cloned() } else { answers.pop_front() };
    front.unwrap_or_else(|| Err(Status::unimplemented("not in this test")))
}

fn answers<T>(list: impl IntoIterator<Item = Result<T, Status>>) -> Answers<T> {
    Mutex::new(list.into_iter().collect())
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Reply<T> = Result<Response<T>, Status>;

fn unused<T>() -> Reply<T> {
    Err(Status::unimplemented("not in this test"))
}

#[tonic::async_trait]
impl Jobs for Scheduler {
    type WatchStream = Streamed<v1::JobEvent>;
    type LogsStream = Streamed<v1::LogChunk>;

    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Reply<v1::SubmitResponse> {
        let header = request.metadata().get("authorization");
        *self.authorization.lock().unwrap() =
            header.map(|value| value.to_str().unwrap().to_owned());
        self.submitted.lock().unwrap().push(request.into_inner());
        next(&self.submits).map(Response::new)
    }

    async fn get(&self, _: Request<v1::GetJobRequest>) -> Reply<v1::Job> {
        next(&self.gets).map(Response::new)
    }

    async fn watch(&self, _: Request<v1::WatchJobsRequest>) -> Reply<Self::WatchStream> {
        let events = next(&self.watches)?;
        Ok(Response::new(Box::pin(stream::iter(events.into_iter().map(Ok)))))
    }

    async fn logs(&self, request: Request<v1::LogsRequest>) -> Reply<Self::LogsStream> {
        let request = request.into_inner();
        self.logs_asked.lock().unwrap().push(request);
        if request.stream == i32::from(v1::LogStream::Stderr) {
            let end = v1::LogChunk { end: true, ..Default::default() };
            return Ok(Response::new(Box::pin(stream::iter([Ok(end)]))));
        }
        Ok(Response::new(Box::pin(stream::iter(next(&self.logs)?))))
    }

    async fn start_step(
        &self,
        request: Request<v1::StartStepRequest>,
    ) -> Reply<v1::StartStepResponse> {
        self.steps_asked.lock().unwrap().push(request.into_inner());
        next(&self.steps).map(Response::new)
    }

    async fn list(&self, _: Request<v1::ListJobsRequest>) -> Reply<v1::ListJobsResponse> {
        let jobs = vec![next(&self.gets)?];
        Ok(Response::new(v1::ListJobsResponse { jobs, next_token: String::new() }))
    }

    async fn submit_many(
        &self,
        _: Request<v1::SubmitManyRequest>,
    ) -> Reply<v1::SubmitManyResponse> {
        unused()
    }
    async fn cancel(&self, _: Request<v1::JobActionRequest>) -> Reply<v1::JobActionResponse> {
        unused()
    }
    async fn hold(&self, _: Request<v1::JobActionRequest>) -> Reply<v1::JobActionResponse> {
        unused()
    }
    async fn release(&self, _: Request<v1::JobActionRequest>) -> Reply<v1::JobActionResponse> {
        unused()
    }
    async fn requeue(&self, _: Request<v1::JobActionRequest>) -> Reply<v1::JobActionResponse> {
        unused()
    }
    async fn explain(&self, _: Request<v1::ExplainRequest>) -> Reply<v1::Explanation> {
        unused()
    }
    async fn explain_order(
        &self,
        _: Request<v1::ExplainOrderRequest>,
    ) -> Reply<v1::OrderExplanation> {
        unused()
    }
}

/// Runs `gotgan` with these arguments against this scheduler.
async fn gotgan(
    scheduler: Arc<Scheduler>,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> Output {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = JobsServer::from_arc(scheduler);
    let serving = tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming(TcpListenerStream::new(listener));
    let serving = tokio::spawn(serving);
    let mut command = Command::new(env!("CARGO_BIN_EXE_gotgan"));
    command
        .env_clear()
        .env("GOTGAN_CONFIG", "/nonexistent")
        .env("GOTGAN_SERVER", format!("http://{address}"));
    command.envs(variables.iter().copied()).arg("--insecure").args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    serving.abort();
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn accepted(job_id: u64) -> Result<v1::SubmitResponse, Status> {
    Ok(v1::SubmitResponse { job_id, ..Default::default() })
}

fn event(state: JobState) -> v1::JobEvent {
    v1::JobEvent { job_id: 7, seq: 1, attempt: 1, state: state.into(), ..Default::default() }
}

fn chunk(offset: u64, data: &str, end: bool) -> Result<v1::LogChunk, Status> {
    Ok(v1::LogChunk { offset, data: data.as_bytes().to_vec(), end })
}

/// Job 7 with one attempt, whose step of this number has tasks that ended with these codes.
fn job(state: JobState, step: u32, codes: &[i32]) -> v1::Job {
    let task = |(rank, code): (usize, &i32)| v1::Task {
        rank: rank as u32,
        node: format!("node{rank}"),
        state: v1::TaskState::Ended.into(),
        exit: Some(v1::ExitStatus { code: *code, signal: 0 }),
        ..Default::default()
    };
    let tasks = codes.iter().enumerate().map(task).collect();
    let steps = vec![v1::Step { number: step, tasks, ..Default::default() }];
    let attempts = vec![v1::Attempt { number: 1, started_us: 1, steps, ..Default::default() }];
    let exit = codes.iter().max().map(|code| v1::ExitStatus { code: *code, signal: 0 });
    v1::Job { job_id: 7, state: state.into(), attempt: 1, attempts, exit, ..Default::default() }
}

#[tokio::test]
async fn a_submission_is_sent_again_with_the_same_key_and_told_once() {
    let submits = answers([
        Err(Status::unavailable("restarting")),
        Err(Status::unavailable("restarting")),
        accepted(7),
    ]);
    let scheduler = Arc::new(Scheduler { submits, ..Default::default() });
    let token = [("GOTGAN_TOKEN", "secret")];
    let output = gotgan(
        scheduler.clone(),
        &["submit", "--gpus", "b200:8", "--parsable", "--", "true", "--wait"],
        &token,
    )
    .await;
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("7\n", Some(0)));
    let submitted = scheduler.submitted.lock().unwrap();
    assert_eq!(submitted.len(), 3);
    assert!(
        submitted
            .iter()
            .all(|request| request == &submitted[0] && request.idempotency_key.len() == 32)
    );
    let spec = submitted[0].spec.clone().unwrap();
    assert_eq!(spec.name, "true");
    let Some(v1::job_spec::Work::Command(command)) = spec.work else { panic!("not a command") };
    assert_eq!(command.argv, ["true", "--wait"]);
    assert_eq!(scheduler.authorization.lock().unwrap().as_deref(), Some("Bearer secret"));
}

#[tokio::test]
async fn a_refusal_names_every_field_and_what_to_do() {
    let mut details = ErrorDetails::new();
    details.set_error_info("INVALID_SPEC", "gotgan", std::collections::HashMap::new());
    details.add_bad_request_violation(
        "spec.project",
        "there is no project `x`; `gotgan quota show` lists them",
    );
    details.add_bad_request_violation("spec.time_limit_s", "more than 7 days; ask for less");
    let refusal = Status::with_error_details(Code::InvalidArgument, "2 faults", details);
    let scheduler = Arc::new(Scheduler { submits: answers([Err(refusal)]), ..Default::default() });
    let output = gotgan(scheduler, &["submit", "-A", "x", "--", "true"], &[]).await;
    assert_eq!(output.status.code(), Some(3));
    insta::assert_snapshot!(text(&output.stderr), @"
    error: --project (spec.project): there is no project `x`; `gotgan quota show` lists them
    error: --time (spec.time_limit_s): more than 7 days; ask for less
    hint: nothing was stored; correct the request, and check it with --dry-run first
    ");
}

#[tokio::test]
async fn refusals_have_their_exit_codes() {
    let cases = [
        (Code::NotFound, 4),
        (Code::PermissionDenied, 5),
        (Code::Unauthenticated, 6),
        (Code::AlreadyExists, 7),
        (Code::ResourceExhausted, 8),
        (Code::Internal, 12),
    ];
    for (code, exit) in cases {
        let gets = answers([Err(Status::new(code, "no"))]);
        let output =
            gotgan(Arc::new(Scheduler { gets, ..Default::default() }), &["job", "7"], &[]).await;
        assert_eq!(output.status.code(), Some(exit), "{code:?}");
    }
    let gets = answers([Err(Status::unavailable("no"))]);
    let scheduler = Arc::new(Scheduler { gets, ..Default::default() });
    let output = gotgan(scheduler, &["job", "7", "--retry-for", "0"], &[]).await;
    assert_eq!(output.status.code(), Some(9));
}

#[tokio::test]
async fn run_follows_the_output_over_a_break_and_ends_as_the_task_did() {
    let broken = vec![chunk(0, "one\ntw", false), Err(Status::unavailable("restarting"))];
    let rest = vec![chunk(4, "two\n", true)];
    let scheduler = Arc::new(Scheduler {
        submits: answers([accepted(7)]),
        watches: answers([
            Ok(vec![event(JobState::Pending), event(JobState::Running)]),
            Ok(vec![event(JobState::Failed)]),
        ]),
        gets: answers([Ok(job(JobState::Running, 0, &[3])), Ok(job(JobState::Failed, 0, &[3]))]),
        logs: answers([Ok(broken), Ok(rest)]),
        ..Default::default()
    });
    let output = gotgan(scheduler.clone(), &["run", "--", "true"], &[]).await;
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("one\ntwo\n", Some(3)));
    let asked = scheduler.logs_asked.lock().unwrap();
    let offsets: Vec<u64> =
        asked.iter().filter(|request| request.stream != 2).map(|request| request.offset).collect();
    assert_eq!(offsets, [0, 6]);
}

#[tokio::test]
async fn a_step_inside_a_job_names_the_ranks_that_failed() {
    let scheduler = Arc::new(Scheduler {
        steps: answers([Ok(v1::StartStepResponse { step: 2, tasks: 2 })]),
        logs: answers([Ok(vec![chunk(0, "hello\n", true)])]),
        gets: answers([Ok(job(JobState::Running, 2, &[0, 7]))]),
        ..Default::default()
    });
    let variables = [("GOTGAN_JOB_ID", "7"), ("GOTGAN_ATTEMPT", "1"), ("GOTGAN_TOKEN", "secret")];
    let output = gotgan(
        scheduler.clone(),
        &["run", "--label", "--tasks-per-node", "1", "hostname", "-f"],
        &variables,
    )
    .await;
    assert_eq!(output.status.code(), Some(7));
    let mut lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["0: hello", "1: hello"]);
    assert_eq!(text(&output.stderr), "gotgan: step 2: rank 1 on node1: exit 7\n");
    let asked = scheduler.steps_asked.lock().unwrap();
    assert_eq!(
        (asked[0].argv.clone(), asked[0].tasks_per_node),
        (vec!["hostname".to_owned(), "-f".to_owned()], 1)
    );
}

#[tokio::test]
async fn waiting_tells_by_its_exit_code_how_jobs_ended() {
    for (state, code) in [
        (JobState::Completed, 0),
        (JobState::Failed, 1),
        (JobState::Cancelled, 10),
        (JobState::TimedOut, 11),
    ] {
        let watches = answers([Ok(vec![event(JobState::Running)]), Ok(vec![event(state)])]);
        let gets = answers([Ok(job(state, 0, &[0]))]);
        let output = gotgan(
            Arc::new(Scheduler { watches, gets, ..Default::default() }),
            &["wait", "7"],
            &[],
        )
        .await;
        assert_eq!(output.status.code(), Some(code));
    }
}

#[tokio::test]
async fn nothing_is_sent_for_a_script_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("train.sh");
    std::fs::write(&script, "#!/bin/sh\n#GOTGAN --nodes two\n#SBATCH --begin=now\necho\n").unwrap();
    let scheduler = Arc::new(Scheduler::default());
    let output = gotgan(scheduler.clone(), &["submit", script.to_str().unwrap()], &[]).await;
    assert_eq!(output.status.code(), Some(3));
    let told = text(&output.stderr);
    assert!(
        told.contains("train.sh line 2: --nodes") && told.contains("train.sh line 3: --begin"),
        "{told}"
    );
    assert!(scheduler.submitted.lock().unwrap().is_empty());
}
