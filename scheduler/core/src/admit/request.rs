//! A job as a client asks for it: nothing checked, no default filled in. Mirrors `gotgan.v1.JobSpec`.

use std::collections::BTreeMap;

use crate::spec::{DependencyKind, TaskLayout};

/// What is asked for; a field that a client left out has the type's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobRequest {
    /// Shown in listings; empty: the script's or the command's name.
    pub name: String,
    /// Path of the leaf that pays.
    pub project: String,
    /// What runs; `None` is a fault.
    pub work: Option<WorkRequest>,
    /// What each node gives.
    pub resources: ResourcesRequest,
    /// Where it may run.
    pub constraints: ConstraintsRequest,
    /// Seconds; 0: the site's default.
    pub time_limit_s: i64,
    /// -1000 to 1000.
    pub priority: i32,
    /// At most 64.
    pub dependencies: Vec<DependencyRequest>,
    /// Signal ahead of the end.
    pub warning_signal: Option<WarningSignalRequest>,
    /// `None`: true.
    pub requeue: Option<bool>,
    /// 0 to 10.
    pub max_retries: u32,
    /// At most 256 entries, 128 KiB in all.
    pub environment: BTreeMap<String, String>,
    /// Absolute, or empty.
    pub working_directory: String,
    /// Pattern, or empty.
    pub output_path: String,
    /// Pattern, or empty.
    pub error_path: String,
    /// Stored as held.
    pub hold: bool,
    /// Free text.
    pub comment: String,
    /// 0 to 3600 seconds; `None`: the site's default.
    pub grace_s: Option<u32>,
    /// Runs on what nobody else wants.
    pub scavenger: bool,
    /// Indexes of the tasks of an array, as people write them; empty: one job alone.
    pub array: String,
    /// At most so many tasks of the array at once; 0: as many as fit, or as the array says.
    pub array_limit: u32,
    /// Starts only once no earlier job of the same owner, project and name is left.
    pub singleton: bool,
    /// By when it must have ended; 0: no such moment.
    pub deadline_us: i64,
    /// The same in seconds from its submission; 0: none.
    pub deadline_in_s: i64,
    /// Path of the image that its processes run in; empty: none.
    pub image: String,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkRequest {
    /// Once, on the first node.
    Script(ScriptRequest),
    /// One step over all nodes.
    Command(CommandRequest),
}

/// A script.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScriptRequest {
    /// 1 byte to 1 MiB, first line `#!interpreter`.
    pub text: String,
    /// Given to it.
    pub arguments: Vec<String>,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRequest {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Tasks it starts; `None` if the client sent a number without meaning.
    pub layout: Option<TaskLayout>,
}

/// What each node gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourcesRequest {
    /// 0: 1, or what `gpus_total` needs. Of an elastic job the least.
    pub nodes: u32,
    /// Most nodes of an elastic job; 0: exactly `nodes`.
    pub nodes_max: u32,
    /// Whole GPUs on each node.
    pub gpus_per_node: u32,
    /// Whole GPUs in all.
    pub gpus_total: u32,
    /// Share of one GPU on each node, thousandths.
    pub gpu_share_milli: u32,
    /// Instances of GPUs that are cut, of this profile, in the place of whole GPUs: so many as `gpus_per_node` or
    /// `gpus_total` say, else one on each node. Empty: no instances.
    pub mig_profile: String,
    /// Empty: any one class.
    pub gpu_class: String,
    /// 0: the site's default.
    pub cpu_milli_per_node: u64,
    /// 0: the site's default.
    pub memory_mib_per_node: u64,
    /// The most that each GPU may draw; 0: as the mode says, or the site.
    pub gpu_cap_watts: u32,
    /// Word of the site for that; empty: none.
    pub gpu_power_mode: String,
}

/// Where it may run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConstraintsRequest {
    /// Only these; empty: all.
    pub nodes: Vec<String>,
    /// Never these.
    pub exclude_nodes: Vec<String>,
    /// Labels a node must carry.
    pub labels: BTreeMap<String, String>,
    /// All nodes of one cluster, whichever: the same as `one` with the word of that level.
    pub same_cluster: bool,
    /// Word of the level of which all nodes are in one block; empty: none.
    pub one: String,
    /// Word of the level of which nodes are in as few blocks as possible; empty: none.
    pub prefer: String,
    /// Nodes of each segment; 0: no segments.
    pub segment_nodes: u32,
    /// Word of the level whose blocks segments are inside of; empty: NVLink domains.
    pub segment_level: String,
    /// Name of the reservation by command whose nodes alone it may have; empty: none.
    pub reservation: String,
}

/// A job that must have come so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DependencyRequest {
    /// `None` if the client named none, or one without meaning.
    pub kind: Option<DependencyKind>,
    /// Which job, or which array.
    pub job_id: u64,
    /// Index of the task of that array that is meant alone.
    pub task_index: Option<u32>,
}

/// A signal ahead of the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WarningSignalRequest {
    /// Number.
    pub signal: i32,
    /// Seconds ahead.
    pub ahead_s: u32,
    /// To the script alone.
    pub batch_only: bool,
}
