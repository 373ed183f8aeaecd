//! The cluster that is measured, and what all measurements do with it.

use std::time::{Duration, Instant};

use gotgan_proto::v1::{JobSpec, SubmitManyRequest, SubmitRequest};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use super::{Dose, Figures, JOIN, MEMORY_NOW, MEMORY_PEAK, process};
use crate::api::{Line, fresh_key, told};
use crate::bench::{Mark, SETTINGS, Setup};
use crate::swarm::Fleet;
use crate::{Api, Cluster, Database, Swarm};

/// The most memory of the scheduler, MiB.
const MEMORY_MARK: f64 = 1024.0;
/// Jobs of one call.
pub const BATCH: usize = 500;
/// Calls of one sort that are on their way together.
const TOGETHER: usize = 32;

/// What is measured.
#[derive(Debug)]
pub struct Country {
    pub dose: Dose,
    pub cluster: Cluster,
    pub fleet: Fleet,
    pub swarm: Swarm,
    /// Decides classes and sizes.
    pub random: StdRng,
    /// Jobs of the class that is to be free later.
    pub in_the_way: Vec<u64>,
}

impl Country {
    /// A scheduler whose nodes have all joined.
    pub async fn join(setup: &Setup, dose: Dose, figures: &mut Figures) -> Self {
        let builder = Cluster::builder(Database::Sqlite).settings(SETTINGS);
        let builder = builder.quota(&super::fill::tree(true)).directory(&setup.directory);
        let builder = if setup.plaintext { builder.insecure() } else { builder };
        let cluster = builder.start().await;
        let fleet = Fleet::of(dose.nodes);
        let began = Instant::now();
        let swarm = Swarm::join(&cluster, &fleet).await;
        figures.value(JOIN, "s", None, began.elapsed().as_secs_f64());
        let random = StdRng::seed_from_u64(setup.seed);
        Self { dose, cluster, fleet, swarm, random, in_the_way: Vec::new() }
    }

    /// The administrator's API.
    pub fn api(&self) -> &Api {
        &self.cluster.api
    }

    /// The scheduler's process.
    pub fn process(&self) -> u32 {
        self.cluster.scheduler.id()
    }

    /// Submits jobs; their numbers in the same order.
    pub async fn submit(&self, specs: Vec<JobSpec>) -> Vec<u64> {
        let mut numbers = Vec::with_capacity(specs.len());
        let mut jobs = self.api().jobs();
        for batch in specs.chunks(BATCH) {
            let jobs_of_batch = batch.iter().cloned().map(request).collect();
            let answer = jobs.submit_many(SubmitManyRequest { jobs: jobs_of_batch }).await;
            let answer = answer.unwrap_or_else(|status| panic!("refused: {}", told(&status)));
            numbers.extend(answer.into_inner().jobs.iter().map(|one| one.job_id));
        }
        numbers
    }

    /// Cancels jobs, many at a time.
    pub async fn cancel(&self, jobs: Vec<u64>) {
        let mut calls = JoinSet::new();
        for job in jobs {
            if calls.len() >= TOGETHER {
                calls.join_next().await;
            }
            let mut client = self.api().jobs();
            calls.spawn(async move {
                let done = client.cancel(Api::action(job, "the bench is done with it")).await;
                done.unwrap_or_else(|status| panic!("job {job}: {}", told(&status)));
            });
        }
        while calls.join_next().await.is_some() {}
    }

    /// Says how much memory the scheduler uses, and has used at most.
    pub fn measure_memory(&self, figures: &mut Figures) {
        let memory = process::memory(self.process());
        let mark = Some(Mark::AtMost(MEMORY_MARK));
        figures.value(MEMORY_PEAK, "MiB", mark, memory.peak_mib as f64);
        figures.value(MEMORY_NOW, "MiB", None, memory.now_mib as f64);
    }
}

/// One job under a key of its own.
pub fn request(spec: JobSpec) -> SubmitRequest {
    SubmitRequest { idempotency_key: fresh_key(), spec: Some(spec), dry_run: false }
}

/// How long the call took, and the job.
pub async fn timed_submit(
    client: &mut gotgan_proto::v1::jobs_client::JobsClient<Line>,
    spec: JobSpec,
) -> (Duration, u64) {
    let sent = Instant::now();
    let answer = client.submit(request(spec)).await;
    let answer = answer.unwrap_or_else(|status| panic!("refused: {}", told(&status)));
    (sent.elapsed(), answer.into_inner().job_id)
}
