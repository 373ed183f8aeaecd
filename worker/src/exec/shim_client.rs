//! One attempt's shim, from the daemon's side: start it or find it, follow its events, pass commands on.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::environment::ATTEMPT_DIRECTORY;
use super::launcher::Launcher;
use crate::shim::protocol::{EventLine, SOCKET, SPEC, ShimCommand, ShimEvent, ShimSpec, VERSION};
use crate::shim::{events, tree};

/// Pause between two rounds of killing what a dead shim has left.
const KILL_PAUSE: Duration = Duration::from_millis(50);

/// How following a shim ended, as told to the state machine.
#[derive(Debug)]
pub enum Followed {
    /// It said its last word.
    Ended,
    /// It is gone without one; whatever it had started is gone as well.
    Lost(String),
}

/// What a follower needs.
#[derive(Debug)]
pub struct ShimClient {
    /// The attempt's directory, absolute.
    pub directory: PathBuf,
    /// Number of the last event known already.
    pub seen: u64,
    /// Events go here.
    pub events: mpsc::Sender<EventLine>,
    /// Commands come from here.
    pub commands: mpsc::Receiver<ShimCommand>,
}

impl ShimClient {
    /// Starts the shim if none ever was and `spec` is given, then follows it to its end.
    pub async fn run(mut self, launcher: &Launcher, spec: Option<ShimSpec>) -> Followed {
        if let Err(reason) = self.ensure_started(launcher, spec).await {
            return Followed::Lost(reason);
        }
        if let Ok(stream) = connect(&self.directory).await {
            // However the connection ends, the file has everything.
            if let Err(error) = self.follow(stream).await {
                tracing::debug!(%error, directory = %self.directory.display(), "shim hung up");
            }
        }
        self.finish().await
    }

    async fn ensure_started(
        &self,
        launcher: &Launcher,
        spec: Option<ShimSpec>,
    ) -> Result<(), String> {
        if self.directory.join(SOCKET).exists() {
            return Ok(());
        }
        let Some(spec) = spec else {
            return Err("it had not been started".into());
        };
        let path = self.directory.join(SPEC);
        let written = tokio::task::spawn_blocking(move || write_spec(&path, &spec)).await;
        written
            .map_err(|error| error.to_string())?
            .map_err(|error| format!("cannot write its orders: {error}"))?;
        let directory = self.directory.to_string_lossy();
        launcher.launch(&directory).await.map_err(|error| error.to_string())
    }

    async fn follow(&mut self, stream: UnixStream) -> io::Result<()> {
        let (input, mut output) = stream.into_split();
        let hello = ShimCommand::Hello { version: VERSION, from: self.seen + 1 };
        send(&mut output, &hello).await?;
        let mut lines = BufReader::new(input).lines();
        let mut commanded = true;
        loop {
            tokio::select! {
                line = lines.next_line() => match line? {
                    Some(line) => self.pass_on(serde_json::from_str(&line)?).await,
                    None => return Ok(()),
                },
                command = self.commands.recv(), if commanded => match command {
                    Some(command) => send(&mut output, &command).await?,
                    None => commanded = false,
                },
            }
        }
    }

    async fn pass_on(&mut self, line: EventLine) {
        if line.n > self.seen {
            self.seen = line.n;
            // The receiver is gone only when the daemon ends; the file keeps the event for the next one.
            let _ = self.events.send(line).await;
        }
    }

    /// The shim is gone: takes the rest of its events from the file.
    async fn finish(mut self) -> Followed {
        let lines = match events::read(&self.directory) {
            Ok(lines) => lines,
            Err(error) => return Followed::Lost(format!("cannot read its events: {error}")),
        };
        let ended = matches!(lines.last().map(|line| &line.event), Some(ShimEvent::Ended { .. }));
        let left = if ended { Vec::new() } else { lines.clone() };
        for line in lines {
            self.pass_on(line).await;
        }
        if ended {
            return Followed::Ended;
        }
        kill_leftovers(&self.directory, &left).await;
        Followed::Lost("the process that ran it on this node was killed".into())
    }
}

async fn send(output: &mut (impl AsyncWriteExt + Unpin), command: &ShimCommand) -> io::Result<()> {
    let mut line = serde_json::to_vec(command)?;
    line.push(b'\n');
    output.write_all(&line).await
}

/// Through `/proc/self/fd`, since the path of a socket may have no more than 107 bytes.
async fn connect(directory: &Path) -> io::Result<UnixStream> {
    let handle = File::open(directory)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd());
    UnixStream::connect(path).await
}

/// By rename: a shim finds all of its orders or none.
fn write_spec(path: &Path, spec: &ShimSpec) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let fresh = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(&serde_json::to_vec(spec)?)?;
    std::fs::rename(fresh, path)
}

/// Kills what a dead shim has left, until nothing is: found by its session and by the mark in the environment of
/// everything its tasks started.
async fn kill_leftovers(directory: &Path, events: &[EventLine]) {
    let session = events.iter().find_map(|line| match line.event {
        ShimEvent::Started { pid, .. } => Some(pid),
        ShimEvent::TaskStarted { .. } | ShimEvent::TaskEnded { .. } | ShimEvent::Ended { .. } => {
            None
        }
    });
    let mark = format!("{ATTEMPT_DIRECTORY}={}", directory.display());
    loop {
        let mark = mark.clone();
        let look = tokio::task::spawn_blocking(move || kill_round(session, &mark));
        if look.await.is_ok_and(|left| left == 0) {
            return;
        }
        tokio::time::sleep(KILL_PAUSE).await;
    }
}

fn kill_round(session: Option<i32>, mark: &str) -> usize {
    let left = tree::leftovers(session, mark);
    for process in &left {
        tree::signal(process.pid, nix::sys::signal::Signal::SIGKILL);
    }
    left.len()
}
