//! Folding in what a worker reports; a repeated report changes nothing.

use std::sync::Arc;

use super::draft::Draft;
use super::end::{end_member, meet_dependents};
use super::node::{drain_unfit, is_live_on};
use crate::amount::UnixMicros;
use crate::attempt::{Attempt, AttemptEvent, Cause, ExitStatus, MemberEnd, Progress, transition};
use crate::change::{Change, EventKind};
use crate::ids::{AttemptId, NodeName};
use crate::job::{JobEvent, JobState};
use crate::measured::MeasuredUse;
use crate::step::{Task, TaskState};

/// What a worker says about an attempt on its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which node says it.
    pub node: NodeName,
    /// About which attempt.
    pub attempt: AttemptId,
    /// Counts from 1 for each attempt and node, without gaps.
    pub seq: u64,
    /// By the worker's clock.
    pub at: UnixMicros,
    /// What happened.
    pub event: MemberEvent,
}

/// What happened to an attempt on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberEvent {
    /// In the journal, node prepared.
    Accepted,
    /// It cannot run there; nothing was started.
    Refused {
        /// Why.
        cause: Cause,
        /// One line.
        reason: String,
    },
    /// The first process is there.
    Started,
    /// A task's process is there.
    TaskStarted {
        /// Of which step.
        step: u32,
        /// Which.
        rank: u32,
    },
    /// A task's process is gone.
    TaskEnded {
        /// Of which step.
        step: u32,
        /// Which.
        rank: u32,
        /// How.
        exit: ExitStatus,
        /// What kept it from starting or ended it from outside.
        detail: String,
    },
    /// What is left there does not die: nothing new may start on the node until a person has looked.
    Unfit {
        /// One line.
        reason: String,
    },
    /// Nothing is left there, or it was given up.
    Ended {
        /// Why.
        cause: Cause,
        /// One line.
        reason: String,
        /// Of the script or the worst task there.
        exit: Option<ExitStatus>,
    },
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folded {
    /// It changed something (or confirmed what is known).
    New,
    /// It was known already.
    Repeated,
    /// One before it is missing; the worker must send again from its journal.
    Gap,
    /// The attempt has ended in the books; the worker may forget it once it has ended there.
    Settled,
}

/// Folds one report in. Everything but [`Folded::Gap`] may be acknowledged once the draft is durable.
pub fn fold(draft: &mut Draft<'_>, report: &Report) -> Folded {
    fold_measured(draft, report, None)
}

/// [`fold`] of a report with which the node told what its GPUs of the attempt did. That counts as often as the report: once.
pub fn fold_measured(
    draft: &mut Draft<'_>,
    report: &Report,
    measured: Option<MeasuredUse>,
) -> Folded {
    if !is_live_on(draft.world, report.attempt, &report.node) {
        if let MemberEvent::Unfit { reason } = &report.event {
            drain_unfit(draft, &report.node, reason);
        }
        forget_leftover(draft, report);
        return Folded::Settled;
    }
    let Some(attempt) = draft.world.attempts.get(&report.attempt) else {
        return Folded::Settled;
    };
    let Some(rank) = attempt.rank_of(&report.node) else {
        return Folded::Settled;
    };
    let seen = attempt.members.get(rank).map_or(0, |member| member.last_seq);
    if report.seq <= seen {
        return Folded::Repeated;
    }
    if report.seq != seen + 1 {
        return Folded::Gap;
    }
    let mut attempt = Attempt::clone(attempt);
    attempt.members[rank].last_seq = report.seq;
    attempt.measured = MeasuredUse::sum([attempt.measured, measured]);
    take_in(draft, attempt, rank, report);
    Folded::New
}

fn take_in(draft: &mut Draft<'_>, attempt: Attempt, rank: usize, report: &Report) {
    match &report.event {
        MemberEvent::Accepted => accepted(draft, attempt, rank),
        MemberEvent::Started => started(draft, attempt, rank),
        MemberEvent::Refused { cause, reason } => {
            draft.move_attempt(attempt);
            let detail = reason.clone();
            let end = MemberEnd { cause: *cause, exit: None, detail, at: draft.now, own: true };
            end_member(draft, report.attempt, rank, end);
        }
        MemberEvent::TaskStarted { step, rank: task } => {
            draft.move_attempt(attempt);
            task_started(draft, report, *step, *task);
        }
        MemberEvent::TaskEnded { step, rank: task, exit, detail } => {
            draft.move_attempt(attempt);
            task_ended(draft, report, *step, *task, *exit, detail);
        }
        MemberEvent::Unfit { reason } => {
            draft.move_attempt(attempt);
            drain_unfit(draft, &report.node, reason);
        }
        MemberEvent::Ended { cause, reason, exit } => {
            let at = report.at.clamp(attempt.leased, draft.now.max(attempt.leased));
            let own = attempt.stop.is_none();
            draft.move_attempt(attempt);
            let end = MemberEnd { cause: *cause, exit: *exit, detail: reason.clone(), at, own };
            end_member(draft, report.attempt, rank, end);
        }
    }
}

fn accepted(draft: &mut Draft<'_>, mut attempt: Attempt, rank: usize) {
    let id = attempt.id;
    if attempt.members[rank].progress == Progress::Leased {
        attempt.members[rank].progress = Progress::Accepted;
    }
    let all = attempt.members.iter().all(|member| member.progress != Progress::Leased);
    let moved = if all { transition(attempt.state, AttemptEvent::AllAccepted).ok() } else { None };
    if let Some(state) = moved {
        attempt.state = state;
    }
    let nodes = attempt.members.len();
    draft.move_attempt(attempt);
    if moved.is_some() && nodes > 1 {
        let text = format!("all {nodes} nodes are ready");
        draft.tell_job(id.job, id.number, JobState::Starting, EventKind::Accepted, text);
    }
}

fn started(draft: &mut Draft<'_>, mut attempt: Attempt, rank: usize) {
    let id = attempt.id;
    if matches!(attempt.members[rank].progress, Progress::Leased | Progress::Accepted) {
        attempt.members[rank].progress = Progress::Running;
    }
    let first = attempt.started.is_none();
    attempt.started.get_or_insert(draft.now);
    if let Ok(state) = transition(attempt.state, AttemptEvent::Started) {
        attempt.state = state;
    }
    draft.move_attempt(attempt);
    if first {
        job_runs(draft, id);
    }
}

fn job_runs(draft: &mut Draft<'_>, id: AttemptId) {
    let Some(job) = draft.world.jobs.get(&id.job) else {
        return;
    };
    let mut status = job.status.clone();
    let Ok(state) = crate::job::transition(status.state, JobEvent::Started) else {
        return;
    };
    status.state = state;
    status.started = Some(draft.now);
    draft.move_job(id.job, status);
    draft.tell_job(id.job, id.number, state, EventKind::Started, format!("attempt {id} runs"));
    meet_dependents(draft, id.job, state);
}

fn task_started(draft: &mut Draft<'_>, report: &Report, step: u32, rank: u32) {
    move_task(draft, report, step, rank, |before| match before {
        TaskState::Pending => Some(TaskState::Running { started: report.at }),
        TaskState::Running { .. } | TaskState::Ended { .. } => None,
    });
}

fn task_ended(
    draft: &mut Draft<'_>,
    report: &Report,
    step: u32,
    rank: u32,
    exit: ExitStatus,
    detail: &str,
) {
    let moved = move_task(draft, report, step, rank, |before| {
        let started = match before {
            TaskState::Pending => None,
            TaskState::Running { started } => Some(*started),
            TaskState::Ended { .. } => return None,
        };
        Some(TaskState::Ended { started, ended: report.at, exit, detail: detail.to_owned() })
    });
    if moved {
        step_went_on(draft, report, step);
    }
}

/// Replaces the state of a task that is on the reporting node; whether it did.
fn move_task(
    draft: &mut Draft<'_>,
    report: &Report,
    step: u32,
    rank: u32,
    next: impl Fn(&TaskState) -> Option<TaskState>,
) -> bool {
    let found = draft.world.steps.get(&(report.attempt, step)).and_then(|step| {
        step.tasks.iter().find(|task| task.rank == rank && task.node == report.node)
    });
    let Some(state) = found.and_then(|task| next(&task.state)) else {
        return false;
    };
    let Some(task) = found else { return false };
    let task = Arc::new(Task { state, ..task.clone() });
    draft.push(Change::TaskMoved { attempt: report.attempt, step, task });
    true
}

/// A task has ended: tells when the step has.
fn step_went_on(draft: &mut Draft<'_>, report: &Report, number: u32) {
    let Some(step) = draft.world.steps.get(&(report.attempt, number)).cloned() else {
        return;
    };
    let id = report.attempt;
    if step.has_ended() && number > 0 {
        let failed = step.tasks.iter().filter(|task| match &task.state {
            TaskState::Ended { exit, .. } => !exit.is_success(),
            TaskState::Pending | TaskState::Running { .. } => true,
        });
        let text = match failed.count() {
            0 => format!("step {number} ({}) completed", step.name),
            some => format!(
                "step {number} ({}): {some} of {} tasks failed",
                step.name,
                step.tasks.len()
            ),
        };
        draft.tell_job(id.job, id.number, JobState::Running, EventKind::StepEnded, text);
    }
}

/// The last processes of an attempt that had ended in the books are gone.
fn forget_leftover(draft: &mut Draft<'_>, report: &Report) {
    let gone = matches!(report.event, MemberEvent::Ended { .. } | MemberEvent::Refused { .. });
    let Some(node) = draft.world.nodes.get(&report.node) else {
        return;
    };
    if !gone || !node.leftovers.contains(&report.attempt) {
        return;
    }
    let rest = node.leftovers.iter().copied().filter(|id| *id != report.attempt).collect();
    draft.push(Change::NodeLeftovers { node: report.node.clone(), attempts: rest });
}
