//! The shim's own record of what happened: a file of lines, and the connections that follow it.
//!
//! Memory is the truth and the file best effort: a full disk, or a job that removes its own directory, must not end
//! a healthy job. Not synced: it has to survive the worker and the shim, not the machine; after a reboot the attempt
//! is over anyway.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::protocol::{EVENTS, EventLine, ShimEvent};
use crate::clock::now_us;

/// The events of a living shim.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    file: Option<File>,
    lines: Vec<String>,
    /// What the file has not taken yet: begins inside a line after a write that was cut short.
    unwritten: Vec<u8>,
}

impl EventLog {
    /// Begins it in the attempt's directory.
    pub fn create(attempt: &Path) -> Self {
        let path = attempt.join(EVENTS);
        Self { path, file: None, lines: Vec::new(), unwritten: Vec::new() }
    }

    /// Adds an event and writes what can be written.
    pub fn push(&mut self, event: ShimEvent) {
        let line = EventLine { n: self.lines.len() as u64 + 1, at_us: now_us(), event };
        // Cannot fail: the line has no map with keys that are no text.
        let Ok(mut text) = serde_json::to_string(&line) else {
            return;
        };
        text.push('\n');
        self.unwritten.extend_from_slice(text.as_bytes());
        self.lines.push(text);
        self.flush();
    }

    /// Writes what the file takes of what it has not taken before.
    pub fn flush(&mut self) {
        // An error leaves the rest for the next turn; who follows over the socket misses nothing meanwhile.
        let _ = self.write_rest();
    }

    /// Whether something is not written yet.
    pub fn is_behind(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Whether the file has everything and can still be found by its name.
    pub fn is_kept(&self) -> bool {
        let linked = |file: &File| file.metadata().is_ok_and(|meta| meta.nlink() > 0);
        !self.is_behind() && self.file.as_ref().is_some_and(linked)
    }

    /// Number of events so far.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether nothing has happened yet.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Event lines after the first `skip`.
    pub fn after(&self, skip: usize) -> &[String] {
        self.lines.get(skip..).unwrap_or_default()
    }

    fn write_rest(&mut self) -> io::Result<()> {
        while !self.unwritten.is_empty() {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(open(&self.path)?),
            };
            match file.write(&self.unwritten) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => drop(self.unwritten.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Reads the events of a shim, living or dead. A line that was not written whole is left out, and so is what only a newer
/// worker understands.
pub fn read(attempt: &Path) -> io::Result<Vec<EventLine>> {
    let bytes = match std::fs::read(attempt.join(EVENTS)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let lines = bytes.split(|byte| *byte == b'\n');
    Ok(lines.map_while(|line| EventLine::read(line).ok()).flatten().collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ended(detail: &str) -> ShimEvent {
        let exit = super::super::protocol::Exit::code(1);
        ShimEvent::TaskEnded { step: 0, rank: 0, exit, detail: detail.into() }
    }

    #[test]
    fn a_file_that_takes_nothing_yet_gets_everything_in_order_later() {
        let directory = tempfile::tempdir().unwrap();
        let attempt = directory.path().join("7.1");
        let mut log = EventLog::create(&attempt);
        log.push(ended("one"));
        assert!(log.is_behind() && !log.is_kept());
        std::fs::create_dir(&attempt).unwrap();
        log.push(ended("two"));
        assert!(log.is_kept());
        let numbers: Vec<u64> = read(&attempt).unwrap().iter().map(|line| line.n).collect();
        assert_eq!(numbers, [1, 2]);
    }

    #[test]
    fn a_full_disk_fails_nothing_and_is_known() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", directory.path().join(EVENTS)).unwrap();
        let mut log = EventLog::create(directory.path());
        log.push(ended("one"));
        assert_eq!((log.len(), log.is_kept()), (1, false));
    }

    #[test]
    fn a_file_that_was_removed_keeps_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = EventLog::create(directory.path());
        log.push(ended("one"));
        std::fs::remove_file(directory.path().join(EVENTS)).unwrap();
        assert!(!log.is_kept());
    }

    #[test]
    fn what_only_a_newer_worker_understands_is_passed_over_and_what_follows_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = EventLog::create(directory.path());
        log.push(ended("one"));
        log.push(ended("two"));
        let path = directory.path().join(EVENTS);
        let text = std::fs::read_to_string(&path).unwrap();
        let newer = "{\"n\":2,\"at_us\":7,\"event\":{\"task_moved\":{\"to\":\"elsewhere\"}}}\n";
        let (first, second) = text.split_once('\n').unwrap();
        let second = second.replace("\"n\":2", "\"n\":3");
        std::fs::write(&path, format!("{first}\n{newer}{second}")).unwrap();
        let numbers: Vec<u64> = read(directory.path()).unwrap().iter().map(|line| line.n).collect();
        assert_eq!(numbers, [1, 3]);
    }

    #[test]
    fn a_line_torn_inside_a_character_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = EventLog::create(directory.path());
        log.push(ended("one"));
        log.push(ended("곳간"));
        let path = directory.path().join(EVENTS);
        let bytes = std::fs::read(&path).unwrap();
        let cut = bytes.iter().rposition(|byte| *byte > 127).unwrap();
        std::fs::write(&path, &bytes[..cut]).unwrap();
        assert_eq!(read(directory.path()).unwrap().len(), 1);
    }
}
