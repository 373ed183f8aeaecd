//! Benchmarks of a whole cluster: what it costs to get a job stored durably, and to run one from submission to the
//! books; what a worker costs and how quick it is; what quotas cost at the size of a country; and how a scheduler does with
//! the nodes and the queue of one. But for the last, each measurement has a scheduler of its own with an empty queue.
//!
//! The measuring side shares the machine with what it measures, so it is kept light: one thread, one connection a
//! client, requests made of a template.

pub mod failover;
pub mod lifecycle;
pub mod load;
pub mod machine;
pub mod overload;
pub mod quota;
pub mod report;
pub mod scale;
pub mod submit;
pub mod worker;

use std::path::PathBuf;
use std::time::Duration;

use crate::cluster::ClusterBuilder;
use crate::{Cluster, Database};

pub use report::{Mark, Measure, Sample};

/// Queues must not fill up before the time is over: what is measured is the work, not the refusal.
const SETTINGS: &str = "\
[policy]
max_pending = 100000000
max_pending_per_project = 100000000
";

/// How to measure.
#[derive(Debug, Clone)]
pub struct Setup {
    /// How long each run submits.
    pub duration: Duration,
    /// Runs of which the median counts.
    pub runs: usize,
    /// Decides the mix of jobs.
    pub seed: u64,
    /// Without TLS.
    pub plaintext: bool,
    /// Submit jobs held, so that the planner has nothing to look at.
    pub held: bool,
    /// Measure only what has this in its name.
    pub only: String,
    /// Where databases lie; on a disk, or durability is not measured.
    pub directory: PathBuf,
}

/// Which database to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Embedded.
    Sqlite,
    /// A server.
    Postgres,
}

impl Backend {
    /// Its name in results.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }

    async fn database(self) -> Database {
        match self {
            Self::Sqlite => Database::Sqlite,
            // The caller has looked for the server.
            Self::Postgres => Database::postgres().await.expect("a server is named"),
        }
    }
}

impl Setup {
    async fn cluster(&self, backend: Backend) -> Cluster {
        let builder: ClusterBuilder = Cluster::builder(backend.database().await);
        let builder = builder.settings(SETTINGS).directory(&self.directory);
        let builder = if self.plaintext { builder.insecure() } else { builder };
        builder.start().await
    }
}
