//! Follows jobs while they live: their events in the words of the flow, their output behind their names.

use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::client::Client;
use super::cluster::read_lines;
use super::screen::Screen;
use crate::child::Daemon;
use crate::interrupt;

const POLL: Duration = Duration::from_millis(20);
/// The jobs of the story take seconds; this long means that one hangs.
const LIMIT: Duration = Duration::from_secs(240);
/// After the last event its output may still be on its way.
const LAST_OUTPUT: Duration = Duration::from_secs(10);

/// An event of a job as `gotgan watch --json` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub job: u64,
    pub attempt: u64,
    pub kind: String,
    pub text: String,
}

pub struct Follower<'a> {
    client: &'a Client,
    screen: Screen,
    jobs: Vec<(u64, String)>,
    events: Stream,
    outputs: Vec<(String, Stream)>,
}

/// A command whose lines are read while it runs.
struct Stream {
    lines: Receiver<String>,
    ended: bool,
    // Ends the command when the follower goes.
    _command: Daemon,
}

impl<'a> Follower<'a> {
    /// Jobs by number and name.
    pub fn new(client: &'a Client, screen: Screen, jobs: Vec<(u64, String)>) -> Result<Self> {
        let mut words = vec!["watch".to_owned(), "--json".to_owned()];
        words.extend(jobs.iter().map(|(job, _)| job.to_string()));
        let events = Stream::open("watch", client.command(&words))?;
        Ok(Self {
            client,
            screen,
            jobs,
            events,
            outputs: Vec::new(),
        })
    }

    /// Goes on until `enough` says so of an event, or of no event at all in between.
    pub fn until(
        &mut self,
        what: &str,
        mut enough: impl FnMut(Option<&Event>) -> bool,
    ) -> Result<()> {
        let begin = Instant::now();
        loop {
            interrupt::check()?;
            self.show_output();
            match self.events.next() {
                Some(line) => {
                    let event = Event::parse(&line)?;
                    self.narrate(&event)?;
                    if enough(Some(&event)) {
                        return Ok(());
                    }
                }
                None if enough(None) => return Ok(()),
                None if self.events.ended => bail!("the events ended before {what}"),
                None => thread::sleep(POLL),
            }
            if begin.elapsed() > LIMIT {
                bail!("waited {} s in vain for {what}", LIMIT.as_secs());
            }
        }
    }

    /// Goes on until every job is terminal and all output was shown.
    pub fn finish(mut self) -> Result<()> {
        let mut left = self.jobs.len();
        self.until("the end of all jobs", |event| {
            left -= usize::from(event.is_some_and(Event::is_last));
            left == 0
        })?;
        let begin = Instant::now();
        while self.outputs.iter().any(|(_, stream)| !stream.ended) && begin.elapsed() < LAST_OUTPUT
        {
            interrupt::check()?;
            self.show_output();
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn name(&self, job: u64) -> String {
        let found = self.jobs.iter().find(|(id, _)| *id == job);
        found.map_or_else(|| format!("job {job}"), |(_, name)| name.clone())
    }

    fn narrate(&mut self, event: &Event) -> Result<()> {
        let name = self.name(event.job);
        for (word, text) in event.in_words_of_the_flow() {
            self.screen.step(word, &format!("{name}: {text}"));
        }
        if event.kind == "started" {
            let command = self
                .client
                .command(&["logs", "--follow", &event.job.to_string()]);
            self.outputs.push((name, Stream::open("logs", command)?));
        }
        Ok(())
    }

    fn show_output(&mut self) {
        for (name, stream) in &mut self.outputs {
            while let Some(line) = stream.next() {
                self.screen.output(name, &line);
            }
        }
    }
}

impl Event {
    fn parse(line: &str) -> Result<Self> {
        let value: Value =
            serde_json::from_str(line).with_context(|| format!("no event: {line}"))?;
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            job: value["job_id"].as_u64().context("an event without a job")?,
            attempt: value["attempt"].as_u64().unwrap_or_default(),
            kind: text("kind"),
            text: text("text"),
        })
    }

    fn is_last(&self) -> bool {
        ["completed", "failed", "cancelled", "timed_out"].contains(&self.kind.as_str())
    }

    /// What the event means in the flow from submitted to accounted.
    fn in_words_of_the_flow(&self) -> Vec<(&'static str, String)> {
        let text = self.text.clone();
        match self.kind.as_str() {
            "submitted" => vec![("queued", text)],
            "leased" => vec![
                ("planned", text),
                (
                    "committed",
                    format!("attempt {} holds its GPUs on all nodes", self.attempt),
                ),
            ],
            "accepted" => vec![("dispatched", text)],
            "started" => vec![("running", text)],
            "step_started" | "step_ended" => vec![("step", text)],
            "attempt_ended" => vec![("reported", text)],
            "requeued" => vec![("requeued", text)],
            "completed" | "failed" | "cancelled" | "timed_out" => vec![("accounted", text)],
            _ => vec![("event", format!("{} {text}", self.kind))],
        }
    }
}

impl Stream {
    fn open(name: &str, mut command: Command) -> Result<Self> {
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut command = Daemon::spawn(name, &mut command)?;
        let output = command.output().context("no output to read")?;
        Ok(Self {
            lines: read_lines(output),
            ended: false,
            _command: command,
        })
    }

    /// The next line, if there is one now.
    fn next(&mut self) -> Option<String> {
        match self.lines.try_recv() {
            Ok(line) => Some(line),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                self.ended = true;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_event_is_told_in_the_words_of_the_flow() {
        let line = r#"{"schema":"x","job_id":3,"attempt":1,"kind":"leased","text":"on node-a"}"#;
        let event = Event::parse(line).unwrap();
        let words: Vec<_> = event
            .in_words_of_the_flow()
            .into_iter()
            .map(|(word, _)| word)
            .collect();
        assert_eq!(words, ["planned", "committed"]);
    }

    #[test]
    fn only_a_terminal_state_is_the_last_event() {
        let event = |kind: &str| Event {
            job: 1,
            attempt: 1,
            kind: kind.into(),
            text: String::new(),
        };
        assert!(event("timed_out").is_last());
        assert!(!event("attempt_ended").is_last());
    }
}
