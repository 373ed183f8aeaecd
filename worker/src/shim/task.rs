//! Starting one task: find the program, open its outputs, fork and exec; and saying clearly why it could not be.

use std::convert::Infallible;
use std::ffi::{CStr, CString, NulError};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, execve, setpgid};
use serde::{Deserialize, Serialize};

use super::container::{self, Contained};
use super::grip::Grip;
use super::protocol::{Exit, StepSpec, TaskSpec};
use crate::confine::kernel;

/// Exit code of a task whose program or directory is not there; a shell says the same.
const NOT_FOUND: i32 = 127;
/// Exit code of a task that may not be executed, or whose output may not be written.
const NOT_STARTED: i32 = 126;
/// Times a program is tried that somebody still writes to, 10 ms apart.
const BUSY_TRIES: u32 = 20;

/// A task that could not be started: the exit it counts as, and why.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failure {
    /// 126 or 127.
    pub exit: Exit,
    /// One line.
    pub detail: String,
    /// It is not its own fault, and may do better on another node.
    #[serde(default)]
    pub of_node: bool,
}

impl Failure {
    /// It may not be started like this.
    pub fn not_started(detail: String) -> Self {
        Self { exit: Exit::code(NOT_STARTED), detail, of_node: false }
    }

    /// What it needs is not there.
    pub fn not_found(detail: String) -> Self {
        Self { exit: Exit::code(NOT_FOUND), detail, of_node: false }
    }

    /// This node cannot start it.
    pub fn of_node(detail: String) -> Self {
        Self { of_node: true, ..Self::not_started(detail) }
    }

    /// For who waits for it.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Cannot fail: numbers and text alone.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What a fork of the shim says before it ends. One that has become its task says nothing.
    fn read_from(line: &mut File) -> Option<Self> {
        let mut word = Vec::new();
        let read = line.read_to_end(&mut word);
        match (read, word.is_empty()) {
            (Ok(_), true) => None,
            (Ok(_), false) => Some(
                serde_json::from_slice(&word)
                    .unwrap_or_else(|error| Self::not_started(format!("cannot start: {error}"))),
            ),
            (Err(error), _) => Some(Self::not_started(format!("cannot start: {error}"))),
        }
    }
}

/// Where a task's output is found, whatever file the user has named.
pub fn output_path(attempt: &Path, step: u32, rank: u32, stream: &str) -> PathBuf {
    attempt.join(format!("step-{step}")).join(format!("rank-{rank}.{stream}"))
}

/// The file that says how a task ended; it is there once nothing more is written to its output by the task itself.
pub fn exit_path(attempt: &Path, step: u32, rank: u32) -> PathBuf {
    output_path(attempt, step, rank, "exit")
}

/// What a container's keeper has said, whose task counted as started; it is taken away.
pub fn take_failure(attempt: &Path, step: u32, rank: u32) -> Option<Failure> {
    let path = failure_path(attempt, step, rank);
    let said = fs::read(&path).ok().filter(|said| !said.is_empty());
    // An empty file is in nobody's way.
    let _ = fs::remove_file(path);
    serde_json::from_slice(&said?).ok()
}

fn failure_path(attempt: &Path, step: u32, rank: u32) -> PathBuf {
    output_path(attempt, step, rank, "failure")
}

/// Starts a task in a process group of its own and returns its process id.
pub fn start(
    attempt: &Path,
    step: &StepSpec,
    task: &TaskSpec,
    grip: &Grip,
) -> Result<i32, Failure> {
    let outputs = Outputs::of(attempt, step.step, task, grip)?;
    let (mut answer, mut to_shim) = pipe().map_err(|error| not_started("pipe", &error))?;
    match grip.fork().map_err(|error| not_started("fork", &error.into()))? {
        ForkResult::Child => {
            drop(answer);
            let failure = become_task(attempt, step, task, grip, outputs);
            // If the shim is gone nobody waits for the word.
            let _ = to_shim.write_all(&failure.to_bytes());
            std::process::exit(failure.exit.code)
        }
        ForkResult::Parent { child } => {
            drop((to_shim, outputs));
            match Failure::read_from(&mut answer) {
                None => Ok(child.as_raw()),
                Some(failure) => {
                    // It is on its way out, and no task.
                    let _ = waitpid(child, None);
                    Err(failure)
                }
            }
        }
    }
}

/// Both ends are closed when a program is executed, which tells the shim that one is.
fn pipe() -> io::Result<(File, File)> {
    let (reading, writing) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    Ok((reading.into(), writing.into()))
}

/// In the fork: from the shim's copy to the task's program. Returns only what kept it from that.
fn become_task(
    attempt: &Path,
    step: &StepSpec,
    task: &TaskSpec,
    grip: &Grip,
    outputs: Outputs,
) -> Failure {
    let word = failure_path(attempt, step.step, task.rank);
    let begun = go_there(&word, grip).and_then(|contained| {
        let opened = open_as_its_user(outputs, contained.is_some(), grip)?;
        Ok((contained, opened))
    });
    let (contained, (stdout, mut stderr)) = match begun {
        Ok(begun) => begun,
        Err(failure) => return failure,
    };
    let kept = stderr.try_clone();
    let failure = match (stand_in(&stdout, &stderr), contained) {
        (Ok(()), Some(contained)) => contained.run(step, task, grip),
        (Ok(()), None) => execute(step, task, grip),
        (Err(error), _) => not_started("its files", &error),
    };
    if let Ok(file) = kept {
        stderr = file;
    }
    // Its user looks there first; if even this fails, the detail of the report remains.
    let _ = writeln!(stderr, "gotgan: {}", failure.detail);
    failure
}

/// Where tasks are; as their user already, unless a container is to be made first.
fn go_there<'g>(word: &Path, grip: &'g Grip) -> Result<Option<Contained<'g>>, Failure> {
    let failed =
        |what: &str, why: String| Failure::not_started(format!("cannot start: {what}: {why}"));
    kernel::forget_signals().map_err(|error| failed("signals", error.to_string()))?;
    // The file for its word is opened here, where its name is seen.
    let contained = Contained::of(grip, word)
        .map_err(|error| Failure::of_node(format!("cannot start: its container: {error}")))?;
    let there = match &contained {
        Some(_) => grip.go_there(),
        None => grip.become_one_of_it(),
    };
    there.map_err(|why| failed("confinement", why))?;
    Ok(contained)
}

fn open_as_its_user(
    outputs: Outputs,
    is_contained: bool,
    grip: &Grip,
) -> Result<(File, File), Failure> {
    match is_contained {
        true => grip
            .as_user(|| outputs.open())
            .map_err(|errno| Failure::of_node(format!("cannot start: as its user: {errno}")))?,
        false => outputs.open(),
    }
}

/// Makes these files the standard ones, with nothing to read, and lets no other be inherited.
fn stand_in(stdout: &File, stderr: &File) -> io::Result<()> {
    let null = File::open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(stdout)?;
    dup2_stderr(stderr)?;
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    Ok(kernel::close_on_exec_from(3)?)
}

fn execute(step: &StepSpec, task: &TaskSpec, grip: &Grip) -> Failure {
    match find_and_execute(step, task, grip) {
        Err(failure) => failure,
        Ok(never) => match never {},
    }
}

fn find_and_execute(step: &StepSpec, task: &TaskSpec, grip: &Grip) -> Result<Infallible, Failure> {
    let place = Path::new(&task.directory);
    if let Err(error) = std::env::set_current_dir(place) {
        return Err(no_place(place, &error, grip));
    }
    let mut environment = step.environment.clone();
    environment.extend(task.environment.clone());
    for (name, value) in grip.environment() {
        environment.entry(name.to_owned()).or_insert(value);
    }
    let argv = if task.argv.is_empty() { &step.argv } else { &task.argv };
    let launched = container::launched(argv, task, grip)?;
    let argv = launched.as_ref().unwrap_or(argv);
    let program = argv.first().ok_or_else(|| not_found("no program given".into()))?;
    let path = find_program(program, place, environment.get("PATH").map_or("", String::as_str))?;
    let variables = environment.iter().map(|(name, value)| format!("{name}={value}"));
    let file = CString::new(path.as_os_str().as_encoded_bytes());
    match (file, c_strings(argv.iter().cloned()), c_strings(variables)) {
        (Ok(file), Ok(argv), Ok(environment)) => {
            Err(execute_file(&path, &file, &argv, &environment))
        }
        _ => Err(not_started("its arguments", &io::Error::other("one holds a zero byte"))),
    }
}

fn c_strings(words: impl Iterator<Item = String>) -> Result<Vec<CString>, NulError> {
    words.map(CString::new).collect()
}

fn execute_file(path: &Path, file: &CStr, argv: &[CString], environment: &[CString]) -> Failure {
    for _ in 0..BUSY_TRIES {
        match execve(file, argv, environment) {
            Err(Errno::ETXTBSY) => std::thread::sleep(Duration::from_millis(10)),
            Err(Errno::ENOENT) => {
                let detail = format!("the interpreter named in {} does not exist", path.display());
                return not_found(detail);
            }
            Err(error) => return not_started(&path.display().to_string(), &error.into()),
            Ok(never) => match never {},
        }
    }
    not_started(&path.display().to_string(), &io::ErrorKind::ExecutableFileBusy.into())
}

fn no_place(place: &Path, error: &io::Error, grip: &Grip) -> Failure {
    let shown = place.display();
    match error.kind() {
        io::ErrorKind::NotFound if grip.hides(place) => not_found(format!(
            "working directory {shown} does not exist: on this node /tmp and /dev/shm are each job's own"
        )),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            not_found(format!("working directory {shown} does not exist"))
        }
        _ => not_started(&format!("working directory {shown}"), error),
    }
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

/// The two outputs of a task, each kept in the attempt's directory or in a file that its user has named.
struct Outputs {
    stdout: Output,
    stderr: Output,
}

enum Output {
    /// Open already: the place is the shim's.
    Kept(File),
    /// Opened by the task itself, as its user.
    Named(PathBuf),
}

impl Outputs {
    fn of(attempt: &Path, step: u32, task: &TaskSpec, grip: &Grip) -> Result<Self, Failure> {
        let output = |stream, wanted: &str| {
            let kept = output_path(attempt, step, task.rank, stream);
            let path = if wanted.is_empty() { kept.clone() } else { PathBuf::from(wanted) };
            let made = if wanted.is_empty() { keep(&kept, grip) } else { name(&path, &kept, grip) };
            made.map_err(|error| not_started(&format!("output {}", path.display()), &error))
        };
        let (stdout, stderr) = (output("stdout", &task.stdout)?, output("stderr", &task.stderr)?);
        Ok(Self { stdout, stderr })
    }

    fn open(self) -> Result<(File, File), Failure> {
        Ok((self.stdout.open()?, self.stderr.open()?))
    }
}

impl Output {
    fn open(self) -> Result<File, Failure> {
        match self {
            Output::Kept(file) => Ok(file),
            Output::Named(path) => open_without_waiting(&path)
                .map_err(|error| not_started(&format!("output {}", path.display()), &error)),
        }
    }
}

/// Opened for appending: what several writers add is never cut or overwritten.
fn keep(path: &Path, grip: &Grip) -> io::Result<Output> {
    let file = open_without_waiting(path)?;
    if let Some(user) = grip.user() {
        // Programs open their own output again, by `/dev/stderr`.
        std::os::unix::fs::fchown(&file, Some(user.uid), Some(user.gid))?;
    }
    Ok(Output::Kept(file))
}

/// A file of the user's is linked from the place where the worker looks for it. The link is the user's own where there
/// is one, which tells the worker whose file it may show.
fn name(path: &Path, kept: &Path, grip: &Grip) -> io::Result<Output> {
    if grip.hides(path) {
        let why = "on this node /tmp and /dev/shm are each job's own and end with it";
        return Err(io::Error::other(why));
    }
    std::os::unix::fs::symlink(path, kept)?;
    if let Some(user) = grip.user() {
        std::os::unix::fs::lchown(kept, Some(user.uid), Some(user.gid))?;
    }
    Ok(Output::Named(path.to_owned()))
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
    Failure::not_found(detail)
}

fn not_started(what: &str, error: &io::Error) -> Failure {
    Failure::not_started(format!("cannot start: {what}: {error}"))
}
