//! Jobs with their attempts and steps.

use std::sync::Arc;

use gotgan_core::amount::{GpuMilliSeconds, UnixMicros};
use gotgan_core::array::ArrayTasks;
use gotgan_core::attempt::{Attempt, AttemptState};
use gotgan_core::change::{Event, Subject};
use gotgan_core::ids::NodeName;
use gotgan_core::job::JobState;
use gotgan_core::step::{Step, StepKind, Task, TaskState};
use gotgan_proto::v1;
use gotgan_store::JobDetail;

use super::{cause, exit, gpu_allocations, job_spec, job_spec_brief, job_state, measured};

/// A job as listings show it. `simulated` says which nodes are.
#[must_use]
pub fn job_brief(detail: &JobDetail, simulated: &impl Fn(&NodeName) -> bool) -> v1::Job {
    let job = &detail.job;
    let status = &job.status;
    let latest = detail.attempts.last();
    let nodes = || latest.iter().flat_map(|attempt| &attempt.placement.nodes);
    v1::Job {
        job_id: job.id.0,
        spec: Some(job_spec_brief(&job.spec)),
        owner: job.owner.to_string(),
        state: job_state(status.state).into(),
        detail: status.detail.clone(),
        submitted_us: job.submitted.0,
        queued_us: status.queued.0,
        started_us: micros(status.started),
        ended_us: micros(status.ended),
        cause: status.cause.map(|it| cause(it).into()).unwrap_or_default(),
        exit: status.exit.map(exit),
        attempt: status.attempt,
        attempts: Vec::new(),
        paid_gpu_milli_seconds: detail.paid.0,
        simulated: nodes().any(|allocation| simulated(&allocation.node)),
        nodes: nodes().map(|allocation| allocation.node.to_string()).collect(),
        array_tasks: status.tasks.as_deref().map(array_tasks),
        array_job_id: job.array.map_or(0, |array| array.0),
        task_index: job.task_index().unwrap_or_default(),
        start_by_us: micros(job.starts_by()),
        start: None,
        idle_told_us: latest.map_or(0, |attempt| match attempt.ended {
            None => micros(attempt.idle_told),
            Some(_) => 0,
        }),
        measured: latest.and_then(|attempt| attempt.measured).map(measured),
    }
}

fn array_tasks(tasks: &ArrayTasks) -> v1::ArrayTasks {
    v1::ArrayTasks {
        held: tasks.in_state(JobState::Held),
        pending: tasks.in_state(JobState::Pending),
        starting: tasks.in_state(JobState::Starting),
        running: tasks.in_state(JobState::Running),
        completed: tasks.in_state(JobState::Completed),
        failed: tasks.in_state(JobState::Failed),
        cancelled: tasks.in_state(JobState::Cancelled),
        timed_out: tasks.in_state(JobState::TimedOut),
    }
}

/// A job with everything.
#[must_use]
pub fn job(detail: &JobDetail, simulated: &impl Fn(&NodeName) -> bool) -> v1::Job {
    let attempts = detail.attempts.iter().map(|it| attempt(it, detail, simulated)).collect();
    let spec = Some(job_spec(&detail.job.spec));
    v1::Job { attempts, spec, ..job_brief(detail, simulated) }
}

fn micros(at: Option<UnixMicros>) -> i64 {
    at.map_or(0, |at| at.0)
}

fn attempt(
    attempt: &Attempt,
    detail: &JobDetail,
    simulated: &impl Fn(&NodeName) -> bool,
) -> v1::Attempt {
    let number = attempt.id.number;
    let outcome = attempt.outcome.as_ref();
    let allocation = attempt.placement.nodes.iter().map(|place| v1::NodeAllocation {
        node: place.node.to_string(),
        gpus: gpu_allocations(place),
        cpu_milli: place.cpu_milli.0,
        memory_mib: place.memory_mib.0,
        simulated: simulated(&place.node),
        imex_channel: place.imex.as_ref().map_or(0, |lease| lease.channel),
        imex_domain: place.imex.as_ref().map(|lease| lease.domain.clone()).unwrap_or_default(),
    });
    v1::Attempt {
        number,
        state: attempt_state(attempt.state).into(),
        allocation: allocation.collect(),
        leased_us: attempt.leased.0,
        started_us: micros(attempt.started),
        ended_us: micros(attempt.ended),
        cause: outcome.map(|it| cause(it.cause).into()).unwrap_or_default(),
        exit: outcome.and_then(|it| it.exit).map(exit),
        detail: outcome.map(|it| it.detail.clone()).unwrap_or_default(),
        steps: detail.steps.iter().filter(|it| it.attempt == attempt.id).map(step).collect(),
        charged_gpu_milli_seconds: of_attempt(&detail.charged, number),
        refunded_gpu_milli_seconds: of_attempt(&detail.refunded, number),
        measured: attempt.measured.map(measured),
        idle_ms: 0,
        idle_told_us: micros(attempt.idle_told),
        gpu_cap_watts: attempt.placement.gpu_cap_watts.unwrap_or_default(),
    }
}

fn of_attempt(amounts: &[(u32, GpuMilliSeconds)], number: u32) -> i64 {
    amounts.iter().filter(|(of, _)| *of == number).map(|(_, amount)| amount.0).sum()
}

fn attempt_state(state: AttemptState) -> v1::AttemptState {
    match state {
        AttemptState::Leased => v1::AttemptState::Leased,
        AttemptState::Accepted => v1::AttemptState::Accepted,
        AttemptState::Prolog => v1::AttemptState::Prolog,
        AttemptState::Running => v1::AttemptState::Running,
        AttemptState::Stopping => v1::AttemptState::Stopping,
        AttemptState::Ended => v1::AttemptState::Ended,
    }
}

fn step(step: &Arc<Step>) -> v1::Step {
    let kind = match step.kind {
        StepKind::Batch => v1::StepKind::Batch,
        StepKind::Command => v1::StepKind::Command,
        StepKind::Run => v1::StepKind::Run,
    };
    let tasks: Vec<v1::Task> = step.tasks.iter().map(task).collect();
    let starts = tasks.iter().map(|task| task.started_us).filter(|at| *at != 0);
    let all_ended = step.has_ended();
    let ended = tasks.iter().map(|task| task.ended_us).max().filter(|_| all_ended);
    v1::Step {
        number: step.number,
        kind: kind.into(),
        name: step.name.clone(),
        argv: step.argv.clone(),
        started_us: starts.min().unwrap_or(0),
        ended_us: ended.unwrap_or(0),
        tasks,
    }
}

fn task(task: &Task) -> v1::Task {
    let blank = v1::Task {
        rank: task.rank,
        node: task.node.to_string(),
        local_rank: task.local_rank,
        ..v1::Task::default()
    };
    match &task.state {
        TaskState::Pending => v1::Task { state: v1::TaskState::Pending.into(), ..blank },
        TaskState::Running { started } => {
            v1::Task { state: v1::TaskState::Running.into(), started_us: started.0, ..blank }
        }
        TaskState::Ended { started, ended, exit: how, detail } => v1::Task {
            state: v1::TaskState::Ended.into(),
            exit: Some(exit(*how)),
            started_us: micros(*started),
            ended_us: ended.0,
            detail: detail.clone(),
            ..blank
        },
    }
}

/// An event about a job; `None` for one about something else.
#[must_use]
pub fn event(event: &Event) -> Option<v1::JobEvent> {
    match &event.subject {
        Subject::Job { id, attempt, state } => Some(v1::JobEvent {
            seq: event.seq,
            at_us: event.at.0,
            job_id: id.0,
            attempt: *attempt,
            kind: event.kind.word().to_owned(),
            text: event.text.clone(),
            state: job_state(*state).into(),
        }),
        Subject::Node(_) | Subject::Quota => None,
    }
}
