//! People who want things while everything breaks: they ask through their own wires, ask again until somebody answers,
//! and keep what they were told.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gotgan_proto::v1::{self, DependencyKind, JobSpec};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tonic::{Code, Status};

use super::evidence::Part;
use super::history::{Action, Answer, History, Limit, Submit};
use super::quota;
use crate::api::{Api, told};
use crate::jobs::{Shape, command};
use crate::virtual_worker::session::now_us;

/// An answer that has not come in this time is asked for again.
const PATIENCE: Duration = Duration::from_secs(2);
/// Whoever got no answer in this time gives up, and never knows.
const GIVE_UP: Duration = Duration::from_secs(60);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two wishes of one client.
const IDLE_MS: std::ops::Range<u64> = 5..120;
/// Between two limits, so that each holds for a while.
const LIMIT_EVERY: Duration = Duration::from_secs(15);
/// Nobody submits while so many jobs are on their way: enough that many wait, few enough that they end in a minute.
const LIVING_MAX: usize = 150;
/// Jobs that somebody still thinks of.
const RECENT: usize = 40;

/// What all clients share.
#[derive(Debug)]
pub struct Desk {
    /// What was asked and answered.
    pub history: Mutex<History>,
    /// The program that plays parts.
    pub program: PathBuf,
    /// Where parts leave their traces.
    pub traces: PathBuf,
    /// Jobs that had not ended when somebody looked last.
    pub living: AtomicUsize,
}

impl Desk {
    /// A panic elsewhere does not make the history wrong.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who wants things.
#[derive(Debug)]
pub struct Client {
    name: String,
    random: StdRng,
    /// The API by each scheduler.
    lines: Vec<Api>,
    /// The one that answered last.
    line: usize,
    desk: Arc<Desk>,
    count: u64,
    recent: Vec<u64>,
    submitted: Vec<v1::SubmitRequest>,
    /// Changes the limit then; only one of all does.
    limit_at: Option<Instant>,
}

/// What a client may want, with how often it does.
const WISHES: [(u32, Wish); 8] = [
    (46, Wish::Submit),
    (8, Wish::SubmitMany),
    (5, Wish::Array),
    (12, Wish::Cancel),
    (5, Wish::Hold),
    (7, Wish::Release),
    (3, Wish::Requeue),
    (8, Wish::Again),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Submit,
    SubmitMany,
    Array,
    Cancel,
    Hold,
    Release,
    Requeue,
    /// The same submission once more, as one does who is not sure.
    Again,
}

impl Client {
    /// With a connection to each scheduler.
    #[must_use]
    pub fn new(number: usize, seed: u64, lines: Vec<Api>, desk: Arc<Desk>) -> Self {
        Self {
            name: format!("client-{number}"),
            random: StdRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(number as u64)),
            lines,
            line: 0,
            desk,
            count: 0,
            recent: Vec::new(),
            submitted: Vec::new(),
            limit_at: (number == 0).then(|| Instant::now() + LIMIT_EVERY),
        }
    }

    /// Wants things until then, and returns when the last is answered or given up.
    pub async fn live(mut self, until: Instant) {
        while Instant::now() < until {
            if self.limit_at.is_some_and(|at| at <= Instant::now()) {
                self.limit_at = Some(Instant::now() + LIMIT_EVERY);
                self.change_limit().await;
            }
            let pause = self.random.random_range(IDLE_MS);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let wish = WISHES.choose_weighted(&mut self.random, |(weight, _)| *weight);
            let wish = wish.map_or(Wish::Submit, |(_, wish)| *wish);
            let enough = self.desk.living.load(Ordering::Relaxed) >= LIVING_MAX;
            if enough && matches!(wish, Wish::Submit | Wish::SubmitMany | Wish::Array) {
                continue;
            }
            match wish {
                Wish::Submit => self.submit_one(false).await,
                Wish::Array => self.submit_one(true).await,
                Wish::SubmitMany => self.submit_many().await,
                Wish::Again => self.again().await,
                Wish::Cancel => self.act("cancel").await,
                Wish::Hold => self.act("hold").await,
                Wish::Release => self.act("release").await,
                Wish::Requeue => self.act("requeue").await,
            }
        }
    }

    fn key(&mut self) -> String {
        self.count += 1;
        format!("{}-{}", self.name, self.count)
    }

    fn request(&mut self, is_array: bool) -> v1::SubmitRequest {
        let key = self.key();
        let spec = self.spec(&key, is_array);
        v1::SubmitRequest { idempotency_key: key, spec: Some(spec), dry_run: false }
    }

    /// Small and short, some of several nodes, some that fail; the key is the name.
    fn spec(&mut self, key: &str, is_array: bool) -> JobSpec {
        let random = &mut self.random;
        let is_gang = !is_array && random.random_ratio(1, 6);
        let is_share = !is_gang && random.random_ratio(1, 5);
        let part = Part {
            directory: self.desk.traces.clone(),
            lasts: Duration::from_millis(match random.random_range(0..10) {
                0 => random.random_range(3_000..8_000),
                _ => random.random_range(0..1_500),
            }),
            code: u8::from(random.random_ratio(1, 12)),
            milli: if is_share { 500 } else { 1000 },
        };
        let argv = part.command(&self.desk.program);
        let words: Vec<&str> = argv.iter().map(String::as_str).collect();
        let project = quota::PROJECTS.choose(random).copied().unwrap_or_default();
        let mut spec = command(&words).project(project).limit(60).grace(1);
        spec.name = key.to_owned();
        spec.max_retries = random.random_range(0..2);
        spec = match (is_gang, is_share) {
            (true, _) => spec.nodes(random.random_range(2..=4)).gpus(random.random_range(1..=2)),
            (false, true) => spec.half_a_gpu(),
            (false, false) => spec.gpus(random.random_range(1..=4)),
        };
        if is_array {
            spec.array = format!("0-{}", random.random_range(1..12));
        } else if random.random_ratio(1, 8)
            && let Some(before) = self.recent.choose(random)
        {
            spec = spec.after(DependencyKind::AfterAny, *before);
        }
        if random.random_ratio(1, 15) { spec.held() } else { spec }
    }

    async fn submit_one(&mut self, is_array: bool) {
        let request = self.request(is_array);
        let sent_us = now_us();
        let answer = self.ask(|api| submit(api, request.clone())).await;
        self.submitted_was(request, sent_us, answer.into());
    }

    async fn submit_many(&mut self) {
        let count = self.random.random_range(2..8);
        let jobs: Vec<_> = (0..count).map(|_| self.request(false)).collect();
        let request = v1::SubmitManyRequest { jobs: jobs.clone() };
        let sent_us = now_us();
        let asked = |api: Api| {
            let request = request.clone();
            async move { Ok(api.jobs().submit_many(request).await?.into_inner().jobs) }
        };
        let answer = self.ask(asked).await;
        for (index, request) in jobs.into_iter().enumerate() {
            let answer = match &answer {
                Ok(told) => Ok(told.get(index).map_or(0, |job| job.job_id)),
                Err(answer) => Err(answer.clone()),
            };
            self.submitted_was(request, sent_us, answer.into());
        }
    }

    fn submitted_was(&mut self, request: v1::SubmitRequest, sent_us: i64, answer: Answer) {
        let key = request.idempotency_key.clone();
        if let Answer::Done(job_id) = answer {
            self.recent.push(job_id);
            self.submitted.push(request);
            let late = self.recent.len().saturating_sub(RECENT);
            self.recent.drain(..late);
            let late = self.submitted.len().saturating_sub(RECENT);
            self.submitted.drain(..late);
        }
        let answered_us = now_us();
        let submit = Submit { key, sent_us, answered_us, answer, again: Vec::new() };
        self.desk.history().submits.push(submit);
    }

    async fn again(&mut self) {
        let Some(request) = self.submitted.choose(&mut self.random).cloned() else { return };
        let answer = self.ask(|api| submit(api, request.clone())).await;
        let mut history = self.desk.history();
        let key = &request.idempotency_key;
        let found = history.submits.iter_mut().find(|submit| submit.key == *key);
        match (found, answer) {
            (Some(submit), Ok(job_id)) => submit.again.push(job_id),
            // Refused is as wrong as another number.
            (Some(submit), Err(Unanswered::Refused(_))) => submit.again.push(0),
            (None, _) | (Some(_), Err(Unanswered::GivenUp)) => {}
        }
    }

    async fn act(&mut self, verb: &'static str) {
        let Some(&job_id) = self.recent.choose(&mut self.random) else { return };
        let idempotency_key = self.key();
        let request = v1::JobActionRequest {
            idempotency_key,
            job_id,
            reason: String::new(),
            tasks: String::new(),
        };
        let sent_us = now_us();
        let answer = self.ask(|api| act(api, verb, request.clone())).await.into();
        self.desk.history().actions.push(Action { verb, job_id, sent_us, answer });
    }

    async fn change_limit(&mut self) {
        let gpus = quota::LIMITS.choose(&mut self.random).copied().unwrap_or_default();
        let file = v1::QuotaFile { name: "tree.toml".into(), text: quota::tree(gpus) };
        let request = v1::ApplyQuotaRequest {
            idempotency_key: self.key(),
            proposal: Some(v1::QuotaProposal { files: vec![file], ..Default::default() }),
            ..Default::default()
        };
        let sent_us = now_us();
        let asked = |api: Api| {
            let request = request.clone();
            async move { api.quota().apply(request).await.map(drop) }
        };
        let answered_us = match self.ask(asked).await {
            Ok(()) => now_us(),
            // It may come into force at any time, or never.
            Err(Unanswered::GivenUp) => i64::MAX,
            Err(Unanswered::Refused(_)) => return,
        };
        let limit =
            Limit { project: quota::LIMITED.into(), gpu_milli: gpus * 1000, sent_us, answered_us };
        self.desk.history().limits.push(limit);
    }

    /// Asks one scheduler after the other until one answers for good.
    async fn ask<T, F>(&mut self, question: impl Fn(Api) -> F) -> Result<T, Unanswered>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let begun = Instant::now();
        while begun.elapsed() < GIVE_UP {
            let api = self.lines[self.line].clone();
            match tokio::time::timeout(PATIENCE, question(api)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) if !may_be_asked_again(status.code()) => {
                    return Err(Unanswered::Refused(told(&status)));
                }
                Ok(Err(_)) | Err(_) => {}
            }
            self.line = (self.line + 1) % self.lines.len();
            tokio::time::sleep(PAUSE).await;
        }
        Err(Unanswered::GivenUp)
    }
}

/// Why something was not done, as far as anybody knows.
#[derive(Debug, Clone)]
enum Unanswered {
    /// Nobody answered.
    GivenUp,
    /// It will never be done.
    Refused(String),
}

impl From<Result<u64, Unanswered>> for Answer {
    fn from(answer: Result<u64, Unanswered>) -> Self {
        match answer {
            Ok(job_id) => Self::Done(job_id),
            Err(Unanswered::GivenUp) => Self::None,
            Err(Unanswered::Refused(why)) => Self::Refused(why),
        }
    }
}

async fn submit(api: Api, request: v1::SubmitRequest) -> Result<u64, Status> {
    Ok(api.jobs().submit(request).await?.into_inner().job_id)
}

async fn act(api: Api, verb: &str, request: v1::JobActionRequest) -> Result<u64, Status> {
    let (mut jobs, job_id) = (api.jobs(), request.job_id);
    match verb {
        "cancel" => jobs.cancel(request).await?,
        "hold" => jobs.hold(request).await?,
        "release" => jobs.release(request).await?,
        _ => jobs.requeue(request).await?,
    };
    Ok(job_id)
}

/// Whether a refusal says nothing about the request.
fn may_be_asked_again(code: Code) -> bool {
    match code {
        // The client library says `Unknown` and `Cancelled` of a connection that broke in the middle.
        Code::Unavailable
        | Code::Unknown
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted => true,
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}
