//! A scheduler as a process that can be killed, stopped and started again at the same address.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use nix::sys::signal::Signal;

use crate::process::Process;
use crate::{deadline, programs};

/// What the line that says it serves begins with.
const READY: &str = "ready ";
/// And the line that says that another leads.
const STANDBY: &str = "standby ";
/// The settings file, in its directory.
const SETTINGS: &str = "settings.toml";
/// Starts when another process has taken the port of a scheduler that was down for a moment.
const START_TRIES: u32 = 20;

/// A scheduler and its data.
#[derive(Debug)]
pub struct SchedulerProcess {
    directory: PathBuf,
    /// Where its program is.
    programs: PathBuf,
    log: PathBuf,
    database: Option<String>,
    insecure: bool,
    /// In its environment.
    variables: Vec<(String, String)>,
    /// Chosen by the system at first, kept over restarts.
    listen: String,
    process: Option<Process>,
}

impl SchedulerProcess {
    /// One that is not yet running.
    pub(super) fn new(
        directory: PathBuf,
        database: Option<String>,
        settings: &str,
        insecure: bool,
    ) -> Self {
        fs::create_dir_all(&directory).expect("a directory can be made");
        fs::write(directory.join(SETTINGS), settings).expect("a file can be written");
        let log = directory.with_extension("log");
        Self {
            directory,
            programs: programs::directory(),
            log,
            database,
            insecure,
            variables: Vec::new(),
            listen: "127.0.0.1:0".into(),
            process: None,
        }
    }

    /// From its next start on it is the program in this directory.
    pub fn install(&mut self, programs: &Path) {
        programs.clone_into(&mut self.programs);
    }

    /// Where its program is.
    pub(super) fn programs(&self) -> &Path {
        &self.programs
    }

    /// Writes its log there.
    pub(super) fn logs_to(&mut self, log: PathBuf) {
        self.log = log;
    }

    /// Has these in its environment from its next start on.
    pub(super) fn with_variables(&mut self, variables: &[(String, String)]) {
        self.variables = variables.to_vec();
    }

    /// Has more at the end of its settings file from its next start on.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn configure(&self, more: &str) {
        let path = self.directory.join(SETTINGS);
        let text = fs::read_to_string(&path).expect("it has settings");
        fs::write(path, format!("{text}{more}")).expect("a file can be written");
    }

    /// Another one on the same data.
    pub(super) fn rival(&self, log: &Path) -> Self {
        Self {
            directory: self.directory.clone(),
            programs: self.programs.clone(),
            log: log.to_path_buf(),
            database: self.database.clone(),
            insecure: self.insecure,
            variables: self.variables.clone(),
            listen: "127.0.0.1:0".into(),
            process: None,
        }
    }

    /// Starts it and waits until it serves.
    ///
    /// # Panics
    /// If it does not.
    pub fn start(&mut self) {
        for _ in 1..START_TRIES {
            self.spawn();
            if self.wait_until_ready().is_ok() {
                return;
            }
            assert!(!self.listen.ends_with(":0"), "the scheduler ended:\n{}", self.output());
        }
        panic!("the scheduler ended {START_TRIES} times:\n{}", self.output());
    }

    /// Starts it without waiting.
    pub fn spawn(&mut self) {
        let mut command = Command::new(programs::path_in(&self.programs, "gotgan-scheduler"));
        command.arg("--data-dir").arg(&self.directory);
        command.args(["--listen", &self.listen, "--http-listen", "off"]);
        if let Some(url) = &self.database {
            command.args(["--database", url]);
        }
        command.arg("--config").arg(self.directory.join(SETTINGS));
        if self.insecure {
            command.arg("--insecure");
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::spawn("gotgan-scheduler", &mut command, &self.log));
    }

    /// Waits until it says that it serves.
    ///
    /// # Errors
    /// If it has ended instead.
    pub fn wait_until_ready(&mut self) -> Result<(), ExitStatus> {
        let address = deadline::until_blocking("the scheduler to be ready", || {
            if let Some(address) = self.ready_address() {
                return Ok(Ok(address));
            }
            let process = self.process.as_mut().expect("it was started");
            match process.ended() {
                Some(status) => Ok(Err(status)),
                None => Err("it is starting".to_owned()),
            }
        })?;
        self.listen = address;
        Ok(())
    }

    /// Waits until it says that it stands by.
    ///
    /// # Panics
    /// If it does not.
    pub fn wait_until_standby(&mut self) {
        let address = deadline::until_blocking("the scheduler to stand by", || {
            self.said_address(STANDBY).ok_or_else(|| "it is starting".to_owned())
        });
        self.listen = address;
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().and_then(Process::ended)
    }

    /// Whether it has said that it serves.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready_address().is_some()
    }

    fn ready_address(&self) -> Option<String> {
        self.said_address(READY)
    }

    fn said_address(&self, word: &str) -> Option<String> {
        let output = self.output();
        let line = output.lines().find_map(|line| line.strip_prefix(word))?;
        let (_, address) = line.trim().split_once("://")?;
        // A line that is not finished may hold half an address.
        output.contains(&format!("{line}\n")).then(|| address.to_owned())
    }

    /// What it has written since its last start.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.as_ref().map(Process::output).unwrap_or_default()
    }

    /// Whether it was started and not killed since.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Its process id.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// SIGTERM; how it ended.
    ///
    /// # Panics
    /// If it does not run or does not end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.take().expect("it runs").terminate()
    }

    /// Stops it in its tracks, as a machine that swaps or a long pause does.
    pub fn pause(&self) {
        self.process.iter().for_each(|process| process.signal(Signal::SIGSTOP));
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.process.iter().for_each(|process| process.signal(Signal::SIGCONT));
    }

    /// Where its data is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its address without scheme.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.listen
    }

    /// Its address as clients write it.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.insecure { "http" } else { "https" };
        format!("{scheme}://{}", self.listen)
    }

    /// File of the authority that signed its certificate.
    #[must_use]
    pub fn ca_path(&self) -> PathBuf {
        self.directory.join("tls/ca.pem")
    }

    /// The authority in PEM.
    ///
    /// # Panics
    /// If it is not there.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        fs::read_to_string(self.ca_path()).expect("the scheduler writes its authority")
    }

    /// The token of the first administrator.
    ///
    /// # Panics
    /// If it is not there.
    #[must_use]
    pub fn admin_token(&self) -> String {
        let path = self.directory.join("admin.token");
        let text = fs::read_to_string(path).expect("the scheduler writes the first token");
        text.trim().to_owned()
    }
}
