//! Follows the events of jobs across reconnects, until the jobs are where the caller wants them.

use std::{collections::BTreeMap, ops::ControlFlow, time::Duration};

use gotgan_proto::v1;
use tonic::Streaming;

use crate::{
    client::{Client, passes},
    error::Error,
    view::job::is_terminal,
};

/// Jobs one request may name.
pub const WATCH_MAX: usize = 1000;

/// Pause before a stream is opened again that ended though jobs are still going.
const REOPEN_PAUSE: Duration = Duration::from_millis(300);

/// Where a stream of events is.
#[derive(Debug)]
pub struct JobWatch<'a> {
    client: &'a Client,
    job_ids: Vec<u64>,
    after_seq: u64,
    stream: Option<Streaming<v1::JobEvent>>,
    fresh: bool,
}

impl<'a> JobWatch<'a> {
    /// Events of these jobs (none: all) after this one (0: from the present state on).
    #[must_use]
    pub fn new(client: &'a Client, job_ids: Vec<u64>, after_seq: u64) -> Self {
        Self { client, job_ids, after_seq, stream: None, fresh: false }
    }

    /// The next event; waits for it however long it takes, and connects again where it must.
    ///
    /// # Errors
    /// When the scheduler refuses, or is away for longer than the client is patient.
    pub async fn next(&mut self) -> Result<v1::JobEvent, Error> {
        loop {
            let mut stream = match self.stream.take() {
                Some(stream) => stream,
                None => self.open().await?,
            };
            match stream.message().await {
                Ok(Some(event)) => {
                    self.after_seq = self.after_seq.max(event.seq);
                    (self.stream, self.fresh) = (Some(stream), false);
                    return Ok(event);
                }
                Ok(None) => {}
                Err(status) if passes(&status) => {}
                Err(status) => return Err(status.into()),
            }
        }
    }

    async fn open(&mut self) -> Result<Streaming<v1::JobEvent>, Error> {
        // A stream that gave nothing is not opened again at once, or a fault there becomes a storm.
        if self.fresh {
            tokio::time::sleep(REOPEN_PAUSE).await;
        }
        self.fresh = true;
        let request =
            v1::WatchJobsRequest { job_ids: self.job_ids.clone(), after_seq: self.after_seq };
        self.client.open(async |api| api.jobs().watch(request.clone()).await).await
    }
}

/// Waits until every one of these jobs is terminal; tells `seen` of each event, which may end the wait.
///
/// # Errors
/// What `JobWatch::next` and `seen` return.
pub async fn until_terminal(
    client: &Client,
    job_ids: &[u64],
    mut seen: impl FnMut(&v1::JobEvent, &BTreeMap<u64, i32>) -> Result<ControlFlow<()>, Error>,
) -> Result<BTreeMap<u64, i32>, Error> {
    let mut watch = JobWatch::new(client, job_ids.to_vec(), 0);
    let mut states: BTreeMap<u64, i32> = job_ids.iter().map(|id| (*id, 0)).collect();
    while !states.values().all(|state| is_terminal(*state)) {
        let event = watch.next().await?;
        if let Some(state) = states.get_mut(&event.job_id) {
            *state = event.state;
        }
        if seen(&event, &states)?.is_break() {
            break;
        }
    }
    Ok(states)
}

/// The job with its attempts and steps.
///
/// # Errors
/// The scheduler's refusal, or that it was not reached.
pub async fn get_job(client: &Client, job_id: u64) -> Result<v1::Job, Error> {
    client.call(async |api| api.jobs().get(v1::GetJobRequest { job_id }).await).await
}
