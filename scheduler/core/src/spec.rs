//! What a person asks for: the immutable part of a job.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::amount::{CpuMilli, GpuMilli, MemoryMib, UnixMicros};
use crate::array::ArraySpec;
use crate::ids::{GpuClass, JobId, NodeName, ProjectPath, ReservationName};
use crate::image::ImagePath;
use crate::mig::{MigKind, MigProfile};
use crate::topology::BlockTerms;

/// A job as admitted: checked, every default filled in, never changed afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Shown in listings.
    pub name: String,
    /// Leaf of the quota tree that pays.
    pub project: ProjectPath,
    /// What runs.
    pub work: Work,
    /// Nodes of the gang, at least 1; of an elastic job the least.
    pub nodes: u32,
    /// Most nodes of an elastic job, which starts with as many as it can have then; `None`: exactly `nodes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes_max: Option<u32>,
    /// What each node of the gang gives.
    pub per_node: NodeRequest,
    /// Where it may run.
    pub constraints: Constraints,
    /// Wall time of an attempt, seconds.
    pub time_limit_s: i64,
    /// Order in the queue, higher first.
    pub priority: i32,
    /// What must have happened before.
    pub dependencies: Vec<Dependency>,
    /// Signal sent ahead of the end.
    pub warning_signal: Option<WarningSignal>,
    /// Tried again after a loss that was not its own doing.
    pub requeue: bool,
    /// Tried again this often after failing by its own doing.
    pub max_retries: u32,
    /// Added to the environment of its processes.
    pub environment: BTreeMap<String, String>,
    /// Absolute path, or empty for a directory of the attempt's own.
    pub working_directory: String,
    /// Pattern for standard output, or empty.
    pub output_path: String,
    /// Pattern for standard error, or empty.
    pub error_path: String,
    /// Submitted as held.
    pub hold: bool,
    /// Free text.
    pub comment: String,
    /// Between SIGTERM and SIGKILL, seconds.
    pub grace_s: u32,
    /// Runs on what nobody else wants: it starts after everybody, costs nothing, and stops for anybody.
    #[serde(default)]
    pub scavenger: bool,
    /// Many tasks of this, told apart by an index each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<ArraySpec>,
    /// Starts only once no earlier job of the same owner, project and name is left.
    #[serde(default)]
    pub singleton: bool,
    /// By when it must have ended; if it cannot any more, it does not start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Deadline>,
    /// Its processes run with the files of this image instead of the node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImagePath>,
}

/// By when a job must have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deadline {
    /// By that moment.
    At(UnixMicros),
    /// So many seconds after its submission.
    WithinS(i64),
}

impl JobSpec {
    /// Whether it may be kept from starting by what is not in what it asks for: a deadline, or how many tasks of its array
    /// run.
    #[must_use]
    pub fn has_own_terms(&self) -> bool {
        let at_once = self.array.as_ref().and_then(|array| array.at_once);
        self.deadline.is_some() || at_once.is_some()
    }

    /// How long an attempt may be there: its time limit, and what it may take to end then, seconds.
    #[must_use]
    pub fn longest_s(&self) -> i64 {
        self.time_limit_s.saturating_add(self.grace_s.into())
    }

    /// GPUs of the whole gang; of an elastic job the fewest.
    #[must_use]
    pub fn total_gpus(&self) -> GpuMilli {
        self.per_node.gpus.amount().times(u64::from(self.nodes))
    }

    /// Most nodes of the gang.
    #[must_use]
    pub fn most_nodes(&self) -> u32 {
        self.nodes_max.map_or(self.nodes, |most| most.max(self.nodes))
    }

    /// Whether it can do with different numbers of nodes.
    #[must_use]
    pub fn is_elastic(&self) -> bool {
        self.most_nodes() > self.nodes
    }
}

impl Deadline {
    /// The moment, for a job that was submitted then.
    #[must_use]
    pub fn moment(self, submitted: UnixMicros) -> UnixMicros {
        match self {
            Deadline::At(moment) => moment,
            Deadline::WithinS(seconds) => submitted.plus_seconds(seconds),
        }
    }
}

/// What an attempt starts with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Runs once, on the first node.
    Script {
        /// The text with its `#!` line.
        text: String,
        /// Its arguments.
        arguments: Vec<String>,
    },
    /// One step over all nodes.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
        /// Tasks it starts.
        layout: TaskLayout,
    },
}

/// How many tasks a command starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskLayout {
    /// One a node.
    PerNode,
    /// One a whole GPU.
    PerGpu,
}

/// GPUs wanted on one node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuRequest {
    /// None.
    None,
    /// Whole GPUs.
    Whole {
        /// How many, at least 1.
        count: u32,
        /// Only this class; `None`: any one class.
        class: Option<GpuClass>,
    },
    /// A share of one GPU.
    Share {
        /// Thousandths, 1 to 999.
        milli: u32,
        /// Only this class; `None`: any one class.
        class: Option<GpuClass>,
    },
    /// Instances of GPUs that are cut.
    Mig {
        /// How many, at least 1.
        count: u32,
        /// Of exactly this profile.
        profile: MigProfile,
        /// What each counts of its GPU, thousandths, as the machine had them when the job was admitted.
        milli: u32,
        /// Only of GPUs of this class; `None`: of any one class.
        class: Option<GpuClass>,
    },
}

impl GpuRequest {
    /// Thousandths on one node.
    #[must_use]
    pub fn amount(&self) -> GpuMilli {
        match self {
            GpuRequest::None => GpuMilli::ZERO,
            GpuRequest::Whole { count, .. } => GpuMilli::whole(*count),
            GpuRequest::Share { milli, .. } => GpuMilli(u64::from(*milli)),
            GpuRequest::Mig { count, milli, .. } => {
                GpuMilli(u64::from(*milli)).times(u64::from(*count))
            }
        }
    }

    /// The kind of instance asked for, if one is.
    #[must_use]
    pub fn kind(&self) -> Option<MigKind> {
        match self {
            GpuRequest::None | GpuRequest::Whole { .. } | GpuRequest::Share { .. } => None,
            GpuRequest::Mig { profile, milli, .. } => {
                Some(MigKind { profile: *profile, milli: *milli })
            }
        }
    }

    /// The class asked for, if one is.
    #[must_use]
    pub fn class(&self) -> Option<&GpuClass> {
        match self {
            GpuRequest::None => None,
            GpuRequest::Whole { class, .. }
            | GpuRequest::Share { class, .. }
            | GpuRequest::Mig { class, .. } => class.as_ref(),
        }
    }
}

/// What each node of a gang gives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeRequest {
    /// GPUs.
    pub gpus: GpuRequest,
    /// CPUs.
    pub cpu_milli: CpuMilli,
    /// Memory.
    pub memory_mib: MemoryMib,
    /// The most that each of its GPUs may draw, watts; `None`: as the site orders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_cap_watts: Option<u32>,
}

/// Where a job may run.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Constraints {
    /// Only these; empty: all.
    pub nodes: BTreeSet<NodeName>,
    /// Never these.
    pub exclude_nodes: BTreeSet<NodeName>,
    /// Labels a node must carry.
    pub labels: BTreeMap<String, String>,
    /// How close its nodes are to be.
    #[serde(default, alias = "same_cluster", deserialize_with = "block_terms")]
    pub blocks: BlockTerms,
    /// Only nodes of the reservation by command of that name, while it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<ReservationName>,
    /// Only nodes that can run jobs with an image; so for every job that has one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub images: bool,
}

/// Blocks as they are stored now, or the one wish that older builds knew.
///
/// By hand, for an enum without tags would keep a copy of each and try it twice, and a queue is full of them.
fn block_terms<'de, D: Deserializer<'de>>(stored: D) -> Result<BlockTerms, D::Error> {
    struct Either;

    impl<'de> Visitor<'de> for Either {
        type Value = BlockTerms;

        fn expecting(&self, words: &mut fmt::Formatter<'_>) -> fmt::Result {
            words.write_str("blocks, or whether all is in one cluster")
        }

        fn visit_bool<E>(self, same_cluster: bool) -> Result<BlockTerms, E> {
            Ok(BlockTerms::of_same_cluster(same_cluster))
        }

        fn visit_map<A: MapAccess<'de>>(self, blocks: A) -> Result<BlockTerms, A::Error> {
            BlockTerms::deserialize(MapAccessDeserializer::new(blocks))
        }
    }

    stored.deserialize_any(Either)
}

/// A job that must have come so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// How far.
    pub kind: DependencyKind,
    /// Which job. Of a task of an array the number of the task itself, once that was looked up
    /// ([`crate::admit::name_tasks`]).
    pub job: JobId,
    /// The task, where one was named by its array and index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskName>,
}

impl Dependency {
    /// On a job, or on an array as a whole.
    #[must_use]
    pub fn on(kind: DependencyKind, job: JobId) -> Self {
        Dependency { kind, job, task: None }
    }

    /// The other job as people name it: `123`, or `123_4`.
    #[must_use]
    pub fn named(&self) -> String {
        self.task.map_or_else(|| self.job.to_string(), |task| task.to_string())
    }
}

/// A task of an array as people name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskName {
    /// The array.
    pub array: JobId,
    /// The index of the task there.
    pub index: u32,
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.array, self.index)
    }
}

/// How far the other job must have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DependencyKind {
    /// Started, or ended without starting.
    After,
    /// Completed.
    AfterOk,
    /// Ended otherwise.
    AfterNotOk,
    /// Ended.
    AfterAny,
    /// Of another array: each task waits until the task of the same index has completed.
    AfterCorr,
}

impl DependencyKind {
    /// The word people type.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            DependencyKind::After => "after",
            DependencyKind::AfterOk => "afterok",
            DependencyKind::AfterNotOk => "afternotok",
            DependencyKind::AfterAny => "afterany",
            DependencyKind::AfterCorr => "aftercorr",
        }
    }
}

/// A signal ahead of the end of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarningSignal {
    /// Number, 1 to 31 but not 9 or 19.
    pub signal: i32,
    /// Seconds ahead.
    pub ahead_s: u32,
    /// To the script alone.
    pub batch_only: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Level;

    #[test]
    fn a_job_stored_by_a_build_that_knew_only_one_cluster_is_read() {
        let stored = |value: &str| {
            let text = format!(r#"{{"nodes":[],"exclude_nodes":[],"labels":{{}}{value}}}"#);
            serde_json::from_str::<Constraints>(&text).unwrap().blocks
        };
        assert_eq!(stored("").one, None);
        assert_eq!(stored(r#","same_cluster":false"#).one, None);
        assert_eq!(stored(r#","same_cluster":true"#).one, Some(Level::Cluster));
        let blocks = BlockTerms { one: Some(Level::Nvlink), ..BlockTerms::default() };
        let now = Constraints { blocks, ..Constraints::default() };
        let text = serde_json::to_string(&now).unwrap();
        assert_eq!(serde_json::from_str::<Constraints>(&text).unwrap(), now);
    }
}
