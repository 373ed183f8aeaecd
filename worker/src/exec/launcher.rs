//! The daemon's side of the launcher: keeps one alive and matches its answers to who asked.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};

use crate::shim::launcher::Launched;

/// Requests waiting; a burst beyond it waits in the tasks that ask.
const QUEUE: usize = 1024;
/// Pause before a launcher that died is replaced, so that a broken program does not spin.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// Why a shim could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The launcher says so.
    #[error("cannot start the shim: {0}")]
    Refused(String),
    /// The launcher is not there.
    #[error("cannot start the shim: the launcher is gone")]
    Gone,
}

type Answer = oneshot::Sender<Result<(), LaunchError>>;

/// Handle to the launcher.
#[derive(Clone, Debug)]
pub struct Launcher {
    requests: mpsc::Sender<(String, Answer)>,
}

impl Launcher {
    /// Starts the launcher and the task that looks after it.
    pub fn start(shim: &Path) -> std::io::Result<Self> {
        let running = Running::spawn(shim)?;
        let (requests, inbox) = mpsc::channel(QUEUE);
        tokio::spawn(look_after(shim.to_owned(), running, inbox));
        Ok(Self { requests })
    }

    /// Starts the shim of a directory, unless one was ever started for it.
    pub async fn launch(&self, directory: &str) -> Result<(), LaunchError> {
        let (answer, answered) = oneshot::channel();
        let request = (directory.to_owned(), answer);
        self.requests.send(request).await.map_err(|_| LaunchError::Gone)?;
        answered.await.map_err(|_| LaunchError::Gone)?
    }
}

struct Running {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    waiting: HashMap<String, Answer>,
}

impl Running {
    fn spawn(shim: &Path) -> std::io::Result<Self> {
        let mut command = Command::new(shim);
        command.arg("--launcher").stdin(Stdio::piped()).stdout(Stdio::piped());
        // A Ctrl-C for the daemon is not for the launcher: it ends with its input.
        command.process_group(0);
        let mut child = command.spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(std::io::Error::other("the launcher has no pipes"));
        };
        let output = BufReader::new(output).lines();
        Ok(Self { _child: child, input, output, waiting: HashMap::new() })
    }

    async fn ask(&mut self, directory: String, answer: Answer) -> std::io::Result<()> {
        let line = format!("{directory}\n");
        self.waiting.insert(directory, answer);
        self.input.write_all(line.as_bytes()).await
    }

    /// Who asked is gone if the attempt was dropped meanwhile; then nobody needs the answer.
    fn answered(&mut self, line: &str) {
        let (directory, result) = match serde_json::from_str(line) {
            Ok(Launched::Started(directory) | Launched::Already(directory)) => (directory, Ok(())),
            Ok(Launched::Failed(directory, why)) => (directory, Err(LaunchError::Refused(why))),
            Err(error) => return tracing::warn!(%error, "the launcher talks garbage"),
        };
        if let Some(answer) = self.waiting.remove(&directory) {
            let _ = answer.send(result);
        }
    }

    /// Serves until the launcher dies (true) or nobody can ask any more (false).
    async fn serve(&mut self, inbox: &mut mpsc::Receiver<(String, Answer)>) -> bool {
        loop {
            tokio::select! {
                request = inbox.recv() => match request {
                    None => return false,
                    Some((directory, answer)) => {
                        if self.ask(directory, answer).await.is_err() {
                            return true;
                        }
                    }
                },
                line = self.output.next_line() => match line {
                    Ok(Some(line)) => self.answered(&line),
                    Ok(None) | Err(_) => return true,
                },
            }
        }
    }
}

async fn look_after(
    shim: PathBuf,
    mut running: Running,
    mut inbox: mpsc::Receiver<(String, Answer)>,
) {
    while running.serve(&mut inbox).await {
        // Dropping it answers everybody who waits with an error.
        tracing::warn!("the launcher of shims has died and is started again");
        running = loop {
            tokio::time::sleep(RESTART_PAUSE).await;
            match Running::spawn(&shim) {
                Ok(running) => break running,
                Err(error) => {
                    tracing::error!(%error, shim = %shim.display(), "cannot start the launcher");
                }
            }
        };
    }
}
