//! Processes by their place in `/proc`: descendants of one, members of a session, start times.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

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

/// One process, if it is there.
pub fn process(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(pid, &stat)
}

/// All processes of this machine that this process may see.
pub fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(process).collect()
}

/// Everything below `root`, without `root` itself and without what is dead already.
pub fn descendants(root: i32) -> Vec<Process> {
    let mut children: BTreeMap<i32, Vec<Process>> = BTreeMap::new();
    for process in processes() {
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
    found
}

/// Processes that a dead shim has left: of its session, or with `mark` (as in `NAME=value`) in their environment.
/// A session whose number is a living process again says nothing: the number was given away anew.
pub fn leftovers(session: Option<i32>, mark: &str) -> Vec<Process> {
    let session = session.filter(|session| process(*session).is_none());
    let ours = |process: &Process| Some(process.session) == session || has_mark(process.pid, mark);
    processes().into_iter().filter(|process| !process.zombie && ours(process)).collect()
}

/// Signals a process; one that is gone already is fine.
pub fn signal(pid: i32, signal: Signal) {
    // ESRCH: it ended by itself, which is what is wanted.
    let _ = kill(Pid::from_raw(pid), signal);
}

/// Whether the process has a handler of its own for a signal.
pub fn catches(pid: i32, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    signal > 0 && signal <= 64 && mask >> (signal - 1) & 1 == 1
}

fn has_mark(pid: i32, mark: &str) -> bool {
    let environment = fs::read(Path::new("/proc").join(pid.to_string()).join("environ"));
    environment.is_ok_and(|bytes| bytes.split(|byte| *byte == 0).any(|var| var == mark.as_bytes()))
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
        assert!(descendants(own.parent).iter().any(|process| process.pid == own.pid));
    }
}
