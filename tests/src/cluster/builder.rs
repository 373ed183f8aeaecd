//! How a cluster differs from the usual one.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Cluster, SchedulerProcess};
use crate::api::{self, Api, told};
use crate::{Database, jobs};

/// A cluster before its start.
#[derive(Debug)]
pub struct ClusterBuilder {
    database: Database,
    settings: String,
    quota: String,
    insecure: bool,
    directory: PathBuf,
}

impl ClusterBuilder {
    pub(super) fn new(database: Database) -> Self {
        Self {
            database,
            settings: String::new(),
            quota: jobs::QUOTA.to_owned(),
            insecure: false,
            directory: std::env::temp_dir(),
        }
    }

    /// The settings file of the scheduler.
    #[must_use]
    pub fn settings(mut self, text: &str) -> Self {
        self.settings = text.to_owned();
        self
    }

    /// Another quota tree.
    #[must_use]
    pub fn quota(mut self, text: &str) -> Self {
        self.quota = text.to_owned();
        self
    }

    /// Without TLS.
    #[must_use]
    pub fn insecure(mut self) -> Self {
        self.insecure = true;
        self
    }

    /// With its files below this directory.
    #[must_use]
    pub fn directory(mut self, directory: &Path) -> Self {
        self.directory = directory.to_path_buf();
        self
    }

    /// Starts it: the scheduler serves and has its quota tree.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(self) -> Cluster {
        let directory = TempDir::with_prefix_in("gotgan-test-", &self.directory)
            .expect("a directory can be made");
        let mut scheduler = SchedulerProcess::new(
            directory.path().join("scheduler"),
            self.database.url(),
            &self.settings,
            self.insecure,
        );
        scheduler.start();
        let ca = (!self.insecure).then(|| scheduler.ca_pem());
        let channel = api::channel(&scheduler.url(), ca.as_deref());
        let api = Api::new(channel, Some(&scheduler.admin_token()));
        let applied = api.apply_quota(&self.quota).await;
        applied.unwrap_or_else(|status| panic!("quota tree refused: {}", told(&status)));
        Cluster {
            scheduler,
            api,
            workers: std::collections::BTreeMap::new(),
            others: Vec::new(),
            settings: self.settings,
            insecure: self.insecure,
            database: self.database,
            directory,
        }
    }
}
