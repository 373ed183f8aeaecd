//! The shim's own record of what happened: a file of lines, each written whole, and the connections that follow it.
//!
//! Not synced: it has to survive the worker and the shim, not the machine; after a reboot the attempt is over anyway.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::protocol::{EVENTS, EventLine, ShimEvent};
use crate::clock::now_us;

/// The file of events of a living shim.
#[derive(Debug)]
pub struct EventLog {
    file: File,
    lines: Vec<String>,
}

impl EventLog {
    /// Creates it in the attempt's directory.
    pub fn create(attempt: &Path) -> io::Result<Self> {
        let file =
            OpenOptions::new().append(true).create(true).mode(0o600).open(attempt.join(EVENTS))?;
        Ok(Self { file, lines: Vec::new() })
    }

    /// Adds an event.
    pub fn push(&mut self, event: ShimEvent) -> io::Result<()> {
        let line = EventLine { n: self.lines.len() as u64 + 1, at_us: now_us(), event };
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        self.file.write_all(text.as_bytes())?;
        self.lines.push(text);
        Ok(())
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
}

/// Reads the events of a shim, living or dead. A line that was not written whole is left out.
pub fn read(attempt: &Path) -> io::Result<Vec<EventLine>> {
    match std::fs::read_to_string(attempt.join(EVENTS)) {
        Ok(text) => Ok(text.lines().map_while(|line| serde_json::from_str(line).ok()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
