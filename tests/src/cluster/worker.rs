//! A worker as a process, its node's jobs, and ways to lose one or both.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use nix::sys::signal::Signal;

use super::Cluster;
use crate::process::{self, Process};
use crate::programs;

/// Names the node to whom a process belongs, for the test alone.
pub(crate) const NODE_VARIABLE: &str = "GOTGAN_TEST_NODE";

/// The daemon of one simulated node.
#[derive(Debug)]
pub struct WorkerProcess {
    node: String,
    urls: Vec<String>,
    ca: Option<PathBuf>,
    state: PathBuf,
    log: PathBuf,
    gpus: String,
    /// More of its settings file.
    settings: String,
    /// More of its environment.
    variables: Vec<(String, String)>,
    /// Where its programs are.
    programs: PathBuf,
    process: Option<Process>,
}

impl WorkerProcess {
    pub(super) fn start(
        cluster: &Cluster,
        node: &str,
        gpus: &str,
        settings: &str,
        join_token: &str,
        urls: Vec<String>,
        variables: &[(String, String)],
    ) -> Self {
        let mut worker = Self {
            node: node.to_owned(),
            urls,
            ca: (!cluster.insecure).then(|| cluster.scheduler.ca_path()),
            state: cluster.directory().join(node),
            log: cluster.directory().join(format!("{node}.log")),
            gpus: gpus.to_owned(),
            settings: settings.to_owned(),
            variables: variables.to_vec(),
            programs: programs::path("gotgan-worker").with_file_name(""),
            process: None,
        };
        worker.spawn(Some(join_token));
        worker
    }

    /// From its next start on, the daemon and its shims are the programs in this directory.
    pub fn install(&mut self, programs: &Path) {
        self.programs = programs.to_owned();
    }

    /// Starts the daemon again, with what it remembers.
    pub fn restart(&mut self) {
        self.spawn(None);
    }

    fn spawn(&mut self, join_token: Option<&str>) {
        let mut command = Command::new(self.programs.join("gotgan-worker"));
        command.args(["run", "--node", &self.node]);
        for url in &self.urls {
            command.args(["--scheduler", url]);
        }
        command.arg("--state-dir").arg(&self.state).args(["--address", "127.0.0.1"]);
        match self.gpus.as_str() {
            "" => {}
            library if library.starts_with('/') => {
                command.args(["--nvml-library", library]);
            }
            gpus => {
                command.args(["--simulate", gpus]);
            }
        }
        match &self.ca {
            Some(ca) => command.arg("--ca").arg(ca),
            None => command.arg("--insecure"),
        };
        if let Some(token) = join_token.filter(|_| self.ca.is_some()) {
            command.args(["--join-token", token]);
        }
        // Jobs call `gotgan` by its name.
        command.env("PATH", path_with(&programs::directory()));
        // Shims are forked and have their daemon's environment: by this they are known as the node's.
        command.env(NODE_VARIABLE, &self.state);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        // Silence of a scheduler that is being restarted must not cost a test seconds.
        let settings = self.state.with_extension("toml");
        let text = format!("reconnect_max_ms = 200\n{}", self.settings);
        std::fs::write(&settings, text).expect("a file can be written");
        command.arg("--config").arg(settings);
        self.process = Some(Process::spawn("gotgan-worker", &mut command, &self.log));
    }

    /// Where it keeps what it remembers.
    #[must_use]
    pub fn state_directory(&self) -> &Path {
        &self.state
    }

    /// How the daemon ended, if it did by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().and_then(Process::ended)
    }

    /// SIGKILL to the daemon alone: its jobs go on.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// SIGKILL to everything of the node: the daemon, its shims and its jobs, as a power cut does.
    pub fn kill_node(&mut self) {
        self.process = None;
        process::kill_strays(&self.state);
    }

    /// SIGTERM to the daemon alone.
    ///
    /// # Panics
    /// If it does not run or does not end.
    pub fn terminate(&mut self) {
        self.process.take().expect("it runs").terminate();
    }

    /// Stops the daemon in its tracks.
    pub fn pause(&self) {
        self.process.iter().for_each(|process| process.signal(Signal::SIGSTOP));
    }

    /// Lets the daemon go on.
    pub fn resume(&self) {
        self.process.iter().for_each(|process| process.signal(Signal::SIGCONT));
    }

    /// Processes of the node's jobs, shims among them; not the daemon and what serves it.
    #[must_use]
    pub fn job_processes(&self) -> Vec<u32> {
        let daemon = self.process.as_ref().map(Process::id);
        let is_of_job = |id: &u32| Some(*id) != daemon && process::parent(*id) != daemon;
        process::strays(&self.state).into_iter().filter(is_of_job).collect()
    }

    /// Processes that jobs are made of, shims left out: a shim may still be saying its last word.
    #[must_use]
    pub fn tasks(&self) -> Vec<(u32, String)> {
        let named = self.job_processes().into_iter().map(|id| (id, process::name(id)));
        named.filter(|(_, name)| !name.is_empty() && name != "gotgan-shim").collect()
    }

    /// What the daemon has written since its last start.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.as_ref().map(Process::output).unwrap_or_default()
    }
}

fn path_with(directory: &Path) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(directory.to_path_buf()).chain(env::split_paths(&path));
    env::join_paths(all).unwrap_or(path)
}
