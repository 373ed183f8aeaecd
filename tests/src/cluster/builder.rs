//! How a cluster differs from the usual one.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Cluster, SchedulerProcess};
use crate::api::{self, Api, told};
use crate::{Database, jobs, programs};

/// A cluster before its start.
#[derive(Debug)]
pub struct ClusterBuilder {
    database: Database,
    settings: String,
    quota: String,
    insecure: bool,
    directory: PathBuf,
    data: Option<PathBuf>,
    programs: PathBuf,
    variables: Vec<(String, String)>,
}

impl ClusterBuilder {
    pub(super) fn new(database: Database) -> Self {
        Self {
            database,
            settings: String::new(),
            quota: jobs::QUOTA.to_owned(),
            insecure: false,
            directory: std::env::temp_dir(),
            data: None,
            programs: programs::directory(),
            variables: Vec::new(),
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

    /// With the first scheduler's data in a directory of its own.
    #[must_use]
    pub fn data(mut self, directory: &Path) -> Self {
        self.data = Some(directory.to_path_buf());
        self
    }

    /// With schedulers from this directory.
    #[must_use]
    pub fn programs(mut self, directory: &Path) -> Self {
        self.programs = directory.to_path_buf();
        self
    }

    /// With a variable in the environment of its schedulers.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it: the scheduler serves and has its quota tree.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(self) -> Cluster {
        let directory = TempDir::with_prefix_in("gotgan-test-", &self.directory)
            .expect("a directory can be made");
        let usual = directory.path().join("scheduler");
        let mut scheduler = SchedulerProcess::new(
            self.data.unwrap_or_else(|| usual.clone()),
            self.database.url(),
            &self.settings,
            self.insecure,
        );
        scheduler.logs_to(usual.with_extension("log"));
        scheduler.with_variables(&self.variables);
        scheduler.install(&self.programs);
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
            variables: self.variables,
            insecure: self.insecure,
            database: self.database,
            directory,
        }
    }
}
