//! Runs one hook: in a process group of its own, with a limit, and with no more of its output kept than its end.

use std::collections::BTreeMap;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};

use super::Hook;

/// Bytes of output that are kept, from its end.
const KEPT_BYTES: usize = 4 << 10;
/// Most of a line that becomes a reason.
const LINE_MAX_CHARS: usize = 300;
/// How long output is awaited of a program that has ended: what it left running may hold it open for ever.
const LAST_OUTPUT: Duration = Duration::from_millis(200);
/// Passed on from the daemon's environment.
const PASSED_ON: [&str; 3] = ["PATH", "LANG", "TZ"];

pub(super) async fn run(hook: &Hook, about: BTreeMap<String, String>) -> Result<(), String> {
    let name = format!("{} {}", hook.kind.word(), hook.program.display());
    let started = spawn(hook, about).map_err(|error| format!("{name} cannot start: {error}"));
    let (mut child, output) = started?;
    let mut said = Tail::default();
    let ended = follow(&mut child, output, &mut said, hook.timeout).await;
    let Some(status) = ended else {
        kill_group(&child);
        // Killed: it is waited for, so that nothing of it is left.
        let _ = child.wait().await;
        let seconds = hook.timeout.as_secs();
        return Err(said.behind(&format!("{name} did not end in {seconds} s and was killed")));
    };
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(said.behind(&format!("{name} failed ({status})"))),
        Err(error) => Err(format!("{name}: {error}")),
    }
}

/// The program, and both of its outputs as one.
fn spawn(hook: &Hook, about: BTreeMap<String, String>) -> std::io::Result<(Child, Receiver)> {
    let (output, writer) = std::io::pipe()?;
    let mut command = Command::new(&hook.program);
    let passed = PASSED_ON.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    command.env_clear().envs(passed).envs(about).env("GOTGAN_HOOK", hook.kind.word());
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let child = command.current_dir("/").process_group(0).spawn()?;
    Ok((child, Receiver::from_owned_fd(output.into())?))
}

/// Reads what it says until it ends; `None` if it does not in time.
async fn follow(
    child: &mut Child,
    mut output: Receiver,
    said: &mut Tail,
    limit: Duration,
) -> Option<std::io::Result<ExitStatus>> {
    let end = tokio::time::sleep(limit);
    tokio::pin!(end);
    let mut open = true;
    let status = loop {
        tokio::select! {
            more = said.read(&mut output), if open => open = more,
            status = child.wait() => break status,
            () = &mut end => return None,
        }
    };
    let rest = async { while open && said.read(&mut output).await {} };
    // What holds it open longer has nothing to say of the hook.
    let _ = tokio::time::timeout(LAST_OUTPUT, rest).await;
    Some(status)
}

fn kill_group(child: &Child) {
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // It is gone if this fails.
        let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
    }
}

/// The end of what was said.
#[derive(Debug, Default)]
struct Tail(Vec<u8>);

impl Tail {
    /// Reads once; whether there may be more.
    async fn read(&mut self, from: &mut Receiver) -> bool {
        let mut part = [0; KEPT_BYTES];
        let count = from.read(&mut part).await.unwrap_or(0);
        self.0.extend_from_slice(&part[..count]);
        let surplus = self.0.len().saturating_sub(KEPT_BYTES);
        self.0.drain(..surplus);
        count > 0
    }

    /// A sentence, and behind it the last line that was said.
    fn behind(&self, sentence: &str) -> String {
        let text = String::from_utf8_lossy(&self.0);
        let last = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
        let Some(last) = last else { return sentence.to_owned() };
        let shown = last.chars().map(|c| if c.is_control() { ' ' } else { c });
        format!("{sentence}: {}", shown.take(LINE_MAX_CHARS).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::hooks::Kind;

    async fn outcome(script: &str, limit: Duration) -> Result<(), String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hook");
        let fresh = directory.path().join("fresh");
        std::fs::write(&fresh, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&fresh, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        // Under another name first: a program that is open for writing cannot be run.
        std::fs::rename(&fresh, &path).unwrap();
        let about = BTreeMap::from([("GOTGAN_JOB_ID".to_owned(), "7".to_owned())]);
        let hook = Hook { kind: Kind::Prolog, program: path.clone(), timeout: limit };
        let told = run(&hook, about).await;
        told.map_err(|reason| reason.replace(&path.display().to_string(), "HOOK"))
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn what_ends_well_says_that_the_node_is_fit() {
        outcome("[ \"$GOTGAN_JOB_ID $GOTGAN_HOOK\" = \"7 prolog\" ]", LONG).await.unwrap();
    }

    #[tokio::test]
    async fn what_fails_is_told_with_its_last_line() {
        let told = outcome("echo fine; echo 'GPU 3 is dirty' >&2; echo; exit 4", LONG).await;
        assert_eq!(told.unwrap_err(), "prolog HOOK failed (exit status: 4): GPU 3 is dirty");
    }

    #[tokio::test]
    async fn what_hangs_is_killed_with_all_it_started() {
        let told = outcome("sleep 1000 & echo waiting; wait", Duration::from_secs(1)).await;
        assert_eq!(told.unwrap_err(), "prolog HOOK did not end in 1 s and was killed: waiting");
    }

    #[tokio::test]
    async fn what_leaves_something_running_is_not_waited_for() {
        outcome("(trap '' HUP; sleep 1000) & exit 0", LONG).await.unwrap();
    }

    #[tokio::test]
    async fn what_says_more_than_is_kept_is_told_with_its_end() {
        let told = outcome("head -c 1000000 /dev/zero; echo; echo last; exit 1", LONG).await;
        assert_eq!(told.unwrap_err(), "prolog HOOK failed (exit status: 1): last");
    }
}
