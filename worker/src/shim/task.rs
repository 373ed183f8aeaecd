//! Starting one task: find the program, open its outputs, fork and exec; and saying clearly why it could not be.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::protocol::{Exit, StepSpec, TaskSpec};

/// Exit code of a task whose program or directory is not there; a shell says the same.
const NOT_FOUND: i32 = 127;
/// Exit code of a task that may not be executed, or whose output may not be written.
const NOT_STARTED: i32 = 126;
/// Times a program is tried that somebody still writes to, 10 ms apart.
const BUSY_TRIES: u32 = 20;

/// A task that could not be started: the exit it counts as, and why.
#[derive(Debug)]
pub struct Failure {
    /// 126 or 127.
    pub exit: Exit,
    /// One line.
    pub detail: String,
}

/// Where a task's output is found, whatever file the user has named.
pub fn output_path(attempt: &Path, step: u32, rank: u32, stream: &str) -> PathBuf {
    attempt.join(format!("step-{step}")).join(format!("rank-{rank}.{stream}"))
}

/// The file that says how a task ended; it is there once nothing more is written to its output by the task itself.
pub fn exit_path(attempt: &Path, step: u32, rank: u32) -> PathBuf {
    output_path(attempt, step, rank, "exit")
}

/// Starts a task in a process group of its own and returns its process id.
pub fn start(attempt: &Path, step: &StepSpec, task: &TaskSpec) -> Result<i32, Failure> {
    let place = Path::new(&task.directory);
    let stdout = open_output(attempt, step.step, task, "stdout", &task.stdout)?;
    let mut stderr = open_output(attempt, step.step, task, "stderr", &task.stderr)?;
    let started = find_and_spawn(step, task, place, stdout, &stderr);
    started.inspect_err(|failure| {
        // Its user looks there first; if even this fails, the detail of the report remains.
        let _ = writeln!(stderr, "gotgan: {}", failure.detail);
    })
}

fn find_and_spawn(
    step: &StepSpec,
    task: &TaskSpec,
    place: &Path,
    stdout: File,
    stderr: &File,
) -> Result<i32, Failure> {
    if !place.is_dir() {
        let detail = format!("working directory {} does not exist", place.display());
        return Err(not_found(detail));
    }
    let mut environment = step.environment.clone();
    environment.extend(task.environment.clone());
    let argv = if task.argv.is_empty() { &step.argv } else { &task.argv };
    let (program, arguments) =
        argv.split_first().ok_or_else(|| not_found("no program given".into()))?;
    let path = find_program(program, place, environment.get("PATH").map_or("", String::as_str))?;
    let mut command = Command::new(&path);
    // The path is absolute and the environment complete: this lets the library use vfork instead of fork.
    command.arg0(program).args(arguments).env_clear().envs(&environment).current_dir(place);
    command.stdin(Stdio::null()).stdout(stdout).process_group(0);
    let stderr = stderr.try_clone().map_err(|error| not_started("standard error", &error))?;
    command.stderr(stderr);
    spawn(&mut command, &path)
}

fn spawn(command: &mut Command, path: &Path) -> Result<i32, Failure> {
    for _ in 0..BUSY_TRIES {
        match command.spawn() {
            Ok(child) => return Ok(i32::try_from(child.id()).unwrap_or(i32::MAX)),
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let detail = format!("the interpreter named in {} does not exist", path.display());
                return Err(not_found(detail));
            }
            Err(error) => return Err(not_started(&path.display().to_string(), &error)),
        }
    }
    Err(not_started(&path.display().to_string(), &io::ErrorKind::ExecutableFileBusy.into()))
}

/// As `execvp` looks for it, with relative paths seen from the task's directory.
fn find_program(program: &str, place: &Path, search: &str) -> Result<PathBuf, Failure> {
    if program.contains('/') {
        let path = place.join(program);
        return match fs::metadata(&path) {
            Ok(_) => Ok(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(not_found(format!("program {} does not exist", path.display())))
            }
            Err(error) => Err(not_started(&path.display().to_string(), &error)),
        };
    }
    let candidates = search.split(':').map(|directory| place.join(directory).join(program));
    let found = candidates.clone().find(|path| is_executable(path)).or_else(|| {
        // One that is there but not executable gives the better error.
        candidates.clone().find(|path| path.is_file())
    });
    found.ok_or_else(|| not_found(format!("program {program} was not found in PATH ({search})")))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Opens an output for appending: what several writers add is never cut or overwritten. A file of the user's is
/// linked from the place where the worker looks for it.
fn open_output(
    attempt: &Path,
    step: u32,
    task: &TaskSpec,
    stream: &str,
    wanted: &str,
) -> Result<File, Failure> {
    let kept = output_path(attempt, step, task.rank, stream);
    let path = if wanted.is_empty() { kept.clone() } else { PathBuf::from(wanted) };
    let open = || {
        if !wanted.is_empty() {
            std::os::unix::fs::symlink(&path, &kept)?;
        }
        open_without_waiting(&path)
    };
    open().map_err(|error| not_started(&format!("output {}", path.display()), &error))
}

/// A pipe nobody reads is an error at once: waiting for a reader would hold up the whole attempt and its end.
fn open_without_waiting(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o644).custom_flags(OFlag::O_NONBLOCK.bits());
    let file = options.open(path).map_err(|error| match error.raw_os_error() {
        Some(code) if code == Errno::ENXIO as i32 => {
            io::Error::other("it is a pipe that nobody reads, or no device is there")
        }
        _ => error,
    })?;
    // The task itself writes as it is used to.
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
    Ok(file)
}

fn not_found(detail: String) -> Failure {
    Failure { exit: Exit::code(NOT_FOUND), detail }
}

fn not_started(what: &str, error: &io::Error) -> Failure {
    Failure { exit: Exit::code(NOT_STARTED), detail: format!("cannot start: {what}: {error}") }
}
