//! Jobs that a job waits for.

use gotgan_proto::v1;
use serde::Serialize;

use crate::view::word;

/// A job waited for.
#[derive(Clone, Debug, Serialize)]
pub struct DependencyView {
    pub kind: String,
    pub job_id: u64,
    /// Of an array only the task with this index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_index: Option<u32>,
}

impl DependencyView {
    /// As the API has it.
    #[must_use]
    pub fn of(dependency: &v1::Dependency) -> Self {
        Self {
            kind: word::dependency_kind(dependency.kind),
            job_id: dependency.job_id,
            task_index: dependency.task_index,
        }
    }

    /// As in "after_ok 12_3".
    #[must_use]
    pub fn text(&self) -> String {
        let Self { kind, job_id, task_index } = self;
        task_index
            .map_or_else(|| format!("{kind} {job_id}"), |index| format!("{kind} {job_id}_{index}"))
    }
}
