//! The jobs that benchmarks submit, and clients that submit them.

use std::time::{SystemTime, UNIX_EPOCH};

use gotgan_proto::v1::{self, JobSpec, SubmitManyRequest, SubmitRequest};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::Cluster;
use crate::api::{Api, channel, told};
use crate::jobs::{ALPHA, BETA, Shape, command};

/// Requests of one client: each job different, none to be taken for another.
#[derive(Debug)]
pub struct Load {
    random: StdRng,
    prefix: String,
    count: u64,
    template: JobSpec,
    gpus_max: u32,
    dry_run: bool,
    /// Drawn for each job if there is none.
    project: Option<&'static str>,
}

impl Load {
    /// Jobs of up to that many GPUs (none for 0), decided by the seed, most of one project and some of another.
    #[must_use]
    pub fn new(seed: u64, client: usize, gpus_max: u32, held: bool) -> Self {
        let mut template = command(&["/bin/true"]);
        template.hold = held;
        let random = StdRng::seed_from_u64(seed.wrapping_add(client as u64));
        Self {
            random,
            prefix: format!("bench-{client}"),
            count: 0,
            template,
            gpus_max,
            dry_run: false,
            project: None,
        }
    }

    /// The same jobs, all of one project.
    #[must_use]
    pub fn of(mut self, project: &'static str) -> Self {
        self.project = Some(project);
        self
    }

    /// The same jobs, checked and answered but not stored.
    #[must_use]
    pub fn dry(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// The next job.
    pub fn one(&mut self) -> SubmitRequest {
        self.count += 1;
        let drawn = if self.random.random_ratio(1, 4) { BETA } else { ALPHA };
        let mut spec = self.template.clone().project(self.project.unwrap_or(drawn));
        if self.gpus_max > 0 {
            spec = spec.gpus(self.random.random_range(1..=self.gpus_max));
        }
        let idempotency_key = self.key();
        SubmitRequest { idempotency_key, spec: Some(spec), dry_run: self.dry_run }
    }

    /// A key of the form that the command line makes: time first, then what tells clients apart.
    fn key(&self) -> String {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("{:012x}-{}-{}", since.as_millis(), self.prefix, self.count)
    }

    /// The next jobs.
    pub fn many(&mut self, count: usize) -> SubmitManyRequest {
        SubmitManyRequest { jobs: (0..count).map(|_| self.one()).collect() }
    }
}

/// A connection of its own to the cluster.
#[must_use]
pub fn connection(cluster: &Cluster) -> Api {
    let scheduler = &cluster.scheduler;
    let url = scheduler.url();
    let ca = url.starts_with("https").then(|| scheduler.ca_pem());
    Api::new(channel(&url, ca.as_deref()), Some(&scheduler.admin_token()))
}

/// Submits one job, or as many as asked together; returns when they are durable.
///
/// # Panics
/// If they are refused.
pub async fn submit(
    client: &mut v1::jobs_client::JobsClient<crate::api::Line>,
    load: &mut Load,
    batch: usize,
) {
    let refused = if batch == 1 {
        client.submit(load.one()).await.err()
    } else {
        client.submit_many(load.many(batch)).await.err()
    };
    if let Some(status) = refused {
        panic!("refused: {}", told(&status));
    }
}
