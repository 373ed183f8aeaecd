//! Steps: what runs inside an attempt, and the tasks (processes) each is made of.

use serde::{Deserialize, Serialize};

use crate::amount::UnixMicros;
use crate::attempt::ExitStatus;
use crate::ids::{AttemptId, NodeName};

/// What a step is and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// In which attempt.
    pub attempt: AttemptId,
    /// 0 is the script or the job's command.
    pub number: u32,
    /// Where it came from.
    pub kind: StepKind,
    /// Shown in listings.
    pub name: String,
    /// Empty for a script.
    pub argv: Vec<String>,
    /// What its tasks are given besides the job's environment; empty for step 0.
    pub environment: std::collections::BTreeMap<String, String>,
    /// Empty: the job's.
    pub working_directory: String,
    /// When it was ordered.
    pub created: UnixMicros,
    /// In rank order.
    pub tasks: Vec<Task>,
    /// GPUs each task sees; empty: all of its node.
    pub gpus_per_task: u32,
}

impl Step {
    /// Whether all its tasks have ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.tasks.iter().all(|task| matches!(task.state, TaskState::Ended { .. }))
    }
}

/// Where a step came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// The script, on the first node.
    Batch,
    /// The job's command.
    Command,
    /// Started from inside.
    Run,
}

impl StepKind {
    /// The word in the store.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            StepKind::Batch => "batch",
            StepKind::Command => "command",
            StepKind::Run => "run",
        }
    }

    /// The kind of that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [StepKind::Batch, StepKind::Command, StepKind::Run]
            .into_iter()
            .find(|kind| kind.word() == word)
    }
}

/// One process of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Over all nodes of the step, from 0.
    pub rank: u32,
    /// Where it runs.
    pub node: NodeName,
    /// On its node, from 0.
    pub local_rank: u32,
    /// How far it has come.
    pub state: TaskState,
}

/// How far a task has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Ordered.
    Pending,
    /// Its process is there.
    Running {
        /// Since when.
        started: UnixMicros,
    },
    /// Its process is gone, or never came.
    Ended {
        /// When it was there; `None` if it never was.
        started: Option<UnixMicros>,
        /// When it went.
        ended: UnixMicros,
        /// How.
        exit: ExitStatus,
        /// What kept it from starting or ended it from outside.
        detail: String,
    },
}
