//! A cluster of one test: schedulers and workers as processes, virtual workers, and everything that talks to them.

mod builder;
mod scheduler;
mod worker;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gotgan_proto::v1::NodeInventory;
use tempfile::TempDir;

use crate::command_line::Gotgan;
use crate::process;
use crate::virtual_worker::{Journal, Link, Script, VirtualWorker};
use crate::{Api, Database};

pub use builder::ClusterBuilder;
pub use scheduler::SchedulerProcess;
pub(crate) use worker::NODE_VARIABLE;
pub use worker::WorkerProcess;

/// Settings of a scheduler that gives a silent node up in about two seconds, for tests in which one is lost.
pub const QUICK_TO_GIVE_UP: &str = "\
[timing]
heartbeat_ms = 200
suspect_after_ms = 800
lost_after_ms = 2000
leader_lease_ms = 1500
";

/// A running cluster. Everything it started is gone once it is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// The scheduler that was started first.
    pub scheduler: SchedulerProcess,
    /// The API as the administrator that the scheduler made on its first start.
    pub api: Api,
    workers: BTreeMap<String, WorkerProcess>,
    /// Addresses of schedulers that workers are told of besides the first.
    others: Vec<String>,
    settings: String,
    /// In the environment of its schedulers.
    variables: Vec<(String, String)>,
    insecure: bool,
    // After the processes, because databases and directories in use cannot be removed.
    database: Database,
    directory: TempDir,
}

impl Cluster {
    /// A cluster to be made to measure.
    #[must_use]
    pub fn builder(database: Database) -> ClusterBuilder {
        ClusterBuilder::new(database)
    }

    /// A scheduler with the usual quota tree and no node.
    pub async fn start(database: Database) -> Self {
        Self::builder(database).start().await
    }

    /// Directory of everything that belongs to it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its database.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// A scheduler beside the first one, on the same database, not yet serving perhaps.
    #[must_use]
    pub fn start_second_scheduler(&self) -> SchedulerProcess {
        self.start_second_scheduler_with(&[], "")
    }

    /// The same with variables in its environment that others of the name give way to, and more in its settings file.
    fn start_second_scheduler_with(
        &self,
        variables: &[(String, String)],
        settings: &str,
    ) -> SchedulerProcess {
        let mut second = SchedulerProcess::new(
            self.directory().join("scheduler-2"),
            self.database.url(),
            &self.settings,
            self.insecure,
        );
        second.with_variables(&[&self.variables, variables].concat());
        second.configure(settings);
        second.install(self.scheduler.programs());
        // One authority signs for both, as an installation with two schedulers has it.
        let (from, to) = (self.scheduler.directory(), second.directory());
        copy_directory(&from.join("tls"), &to.join("tls"));
        second.spawn();
        second
    }

    /// A scheduler that stands by; workers and command lines that are started later know of both.
    #[must_use]
    pub fn add_standby(&mut self) -> SchedulerProcess {
        self.add_standby_with(&[], "")
    }

    /// The same with variables in its environment that others of the name give way to, and more in its settings file.
    #[must_use]
    pub fn add_standby_with(
        &mut self,
        variables: &[(String, String)],
        settings: &str,
    ) -> SchedulerProcess {
        let mut second = self.start_second_scheduler_with(variables, settings);
        second.wait_until_standby();
        self.others.push(second.url());
        second
    }

    /// Addresses of the schedulers besides the first.
    #[must_use]
    pub fn others(&self) -> &[String] {
        &self.others
    }

    /// Addresses of all schedulers, as people write them.
    #[must_use]
    pub fn servers(&self) -> String {
        let mut urls = vec![self.scheduler.url()];
        urls.extend(self.others.iter().cloned());
        urls.join(",")
    }

    /// A scheduler on another database that goes on where this cluster's was, with its authority; waits until it leads.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn start_scheduler_on(&self, url: &str) -> SchedulerProcess {
        let directory = self.directory().join("scheduler-elsewhere");
        let url = Some(url.to_owned());
        let mut elsewhere = SchedulerProcess::new(directory, url, &self.settings, self.insecure);
        copy_directory(&self.scheduler.directory().join("tls"), &elsewhere.directory().join("tls"));
        elsewhere.start();
        elsewhere
    }

    /// Starts one more scheduler on the data of the first, which cannot go well.
    #[must_use]
    pub fn start_rival_scheduler(&self) -> SchedulerProcess {
        let log = self.directory().join("rival.log");
        let mut rival = self.scheduler.rival(&log);
        rival.spawn();
        rival
    }

    /// Starts a worker and waits until it is ready. Its GPUs are simulated, as in `8xB200`, or come from the library at a
    /// path.
    pub async fn add_worker(&mut self, node: &str, gpus: &str) -> &mut WorkerProcess {
        self.add_worker_with(node, gpus, "").await
    }

    /// As [`Self::add_worker`], with more in its settings file.
    pub async fn add_worker_with(
        &mut self,
        node: &str,
        gpus: &str,
        settings: &str,
    ) -> &mut WorkerProcess {
        let mut urls = vec![self.scheduler.url()];
        urls.extend(self.others.iter().cloned());
        self.add_worker_by(urls, node, gpus, settings, &[]).await
    }

    /// As [`Self::add_worker_with`], for one that reaches the schedulers by other addresses than their own and has more in its
    /// environment.
    pub async fn add_worker_by(
        &mut self,
        urls: Vec<String>,
        node: &str,
        gpus: &str,
        settings: &str,
        variables: &[(String, String)],
    ) -> &mut WorkerProcess {
        let token = self.api.join_token().await;
        let worker = WorkerProcess::start(self, node, gpus, settings, &token, urls, variables);
        self.workers.insert(node.to_owned(), worker);
        self.api.wait_for_node(node, gotgan_proto::v1::NodeLiveness::Ready).await;
        self.worker(node)
    }

    /// A worker that was added.
    ///
    /// # Panics
    /// If there is none of that name.
    pub fn worker(&mut self, node: &str) -> &mut WorkerProcess {
        self.workers.get_mut(node).expect("a worker that was added")
    }

    /// Starts a virtual worker with GPUs of one class, and waits until it is ready.
    pub async fn add_virtual(
        &self,
        node: &str,
        class: &str,
        gpus: u32,
        script: Script,
    ) -> VirtualWorker {
        let inventory = crate::virtual_worker::inventory(node, class, gpus);
        self.add_virtual_with(inventory, script).await
    }

    /// Starts a virtual worker with everything chosen, and waits until it is ready.
    ///
    /// # Panics
    /// If it cannot join.
    pub async fn add_virtual_with(
        &self,
        inventory: NodeInventory,
        script: Script,
    ) -> VirtualWorker {
        let node = inventory.node.clone();
        let link = self.link(&node).await;
        let worker = VirtualWorker::start(link, Journal::new(inventory, script));
        self.api.wait_for_node(&node, gotgan_proto::v1::NodeLiveness::Ready).await;
        worker
    }

    /// The API as the administrator, over an address of one of its schedulers or of a wire to it.
    #[must_use]
    pub fn api_at(&self, url: &str) -> Api {
        let ca = (!self.insecure).then(|| self.scheduler.ca_pem());
        Api::new(crate::api::channel(url, ca.as_deref()), Some(&self.scheduler.admin_token()))
    }

    /// A link for a node of that name that has joined.
    ///
    /// # Panics
    /// If it cannot join.
    pub async fn link(&self, node: &str) -> Link {
        let url = self.scheduler.url();
        if self.insecure {
            return Link::insecure(&url, node);
        }
        let token = self.api.join_token().await;
        let link = Link::join(&url, &self.scheduler.ca_pem(), &token, node).await;
        link.expect("a node can join")
    }

    /// The command line as the administrator.
    #[must_use]
    pub fn gotgan(&self) -> Gotgan {
        self.gotgan_as(&self.scheduler.admin_token())
    }

    /// The command line as the holder of a token.
    #[must_use]
    pub fn gotgan_as(&self, token: &str) -> Gotgan {
        Gotgan::new(self.directory(), &self.servers(), &self.scheduler.ca_path(), token)
    }

    /// A directory of the test's own.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn scratch(&self, name: &str) -> PathBuf {
        let path = self.directory().join(name);
        std::fs::create_dir_all(&path).expect("a directory can be made");
        path
    }

    /// The logs of all its programs.
    #[must_use]
    pub fn logs(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.directory()).into_iter().flatten().flatten();
        let mut logs: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.sort();
        logs
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.logs().iter().for_each(|log| process::show_log_tail(log));
        }
        self.workers.clear();
        self.scheduler.kill();
        process::kill_strays(self.directory.path());
        process::remove_cgroups(self.directory.path());
    }
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory can be made");
    for entry in std::fs::read_dir(from).expect("a directory can be read").flatten() {
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a file can be copied");
    }
}
