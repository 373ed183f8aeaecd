//! The process that forks shims.
//!
//! A worker is large and has threads: forking it is slow and starting a program from it for every attempt is slower.
//! The launcher is small, has one thread, and has already done all that a starting program does, so that a shim
//! costs one fork. It reads the directory of an attempt and its orders from each line of its input and answers with one
//! line; it ends with its input. The shims it forked do not notice.

use std::io::{self, BufRead, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};
use serde::{Deserialize, Serialize};

use super::protocol::{self, Launch, SOCKET, ShimSpec};
use crate::limits;

/// The launcher's answer to one line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Launched {
    /// A shim is there and can be connected to.
    Started(String),
    /// A shim was started for this directory before.
    Already(String),
    /// It cannot be started.
    Failed(String, String),
}

/// Forks a shim for every line of standard input until it ends. Tasks may have `open_files` open files each, if it
/// is given: the daemon itself may have more.
pub fn serve(open_files: Option<u64>) -> io::Result<()> {
    if let Some(count) = open_files {
        limits::set_open_files(count)?;
    }
    set_child_signal(SigHandler::SigIgn)?;
    let mut answers = io::stdout();
    for line in io::stdin().lock().lines() {
        let mut answer = serde_json::to_string(&obey(&line?))?;
        answer.push('\n');
        answers.write_all(answer.as_bytes())?;
        answers.flush()?;
    }
    Ok(())
}

fn obey(line: &str) -> Launched {
    if !line.starts_with('{') {
        return launch(line, None);
    }
    match serde_json::from_str(line) {
        Ok(Launch { directory, spec }) => launch(&directory, Some(spec)),
        Err(error) => Launched::Failed(directory_in(line), format!("its orders: {error}")),
    }
}

/// Of a line that cannot be obeyed; empty if there is none.
fn directory_in(line: &str) -> String {
    let fields = serde_json::from_str::<serde_json::Value>(line).unwrap_or_default();
    fields["directory"].as_str().unwrap_or_default().to_owned()
}

fn launch(directory: &str, spec: Option<ShimSpec>) -> Launched {
    match bind(directory) {
        Ok(listener) => match fork_shim(listener, spec) {
            Ok(()) => Launched::Started(directory.into()),
            Err(error) => {
                // The place is free again: a shim can still be started there, or declared not to be.
                let _ = std::fs::remove_file(SOCKET);
                Launched::Failed(directory.into(), format!("cannot fork: {error}"))
            }
        },
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Launched::Already(directory.into())
        }
        Err(error) => Launched::Failed(directory.into(), error.to_string()),
    }
}

/// Takes the attempt's place with a socket that listens already: another daemon may look for it at any moment, and one that
/// is there and refuses is a dead shim's. By relative names: the path of a socket may have no more than 107 bytes.
fn bind(directory: &str) -> io::Result<UnixListener> {
    std::env::set_current_dir(directory)?;
    let fresh = format!("{SOCKET}.{}", std::process::id());
    // One that was killed in the middle of this may have had the same number.
    let _ = std::fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    let placed = std::fs::hard_link(&fresh, SOCKET);
    let _ = std::fs::remove_file(&fresh);
    placed.map(|()| listener)
}

#[expect(unsafe_code, reason = "the launcher has one thread, so its child may do anything")]
fn fork_shim(listener: UnixListener, spec: Option<ShimSpec>) -> nix::Result<()> {
    // SAFETY: no other thread exists in this process.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => Ok(()),
        ForkResult::Child => std::process::exit(i32::from(detach_and_run(listener, spec).is_err())),
    }
}

/// Leaves the worker's session and files behind, then runs the shim in the current directory.
fn detach_and_run(listener: UnixListener, spec: Option<ShimSpec>) -> io::Result<()> {
    setsid()?;
    set_child_signal(SigHandler::SigDfl)?;
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    let attempt = Path::new(".");
    let spec = spec.map_or_else(|| protocol::take_spec(attempt), Ok)?;
    super::run(attempt, listener, spec)
}

/// Ignored in the launcher, which lets the kernel wait for dead shims; normal in a shim, which waits itself.
#[expect(unsafe_code, reason = "no handler runs: only ignored and default are set")]
fn set_child_signal(handler: SigHandler) -> nix::Result<()> {
    // SAFETY: neither SIG_IGN nor SIG_DFL runs code of ours.
    unsafe { signal(Signal::SIGCHLD, handler) }.map(drop)
}
