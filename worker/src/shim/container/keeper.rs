//! The keeper of a container: the process that the shim knows as the task. It has the runtime start the container, is the
//! parent of its process then, waits for it, and ends as that has ended. What it says is in a file, since by then the task
//! counts as started.

use std::convert::Infallible;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::super::task::Failure;
use super::stage::{STATE, failed};
use crate::confine::kernel;
use crate::container::runtime::{Call, Runtime, complaint, explained};

/// What it is called in listings of processes.
const NAME: &CStr = c"gotgan-keeper";
/// What a shell adds to a signal's number.
const SIGNAL_BASE: i32 = 128;

/// What is to be kept.
pub struct Keeper<'a> {
    /// What makes it.
    pub runtime: &'a Runtime,
    /// Its name.
    pub id: String,
    /// The bundle.
    pub place: PathBuf,
    /// Something is to run after it.
    pub last_hook: bool,
    /// The program that is to run in it, for messages.
    pub program: &'a str,
    /// Where that is looked for.
    pub search: &'a str,
}

impl Keeper<'_> {
    /// Keeps it to its end. Returns only what kept it from beginning.
    pub fn keep(&self, word: File) -> Result<Infallible, Failure> {
        // Whom the runtime leaves behind becomes a child of this process.
        prctl::set_child_subreaper(true).map_err(|errno| failed("its keeper")(errno.into()))?;
        prctl::set_name(NAME).map_err(|errno| failed("its keeper")(errno.into()))?;
        // From here on the task counts as started: the shim waits for nothing. An open listener would make a dead shim
        // look alive.
        kernel::close_all_but(word.as_fd()).map_err(|errno| failed("its keeper")(errno.into()))?;
        match self.start() {
            Ok(first) => end_like(self.wait_for(first)),
            Err(failure) => give_up(word, &failure),
        }
    }

    /// Number of the container's process.
    fn start(&self) -> Result<Pid, Failure> {
        let paths = Paths::of(self);
        let status = self.run(self.runtime.start(&paths.call(self)))?;
        if !status.success() {
            return Err(self.not_made(status, &paths));
        }
        let text = fs::read_to_string(&paths.pid_file).map_err(failed("the runtime's answer"))?;
        let pid = text.trim().parse().map_err(|_| {
            Failure::of_node(format!("cannot start: the runtime's answer is {text:?}"))
        })?;
        Ok(Pid::from_raw(pid))
    }

    /// With the files of the task, which the container's process inherits.
    fn run(&self, arguments: Vec<String>) -> Result<ExitStatus, Failure> {
        let mut command = Command::new(&self.runtime.program);
        command.args(arguments).env_clear().env("PATH", crate::container::oci::PATH);
        command.status().map_err(failed(&self.runtime.program.display().to_string()))
    }

    fn not_made(&self, status: ExitStatus, paths: &Paths) -> Failure {
        let log = fs::read_to_string(&paths.log).unwrap_or_default();
        let complaint =
            complaint(&log).unwrap_or_else(|| format!("the runtime ended with {status}"));
        let (words, absent) = explained(&complaint, self.program, self.search);
        match absent {
            true => Failure::not_found(words),
            false => Failure::not_started(format!("cannot start: {words}")),
        }
    }

    /// Buries whoever is left behind meanwhile.
    fn wait_for(&self, first: Pid) -> WaitStatus {
        loop {
            match waitpid(None, None) {
                Ok(ended @ (WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)))
                    if pid == first =>
                {
                    self.run_last_hook();
                    return ended;
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return WaitStatus::Exited(first, 1),
            }
        }
    }

    fn run_last_hook(&self) {
        if self.last_hook {
            let paths = Paths::of(self);
            // The task has ended, however this goes.
            let _ = self.run(self.runtime.delete(&paths.call(self)));
        }
    }
}

struct Paths {
    state: PathBuf,
    log: PathBuf,
    pid_file: PathBuf,
}

impl Paths {
    fn of(keeper: &Keeper<'_>) -> Self {
        let below = |name: &str| keeper.place.join(name);
        Self { state: below(STATE), log: below("log"), pid_file: below("pid") }
    }

    fn call<'a>(&'a self, keeper: &'a Keeper<'_>) -> Call<'a> {
        Call {
            id: &keeper.id,
            bundle: &keeper.place,
            state: &self.state,
            log: &self.log,
            pid_file: &self.pid_file,
        }
    }
}

/// Who reads it knows no container.
fn end_like(ended: WaitStatus) -> ! {
    match ended {
        WaitStatus::Exited(_, code) => std::process::exit(code),
        WaitStatus::Signaled(_, signal, _) => die_of(signal),
        _ => std::process::exit(1),
    }
}

fn die_of(signal: Signal) -> ! {
    // It is the container's process whose memory is worth keeping.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _ = raise(signal);
    std::process::exit(SIGNAL_BASE + signal as i32)
}

/// Also where its user looks first.
fn give_up(mut word: File, failure: &Failure) -> ! {
    let _ = word.write_all(&failure.to_bytes());
    let _ = writeln!(std::io::stderr(), "gotgan: {}", failure.detail);
    std::process::exit(failure.exit.code)
}
