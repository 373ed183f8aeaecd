//! How jobs stand, and when those that wait are going to start.

use gotgan_core::amount::UnixMicros;
use gotgan_core::estimate::StartRange;
use gotgan_core::explain::starts::{Start, start};
use gotgan_core::explain::{Explanation, explain};
use gotgan_core::ids::JobId;
use gotgan_core::world::World;
use gotgan_proto::v1;
use tonic::Status;

use super::error;
use super::jobs::JobsService;

/// How a job stands, with what was told of its start.
#[derive(Debug)]
pub(super) struct Explained {
    /// Which job.
    pub job: JobId,
    /// How it stands.
    pub explanation: Explanation,
    range: Option<StartRange>,
    looked: Option<UnixMicros>,
}

impl JobsService {
    /// How those of the jobs stand that have not ended.
    pub(super) async fn explained(&self, jobs: Vec<JobId>) -> Result<Vec<Explained>, Status> {
        let (pass, estimates) = (self.0.last_pass.get(), self.0.estimates.clone());
        let look = move |world: &World| {
            let told = estimates.told();
            let one = |job: JobId| {
                let explanation = explain(world, job, Some(&*pass.report), pass.planned)?;
                let last = world.record(job).map_or(job, |record| record.last_id());
                let (range, looked) = (told.first(job, last), told.looked);
                Some(Explained { job, explanation, range, looked })
            };
            jobs.into_iter().filter_map(one).collect()
        };
        self.0.writer.read(look).await.map_err(|e| error::flow(&e))
    }

    /// Says of those of the jobs that wait when they are going to start.
    pub(super) async fn enter_starts(&self, jobs: &mut [v1::Job]) -> Result<(), Status> {
        let waits =
            |job: &&v1::Job| matches!(job.state(), v1::JobState::Pending | v1::JobState::Held);
        let waiting: Vec<JobId> = jobs.iter().filter(waits).map(|job| JobId(job.job_id)).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        for found in self.explained(waiting).await? {
            if let Some(job) = jobs.iter_mut().find(|job| job.job_id == found.job.0) {
                job.start = found.start();
            }
        }
        Ok(())
    }
}

impl Explained {
    /// When it is going to start; `None` if it does not wait.
    pub fn start(&self) -> Option<v1::StartEstimate> {
        let looked_us = self.looked.map_or(0, |at| at.0);
        let nothing = v1::StartEstimate { looked_us, ..v1::StartEstimate::default() };
        Some(match start(&self.explanation, self.range, self.looked)? {
            Start::NotYetKnown => v1::StartEstimate { looked_us: 0, ..nothing },
            Start::Not(reason) => v1::StartEstimate { reason, ..nothing },
            Start::Between(range) => v1::StartEstimate {
                from_us: range.from.0,
                until_us: range.until.0,
                held: range.held.inside,
                told: range.held.of,
                ..nothing
            },
        })
    }
}
