//! Tries the runtime once for real: by the shim's program, in a room like an attempt's, with the files of the node.
//!
//! Whatever is made here is gone when it ends.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::cdi::Edits;
use super::mounts::MountRule;
use super::runtime::Runtime;
use super::spec::{ContainerSpec, RuntimeSpec, Way};
use crate::confine::ask;
use crate::confine::spec::{Confinement, Namespaces, PrivateTmp, UnixUser};
use crate::shim::grip::Grip;
use crate::shim::protocol::{StepSpec, TaskSpec};
use crate::shim::task;

/// Who nobody is on every system.
const NOBODY: u32 = 65_534;
/// Of the node, what its programs need.
const OF_THE_NODE: [&str; 5] = ["/usr", "/bin", "/lib", "/lib64", "/nix"];
/// Tells where a process is, and is on every system.
const ARGV: [&str; 2] = ["/bin/cat", "/proc/self/cgroup"];

/// What is asked of the shim's program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Question {
    /// The runtime's program.
    pub program: PathBuf,
}

/// What it answers: the runtime with its version for people, or why it cannot be used.
pub type Answer = Result<(Runtime, String), String>;

/// The worker's side: asks.
pub fn ask(shim: &Path, program: &Path) -> Answer {
    let question = Question { program: program.to_owned() };
    ask::ask(shim, "--probe-images", &question)
        .unwrap_or_else(|error| Err(format!("cannot try {}: {error}", program.display())))
}

/// The shim's side: has one thread, and may fork.
pub fn look(question: &Question) -> Answer {
    let (runtime, words) = identify(&question.program)?;
    let place = std::env::temp_dir().join(format!("gotgan-images-{}", std::process::id()));
    let tried = make_place(&place)
        .map_err(|error| format!("{}: {error}", place.display()))
        .and_then(|()| try_out(&runtime, &place));
    // Nothing of it is worth more than a try.
    let _ = fs::remove_dir_all(&place);
    tried.map_err(|why| format!("{words} was tried and failed: {why}"))?;
    Ok((runtime, words))
}

fn identify(program: &Path) -> Answer {
    let asked = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let asked = asked.map_err(|error| format!("{}: {error}", program.display()))?;
    Runtime::of_version(program, &String::from_utf8_lossy(&asked.stdout))
}

fn make_place(place: &Path) -> io::Result<()> {
    // Fails where somebody else has put something.
    fs::DirBuilder::new().mode(0o755).create(place)?;
    // The image is empty but for what makes it one.
    fs::create_dir_all(place.join("image/etc"))?;
    fs::create_dir_all(place.join("work"))?;
    fs::create_dir_all(place.join("step-0"))
}

fn try_out(runtime: &Runtime, place: &Path) -> Result<(), String> {
    std::env::set_current_dir(place).map_err(|error| error.to_string())?;
    let mut grip = Grip::take(&confinement()).map_err(|error| error.to_string())?;
    grip.contain(Some(container(runtime, place)));
    let result = run(&grip, place);
    grip.kill();
    result
}

/// The place is below `/tmp` and must be seen.
fn confinement() -> Confinement {
    let user = UnixUser {
        name: "nobody".into(),
        uid: NOBODY,
        gid: NOBODY,
        groups: vec![NOBODY],
        home: "/".into(),
        shell: String::new(),
    };
    let namespaces = Some(Namespaces { tmp: PrivateTmp::Shared });
    Confinement { namespaces, user: Some(user), ..Confinement::default() }
}

fn container(runtime: &Runtime, place: &Path) -> ContainerSpec {
    let rule = |path: &str| MountRule::Path { path: path.into(), read_only: true };
    ContainerSpec {
        image: place.join("image"),
        image_roots: vec![place.to_owned()],
        way: Way::Runtime(RuntimeSpec {
            runtime: runtime.clone(),
            name: format!("gotgan-try-{}", std::process::id()),
            directory: place.to_owned(),
            work: place.join("work"),
            script: None,
            authority: None,
            mounts: OF_THE_NODE.into_iter().map(rule).collect(),
            gpus: Edits::default(),
        }),
    }
}

/// Runs a program that tells in which cgroup it is: it must be that of who started it.
fn run(grip: &Grip, place: &Path) -> Result<(), String> {
    let task =
        TaskSpec { directory: place.join("work").display().to_string(), ..TaskSpec::default() };
    let argv = ARGV.map(str::to_owned).to_vec();
    let step = StepSpec { argv, tasks: vec![task.clone()], ..StepSpec::default() };
    let attempt = Path::new(".");
    let pid = task::start(attempt, &step, &task, grip).map_err(|failure| failure.detail)?;
    let ended = waitpid(Pid::from_raw(pid), None).map_err(|error| error.to_string())?;
    if ended != WaitStatus::Exited(Pid::from_raw(pid), 0) {
        let failure = task::take_failure(attempt, step.step, task.rank);
        return Err(failure.map_or_else(|| format!("{ended:?}"), |failure| failure.detail));
    }
    let said = fs::read_to_string(task::output_path(attempt, 0, 0, "stdout"));
    let own = fs::read_to_string("/proc/self/cgroup");
    match (said, own) {
        (Ok(said), Ok(own)) if said == own => Ok(()),
        (Ok(said), Ok(_)) => {
            Err(format!("it moves jobs out of their cgroup, to {}", said.trim().replace('\n', " ")))
        }
        (Err(error), _) | (_, Err(error)) => Err(error.to_string()),
    }
}
