//! What a worker and a shim say to each other: one line of JSON a message.
//!
//! A shim may be weeks older than the worker that finds it again, and after a step back younger. So fields are added with
//! a default and never removed or given another meaning; whoever hears of something that is newer than itself passes it
//! over ([`EventLine::read`], [`ShimCommand::read`]). What must not be passed over, such as another way of confining,
//! raises [`VERSION`]: a shim starts nothing on orders newer than itself.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::confine::spec::Confinement;
use crate::container::spec::ContainerSpec;

/// Version of these messages.
pub const VERSION: u32 = 3;
/// Version of shims that do not say theirs.
pub const UNSAID: u32 = 1;
/// Name of the socket in the attempt's directory; binding it is what makes a shim the only one.
pub const SOCKET: &str = "shim.sock";
/// Where workers of the second version and before left what a shim is to do; it removes the file once read, since the
/// environment in it holds the job's token. Later ones give it to the launcher, as a [`Launch`].
pub const SPEC: &str = "spec.json";
/// Everything that happened, one [`EventLine`] a line, in order.
pub const EVENTS: &str = "events";
/// Longest line either side accepts: a step's tasks with an environment of the largest size each.
pub const LINE_MAX_BYTES: usize = 64 << 20;

/// All that a shim needs to know when it begins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShimSpec {
    /// [`VERSION`] of the worker that wrote it.
    pub version: u32,
    /// Time the attempt may run, from its start; 0: without end.
    pub time_limit_ms: u64,
    /// Between TERM and KILL when the shim itself decides to stop.
    pub grace_ms: u64,
    /// Sent before the end, if wanted.
    pub warning: Option<Warning>,
    /// Step 0 is a script: when it ends, everything else ends.
    pub batch: bool,
    /// Tasks of step 0 on this node, perhaps none.
    pub step: StepSpec,
    /// What confines it; nothing does if the worker is older than this.
    #[serde(default)]
    pub confinement: Confinement,
    /// The image that its tasks run in, if it has one.
    #[serde(default)]
    pub container: Option<ContainerSpec>,
}

/// One line of a launcher's input: a shim to be started. A line that is no object is the directory alone, with the orders
/// in [`SPEC`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// The attempt's directory, absolute.
    pub directory: String,
    /// What it is to do.
    pub spec: ShimSpec,
}

/// Takes the orders that a worker has left in the attempt's directory.
///
/// # Errors
/// There are none that can be read.
pub fn take_spec(attempt: &Path) -> io::Result<ShimSpec> {
    let path = attempt.join(SPEC);
    let spec = serde_json::from_slice(&std::fs::read(&path)?)?;
    // What cannot be removed is readable by the attempt's own user alone.
    let _ = std::fs::remove_file(path);
    Ok(spec)
}

/// A signal ahead of the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Warning {
    /// Signal number.
    pub signal: i32,
    /// How long before the end.
    pub ahead_ms: u64,
    /// To the script's own process alone.
    pub batch_only: bool,
}

/// Tasks of one step on this node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepSpec {
    /// Number of the step.
    pub step: u32,
    /// Environment that its tasks share.
    pub environment: BTreeMap<String, String>,
    /// Program and arguments that its tasks share.
    #[serde(default)]
    pub argv: Vec<String>,
    /// Why none of the tasks can be started; empty if they can.
    #[serde(default)]
    pub refused: String,
    /// The tasks.
    pub tasks: Vec<TaskSpec>,
}

/// One process to start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Rank in the step.
    pub rank: u32,
    /// Program and arguments; empty: those of the step.
    #[serde(default)]
    pub argv: Vec<String>,
    /// On top of the step's environment.
    pub environment: BTreeMap<String, String>,
    /// Working directory, absolute.
    pub directory: String,
    /// File for standard output; empty: kept in the attempt's directory.
    pub stdout: String,
    /// The same for standard error.
    pub stderr: String,
}

/// From the worker to the shim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShimCommand {
    /// First line of a connection: send events from this number on.
    Hello {
        /// Version of the worker.
        version: u32,
        /// Number of the first event wanted.
        from: u64,
    },
    /// Start tasks; those already started are left alone.
    StartTasks(StepSpec),
    /// End everything.
    Stop {
        /// Cause to report, by its number in the API.
        cause: i32,
        /// For a person.
        reason: String,
        /// Between TERM and KILL.
        grace_ms: u64,
        /// Whether the warning signal is sent first.
        warn: bool,
    },
}

/// From the shim to the worker, and into the file of events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventLine {
    /// Counts from 1.
    pub n: u64,
    /// When it happened, Unix microseconds.
    pub at_us: i64,
    /// What happened.
    pub event: ShimEvent,
}

impl EventLine {
    /// Of one line of a shim; `None` for what only a newer worker understands.
    ///
    /// # Errors
    /// What is no line of a shim at all, such as one that was not written whole.
    pub fn read(line: &[u8]) -> serde_json::Result<Option<Self>> {
        known(serde_json::from_slice(line))
    }
}

impl ShimCommand {
    /// Of one line of a worker; `None` for what only a newer shim understands.
    ///
    /// # Errors
    /// What is no line of a worker at all.
    pub fn read(line: &[u8]) -> serde_json::Result<Option<Self>> {
        known(serde_json::from_slice(line))
    }
}

/// What is whole but not understood is newer.
fn known<T>(read: serde_json::Result<T>) -> serde_json::Result<Option<T>> {
    match read {
        Ok(known) => Ok(Some(known)),
        Err(error) if error.is_data() => Ok(None),
        Err(error) => Err(error),
    }
}

fn unsaid() -> u32 {
    UNSAID
}

/// What a shim reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShimEvent {
    /// The shim is at work.
    Started {
        /// Its process id.
        pid: i32,
        /// Its start time in clock ticks since boot, which tells it from a later process of the same id.
        start_ticks: u64,
        /// The cgroup of what it starts, if it makes one: for whoever clears up behind it.
        #[serde(default)]
        cgroup: Option<PathBuf>,
        /// [`VERSION`] of the shim.
        #[serde(default = "unsaid")]
        version: u32,
    },
    /// A process is there.
    TaskStarted {
        /// Step of the task.
        step: u32,
        /// Rank in the step.
        rank: u32,
        /// Process id, which is also its process group.
        pid: i32,
    },
    /// A process has ended, or could not be started.
    TaskEnded {
        /// Step of the task.
        step: u32,
        /// Rank in the step.
        rank: u32,
        /// How.
        exit: Exit,
        /// What kept it from starting, or ended it from outside.
        detail: String,
    },
    /// What is left of it does not die: nothing new may start on this node until a person has looked.
    Unfit {
        /// For a person.
        reason: String,
    },
    /// Nothing is left, or it was given up; the last event.
    Ended {
        /// Why.
        ending: Ending,
        /// For a person.
        reason: String,
        /// Of the script or the first task of step 0 that failed.
        exit: Exit,
    },
}

/// How a process ended: by `signal` unless 0, else with `code`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code.
    pub code: i32,
    /// Signal number.
    pub signal: i32,
}

impl Exit {
    /// An exit with a code.
    pub fn code(code: i32) -> Self {
        Self { code, signal: 0 }
    }

    /// Whether this counts as success.
    pub fn is_success(self) -> bool {
        self == Self::default()
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.signal {
            0 => write!(out, "exited with code {}", self.code),
            signal => write!(out, "was ended by signal {signal}"),
        }
    }
}

/// Why an attempt ended on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Its tasks ended by themselves.
    Own,
    /// Its time was over.
    Limit,
    /// Its memory was out, by the kernel's own word.
    OutOfMemory,
    /// It was told to stop; the cause's number in the API.
    Stopped(i32),
}
