//! The cgroup of one attempt: made, limited, looked at, emptied, removed. Version 2 alone.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::shim::tree;

/// Name of the directory that the worker makes in the root of version 2 where the site has named none.
pub const OWN_ROOT: &str = "gotgan";
/// Times a place is made anew that somebody else removes at the same moment.
const MAKE_TRIES: u32 = 100;
/// Times a cgroup is tried to be removed: the kernel may need a moment after its last process.
const REMOVE_TRIES: u32 = 20;
const REMOVE_PAUSE: Duration = Duration::from_millis(5);
/// Length of the period in which CPU time is counted, microseconds: what the kernel has by itself.
const CPU_PERIOD_US: u64 = 100_000;
/// Less than this the kernel refuses.
const CPU_QUOTA_MIN_US: u64 = 1_000;

/// What is made for an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupSpec {
    /// Where, absolute.
    pub path: PathBuf,
    /// Its processes are born in it; without, each moves in before it does anything else.
    pub born_inside: bool,
    /// Memory of all processes together, bytes.
    pub memory_max_bytes: Option<u64>,
    /// CPU time of all processes together, in thousandths of a CPU.
    pub cpu_milli: Option<u64>,
    /// Processes and threads.
    pub processes_max: Option<u64>,
    /// The directory around it is the worker's own as well, and goes with the last that is in it.
    pub own_root: bool,
}

/// What the kernel has counted there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Processes killed because memory was out.
    pub out_of_memory: u64,
    /// Processes that were not started because there were too many.
    pub refused_processes: u64,
}

/// A cgroup that was made.
#[derive(Debug)]
pub struct Cgroup {
    spec: CgroupSpec,
    directory: File,
}

impl Cgroup {
    /// Makes it, with its limits.
    pub fn make(spec: &CgroupSpec) -> io::Result<Self> {
        make_directory(&spec.path)?;
        let cgroup = Self { spec: spec.clone(), directory: File::open(&spec.path)? };
        match cgroup.set_limits() {
            Ok(()) => Ok(cgroup),
            Err(error) => {
                // Nothing is in it; what cannot be removed is an empty directory.
                let _ = fs::remove_dir(&cgroup.spec.path);
                Err(error)
            }
        }
    }

    fn set_limits(&self) -> io::Result<()> {
        self.enable_controllers()?;
        let spec = &self.spec;
        if let Some(bytes) = spec.memory_max_bytes {
            self.write("memory.max", &bytes.to_string())?;
            // A job with one process fewer is a job that hangs.
            self.write("memory.oom.group", "1")?;
            // With swap a job that is out of memory would slow down the node instead. Not every kernel counts it.
            let _ = self.write("memory.swap.max", "0");
        }
        if let Some(milli) = spec.cpu_milli {
            let quota_us = milli.saturating_mul(CPU_PERIOD_US / 1000).max(CPU_QUOTA_MIN_US);
            self.write("cpu.max", &format!("{quota_us} {CPU_PERIOD_US}"))?;
        }
        if let Some(count) = spec.processes_max {
            self.write("pids.max", &count.to_string())?;
        }
        Ok(())
    }

    /// The directory around it may have been made with it, and has none enabled then.
    fn enable_controllers(&self) -> io::Result<()> {
        let CgroupSpec { path, memory_max_bytes, cpu_milli, processes_max, .. } = &self.spec;
        let wanted = [
            ("memory", "memory.max", memory_max_bytes.is_some()),
            ("cpu", "cpu.max", cpu_milli.is_some()),
            ("pids", "pids.max", processes_max.is_some()),
        ];
        let missing = |file: &str| !path.join(file).exists();
        for (controller, ..) in wanted.iter().filter(|(_, file, wanted)| *wanted && missing(file)) {
            enable_controller(path.parent().unwrap_or(path), controller)?;
        }
        Ok(())
    }

    /// Whether processes are born in it.
    pub fn born_inside(&self) -> Option<BorrowedFd<'_>> {
        self.spec.born_inside.then(|| self.directory.as_fd())
    }

    /// For what is attached to it.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Its limit of memory, bytes.
    pub fn memory_max_bytes(&self) -> Option<u64> {
        self.spec.memory_max_bytes
    }

    /// Its limit of processes.
    pub fn processes_max(&self) -> Option<u64> {
        self.spec.processes_max
    }

    /// Moves the calling process in.
    pub fn enter(&self) -> io::Result<()> {
        self.write("cgroup.procs", "0")
    }

    /// Whether no process is in it, nor below it.
    pub fn is_empty(&self) -> bool {
        is_empty(&self.spec.path)
    }

    /// Kills all that is in it.
    pub fn kill(&self) {
        kill(&self.spec.path);
    }

    /// What is in it.
    pub fn processes(&self) -> Vec<i32> {
        processes(&self.spec.path)
    }

    /// What the kernel has counted since it was made.
    pub fn counted(&self) -> Counted {
        let number = |file: &str, key: &str| {
            let text = fs::read_to_string(self.spec.path.join(file)).unwrap_or_default();
            number_of(&text, key).unwrap_or(0)
        };
        Counted {
            out_of_memory: number("memory.events", "oom_kill"),
            refused_processes: number("pids.events", "max"),
        }
    }

    /// Removes it, if nothing is in it any more.
    pub fn remove(&self) {
        remove(&self.spec.path);
        if let Some(root) = self.spec.path.parent().filter(|_| self.spec.own_root) {
            // Refused as long as another attempt is in it.
            let _ = fs::remove_dir(root);
        }
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        write(&self.spec.path, file, text)
    }
}

/// Kills whatever is in the cgroup of this path, waits for the kernel to say that it is empty, and removes it. For what
/// a dead shim has left. Whether it is empty.
pub fn clear(path: &Path, patience: Duration) -> bool {
    let until = std::time::Instant::now() + patience;
    while !is_empty(path) {
        if std::time::Instant::now() >= until {
            return false;
        }
        kill(path);
        std::thread::sleep(REMOVE_PAUSE);
    }
    remove(path);
    if let Some(root) = path.parent().filter(|root| is_own_root(root)) {
        // Refused as long as another attempt is in it.
        let _ = fs::remove_dir(root);
    }
    true
}

/// Whether a worker has made this root itself: by its name, directly in the root of version 2, which alone has no events.
fn is_own_root(root: &Path) -> bool {
    let above = root.parent().map(|above| above.join("cgroup.events"));
    root.ends_with(OWN_ROOT) && above.is_some_and(|events| !events.exists())
}

/// What is in the cgroup of this path, and below it.
pub fn processes(path: &Path) -> Vec<i32> {
    let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    let mut found: Vec<i32> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
    found.extend(children(path).iter().flat_map(|child| processes(child)));
    found
}

/// Lets cgroups in this one have limits of this kind.
pub fn enable_controller(cgroup: &Path, controller: &str) -> io::Result<()> {
    write(cgroup, "cgroup.subtree_control", &format!("+{controller}"))
}

/// Writes one of a cgroup's files; they are there by themselves.
pub fn write(cgroup: &Path, file: &str, text: &str) -> io::Result<()> {
    use std::io::Write;
    let path = cgroup.join(file);
    let written = fs::OpenOptions::new().write(true).open(&path);
    written
        .and_then(|mut open| open.write_all(text.as_bytes()))
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// A cgroup that is gone is empty.
fn is_empty(path: &Path) -> bool {
    match fs::read_to_string(path.join("cgroup.events")) {
        Ok(text) => number_of(&text, "populated") == Some(0),
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

fn kill(path: &Path) {
    if write(path, "cgroup.kill", "1").is_ok() {
        return;
    }
    // A kernel before 5.14.
    for process in processes(path) {
        tree::signal(process, Signal::SIGKILL);
    }
}

/// With what its processes have made below it.
fn remove(path: &Path) {
    for _ in 0..REMOVE_TRIES {
        children(path).iter().for_each(|child| remove(child));
        match fs::remove_dir(path) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                std::thread::sleep(REMOVE_PAUSE);
            }
            // Gone, or for good reason not: an empty cgroup harms nobody.
            Ok(()) | Err(_) => return,
        }
    }
}

fn children(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path()).collect()
}

fn make_directory(path: &Path) -> io::Result<()> {
    for _ in 0..MAKE_TRIES {
        match fs::create_dir(path) {
            // Of an attempt that was started here before; empty, since its shim is no more.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let above = path.parent().ok_or(ErrorKind::NotFound)?;
                fs::create_dir_all(above)?;
            }
            made => return made,
        }
    }
    Err(ErrorKind::NotFound.into())
}

fn number_of(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_are_found_by_their_whole_key() {
        let text = "low 0\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(number_of(text, "oom"), Some(3));
        assert_eq!(number_of(text, "oom_kill"), Some(2));
        assert_eq!(number_of(text, "populated"), None);
    }

    #[test]
    fn a_cgroup_that_is_gone_is_empty_and_one_that_says_nothing_is_not() {
        let directory = tempfile::tempdir().unwrap();
        assert!(is_empty(&directory.path().join("gone")));
        fs::write(directory.path().join("cgroup.events"), "").unwrap();
        assert!(!is_empty(directory.path()));
        fs::write(directory.path().join("cgroup.events"), "populated 0\nfrozen 0\n").unwrap();
        assert!(is_empty(directory.path()));
    }

    #[test]
    fn a_limit_that_cannot_be_set_is_an_error_that_names_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let spec = CgroupSpec {
            path: directory.path().join("attempt"),
            born_inside: false,
            memory_max_bytes: Some(1 << 30),
            cpu_milli: None,
            processes_max: None,
            own_root: false,
        };
        let error = Cgroup::make(&spec).unwrap_err().to_string();
        assert!(error.contains("cgroup.subtree_control"), "{error}");
        assert!(!spec.path.exists());
    }
}
