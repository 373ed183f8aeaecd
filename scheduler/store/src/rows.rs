//! The rows of the sheets: what each table is told of an object. The field names are those that the statements of
//! both databases pick.

use std::borrow::Cow;

use gotgan_core::alert::Alert;
use gotgan_core::attempt::{Attempt, Member, Outcome, Placement, Stop};
use gotgan_core::change::{Event, PassRecord, Subject};
use gotgan_core::health::{Breaker, NodeHealth};
use gotgan_core::ids::{AttemptId, JobId, NodeName};
use gotgan_core::job::{Job, JobStatus};
use gotgan_core::ledger::LedgerEntry;
use gotgan_core::measured::MeasuredUse;
use gotgan_core::meter::Meter;
use gotgan_core::node::{Admin, Inventory};
use gotgan_core::precedence::{PassSheet, StartTurn};
use gotgan_core::quota::QuotaBook;
use gotgan_core::spec::JobSpec;
use gotgan_core::step::{Step, Task, TaskState};
use gotgan_core::window::{Window, WindowId};
use serde::{Serialize, Serializer};

use crate::decode::{ProgressJson, StepJson};
use crate::groups::TaskKey;

/// Text without NUL, which PostgreSQL cannot keep. Only for what is shown or searched; what is computed with is
/// kept in JSON, where a NUL is an escape.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// JSON as text inside JSON: the databases then copy it as it is and need not understand it. PostgreSQL would refuse
/// the escape of a NUL in it, and both would take the quotes off a bare string.
fn as_text<V: Serialize, S: Serializer>(
    value: &V,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    let text = serde_json::to_string(value).map_err(serde::ser::Error::custom)?;
    serializer.serialize_str(&text)
}

/// The same where there may be nothing.
fn as_text_if_any<V: Serialize, S: Serializer>(
    value: &Option<V>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    match value {
        Some(value) => as_text(value, serializer),
        None => serializer.serialize_none(),
    }
}

#[derive(Serialize)]
pub(crate) struct JobRow<'r> {
    id: JobId,
    owner: &'r str,
    idempotency_key: &'r str,
    digest: &'r str,
    project: &'r str,
    name: Cow<'r, str>,
    state: &'static str,
    priority: i32,
    submitted_us: i64,
    queued_us: i64,
    ended_us: Option<i64>,
    #[serde(serialize_with = "as_text")]
    status: &'r JobStatus,
    array_id: Option<JobId>,
    array_last: Option<JobId>,
}

impl<'r> JobRow<'r> {
    pub(crate) fn of(job: &'r Job, status: &'r JobStatus) -> Self {
        JobRow {
            id: job.id,
            owner: job.owner.as_str(),
            idempotency_key: job.key.as_str(),
            digest: &job.digest.0,
            project: job.spec.project.as_str(),
            name: plain(&job.spec.name),
            state: status.state.word(),
            priority: job.spec.priority,
            submitted_us: job.submitted.0,
            queued_us: status.queued.0,
            ended_us: status.ended.map(|at| at.0),
            status,
            array_id: job.array,
            array_last: job.is_array().then(|| job.last_id()),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct SpecRow<'r> {
    pub id: JobId,
    #[serde(serialize_with = "as_text")]
    pub spec: &'r JobSpec,
}

#[derive(Serialize)]
pub(crate) struct MovedJobRow<'r> {
    id: JobId,
    state: &'static str,
    queued_us: i64,
    ended_us: Option<i64>,
    #[serde(serialize_with = "as_text")]
    status: &'r JobStatus,
}

impl<'r> MovedJobRow<'r> {
    pub(crate) fn of(id: JobId, status: &'r JobStatus) -> Self {
        MovedJobRow {
            id,
            state: status.state.word(),
            queued_us: status.queued.0,
            ended_us: status.ended.map(|at| at.0),
            status,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct AttemptRow<'r> {
    project: &'r str,
    class: Option<&'r str>,
    gpu_milli: u64,
    epoch: u64,
    leased_us: i64,
    #[serde(serialize_with = "as_text")]
    placement: &'r Placement,
    #[serde(flatten)]
    moved: MovedAttemptRow<'r>,
}

impl<'r> AttemptRow<'r> {
    pub(crate) fn of(attempt: &'r Attempt) -> Self {
        AttemptRow {
            project: attempt.project.as_str(),
            class: attempt.placement.class.as_ref().map(|class| class.as_str()),
            gpu_milli: attempt.gpus().0,
            epoch: attempt.epoch.0,
            leased_us: attempt.leased.0,
            placement: &attempt.placement,
            moved: MovedAttemptRow::of(attempt),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct MovedAttemptRow<'r> {
    job_id: JobId,
    number: u32,
    state: &'static str,
    started_us: Option<i64>,
    ended_us: Option<i64>,
    hold: i64,
    #[serde(serialize_with = "as_text_if_any")]
    measured: Option<&'r MeasuredUse>,
    idle_told_us: Option<i64>,
    #[serde(serialize_with = "as_text")]
    progress: ProgressJson<Cow<'r, [Member]>, &'r Stop, &'r Outcome, &'r Meter>,
}

impl<'r> MovedAttemptRow<'r> {
    pub(crate) fn of(attempt: &'r Attempt) -> Self {
        MovedAttemptRow {
            job_id: attempt.id.job,
            number: attempt.id.number,
            state: attempt.state.word(),
            started_us: attempt.started.map(|at| at.0),
            ended_us: attempt.ended.map(|at| at.0),
            hold: attempt.hold.0,
            measured: attempt.measured.as_ref(),
            idle_told_us: attempt.idle_told.map(|at| at.0),
            progress: ProgressJson {
                members: Cow::Borrowed(&attempt.members),
                stop: attempt.stop.as_ref(),
                outcome: attempt.outcome.as_ref(),
                next_step: attempt.next_step,
                meter: Some(&attempt.meter),
            },
        }
    }
}

#[derive(Serialize)]
pub(crate) struct StepRow<'r> {
    job_id: JobId,
    attempt: u32,
    number: u32,
    kind: &'static str,
    name: Cow<'r, str>,
    created_us: i64,
    #[serde(serialize_with = "as_text")]
    spec: StepJson<'r>,
}

impl<'r> StepRow<'r> {
    pub(crate) fn of(step: &'r Step) -> Self {
        StepRow {
            job_id: step.attempt.job,
            attempt: step.attempt.number,
            number: step.number,
            kind: step.kind.word(),
            name: plain(&step.name),
            created_us: step.created.0,
            spec: StepJson {
                name: Cow::Borrowed(&step.name),
                argv: Cow::Borrowed(&step.argv),
                environment: Cow::Borrowed(&step.environment),
                working_directory: Cow::Borrowed(&step.working_directory),
                gpus_per_task: step.gpus_per_task,
            },
        }
    }
}

#[derive(Serialize)]
pub(crate) struct TaskRow<'r> {
    job_id: JobId,
    attempt: u32,
    step: u32,
    rank: u32,
    node: &'r str,
    local_rank: u32,
    #[serde(serialize_with = "as_text")]
    state: &'r TaskState,
}

impl<'r> TaskRow<'r> {
    pub(crate) fn of((AttemptId { job, number }, step, rank): TaskKey, task: &'r Task) -> Self {
        TaskRow {
            job_id: job,
            attempt: number,
            step,
            rank,
            node: task.node.as_str(),
            local_rank: task.local_rank,
            state: &task.state,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct LedgerRow<'r> {
    seq: u64,
    at_us: i64,
    kind: &'static str,
    project: &'r str,
    class: &'r str,
    amount: i64,
    job_id: JobId,
    attempt: u32,
    counter: String,
    from_us: i64,
    until_us: i64,
    account_us: i64,
    weight_milli: u32,
}

impl<'r> LedgerRow<'r> {
    pub(crate) fn of(entry: &'r LedgerEntry) -> Self {
        LedgerRow {
            seq: entry.seq,
            at_us: entry.at.0,
            kind: entry.kind.word(),
            project: entry.project.as_str(),
            class: entry.class.as_str(),
            amount: entry.amount.0,
            job_id: entry.attempt.job,
            attempt: entry.attempt.number,
            counter: entry.counter.word(),
            from_us: entry.stretch.time.from.0,
            until_us: entry.stretch.time.until.0,
            account_us: entry.stretch.account.0,
            weight_milli: entry.stretch.weight_milli,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct NodeRow<'r> {
    pub name: &'r NodeName,
    pub registered_us: i64,
    #[serde(serialize_with = "as_text")]
    pub inventory: &'r Inventory,
}

#[derive(Serialize)]
pub(crate) struct AdminRow<'r> {
    name: &'r NodeName,
    #[serde(serialize_with = "as_text")]
    admin: &'r Admin,
}

impl<'r> AdminRow<'r> {
    pub(crate) fn of(name: &'r NodeName, admin: &'r Admin) -> Self {
        AdminRow { name, admin }
    }
}

#[derive(Serialize)]
pub(crate) struct HealthRow<'r> {
    pub name: &'r NodeName,
    #[serde(serialize_with = "as_text")]
    pub health: &'r NodeHealth,
}

#[derive(Serialize)]
pub(crate) struct BreakerRow<'r> {
    pub scope: &'r str,
    #[serde(serialize_with = "as_text")]
    pub body: &'r Breaker,
}

#[derive(Serialize)]
pub(crate) struct WindowRow<'r> {
    id: WindowId,
    state: &'static str,
    from_us: i64,
    until_us: i64,
    reservation: Option<&'r str>,
    #[serde(serialize_with = "as_text")]
    body: &'r Window,
}

impl<'r> WindowRow<'r> {
    pub(crate) fn of(window: &'r Window) -> Self {
        WindowRow {
            id: window.id,
            state: window.state.word(),
            from_us: window.during.from.0,
            until_us: window.during.until.0,
            reservation: window.reserved.as_ref().map(|reserved| reserved.name.as_str()),
            body: window,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct PassRow<'r> {
    number: u64,
    at_us: i64,
    epoch: u64,
    #[serde(serialize_with = "as_text")]
    body: &'r PassSheet,
}

impl<'r> PassRow<'r> {
    pub(crate) fn of(record: &'r PassRecord) -> Self {
        let PassRecord { number, epoch, sheet, .. } = record;
        PassRow { number: *number, at_us: sheet.at.0, epoch: epoch.0, body: sheet }
    }
}

#[derive(Serialize)]
pub(crate) struct StartTurnRow<'r> {
    job_id: JobId,
    attempt: u32,
    pass: u64,
    #[serde(serialize_with = "as_text")]
    body: &'r StartTurn,
}

impl<'r> StartTurnRow<'r> {
    pub(crate) fn of(record: &PassRecord, (id, turn): &'r (AttemptId, StartTurn)) -> Self {
        StartTurnRow { job_id: id.job, attempt: id.number, pass: record.number, body: turn }
    }
}

#[derive(Serialize)]
pub(crate) struct QuotaRow<'r> {
    pub revision: u64,
    pub applied_us: i64,
    #[serde(serialize_with = "as_text")]
    pub tree: &'r QuotaBook,
}

#[derive(Serialize)]
pub(crate) struct AlertRow<'r> {
    seq: u64,
    at_us: i64,
    node: &'r str,
    percent: u32,
    kind: &'static str,
    from_us: i64,
    period: &'r str,
    budget: String,
    carried: String,
    used: String,
}

impl<'r> AlertRow<'r> {
    pub(crate) fn of(alert: &'r Alert) -> Self {
        AlertRow {
            seq: alert.seq,
            at_us: alert.at.0,
            node: alert.node.as_str(),
            percent: alert.percent,
            kind: alert.kind.word(),
            from_us: alert.from.0,
            period: &alert.period,
            budget: alert.budget.0.to_string(),
            carried: alert.carried.0.to_string(),
            used: alert.used.0.to_string(),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct EventRow<'r> {
    seq: u64,
    at_us: i64,
    kind: &'static str,
    job_id: Option<JobId>,
    attempt: Option<u32>,
    state: Option<&'static str>,
    node: Option<&'r str>,
    text: Cow<'r, str>,
}

impl<'r> EventRow<'r> {
    pub(crate) fn of(event: &'r Event) -> Self {
        let row = EventRow {
            seq: event.seq,
            at_us: event.at.0,
            kind: event.kind.word(),
            job_id: None,
            attempt: None,
            state: None,
            node: None,
            text: plain(&event.text),
        };
        match &event.subject {
            Subject::Job { id, attempt, state } => EventRow {
                job_id: Some(*id),
                attempt: Some(*attempt),
                state: Some(state.word()),
                ..row
            },
            Subject::Node(node) => EventRow { node: Some(node.as_str()), ..row },
            Subject::Quota => row,
        }
    }
}
