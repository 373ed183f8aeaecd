//! One attempt's shim, from the daemon's side: start it or find it, follow its events, pass commands on.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::environment::ATTEMPT_DIRECTORY;
use super::launcher::Launcher;
use super::outbox::Outbox;
use crate::confine::cgroup;
use crate::shim::protocol::{EventLine, Launch, SOCKET, ShimCommand, ShimEvent, ShimSpec, VERSION};
use crate::shim::{events, tree};

/// Pause between two rounds of killing what a dead shim has left.
const KILL_PAUSE: Duration = Duration::from_millis(50);
/// First and longest pause before something is tried again that says nothing about the shim, such as a worker that
/// has no file descriptor left.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How long the cgroup of a dead shim is waited for before that is said.
const CLEAR_PATIENCE: Duration = Duration::from_secs(10);
/// A shim that has not ended this long after the grace of a stop hangs.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// Times the events of a dead shim are tried to be read: five minutes and more.
const READ_TRIES: u32 = 60;

/// How following a shim ended, as told to the state machine.
#[derive(Debug)]
pub enum Followed {
    /// It said its last word.
    Ended,
    /// It is gone without one; whatever it had started is gone as well.
    Lost(String),
}

/// Why a connection to a shim is no more, or never was.
enum Hangup {
    /// The last word was said.
    Ended,
    /// No process listens there.
    Dead,
    /// It should have ended long ago.
    Overdue,
    /// Says nothing about the shim.
    Broken(io::Error),
}

/// Follows one shim.
#[derive(Debug)]
pub struct ShimClient {
    /// The attempt's directory, absolute.
    directory: PathBuf,
    /// Number of the last event known already.
    seen: u64,
    events: mpsc::Sender<EventLine>,
    commands: mpsc::Receiver<ShimCommand>,
    /// More commands may come.
    commanded: bool,
    /// Commands that a new connection has to repeat; repeating is harmless.
    unconfirmed: Vec<ShimCommand>,
    /// When a shim that was told to stop must have ended.
    overdue_at: Option<Instant>,
}

impl ShimClient {
    /// For the attempt of this directory. Events after number `seen` go to `events`; commands come from `commands`.
    pub fn new(
        directory: PathBuf,
        seen: u64,
        events: mpsc::Sender<EventLine>,
        commands: mpsc::Receiver<ShimCommand>,
    ) -> Self {
        let (commanded, unconfirmed, overdue_at) = (true, Vec::new(), None);
        Self { directory, seen, events, commands, commanded, unconfirmed, overdue_at }
    }

    /// Starts the shim if none ever was and `spec` is given, then follows it to its end.
    pub async fn run(self, launcher: &Launcher, spec: Option<ShimSpec>) -> Followed {
        match self.ensure_started(launcher, spec).await {
            Ok(()) => self.follow_to_the_end().await,
            Err(reason) => Followed::Lost(reason),
        }
    }

    /// Follows a shim that was started some time.
    pub async fn follow_to_the_end(mut self) -> Followed {
        let mut pause = Duration::ZERO;
        loop {
            let seen = self.seen;
            match self.follow_once().await {
                Hangup::Ended => return Followed::Ended,
                Hangup::Dead => return self.finish().await,
                Hangup::Overdue => self.kill_shim().await,
                Hangup::Broken(error) => self.warn(&error),
            }
            if self.seen > seen {
                pause = Duration::ZERO;
            }
            self.rest(pause).await;
            pause = (pause * 2).clamp(RETRY_MIN, RETRY_MAX);
        }
    }

    async fn ensure_started(
        &self,
        launcher: &Launcher,
        spec: Option<ShimSpec>,
    ) -> Result<(), String> {
        let started = self.start(launcher, spec).await;
        let Err(reason) = started else {
            return Ok(());
        };
        // The launcher, even that of an earlier daemon, may get to it only now: then this place is taken.
        match self.claim().await {
            true => Err(reason),
            false => Ok(()),
        }
    }

    async fn start(&self, launcher: &Launcher, spec: Option<ShimSpec>) -> Result<(), String> {
        if self.directory.join(SOCKET).exists() {
            return Ok(());
        }
        let Some(spec) = spec else {
            return Err("it had not been started".into());
        };
        let directory = self.directory.to_string_lossy().into_owned();
        launcher.launch(Launch { directory, spec }).await.map_err(|error| error.to_string())
    }

    /// Puts something where a shim would bind its socket, so that none can from now on; false if one already has.
    async fn claim(&self) -> bool {
        let mut pause = RETRY_MIN;
        loop {
            let mut options = OpenOptions::new();
            match options.write(true).create_new(true).open(self.directory.join(SOCKET)) {
                Ok(_) => return true,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => return false,
                // Without a directory there is no place for a shim either.
                Err(error) if error.kind() == ErrorKind::NotFound => return true,
                Err(error) => self.warn(&error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn follow_once(&mut self) -> Hangup {
        match connect(&self.directory).await {
            Ok(stream) => self.follow(stream).await.unwrap_or_else(Hangup::Broken),
            Err(error) if means_dead(&error) => Hangup::Dead,
            Err(error) => Hangup::Broken(error),
        }
    }

    async fn follow(&mut self, stream: UnixStream) -> io::Result<Hangup> {
        let (input, mut output) = stream.into_split();
        let mut lines = BufReader::new(input).lines();
        let mut outbox = self.greeting()?;
        loop {
            let overdue_at = self.overdue_at;
            tokio::select! {
                line = lines.next_line() => match line? {
                    Some(line) => match EventLine::read(line.as_bytes())? {
                        Some(line) => {
                            if self.pass_on(line).await {
                                return Ok(Hangup::Ended);
                            }
                        }
                        None => self.tell_newer(&line),
                    },
                    None => return Err(ErrorKind::UnexpectedEof.into()),
                },
                written = output.write(outbox.rest()), if !outbox.rest().is_empty() => {
                    outbox.advance(written?);
                }
                command = self.commands.recv(), if self.commanded => {
                    if let Some(command) = self.note(command) {
                        outbox.push(&command)?;
                    }
                }
                () = reached(overdue_at) => return Ok(Hangup::Overdue),
            }
        }
    }

    /// What a new connection begins with.
    fn greeting(&self) -> io::Result<Outbox> {
        let mut outbox = Outbox::default();
        outbox.push(&ShimCommand::Hello { version: VERSION, from: self.seen + 1 })?;
        self.unconfirmed.iter().try_for_each(|command| outbox.push(command))?;
        Ok(outbox)
    }

    /// Keeps a command until it is known to have arrived.
    fn note(&mut self, command: Option<ShimCommand>) -> Option<ShimCommand> {
        self.commanded = command.is_some();
        let command = command?;
        if let ShimCommand::Stop { grace_ms, .. } = &command {
            let at = Instant::now() + Duration::from_millis(*grace_ms) + STOP_PATIENCE;
            self.overdue_at = Some(self.overdue_at.map_or(at, |known| known.min(at)));
        }
        self.unconfirmed.push(command.clone());
        Some(command)
    }

    /// Waits, for less time if a command comes: it may be the one that sets an end to all waiting.
    async fn rest(&mut self, pause: Duration) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            command = self.commands.recv(), if self.commanded => drop(self.note(command)),
        }
    }

    /// Returns whether this was the last word.
    async fn pass_on(&mut self, line: EventLine) -> bool {
        let ended = matches!(line.event, ShimEvent::Ended { .. });
        if let ShimEvent::TaskStarted { step, rank, .. } | ShimEvent::TaskEnded { step, rank, .. } =
            line.event
        {
            self.unconfirmed.retain(|command| !is_last_task(command, step, rank));
        }
        if line.n > self.seen {
            self.seen = line.n;
            // The receiver is gone only when the daemon ends; the file keeps the event for the next one.
            let _ = self.events.send(line).await;
        }
        ended
    }

    /// The shim is gone: takes the rest of its events from the file.
    async fn finish(mut self) -> Followed {
        let lines = self.read_events().await;
        let left = lines.clone();
        for line in lines {
            if self.pass_on(line).await {
                return Followed::Ended;
            }
        }
        kill_leftovers(&self.directory, &left).await;
        Followed::Lost("the process that ran it on this node was killed".into())
    }

    async fn read_events(&self) -> Vec<EventLine> {
        let mut pause = RETRY_MIN;
        for _ in 0..READ_TRIES {
            match events::read(&self.directory) {
                Ok(lines) => return lines,
                Err(error) => self.warn(&error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
        Vec::new()
    }

    /// Kills a shim that hangs, if it is certain which process it is; then its socket refuses the next connection.
    async fn kill_shim(&mut self) {
        self.overdue_at = Some(Instant::now() + STOP_PATIENCE);
        let directory = self.directory.display();
        let Some((pid, start_ticks)) = started(&self.read_events().await) else {
            return tracing::error!(%directory, "a shim hangs, and which process it is is unknown");
        };
        if tree::process(pid).is_some_and(|process| process.start_ticks == start_ticks) {
            tracing::error!(%directory, pid, "killed a shim that did not end");
            tree::signal(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }

    fn tell_newer(&self, line: &str) {
        let directory = self.directory.display();
        tracing::warn!(%directory, line, "a shim newer than this worker says what it does not understand");
    }

    fn warn(&self, error: &io::Error) {
        // A shim that ends closes its connection; what that means is found by the next try.
        if error.kind() != ErrorKind::UnexpectedEof {
            let directory = self.directory.display();
            tracing::warn!(%error, %directory, "no word with a shim; trying again");
        }
    }
}

/// The process id and start of the shim, by its own word.
fn started(events: &[EventLine]) -> Option<(i32, u64)> {
    events.iter().find_map(|line| match line.event {
        ShimEvent::Started { pid, start_ticks, .. } => Some((pid, start_ticks)),
        ShimEvent::TaskStarted { .. }
        | ShimEvent::TaskEnded { .. }
        | ShimEvent::Unfit { .. }
        | ShimEvent::Ended { .. } => None,
    })
}

/// The cgroup of what the shim has started, by its own word.
fn cgroup_of(events: &[EventLine]) -> Option<PathBuf> {
    events.iter().find_map(|line| match &line.event {
        ShimEvent::Started { cgroup, .. } => cgroup.clone(),
        ShimEvent::TaskStarted { .. }
        | ShimEvent::TaskEnded { .. }
        | ShimEvent::Unfit { .. }
        | ShimEvent::Ended { .. } => None,
    })
}

/// Tasks are started in their order: news of the last one means that all were looked at.
fn is_last_task(command: &ShimCommand, step: u32, rank: u32) -> bool {
    match command {
        ShimCommand::StartTasks(tasks) => {
            tasks.step == step && tasks.tasks.last().is_none_or(|task| task.rank == rank)
        }
        ShimCommand::Hello { .. } | ShimCommand::Stop { .. } => false,
    }
}

/// Only the absence of a listener says that the shim is dead; everything else is this process's own trouble.
fn means_dead(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound)
}

async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Through `/proc/self/fd`, since the path of a socket may have no more than 107 bytes.
pub(super) async fn connect(directory: &Path) -> io::Result<UnixStream> {
    let handle = File::open(directory)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd());
    UnixStream::connect(path).await
}

/// Kills what a dead shim has left, until nothing is: found by its session and by the mark in the environment of
/// everything its tasks started.
async fn kill_leftovers(directory: &Path, events: &[EventLine]) {
    let session = started(events).map(|(pid, _)| pid);
    let cgroup = cgroup_of(events);
    let mark = format!("{ATTEMPT_DIRECTORY}={}", directory.display());
    loop {
        let (mark, cgroup) = (mark.clone(), cgroup.clone());
        let look = move || kill_round(cgroup.as_deref(), session, &mark);
        match tokio::task::spawn_blocking(look).await {
            Ok(Ok(true)) => return,
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot look for what a dead shim has left"),
            Err(error) => tracing::warn!(%error, "cannot look for what a dead shim has left"),
        }
        tokio::time::sleep(KILL_PAUSE).await;
    }
}

/// Whether nothing was left.
fn kill_round(cgroup: Option<&Path>, session: Option<i32>, mark: &str) -> io::Result<bool> {
    if let Some(path) = cgroup.filter(|path| !cgroup::clear(path, CLEAR_PATIENCE)) {
        let alive = cgroup::processes(path);
        tracing::error!(cgroup = %path.display(), ?alive, "processes of a job do not end");
        return Ok(false);
    }
    Ok(tree::kill_all(|| tree::leftovers(session, mark))?.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixListener;

    use super::*;
    use crate::shim::protocol::{Ending, Exit};

    struct Fixture {
        directory: tempfile::TempDir,
        commands: mpsc::Sender<ShimCommand>,
        events: mpsc::Receiver<EventLine>,
        client: ShimClient,
    }

    fn fixture() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let (commands, inbox) = mpsc::channel(8);
        let (outbox, events) = mpsc::channel(8);
        let client = ShimClient::new(directory.path().to_owned(), 0, outbox, inbox);
        Fixture { directory, commands, events, client }
    }

    fn stop() -> ShimCommand {
        ShimCommand::Stop { cause: 1, reason: "told to".into(), grace_ms: 1000, warn: false }
    }

    fn last_word() -> String {
        let event =
            ShimEvent::Ended { ending: Ending::Own, reason: String::new(), exit: Exit::default() };
        format!("{}\n", serde_json::to_string(&EventLine { n: 1, at_us: 1, event }).unwrap())
    }

    async fn commands_of(stream: &mut UnixStream, count: usize) -> Vec<ShimCommand> {
        let mut lines = BufReader::new(stream).lines();
        let mut commands = Vec::new();
        while commands.len() < count {
            let line = lines.next_line().await.unwrap().unwrap();
            commands.push(serde_json::from_str(&line).unwrap());
        }
        commands
    }

    #[tokio::test]
    async fn a_shim_that_hangs_up_is_asked_again_and_told_again() {
        let Fixture { directory, commands, mut events, client } = fixture();
        let listener = UnixListener::bind(directory.path().join(SOCKET)).unwrap();
        let following = tokio::spawn(client.follow_to_the_end());
        commands.send(stop()).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        commands_of(&mut stream, 2).await;
        stream.write_all(b"no line of a shim\n").await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let again = commands_of(&mut stream, 2).await;
        assert_eq!(again, [ShimCommand::Hello { version: VERSION, from: 1 }, stop()]);
        stream.write_all(last_word().as_bytes()).await.unwrap();
        assert!(matches!(following.await.unwrap(), Followed::Ended));
        assert_eq!(events.recv().await.unwrap().n, 1);
        // The client has let go of it.
        let _ = stream.read(&mut [0]).await;
    }

    #[tokio::test]
    async fn a_place_where_nobody_listens_is_a_dead_shim() {
        let Fixture { directory, client, .. } = fixture();
        drop(UnixListener::bind(directory.path().join(SOCKET)).unwrap());
        assert!(matches!(client.follow_to_the_end().await, Followed::Lost(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_shim_that_hangs_after_its_stop_is_killed() {
        let Fixture { directory, commands, client, .. } = fixture();
        let listener = UnixListener::bind(directory.path().join(SOCKET)).unwrap();
        let mut hanging = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(hanging.id()).unwrap();
        let start_ticks = tree::process(pid).unwrap().start_ticks;
        let mut log = events::EventLog::create(directory.path());
        log.push(ShimEvent::Started { pid, start_ticks, cgroup: None, version: VERSION });
        let following = tokio::spawn(client.follow_to_the_end());
        commands.send(stop()).await.unwrap();
        // Time passes only while everybody waits.
        while hanging.try_wait().unwrap().is_none() {
            tokio::time::sleep(KILL_PAUSE).await;
        }
        drop(listener);
        assert!(matches!(following.await.unwrap(), Followed::Lost(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_has_the_number_of_a_shim_but_not_its_start_is_left_alone() {
        let Fixture { directory, mut client, .. } = fixture();
        let mut other = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let mut log = events::EventLog::create(directory.path());
        let pid = i32::try_from(other.id()).unwrap();
        log.push(ShimEvent::Started { pid, start_ticks: 1, cgroup: None, version: VERSION });
        client.kill_shim().await;
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[tokio::test]
    async fn an_attempt_said_not_to_have_started_cannot_start_later() {
        let Fixture { directory, client, .. } = fixture();
        let launcher = Launcher::start(Path::new("/bin/false"), None).unwrap();
        assert!(matches!(client.run(&launcher, None).await, Followed::Lost(_)));
        let late = std::os::unix::net::UnixListener::bind(directory.path().join(SOCKET));
        assert_eq!(late.unwrap_err().kind(), ErrorKind::AddrInUse);
    }
}
