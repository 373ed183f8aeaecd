//! Looks at jobs and counts GPUs all the time, from outside, over wires that nobody harms.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gotgan_proto::v1::{self, Job, JobState};
use tonic::Status;

use super::history::{Count, Look};
use super::load::Desk;
use crate::api::{Api, is_terminal};
use crate::virtual_worker::session::now_us;

/// Between two rounds.
const EVERY: Duration = Duration::from_millis(250);
/// A question that takes longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Jobs that have ended and are looked at again in a round.
const ENDED_AGAIN: usize = 20;
/// Jobs a page.
const PAGE: u32 = 1000;

/// Looks until then.
pub async fn watch(apis: Vec<Api>, desk: Arc<Desk>, until: Instant) {
    let mut ended = BTreeSet::new();
    while Instant::now() < until {
        for api in &apis {
            // A scheduler that is down or stands by has nothing to say.
            let _ = tokio::time::timeout(PATIENCE, round(api, &desk, &mut ended)).await;
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn round(api: &Api, desk: &Desk, ended: &mut BTreeSet<u64>) -> Result<(), Status> {
    let asked_us = now_us();
    let status = api.status().await?;
    desk.history().led_us.push(asked_us);
    desk.history().counts.extend(status.classes.iter().map(|class| Count {
        asked_us,
        capacity: class.capacity_gpu_milli,
        free: class.free_gpu_milli,
        allocated: class.allocated_gpu_milli,
        down: class.down_gpu_milli,
    }));
    let living = [JobState::Held, JobState::Pending, JobState::Starting, JobState::Running];
    let living = look(api, desk, ended, living.map(Into::into).into(), Vec::new()).await?;
    desk.living.store(living, Ordering::Relaxed);
    let some: Vec<u64> = {
        let from = rand::random_range(0..=ended.last().copied().unwrap_or(0));
        ended.range(from..).take(ENDED_AGAIN).copied().collect()
    };
    if some.is_empty() {
        return Ok(());
    }
    look(api, desk, ended, Vec::new(), some).await.map(drop)
}

/// How many jobs there were to see.
async fn look(
    api: &Api,
    desk: &Desk,
    ended: &mut BTreeSet<u64>,
    states: Vec<i32>,
    job_ids: Vec<u64>,
) -> Result<usize, Status> {
    let (mut token, mut count) = (String::new(), 0);
    loop {
        let asked_us = now_us();
        let page = Some(v1::PageRequest { size: PAGE, token });
        let (states, job_ids) = (states.clone(), job_ids.clone());
        let request =
            v1::ListJobsRequest { page, states, job_ids, tasks: true, ..Default::default() };
        let answer = api.jobs().list(request).await?.into_inner();
        count += answer.jobs.len();
        let mut history = desk.history();
        for job in &answer.jobs {
            history.note(job.job_id, seen(job, asked_us));
            if is_terminal(job.state()) {
                ended.insert(job.job_id);
            }
        }
        token = answer.next_token;
        if token.is_empty() {
            return Ok(count);
        }
    }
}

fn seen(job: &Job, asked_us: i64) -> Look {
    Look { asked_us, state: job.state(), attempt: job.attempt }
}
