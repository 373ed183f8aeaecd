//! Steps of attempts, and their tasks.

use gotgan_proto::v1;
use serde::Serialize;

use crate::{
    output::time,
    view::{job::ExitView, word},
};

/// One step of an attempt.
#[derive(Clone, Debug, Serialize)]
pub struct StepView {
    pub step: u32,
    pub kind: String,
    pub name: String,
    pub argv: Vec<String>,
    pub started_us: Option<i64>,
    pub started: Option<String>,
    pub ended_us: Option<i64>,
    pub ended: Option<String>,
    pub tasks: Vec<TaskView>,
}

/// One process of a step.
#[derive(Clone, Debug, Serialize)]
pub struct TaskView {
    pub rank: u32,
    pub local_rank: u32,
    pub node: String,
    pub state: String,
    pub exit: Option<ExitView>,
    pub detail: String,
    pub started_us: Option<i64>,
    pub started: Option<String>,
    pub ended_us: Option<i64>,
    pub ended: Option<String>,
}

impl StepView {
    /// As the API has it.
    #[must_use]
    pub fn of(step: &v1::Step) -> Self {
        Self {
            step: step.number,
            kind: word::step_kind(step.kind),
            name: step.name.clone(),
            argv: step.argv.clone(),
            started_us: time::set(step.started_us),
            started: time::rfc3339(step.started_us),
            ended_us: time::set(step.ended_us),
            ended: time::rfc3339(step.ended_us),
            tasks: step.tasks.iter().map(TaskView::of).collect(),
        }
    }
}

impl TaskView {
    fn of(task: &v1::Task) -> Self {
        let ended = task.state == i32::from(v1::TaskState::Ended);
        Self {
            rank: task.rank,
            local_rank: task.local_rank,
            node: task.node.clone(),
            state: word::task_state(task.state),
            exit: ExitView::of(task.exit.as_ref()).filter(|_| ended),
            detail: task.detail.clone(),
            started_us: time::set(task.started_us),
            started: time::rfc3339(task.started_us),
            ended_us: time::set(task.ended_us),
            ended: time::rfc3339(task.ended_us),
        }
    }

    /// Ended with anything but success.
    #[must_use]
    pub fn failed(&self) -> bool {
        let success = ExitView { code: Some(0), signal: None };
        self.state == "ended" && self.exit.as_ref() != Some(&success)
    }

    /// As in "exit 1", or its state before the end.
    #[must_use]
    pub fn outcome(&self) -> String {
        match &self.exit {
            Some(exit) => exit.text(),
            None => self.state.clone(),
        }
    }
}
