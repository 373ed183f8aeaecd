//! Processes by their place in `/proc`: descendants of one, members of a session, start times.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Looks in search of what was started since the last one, before all is killed that was found.
const STOP_ROUNDS_MAX: usize = 64;

/// What `/proc/PID/stat` tells of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: i32,
    /// Its parent.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Its session.
    pub session: i32,
    /// Dead, but not yet waited for.
    pub zombie: bool,
    /// Start, in clock ticks since boot.
    pub start_ticks: u64,
}

/// One process, if it is there and can be looked at.
pub fn process(pid: i32) -> Option<Process> {
    look(pid).ok().flatten()
}

/// All processes of this machine that this process may see. An error does not mean that there are none.
pub fn processes() -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) {
            found.extend(look(pid)?);
        }
    }
    Ok(found)
}

/// Everything below `root`, without `root` itself and without what is dead already.
pub fn descendants(root: i32) -> io::Result<Vec<Process>> {
    let mut children: BTreeMap<i32, Vec<Process>> = BTreeMap::new();
    for process in processes()? {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(parent) = open.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            open.push(child.pid);
            if !child.zombie {
                found.push(child);
            }
        }
    }
    Ok(found)
}

/// Processes that a dead shim has left: of its session, or with `mark` (as in `NAME=value`) in their environment.
/// A session whose number is a living process again says nothing: the number was given away anew.
pub fn leftovers(session: Option<i32>, mark: &str) -> io::Result<Vec<Process>> {
    let reused = session.map(look).transpose()?.flatten().is_some();
    let session = session.filter(|_| !reused);
    let mut found = Vec::new();
    for process in processes()?.into_iter().filter(|process| !process.zombie) {
        if Some(process.session) == session || has_mark(process.pid, mark)? {
            found.push(process);
        }
    }
    Ok(found)
}

/// Signals a process; one that is gone already is fine. Whether it is one that may be signalled at all.
pub fn signal(pid: i32, signal: Signal) -> bool {
    // ESRCH: it ended by itself, which is what is wanted.
    kill(Pid::from_raw(pid), signal) != Err(Errno::EPERM)
}

/// Kills all that `look` finds, after stopping them, so that none starts another while it waits for its own death.
/// Returns what was killed, by process id and start, without what may not be signalled.
pub fn kill_all(look: impl Fn() -> io::Result<Vec<Process>>) -> io::Result<BTreeSet<(i32, u64)>> {
    let mut stopped = BTreeSet::new();
    for _ in 0..STOP_ROUNDS_MAX {
        let known = stopped.len();
        for process in look()? {
            let fresh = !stopped.contains(&(process.pid, process.start_ticks));
            if fresh && signal(process.pid, Signal::SIGSTOP) {
                stopped.insert((process.pid, process.start_ticks));
            }
        }
        if stopped.len() == known {
            break;
        }
    }
    for (pid, _) in &stopped {
        signal(*pid, Signal::SIGKILL);
    }
    Ok(stopped)
}

/// Whether the process has a handler of its own for a signal.
pub fn catches(pid: i32, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    signal > 0 && signal <= 64 && mask >> (signal - 1) & 1 == 1
}

/// A process that ends while it is looked at is not there.
fn look(pid: i32) -> io::Result<Option<Process>> {
    match fs::read(format!("/proc/{pid}/stat")) {
        // A name may be no UTF-8.
        Ok(stat) => Ok(parse_stat(pid, &String::from_utf8_lossy(&stat))),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn has_mark(pid: i32, mark: &str) -> io::Result<bool> {
    match fs::read(format!("/proc/{pid}/environ")) {
        Ok(bytes) => Ok(bytes.split(|byte| *byte == 0).any(|var| var == mark.as_bytes())),
        // What belongs to another user was not started by a task.
        Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::PermissionDenied => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ESRCH as i32)
}

/// The name in the second field may hold blanks and parentheses: the fields count from the last parenthesis.
fn parse_stat(pid: i32, stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let mut number = || fields.next()?.parse::<i32>().ok();
    let (parent, group, session) = (number()?, number()?, number()?);
    // Field 22 of the whole line; six of it are read here (pid, name, state and the three above).
    let start_ticks = fields.nth(15)?.parse().ok()?;
    Some(Process { pid, parent, group, session, zombie: matches!(state, "Z" | "X"), start_ticks })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 7 8 9 0 -1 4194304 100 0 0 0 1 2 0 0 20 0 1 0 555 1000 1 18";
        let process = parse_stat(42, stat).unwrap();
        assert_eq!((process.parent, process.group, process.session), (7, 8, 9));
        assert_eq!(process.start_ticks, 555);
        assert!(!process.zombie);
    }

    #[test]
    fn this_process_is_found_below_its_parent() {
        let own = process(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(descendants(own.parent).unwrap().iter().any(|process| process.pid == own.pid));
    }
}
