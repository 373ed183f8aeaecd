//! Where a number was measured: without it the number means nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::statfs::{self, FsType};
use serde::Serialize;

use crate::programs;

/// A machine, what was built, and how busy it was.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Processor.
    pub processor: String,
    /// Processors this process may use.
    pub cpus: usize,
    /// Memory of the machine, MiB.
    pub memory_mib: u64,
    /// Kernel.
    pub kernel: String,
    /// File system of the databases.
    pub file_system: String,
    /// Commit of the checkout; with `-dirty` if something was changed since.
    pub commit: String,
    /// Before the first run: of 1, 5 and 15 minutes.
    pub load_average: String,
}

impl Machine {
    /// This machine, now.
    #[must_use]
    pub fn look(databases: &Path) -> Self {
        Self {
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: memory_mib(),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            file_system: file_system(databases),
            commit: commit(),
            load_average: load_average(),
        }
    }

    /// In two lines.
    #[must_use]
    pub fn describe(&self) -> String {
        let Self { processor, cpus, memory_mib, kernel, file_system, commit, load_average } = self;
        format!(
            "{processor}, {cpus} CPUs, {memory_mib} MiB, Linux {kernel}, databases on {file_system}\n\
             commit {commit}, load average {load_average}"
        )
    }

    /// Whether writes to the databases reach a disk when they are synced.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.file_system != "tmpfs"
    }
}

/// Of 1, 5 and 15 minutes.
#[must_use]
pub fn load_average() -> String {
    let line = first_line("/proc/loadavg");
    line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory_mib() -> u64 {
    let total = field("/proc/meminfo", "MemTotal").unwrap_or_default();
    let kib = total.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
    kib.unwrap_or(0) >> 10
}

fn file_system(path: &Path) -> String {
    // By their magic numbers, as in statfs(2).
    const BTRFS: FsType = FsType(0x9123_683e);
    const XFS: FsType = FsType(0x5846_5342);
    const OVERLAY: FsType = FsType(0x794c_7630);
    const EXT4: FsType = FsType(0xef53);
    const TMPFS: FsType = FsType(0x0102_1994);
    match statfs::statfs(path).map(|found| found.filesystem_type()) {
        Ok(EXT4) => "ext4".into(),
        Ok(BTRFS) => "btrfs".into(),
        Ok(XFS) => "xfs".into(),
        Ok(OVERLAY) => "overlay".into(),
        Ok(TMPFS) => "tmpfs".into(),
        Ok(FsType(number)) => format!("file system {number:#x}"),
        Err(error) => format!("unknown ({error})"),
    }
}

fn commit() -> String {
    let git = |words: &[&str]| {
        let output = Command::new("git")
            .arg("--no-optional-locks")
            .args(words)
            .current_dir(programs::checkout())
            .output()
            .ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".into() };
    let is_clean = git(&["status", "--porcelain"]).is_some_and(|changes| changes.is_empty());
    if is_clean { commit } else { format!("{commit}-dirty") }
}
