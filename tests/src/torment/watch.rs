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
/// Jobs that are asked for by number in a round, at most.
const ASKED_MAX: usize = 500;
/// Jobs a page.
const PAGE: u32 = 1000;

/// Jobs that were seen.
#[derive(Debug, Default)]
struct Known {
    /// Not ended when they were looked at last.
    living: BTreeSet<u64>,
    /// Ended.
    ended: BTreeSet<u64>,
}

/// Looks until then.
pub async fn watch(apis: Vec<Api>, desk: Arc<Desk>, until: Instant) {
    let mut known = Known::default();
    while Instant::now() < until {
        for api in &apis {
            // A scheduler that is down or stands by has nothing to say.
            let _ = tokio::time::timeout(PATIENCE, round(api, &desk, &mut known)).await;
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn round(api: &Api, desk: &Desk, known: &mut Known) -> Result<(), Status> {
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
    let seen = look(api, desk, known, living.map(Into::into).into(), Vec::new()).await?;
    desk.living.store(seen.len(), Ordering::Relaxed);
    // Those that were there before and are not any more, and some that ended long ago.
    let mut others: Vec<u64> = known.living.difference(&seen).take(ASKED_MAX).copied().collect();
    let from = rand::random_range(0..=known.ended.last().copied().unwrap_or(0));
    others.extend(known.ended.range(from..).take(ENDED_AGAIN));
    if others.is_empty() {
        return Ok(());
    }
    look(api, desk, known, Vec::new(), others).await.map(drop)
}

/// Which jobs there were to see.
async fn look(
    api: &Api,
    desk: &Desk,
    known: &mut Known,
    states: Vec<i32>,
    job_ids: Vec<u64>,
) -> Result<BTreeSet<u64>, Status> {
    let (mut token, mut seen) = (String::new(), BTreeSet::new());
    loop {
        let asked_us = now_us();
        let page = Some(v1::PageRequest { size: PAGE, token });
        let (states, job_ids) = (states.clone(), job_ids.clone());
        let request =
            v1::ListJobsRequest { page, states, job_ids, tasks: true, ..Default::default() };
        let answer = api.jobs().list(request).await?.into_inner();
        let mut history = desk.history();
        for job in &answer.jobs {
            history.note(job.job_id, seen_at(job, asked_us));
            seen.insert(job.job_id);
            if is_terminal(job.state()) {
                known.living.remove(&job.job_id);
                known.ended.insert(job.job_id);
            } else {
                known.living.insert(job.job_id);
            }
        }
        token = answer.next_token;
        if token.is_empty() {
            return Ok(seen);
        }
    }
}

fn seen_at(job: &Job, asked_us: i64) -> Look {
    Look { asked_us, state: job.state(), attempt: job.attempt }
}
