//! Processes this program starts, and the certainty that none of them outlives it.
//!
//! A foreground child (cargo, a test runner) shares the terminal and gets Ctrl-C from it. A [`Daemon`] has
//! a process group of its own, so that Ctrl-C reaches only us and we end the daemons in our order. Jobs
//! run under shims that survive their worker on purpose; [`adopt_orphans`] makes them ours when the
//! worker ends, and [`end_descendants`] ends whatever is left.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::interrupt;

/// Between SIGTERM and SIGKILL for what does not end by itself.
const GRACE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Runs a command to its end in our process group. After a signal it gets its time to end as well.
pub fn run_in_foreground(command: &mut Command) -> Result<ExitStatus> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().with_context(|| format!("{name} cannot be started"))?;
    loop {
        if let Some(status) = child.try_wait()? {
            interrupt::check()?;
            return Ok(status);
        }
        if interrupt::requested() {
            end(&mut child, false);
            interrupt::check()?;
        }
        thread::sleep(POLL);
    }
}

/// A background process with its own process group, ended when dropped.
#[derive(Debug)]
pub struct Daemon {
    pub name: String,
    child: Child,
}

impl Daemon {
    pub fn spawn(name: &str, command: &mut Command) -> Result<Self> {
        let child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        Ok(Self { name: name.to_owned(), child })
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    pub fn output(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// A gentler or harder first signal than SIGTERM, for programs that know one.
    pub fn signal(&self, signal: Signal) {
        // The process may be gone already, which is as good.
        let _ = kill(pid(self.child.id()), signal);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        end(&mut self.child, true);
    }
}

/// TERM, then after the grace KILL, to the process or its whole group.
fn end(child: &mut Child, group: bool) {
    if matches!(child.try_wait(), Ok(Some(_))) {
        return;
    }
    let send = |signal| {
        let id = pid(child.id());
        // Already gone is the aim, not an error.
        let _ = if group { killpg(id, signal) } else { kill(id, signal) };
    };
    send(Signal::SIGTERM);
    let begin = Instant::now();
    while begin.elapsed() < GRACE {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return;
        }
        thread::sleep(POLL);
    }
    let id = pid(child.id());
    let _ = if group { killpg(id, Signal::SIGKILL) } else { kill(id, Signal::SIGKILL) };
    let _ = child.wait();
}

/// Processes whose parent dies become our children instead of the system's.
pub fn adopt_orphans() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).context("orphans cannot be adopted")
}

/// Ends every process that descends from this one; returns how many there were.
pub fn end_descendants() -> usize {
    end_all(|processes| descendants_of(std::process::id(), processes))
}

/// Ends every process that carries `NAME=value` in its environment; returns what they were called.
pub fn end_marked(variable: &str, value: &str) -> Vec<String> {
    let marker = format!("{variable}={value}");
    let marked =
        |process: &&Process| process.id != std::process::id() && carries(process.id, &marker);
    let names = processes().iter().filter(marked).map(|process| process.name.clone()).collect();
    end_all(|processes| processes.iter().filter(marked).map(|process| process.id).collect());
    names
}

fn end_all(select: impl Fn(&[Process]) -> BTreeSet<u32>) -> usize {
    let mut seen = BTreeSet::new();
    let begin = Instant::now();
    loop {
        let alive = select(&processes());
        if alive.is_empty() || begin.elapsed() > GRACE {
            return seen.len();
        }
        let signal = if begin.elapsed() < GRACE / 4 { Signal::SIGTERM } else { Signal::SIGKILL };
        for id in &alive {
            // Each hears SIGTERM once; SIGKILL is repeated until it worked.
            if seen.insert(*id) || signal == Signal::SIGKILL {
                let _ = kill(pid(*id), signal);
            }
        }
        thread::sleep(POLL);
    }
}

#[derive(Debug)]
struct Process {
    id: u32,
    parent: u32,
    name: String,
}

/// Every process of the machine that is not a zombie.
fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter_map(|id: u32| parse_stat(id, &fs::read_to_string(format!("/proc/{id}/stat")).ok()?))
        .collect()
}

/// The name stands in parentheses and may itself hold spaces and parentheses.
fn parse_stat(id: u32, stat: &str) -> Option<Process> {
    let (front, back) = stat.rsplit_once(") ")?;
    let name = front.split_once('(')?.1.to_owned();
    let mut fields = back.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (state != "Z" && state != "X").then_some(Process { id, parent, name })
}

fn descendants_of(root: u32, processes: &[Process]) -> BTreeSet<u32> {
    let mut found = BTreeSet::from([root]);
    loop {
        let before = found.len();
        let children = processes.iter().filter(|process| found.contains(&process.parent));
        found.extend(children.map(|process| process.id).collect::<Vec<_>>());
        if found.len() == before {
            found.remove(&root);
            return found;
        }
    }
}

fn carries(id: u32, marker: &str) -> bool {
    let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|entry| entry == marker.as_bytes())
}

fn pid(id: u32) -> Pid {
    // Linux keeps process ids below 2^22.
    Pid::from_raw(id.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(id: u32, parent: u32) -> Process {
        Process { id, parent, name: String::new() }
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_is_read_whole() {
        let found = parse_stat(7, "7 (a) b (c)) S 3 7 7 0 -1").unwrap();
        assert_eq!((found.parent, found.name.as_str()), (3, "a) b (c)"));
    }

    #[test]
    fn a_zombie_does_not_count() {
        assert!(parse_stat(7, "7 (sh) Z 3 7 7").is_none());
    }

    #[test]
    fn descendants_are_found_in_any_order_and_strangers_are_not() {
        let all = [process(9, 8), process(8, 5), process(5, 1), process(6, 1)];
        assert_eq!(descendants_of(5, &all), BTreeSet::from([8, 9]));
    }

    #[test]
    fn a_process_is_found_by_its_environment_and_ended() {
        let value = format!("{}", std::process::id());
        let mut command = Command::new("sleep");
        let mut child = command.arg("600").env("XTASK_TEST_MARK", &value).spawn().unwrap();
        // The kernel shows the environment only a moment after the start.
        let found = std::iter::repeat_with(|| end_marked("XTASK_TEST_MARK", &value));
        let found = found.take(10_000).find(|names| !names.is_empty());
        assert_eq!(found.unwrap(), ["sleep"]);
        assert!(!child.wait().unwrap().success());
    }
}
