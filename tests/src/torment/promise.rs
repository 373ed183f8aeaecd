//! A promise that can be watched: when all is calm, a gang waits on a full machine and is told when it will start, while
//! small jobs push in from all sides. It starts no later than it was told first.

use std::time::{Duration, Instant};

use gotgan_proto::v1::{BlockerKind, GetJobRequest, JobSpec, JobState, SubmitRequest};

use super::evidence::Part;
use super::history::{Answer, Submit};
use super::load::Desk;
use super::quota;
use crate::api::{Api, fresh_key, is_terminal};
use crate::jobs::{Shape, command};
use crate::virtual_worker::session::now_us;

/// What is full first, of each node.
const FULL: Duration = Duration::from_secs(4);
/// Longest time of that, in seconds: nobody knows better.
const FULL_LIMIT_S: i64 = 6;
/// What pushes in.
const SMALL: Duration = Duration::from_millis(1_500);
const SMALL_LIMIT_S: i64 = 60;
/// Between two that push in, and two looks.
const EVERY: Duration = Duration::from_millis(100);
/// A round, an order and a busy machine.
const SLACK_US: i64 = 2_000_000;
/// Longer than everything that is before it.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was promised and what came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Promise {
    /// When the gang was to start, as it was told first; 0: it was never told.
    pub told_us: i64,
    /// When it did; 0: never.
    pub started_us: i64,
    /// The gang.
    pub job_id: u64,
}

impl Promise {
    /// What is wrong with it.
    #[must_use]
    pub fn broken(&self) -> Option<String> {
        let Self { told_us, started_us, job_id } = *self;
        if started_us == 0 {
            return Some(format!(
                "gang {job_id} did not start within {PATIENCE:?} when all was calm"
            ));
        }
        let late_us = started_us - told_us;
        let is_late = told_us > 0 && late_us > SLACK_US;
        is_late.then(|| format!("gang {job_id} started {late_us} us later than it was told first"))
    }
}

/// Watches one on a cluster of so many nodes on which nothing runs.
pub async fn watch(api: &Api, desk: &Desk, nodes: usize, gpus: u32) -> Promise {
    // All of one project, so that nobody has a better right.
    let project = quota::GUARANTEES[0].0;
    for _ in 0..nodes {
        submit(api, desk, job(desk, FULL, FULL_LIMIT_S).project(project).gpus(gpus)).await;
    }
    let half = u32::try_from(nodes / 2).unwrap_or(1);
    let gang = job(desk, Duration::ZERO, FULL_LIMIT_S).project(project).nodes(half).gpus(gpus);
    let Some(job_id) = submit(api, desk, gang).await else { return Promise::default() };
    let mut promise = Promise { job_id, ..Promise::default() };
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE && promise.started_us == 0 {
        submit(api, desk, job(desk, SMALL, SMALL_LIMIT_S).project(project).gpus(1)).await;
        look(api, &mut promise).await;
        tokio::time::sleep(EVERY).await;
    }
    promise
}

fn job(desk: &Desk, lasts: Duration, limit_s: i64) -> JobSpec {
    let part = Part { directory: desk.traces.clone(), lasts, code: 0, milli: 1000 };
    let argv = part.command(&desk.program);
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    command(&words).limit(limit_s).grace(0)
}

/// One that is refused is one less.
async fn submit(api: &Api, desk: &Desk, mut spec: JobSpec) -> Option<u64> {
    let (key, sent_us) = (fresh_key(), now_us());
    spec.name = key.clone();
    let idempotency_key = key.clone();
    let request = SubmitRequest { idempotency_key, spec: Some(spec), dry_run: false };
    let answered = api.jobs().submit(request).await.ok().map(|told| told.into_inner().job_id);
    let answer = answered.map_or(Answer::None, Answer::Done);
    let answered_us = now_us();
    let submit = Submit { key, sent_us, answered_us, answer, again: Vec::new() };
    desk.history().submits.push(submit);
    answered
}

async fn look(api: &Api, promise: &mut Promise) {
    let request = GetJobRequest { job_id: promise.job_id };
    let Ok(job) = api.jobs().get(request).await else { return };
    let job = job.into_inner();
    if job.state() == JobState::Running || is_terminal(job.state()) {
        promise.started_us = job.started_us;
        return;
    }
    if promise.told_us == 0
        && let Ok(told) = api.explain(promise.job_id).await
    {
        let planned = told.blockers.iter().find(|it| it.kind() == BlockerKind::Planned);
        promise.told_us = planned.and_then(|it| it.subject.parse().ok()).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gang_that_starts_in_time_or_was_never_told_is_fine_and_a_late_one_is_not() {
        let broken = |told_us, started_us| Promise { told_us, started_us, job_id: 1 }.broken();
        assert_eq!(broken(10, 5), None);
        assert_eq!(broken(10, 10 + SLACK_US), None);
        assert_eq!(broken(0, 99 + SLACK_US), None);
        assert!(broken(10, 11 + SLACK_US).is_some());
        assert!(broken(10, 0).is_some());
    }
}
