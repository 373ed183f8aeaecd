//! A round as rows: one JSON array a table, in the order in which the tables must be written.
//!
//! One statement a table and transaction, however many objects changed: what a commit costs beside the disk is
//! mostly the number of statements.

use std::borrow::Cow;

use gotgan_core::amount::UnixMicros;
use gotgan_core::attempt::{Attempt, Member, Outcome, Placement, Stop};
use gotgan_core::change::{Event, Subject};
use gotgan_core::ids::{AttemptId, JobId, NodeName};
use gotgan_core::job::{Job, JobStatus};
use gotgan_core::ledger::LedgerEntry;
use gotgan_core::node::{Admin, Inventory};
use gotgan_core::quota::QuotaTree;
use gotgan_core::spec::JobSpec;
use gotgan_core::step::{Step, Task};
use serde::Serialize;
use serde_json::json;

use crate::decode::{ProgressJson, StepJson};
use crate::groups::{Groups, TaskKey};
use crate::{Result, Round, StoreError};

/// What a sheet's rows are written to, in the order of writing (a row comes after what it refers to).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Jobs,
    JobSpecs,
    MovedJobs,
    Attempts,
    MovedAttempts,
    GpusGivenBack,
    GpusTaken,
    Steps,
    Tasks,
    MovedTasks,
    Ledger,
    Nodes,
    Admins,
    Quota,
    Events,
    Tokens,
    JoinTokens,
    Answered,
}

impl Target {
    /// What it means if fewer rows were written than the sheet has.
    pub(crate) fn refusal(self) -> &'static str {
        match self {
            Target::MovedJobs => "a job that moves is unknown or terminal",
            Target::MovedAttempts => "an attempt that moves is unknown or has ended",
            Target::GpusGivenBack => "a GPU that is given back was never given out",
            Target::MovedTasks => "a task that moves is unknown",
            Target::Admins => "a node that is administered is unknown",
            Target::JoinTokens => "a join token was used before",
            Target::Jobs
            | Target::JobSpecs
            | Target::Attempts
            | Target::GpusTaken
            | Target::Steps
            | Target::Tasks
            | Target::Ledger
            | Target::Nodes
            | Target::Quota
            | Target::Events
            | Target::Tokens
            | Target::Answered => "a row was not written",
        }
    }
}

/// Rows for one target.
pub(crate) struct Sheet {
    pub target: Target,
    /// A JSON array of objects.
    pub json: String,
    pub rows: u64,
}

/// The sheets of a round; none is empty.
pub(crate) fn sheets(round: &Round, now: UnixMicros) -> Result<Vec<Sheet>> {
    let groups = Groups::of(&round.changes)?;
    let mut sheets = Sheets::default();
    sheets.add_jobs(&groups)?;
    sheets.add_attempts(&groups)?;
    sheets.add_steps(&groups)?;
    sheets.add(
        Target::Ledger,
        groups.entries.iter().map(|entry| LedgerRow::of(entry)),
    )?;
    sheets.add_site(&groups, now)?;
    sheets.add(
        Target::Events,
        groups.events.iter().map(|event| EventRow::of(event)),
    )?;
    sheets.add_access(round)?;
    Ok(sheets.0)
}

#[derive(Default)]
struct Sheets(Vec<Sheet>);

impl Sheets {
    fn add<R: Serialize>(&mut self, target: Target, rows: impl Iterator<Item = R>) -> Result<()> {
        let mut json = Vec::from(b"[");
        let mut count = 0;
        for row in rows {
            if count > 0 {
                json.push(b',');
            }
            count += 1;
            serde_json::to_writer(&mut json, &row).map_err(|source| unwritable(target, source))?;
        }
        if count > 0 {
            json.push(b']');
            let json = String::from_utf8(json).map_err(|source| unwritable(target, source))?;
            self.0.push(Sheet {
                target,
                json,
                rows: count,
            });
        }
        Ok(())
    }

    fn add_jobs(&mut self, groups: &Groups<'_>) -> Result<()> {
        let jobs = || groups.jobs.values();
        self.add(
            Target::Jobs,
            jobs().map(|(job, status)| JobRow::of(job, status)),
        )?;
        self.add(
            Target::JobSpecs,
            jobs().map(|(job, _)| SpecRow {
                id: job.id,
                spec: &job.spec,
            }),
        )?;
        let moved = groups.moved_jobs.iter();
        self.add(
            Target::MovedJobs,
            moved.map(|(id, status)| MovedJobRow::of(*id, status)),
        )
    }

    fn add_attempts(&mut self, groups: &Groups<'_>) -> Result<()> {
        self.add(
            Target::Attempts,
            groups
                .attempts
                .values()
                .map(|attempt| AttemptRow::of(attempt)),
        )?;
        let moved = groups.moved_attempts.values();
        self.add(
            Target::MovedAttempts,
            moved.map(|attempt| MovedAttemptRow::of(attempt)),
        )?;
        let deltas = groups.gpu_deltas();
        for (target, sign) in [(Target::GpusGivenBack, -1), (Target::GpusTaken, 1)] {
            let rows = deltas.iter().filter(|(_, delta)| delta.signum() == sign);
            self.add(target, rows.map(|((node, uuid), delta)| {
                json!({"node": node, "uuid": uuid, "milli": delta.saturating_abs()})
            }))?;
        }
        Ok(())
    }

    fn add_steps(&mut self, groups: &Groups<'_>) -> Result<()> {
        self.add(
            Target::Steps,
            groups.steps.values().map(|step| StepRow::of(step)),
        )?;
        for (target, tasks) in [
            (Target::Tasks, &groups.tasks),
            (Target::MovedTasks, &groups.moved_tasks),
        ] {
            let rows = tasks.iter().map(|(key, task)| TaskRow::of(*key, task));
            let rows = rows.collect::<Result<Vec<_>>>()?;
            self.add(target, rows.into_iter())?;
        }
        Ok(())
    }

    fn add_site(&mut self, groups: &Groups<'_>, now: UnixMicros) -> Result<()> {
        let nodes = groups.nodes.iter();
        self.add(
            Target::Nodes,
            nodes.map(|(name, inventory)| NodeRow {
                name,
                registered_us: now.0,
                inventory,
            }),
        )?;
        let admins = groups
            .admins
            .iter()
            .map(|(name, admin)| AdminRow::of(name, admin));
        self.add(
            Target::Admins,
            admins.collect::<Result<Vec<_>>>()?.into_iter(),
        )?;
        let quota = groups.quota.values();
        self.add(
            Target::Quota,
            quota.map(|tree| QuotaRow {
                revision: tree.revision,
                applied_us: now.0,
                tree,
            }),
        )
    }

    fn add_access(&mut self, round: &Round) -> Result<()> {
        let tokens = last_by(&round.tokens, |token| &token.id);
        self.add(
            Target::Tokens,
            tokens.map(|token| {
                json!({
                    "id": token.id, "secret_sha256": token.secret_sha256, "subject": token.subject,
                    "role": token.role, "projects": json!(token.projects).to_string(),
                    "created_us": token.created.0, "expires_us": token.expires.map(|at| at.0),
                    "revoked_us": token.revoked.map(|at| at.0),
                })
            }),
        )?;
        let join_tokens = last_by(&round.join_tokens, |token| &token.secret_sha256);
        self.add(
            Target::JoinTokens,
            join_tokens.map(|token| {
                let (used_us, used_by) = token.used.as_ref().map(|(at, node)| (at.0, node)).unzip();
                json!({
                    "secret_sha256": token.secret_sha256, "node": token.node,
                    "expires_us": token.expires.0, "used_us": used_us, "used_by": used_by,
                })
            }),
        )?;
        self.add(Target::Answered, round.answered.iter().map(|answered| {
            json!({
                "owner": answered.owner, "idempotency_key": answered.key,
                "digest": &*answered.digest.0, "answer": answered.answer, "at_us": answered.at.0,
            })
        }))
    }
}

/// The last record of each key, in the order of keys.
fn last_by<'r, R>(records: &'r [R], key: impl Fn(&R) -> &String) -> impl Iterator<Item = &'r R> {
    let mut last = std::collections::BTreeMap::new();
    for record in records {
        last.insert(key(record).clone(), record);
    }
    last.into_values()
}

fn unwritable(
    target: Target,
    source: impl std::error::Error + Send + Sync + 'static,
) -> StoreError {
    StoreError::Corrupt {
        what: format!("{target:?} to be written"),
        source: Box::new(source),
    }
}

/// Text without NUL, which PostgreSQL cannot keep. Only for what is shown or searched; what is computed with is
/// kept in JSON, where a NUL is an escape.
fn plain(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}").into()
    } else {
        text.into()
    }
}

/// JSON as text inside JSON, for values that may be a bare string and would lose their quotes otherwise.
fn nested<V: Serialize>(target: Target, value: &V) -> Result<String> {
    serde_json::to_string(value).map_err(|source| unwritable(target, source))
}

#[derive(Serialize)]
struct JobRow<'r> {
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
    status: &'r JobStatus,
}

impl<'r> JobRow<'r> {
    fn of(job: &'r Job, status: &'r JobStatus) -> Self {
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
        }
    }
}

#[derive(Serialize)]
struct SpecRow<'r> {
    id: JobId,
    spec: &'r JobSpec,
}

#[derive(Serialize)]
struct MovedJobRow<'r> {
    id: JobId,
    state: &'static str,
    queued_us: i64,
    ended_us: Option<i64>,
    status: &'r JobStatus,
}

impl<'r> MovedJobRow<'r> {
    fn of(id: JobId, status: &'r JobStatus) -> Self {
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
struct AttemptRow<'r> {
    project: &'r str,
    class: Option<&'r str>,
    gpu_milli: u64,
    epoch: u64,
    leased_us: i64,
    hold: i64,
    placement: &'r Placement,
    #[serde(flatten)]
    moved: MovedAttemptRow<'r>,
}

impl<'r> AttemptRow<'r> {
    fn of(attempt: &'r Attempt) -> Self {
        AttemptRow {
            project: attempt.project.as_str(),
            class: attempt.placement.class.as_ref().map(|class| class.as_str()),
            gpu_milli: attempt.gpus().0,
            epoch: attempt.epoch.0,
            leased_us: attempt.leased.0,
            hold: attempt.hold.0,
            placement: &attempt.placement,
            moved: MovedAttemptRow::of(attempt),
        }
    }
}

#[derive(Serialize)]
struct MovedAttemptRow<'r> {
    job_id: JobId,
    number: u32,
    state: &'static str,
    started_us: Option<i64>,
    ended_us: Option<i64>,
    progress: ProgressJson<Cow<'r, [Member]>, &'r Stop, &'r Outcome>,
}

impl<'r> MovedAttemptRow<'r> {
    fn of(attempt: &'r Attempt) -> Self {
        MovedAttemptRow {
            job_id: attempt.id.job,
            number: attempt.id.number,
            state: attempt.state.word(),
            started_us: attempt.started.map(|at| at.0),
            ended_us: attempt.ended.map(|at| at.0),
            progress: ProgressJson {
                members: Cow::Borrowed(&attempt.members),
                stop: attempt.stop.as_ref(),
                outcome: attempt.outcome.as_ref(),
                next_step: attempt.next_step,
            },
        }
    }
}

#[derive(Serialize)]
struct StepRow<'r> {
    job_id: JobId,
    attempt: u32,
    number: u32,
    kind: &'static str,
    name: Cow<'r, str>,
    created_us: i64,
    spec: StepJson<'r>,
}

impl<'r> StepRow<'r> {
    fn of(step: &'r Step) -> Self {
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
struct TaskRow<'r> {
    job_id: JobId,
    attempt: u32,
    step: u32,
    rank: u32,
    node: &'r str,
    local_rank: u32,
    state: String,
}

impl<'r> TaskRow<'r> {
    fn of((AttemptId { job, number }, step, rank): TaskKey, task: &'r Task) -> Result<Self> {
        Ok(TaskRow {
            job_id: job,
            attempt: number,
            step,
            rank,
            node: task.node.as_str(),
            local_rank: task.local_rank,
            state: nested(Target::Tasks, &task.state)?,
        })
    }
}

#[derive(Serialize)]
struct LedgerRow<'r> {
    seq: u64,
    at_us: i64,
    kind: &'static str,
    project: &'r str,
    class: &'r str,
    amount: i64,
    job_id: JobId,
    attempt: u32,
    counter: String,
}

impl<'r> LedgerRow<'r> {
    fn of(entry: &'r LedgerEntry) -> Self {
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
        }
    }
}

#[derive(Serialize)]
struct NodeRow<'r> {
    name: &'r NodeName,
    registered_us: i64,
    inventory: &'r Inventory,
}

#[derive(Serialize)]
struct AdminRow<'r> {
    name: &'r NodeName,
    admin: String,
}

impl<'r> AdminRow<'r> {
    fn of(name: &'r NodeName, admin: &Admin) -> Result<Self> {
        Ok(AdminRow {
            name,
            admin: nested(Target::Admins, admin)?,
        })
    }
}

#[derive(Serialize)]
struct QuotaRow<'r> {
    revision: u64,
    applied_us: i64,
    tree: &'r QuotaTree,
}

#[derive(Serialize)]
struct EventRow<'r> {
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
    fn of(event: &'r Event) -> Self {
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
            Subject::Node(node) => EventRow {
                node: Some(node.as_str()),
                ..row
            },
            Subject::Quota => row,
        }
    }
}
