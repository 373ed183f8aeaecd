//! The daemon's side of the launcher: keeps one alive and matches its answers to who asked.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};

use crate::shim::launcher::Launched;
use crate::shim::protocol::{Launch, UNSAID};

/// Requests waiting; a burst beyond it waits in the tasks that ask.
const QUEUE: usize = 1024;
/// Pause before a launcher that died is replaced, so that a broken program does not spin.
const RESTART_PAUSE: Duration = Duration::from_millis(200);
/// An answer that takes longer never comes: a launcher forks in less than a millisecond.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Where a join token may be given to the daemon.
const JOIN_TOKEN_VARIABLE: &str = "GOTGAN_JOIN_TOKEN";

/// Why a shim could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The launcher says so.
    #[error("cannot start the shim: {0}")]
    Refused(String),
    /// The launcher is not there.
    #[error("cannot start the shim: the launcher is gone")]
    Gone,
    /// The launcher hangs.
    #[error("cannot start the shim: the launcher does not answer")]
    Silent,
}

/// Version of the protocol that a shim's program speaks, by its own word.
///
/// # Errors
/// The program cannot be started.
pub fn protocol_of(shim: &Path) -> std::io::Result<u32> {
    let mut command = std::process::Command::new(shim);
    command.arg("--version").env_remove(JOIN_TOKEN_VARIABLE);
    let said = command.stdin(Stdio::null()).stderr(Stdio::null()).output()?.stdout;
    Ok(protocol_said(&String::from_utf8_lossy(&said)))
}

fn protocol_said(version: &str) -> u32 {
    let said = version.trim().rsplit_once("protocol ").map(|(_, number)| number.parse());
    said.and_then(Result::ok).unwrap_or(UNSAID)
}

type Answer = oneshot::Sender<Result<(), LaunchError>>;

/// A shim that somebody wants.
#[derive(Debug)]
struct Request {
    directory: String,
    /// As the launcher reads it.
    line: Vec<u8>,
    answer: Answer,
}

/// Handle to the launcher.
#[derive(Clone, Debug)]
pub struct Launcher {
    requests: mpsc::Sender<Request>,
}

impl Launcher {
    /// Starts the launcher and the task that looks after it.
    ///
    /// `open_files` is how many open files tasks may have; `None` leaves that as it is.
    pub fn start(shim: &Path, open_files: Option<u64>) -> std::io::Result<Self> {
        let program = Program { path: shim.to_owned(), open_files };
        let running = Running::spawn(&program)?;
        let (requests, inbox) = mpsc::channel(QUEUE);
        tokio::spawn(look_after(program, running, inbox));
        Ok(Self { requests })
    }

    /// Starts the shim of a directory, unless one was ever started for it.
    pub async fn launch(&self, launch: Launch) -> Result<(), LaunchError> {
        let line = serde_json::to_vec(&launch);
        let mut line = line.map_err(|error| LaunchError::Refused(error.to_string()))?;
        line.push(b'\n');
        let (answer, answered) = oneshot::channel();
        let request = Request { directory: launch.directory, line, answer };
        self.requests.send(request).await.map_err(|_| LaunchError::Gone)?;
        let answered = tokio::time::timeout(ANSWER_LIMIT, answered).await;
        answered.map_err(|_| LaunchError::Silent)?.map_err(|_| LaunchError::Gone)?
    }
}

struct Program {
    path: PathBuf,
    open_files: Option<u64>,
}

impl Program {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.arg("--launcher").stdin(Stdio::piped()).stdout(Stdio::piped());
        command.args(self.open_files.map(|count| count.to_string()));
        // The daemon's environment may hold a join token: it is nothing for what lives as long as jobs.
        command.env_remove(JOIN_TOKEN_VARIABLE);
        // A Ctrl-C for the daemon is not for the launcher: it ends with its input, and not in the middle of a start.
        command.process_group(0);
        command
    }
}

struct Running {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// By directory.
    waiting: HashMap<String, Request>,
    /// Requests not written yet. Writing must not wait for reading: the launcher does one after the other.
    unsent: VecDeque<u8>,
}

impl Running {
    fn spawn(program: &Program) -> std::io::Result<Self> {
        let mut child = program.command().spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(std::io::Error::other("the launcher has no pipes"));
        };
        let output = BufReader::new(output).lines();
        let (waiting, unsent) = (HashMap::new(), VecDeque::new());
        Ok(Self { _child: child, input, output, waiting, unsent })
    }

    /// Asks what an earlier launcher has left unanswered: asking twice starts once.
    fn asking_again(mut self, waiting: HashMap<String, Request>) -> Self {
        waiting.into_values().for_each(|request| self.ask(request));
        self
    }

    fn ask(&mut self, request: Request) {
        self.unsent.extend(&request.line);
        self.waiting.insert(request.directory.clone(), request);
    }

    /// Who asked is gone if the attempt was dropped meanwhile; then nobody needs the answer.
    fn answered(&mut self, line: &str) {
        let (directory, result) = match serde_json::from_str(line) {
            Ok(Launched::Started(directory) | Launched::Already(directory)) => (directory, Ok(())),
            Ok(Launched::Failed(directory, why)) => (directory, Err(LaunchError::Refused(why))),
            Err(error) => return tracing::warn!(%error, "the launcher talks garbage"),
        };
        if let Some(request) = self.waiting.remove(&directory) {
            let _ = request.answer.send(result);
        }
    }

    /// Serves until the launcher dies (true) or nobody can ask any more (false).
    async fn serve(&mut self, inbox: &mut mpsc::Receiver<Request>) -> bool {
        loop {
            let unsent = self.unsent.as_slices().0;
            tokio::select! {
                request = inbox.recv() => match request {
                    None => return false,
                    Some(request) => self.ask(request),
                },
                written = self.input.write(unsent), if !unsent.is_empty() => match written {
                    Ok(count) => drop(self.unsent.drain(..count)),
                    Err(_) => return true,
                },
                line = self.output.next_line() => match line {
                    Ok(Some(line)) => self.answered(&line),
                    Ok(None) | Err(_) => return true,
                },
            }
        }
    }
}

async fn look_after(program: Program, mut running: Running, mut inbox: mpsc::Receiver<Request>) {
    while running.serve(&mut inbox).await {
        tracing::warn!("the launcher of shims has died and is started again");
        let mut waiting = running.waiting;
        running = loop {
            tokio::time::sleep(RESTART_PAUSE).await;
            // Who asked and waited too long is gone.
            waiting.retain(|_, request| !request.answer.is_closed());
            match Running::spawn(&program) {
                Ok(fresh) => break fresh.asking_again(waiting),
                Err(error) => {
                    tracing::error!(%error, shim = %program.path.display(), "cannot start the launcher");
                }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::shim::protocol::ShimSpec;

    #[test]
    fn a_shim_says_what_it_speaks_and_those_that_do_not_speak_the_first() {
        assert_eq!(protocol_said("gotgan-shim 1.4.0, protocol 12\n"), 12);
        assert_eq!(protocol_said("gotgan-shim 0.1.0\n"), 1);
        assert_eq!(protocol_said(""), 1);
    }

    #[tokio::test]
    async fn who_asked_a_launcher_that_died_is_answered_by_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("mark");
        let program = directory.path().join("launcher");
        let text = format!(
            "#!/bin/sh\nread -r line\n[ -e {mark} ] || {{ : > {mark}; exit 1; }}\n\
             echo '{{\"already\":\"/state/attempts/7.1\"}}'\nread -r line\n",
            mark = mark.display()
        );
        // Under another name first: a program that is open for writing cannot be run.
        let fresh = directory.path().join("fresh");
        std::fs::write(&fresh, text).unwrap();
        std::fs::set_permissions(&fresh, PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::rename(fresh, &program).unwrap();
        let launcher = Launcher::start(&program, None).unwrap();
        let directory = "/state/attempts/7.1".to_owned();
        launcher.launch(Launch { directory, spec: ShimSpec::default() }).await.unwrap();
        assert!(mark.exists());
    }
}
