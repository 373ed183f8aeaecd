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
    /// 0 before the first.
    pub attempt: u64,
    pub kind: String,
    pub text: String,
    /// Of the job after the event.
    pub state: String,
}

/// Jobs are added as they are submitted; nothing is lost in between, it only waits to be shown.
pub struct Follower<'a> {
    client: &'a Client,
    screen: Screen,
    jobs: Vec<Followed>,
    outputs: Vec<Output>,
}

struct Followed {
    job: u64,
    name: String,
    events: Stream,
}

/// What one attempt writes.
struct Output {
    job: u64,
    attempt: u64,
    name: String,
    stream: Stream,
}

/// A command whose lines are read while it runs.
struct Stream {
    lines: Receiver<String>,
    ended: bool,
    // Ends the command when the follower goes.
    _command: Daemon,
}

impl<'a> Follower<'a> {
    pub fn new(client: &'a Client, screen: Screen) -> Self {
        Self { client, screen, jobs: Vec::new(), outputs: Vec::new() }
    }

    /// From the event after `after` on.
    pub fn add(&mut self, job: u64, name: &str, after: u64) -> Result<()> {
        let (job_word, after) = (job.to_string(), after.to_string());
        let words = ["--json", "watch", "--after", &after, &job_word];
        let command = self.client.command(&words);
        let events = Stream::open("watch", command)?;
        self.jobs.push(Followed { job, name: name.to_owned(), events });
        Ok(())
    }

    /// Shows what comes until the new events are `enough`, asked again and again.
    pub fn until(
        &mut self,
        what: &str,
        mut enough: impl FnMut(&[Event]) -> Result<bool>,
    ) -> Result<()> {
        let begin = Instant::now();
        loop {
            interrupt::check()?;
            let events = self.show_news()?;
            if enough(&events)? {
                return Ok(());
            }
            let over = self.jobs.iter().all(|followed| followed.events.ended);
            if over || begin.elapsed() > LIMIT {
                bail!("waited in vain for {what}");
            }
            thread::sleep(POLL);
        }
    }

    /// Goes on until every job is terminal, which ends its events, and all output was shown.
    pub fn finish(mut self) -> Result<()> {
        let begin = Instant::now();
        while self.jobs.iter().any(|followed| !followed.events.ended) {
            interrupt::check()?;
            self.show_news()?;
            if begin.elapsed() > LIMIT {
                bail!("the jobs did not end within {} s", LIMIT.as_secs());
            }
            thread::sleep(POLL);
        }
        let begin = Instant::now();
        while self.outputs.iter().any(|output| !output.stream.ended)
            && begin.elapsed() < LAST_OUTPUT
        {
            interrupt::check()?;
            self.show_output();
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Tells the events that have come since, and shows the output.
    fn show_news(&mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        for followed in &mut self.jobs {
            while let Some(line) = followed.events.next() {
                events.push((followed.name.clone(), Event::parse(&line, followed.job)?));
            }
        }
        self.show_output();
        for (name, event) in &events {
            self.narrate(name, event)?;
        }
        Ok(events.into_iter().map(|(_, event)| event).collect())
    }

    fn narrate(&mut self, name: &str, event: &Event) -> Result<()> {
        for (word, text) in event.in_words_of_the_flow() {
            self.screen.step(word, format!("{name}: {text}").trim_end_matches([':', ' ']));
        }
        if event.has_output() && !self.is_shown(event) {
            let (job, attempt) = (event.job, event.attempt);
            let (which, whose) = (attempt.to_string(), job.to_string());
            let words = ["logs", "--follow", "--attempt", &which, &whose];
            let stream = Stream::open_with_errors("logs", self.client.command(&words))?;
            self.outputs.push(Output { job, attempt, name: name.to_owned(), stream });
        }
        Ok(())
    }

    fn is_shown(&self, event: &Event) -> bool {
        let same = |output: &Output| (output.job, output.attempt) == (event.job, event.attempt);
        self.outputs.iter().any(same)
    }

    fn show_output(&mut self) {
        for output in &mut self.outputs {
            while let Some(line) = output.stream.next() {
                self.screen.output(&output.name, &line);
            }
        }
    }
}

impl Event {
    fn parse(line: &str, job: u64) -> Result<Self> {
        let value: Value =
            serde_json::from_str(line).with_context(|| format!("no event: {line}"))?;
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            job,
            attempt: value["attempt"].as_u64().unwrap_or_default(),
            kind: text("kind"),
            text: text("text"),
            state: text("state"),
        })
    }

    /// Whether its processes are there, or were: the first event may be that it is over.
    pub fn has_output(&self) -> bool {
        let over = ["completed", "failed", "cancelled", "timed_out"];
        self.attempt > 0 && (self.state == "running" || over.contains(&self.state.as_str()))
    }

    /// What the event means in the flow from submitted to accounted.
    fn in_words_of_the_flow(&self) -> Vec<(&str, String)> {
        let text = self.text.clone();
        let attempt = self.attempt;
        match self.kind.as_str() {
            "submitted" => vec![("queued", text)],
            "leased" => vec![
                ("planned", text),
                ("committed", format!("attempt {attempt} holds its GPUs, for it alone")),
                ("dispatched", format!("attempt {attempt} to the workers of its nodes")),
            ],
            "accepted" => vec![("accepted", text)],
            "started" => vec![("running", text)],
            "step_started" | "step_ended" => vec![("step", text)],
            "attempt_ended" => vec![("reported", text)],
            "timed_out" => vec![("timed out", text)],
            kind => vec![(kind, text)],
        }
    }
}

impl Stream {
    fn open(name: &str, mut command: Command) -> Result<Self> {
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut command = Daemon::spawn(name, &mut command)?;
        let output = command.output().context("no output to read")?;
        Ok(Self { lines: read_lines(output), ended: false, _command: command })
    }

    /// Standard error among standard output, as on a terminal.
    fn open_with_errors(name: &str, mut command: Command) -> Result<Self> {
        let (reader, writer) = std::io::pipe().context("no pipe for output")?;
        command.stdout(writer.try_clone()?).stderr(writer);
        let running = Daemon::spawn(name, &mut command)?;
        // It holds our ends for writing; while they are open the output does not end.
        drop(command);
        Ok(Self { lines: read_lines(reader), ended: false, _command: running })
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
        let event = Event::parse(line, 3).unwrap();
        let words = event.in_words_of_the_flow();
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        assert_eq!(words, ["planned", "committed", "dispatched"]);
    }

    #[test]
    fn output_is_there_from_the_start_of_an_attempt_on() {
        let event = |attempt, state: &str| Event {
            job: 1,
            attempt,
            kind: "x".into(),
            text: String::new(),
            state: state.into(),
        };
        assert!(event(1, "running").has_output());
        assert!(event(2, "completed").has_output());
        assert!(!event(1, "starting").has_output());
        assert!(!event(0, "cancelled").has_output());
    }
}
