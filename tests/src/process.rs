//! Processes that a test starts, and the certainty that none outlives it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::deadline;

/// Lines of a log that are shown when a test has failed.
const LOG_TAIL_LINES: usize = 80;

/// A daemon with its log. Killed when dropped.
///
/// It shares the process group of the test, so that whatever ends the test's group ends it as well.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Where in the log this process begins; the one before it wrote into the same file.
    log_start: usize,
}

impl Process {
    /// Starts it; standard output and error are added to the log.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Self {
        let log_start = fs::metadata(log).map_or(0, |found| found.len());
        let open = || File::options().create(true).append(true).open(log);
        let output = open().unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let errors = output.try_clone().expect("a file can be shared");
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name} cannot start: {error}"));
        Self {
            name: name.to_owned(),
            child,
            log: log.to_path_buf(),
            log_start: usize::try_from(log_start).unwrap_or(0),
        }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What this process has written so far.
    #[must_use]
    pub fn output(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(self.log_start..).unwrap_or_default()).into_owned()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Sends a signal; a process that has ended does not mind.
    pub fn signal(&self, signal: Signal) {
        let _ = signal::kill(pid(self.child.id()), signal);
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits until it has ended by itself.
    ///
    /// # Panics
    /// If it does not end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        let what = format!("{} to end after SIGTERM", self.name);
        deadline::until_blocking(&what, || self.ended().ok_or_else(|| "it runs".to_owned()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped process dies of SIGKILL as well.
        self.kill();
    }
}

/// Shows the end of a log, for the one who looks into a failed test.
pub fn show_log_tail(log: &Path) {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(LOG_TAIL_LINES);
    eprintln!(
        "---- {} (the last {} of {} lines)",
        log.display(),
        lines.len() - skipped,
        lines.len()
    );
    for line in &lines[skipped..] {
        eprintln!("{line}");
    }
}

/// Kills every process that was started for something below `directory`, until there is none: it has the
/// directory in its arguments or its environment, as daemons, shims and jobs have.
pub fn kill_strays(directory: &Path) {
    // A process that forks while we look may need a second look; one that escapes a hundred is not ours to win.
    for _ in 0..100 {
        let found = strays(directory);
        if found.is_empty() {
            return;
        }
        found.into_iter().for_each(kill);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Processes that were started for something below `directory`, this one and zombies left out.
#[must_use]
pub fn strays(directory: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| *id != std::process::id() && belongs(*id, directory)).collect()
}

/// Removes the empty cgroups of attempts whose workers and shims were killed at once: nobody else is left who would.
pub fn remove_cgroups(directory: &Path) {
    let below = |path: PathBuf| {
        fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path())
    };
    let attempts = below(directory.to_owned()).flat_map(|node| below(node.join("attempts")));
    for cgroup in attempts.filter_map(|attempt| cgroup_of(&attempt)) {
        // Gone already, as it should be; and the directory around them goes with the last.
        let _ = fs::remove_dir(&cgroup);
        let _ = cgroup.parent().map(fs::remove_dir);
    }
}

/// By the first word of its shim.
fn cgroup_of(attempt: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(attempt.join("events")).ok()?;
    let first: serde_json::Value = serde_json::from_str(text.lines().next()?).ok()?;
    first["event"]["started"]["cgroup"].as_str().map(PathBuf::from)
}

/// Name of a process's program, as the kernel keeps it; empty if it is gone.
#[must_use]
pub fn name(id: u32) -> String {
    fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default().trim().to_owned()
}

/// Its parent's id; none if it is gone.
#[must_use]
pub fn parent(id: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name is in parentheses and may hold anything; state and parent follow it.
    text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// SIGKILL to a process that is not a child of the test.
pub fn kill(id: u32) {
    let _ = signal::kill(pid(id), Signal::SIGKILL);
}

fn belongs(id: u32, directory: &Path) -> bool {
    let needle = directory.as_os_str().as_encoded_bytes();
    // Both are empty for a zombie, which needs no killing.
    ["cmdline", "environ"].iter().any(|file| {
        let text = fs::read(format!("/proc/{id}/{file}")).unwrap_or_default();
        text.windows(needle.len()).any(|window| window == needle)
    })
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).expect("process ids fit"))
}
