//! Rows to domain types. The columns are the same on both databases, so their types are named once, here.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use gotgan_core::alert::{Alert, AlertKind};
use gotgan_core::amount::{GpuMilli, GpuMilliSeconds, Ngh, UnixMicros};
use gotgan_core::attempt::{Attempt, AttemptState, Member, Outcome, Placement, Stop};
use gotgan_core::change::{Event, EventKind, Subject};
use gotgan_core::fairshare::HeldFor;
use gotgan_core::health::{Breaker, NodeHealth};
use gotgan_core::ids::{AttemptId, BadName, Epoch, JobId};
use gotgan_core::job::{Digest, Job, JobState};
use gotgan_core::ledger::{CounterAccount, LedgerEntry, LedgerKind};
use gotgan_core::meter::{Meter, SLICE_S, Stretch};
use gotgan_core::node::{Admin, Inventory};
use gotgan_core::quota::audit::{AuditEntry, Source};
use gotgan_core::quota::{Approval, Interval};
use gotgan_core::spec::JobSpec;
use gotgan_core::step::{Step, StepKind, Task};
use gotgan_core::window::Window;
use gotgan_core::world::Used;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::records::{AnsweredRequest, Balance, JoinTokenRecord, RecordedSubmission, TokenRecord};
use crate::{Leadership, Result, StoreError};

type Text = String;

/// epoch, holder, address, expires.
pub(crate) type LeadershipRow = (i64, Text, Text, i64);
/// id, owner, key, digest, submitted, status, spec, array.
pub(crate) type JobRow<T = Text> = (i64, T, T, T, i64, T, T, Option<i64>);
/// job, number, project, epoch, state, leased, started, ended, hold, progress, placement, measured, told of
/// idle GPUs.
pub(crate) type AttemptRow = (
    i64,
    i64,
    Text,
    i64,
    Text,
    i64,
    Option<i64>,
    Option<i64>,
    i64,
    Text,
    Text,
    Option<Text>,
    Option<i64>,
);
/// project, class, GPUs, from, until, 1 if it was given back.
pub(crate) type HeldForRow = (Text, Text, i64, i64, i64, i64);
/// job, attempt, number, kind, created, spec.
pub(crate) type StepRow = (i64, i64, i64, Text, i64, Text);
/// job, attempt, step, rank, node, local rank, state.
pub(crate) type TaskRow = (i64, i64, i64, i64, Text, i64, Text);
/// seq, at, kind, project, class, amount, job, attempt, counter, from, until, account, weight.
pub(crate) type LedgerRow = (i64, i64, Text, Text, Text, i64, i64, i64, Text, i64, i64, i64, i64);
/// project, account, weight, charges less refunds.
pub(crate) type UsedRow = (Text, i64, i64, i64);
/// seq, at, kind, job, attempt, state, node, text.
pub(crate) type EventRow =
    (i64, i64, Text, Option<i64>, Option<i64>, Option<Text>, Option<Text>, Text);
/// seq, revision, at, subject, source, body, digest.
pub(crate) type AuditRow = (i64, i64, i64, Text, Text, Text, Text);
/// seq, at, node, percent, kind, from, period, budget, carried, used.
pub(crate) type AlertRow = (i64, i64, Text, i64, Text, i64, Text, Text, Text, Text);
/// plan, base revision, approver, document, at.
pub(crate) type ApprovalRow = (Text, i64, Text, Text, i64);
/// project, class, charged, of that beyond a budget, refunded, held.
pub(crate) type BalanceRow = (Text, Text, i64, i64, i64, i64);
/// owner, key, digest, id.
pub(crate) type SubmissionRow = (Text, Text, Text, i64);
/// owner, key, digest, answer, at.
pub(crate) type AnsweredRow = (Text, Text, Text, Text, i64);
/// id, secret, subject, role, projects, created, expires, revoked.
pub(crate) type TokenRow = (Text, Text, Text, Text, Text, i64, Option<i64>, Option<i64>);
/// secret, node, expires, used, used by.
pub(crate) type JoinTokenRow = (Text, Option<Text>, i64, Option<i64>, Option<Text>);

/// What changes about an attempt beside its columns, as JSON.
#[derive(Serialize, Deserialize)]
pub(crate) struct ProgressJson<M, S, O, P> {
    pub members: M,
    pub stop: Option<S>,
    pub outcome: Option<O>,
    pub next_step: u32,
    /// Absent from what was written before attempts were paid in slices.
    pub meter: Option<P>,
}

/// What a step is beside its columns, as JSON.
#[derive(Serialize, Deserialize)]
pub(crate) struct StepJson<'r> {
    pub name: Cow<'r, str>,
    pub argv: Cow<'r, [String]>,
    pub environment: Cow<'r, BTreeMap<String, String>>,
    pub working_directory: Cow<'r, str>,
    pub gpus_per_task: u32,
}

/// A stored word that no enum knows.
#[derive(Debug, thiserror::Error)]
#[error("unknown word \"{0}\"")]
struct UnknownWord(String);

pub(crate) fn leadership((epoch, holder, address, expires): LeadershipRow) -> Result<Leadership> {
    let epoch = Epoch(unsigned("leadership", epoch)?);
    Ok(Leadership { epoch, holder, address, expires: UnixMicros(expires) })
}

pub(crate) fn job(row: JobRow) -> Result<Job> {
    let (id, owner, key, digest, submitted, status, spec, array) = &row;
    let asks = Arc::new(json(&|| format!("job {id}"), spec)?);
    job_that_asks(asks, (*id, owner, key, digest, *submitted, status, spec, *array))
}

/// A decoder of many jobs. What several ask for in the same words is decoded once, and is theirs together: people submit the
/// same thing again and again, and a country's queue is read at a start that others wait for.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    asked: HashMap<Box<str>, Arc<JobSpec>>,
}

impl Jobs {
    /// The next one.
    pub fn job(&mut self, row: JobRow<&str>) -> Result<Job> {
        let (id, .., spec, _) = row;
        let asks = match self.asked.get(spec) {
            Some(known) => Arc::clone(known),
            None => {
                let new = Arc::new(json(&|| format!("job {id}"), spec)?);
                self.asked.insert(spec.into(), Arc::clone(&new));
                new
            }
        };
        job_that_asks(asks, row)
    }
}

fn job_that_asks(spec: Arc<JobSpec>, row: JobRow<&str>) -> Result<Job> {
    let (id, owner, key, digest, submitted, status, _, array) = row;
    let what = || format!("job {id}");
    Ok(Job {
        id: JobId(unsigned("job", id)?),
        owner: name(&what, owner.to_owned())?,
        key: name(&what, key.to_owned())?,
        digest: Digest(digest.into()),
        submitted: UnixMicros(submitted),
        spec,
        status: json(&what, status)?,
        array: array.map(|array| unsigned("array", array).map(JobId)).transpose()?,
    })
}

pub(crate) fn attempt(row: AttemptRow) -> Result<Attempt> {
    let (job, number, project, epoch, state, leased, started, ended, hold, progress, ..) = row;
    let (.., placement, measured, idle_told) = row;
    let id = attempt_id(job, number)?;
    let what = || format!("attempt {id}");
    let progress: ProgressJson<Vec<Member>, Stop, Outcome, Meter> = json(&what, &progress)?;
    // Nothing of an attempt from before slices is paid until it ends.
    let unpaid = || Meter {
        settled: UnixMicros(leased),
        held_until: UnixMicros(leased).plus_seconds(SLICE_S),
        ..Meter::default()
    };
    Ok(Attempt {
        id,
        project: name(&what, project)?,
        placement: Arc::new(json::<Placement>(&what, &placement)?),
        epoch: Epoch(unsigned("attempt", epoch)?),
        leased: UnixMicros(leased),
        hold: GpuMilliSeconds(hold),
        meter: progress.meter.unwrap_or_else(unpaid),
        state: word(&what, &state, AttemptState::from_word)?,
        started: started.map(UnixMicros),
        ended: ended.map(UnixMicros),
        members: progress.members,
        stop: progress.stop,
        outcome: progress.outcome,
        next_step: progress.next_step,
        measured: measured.map(|measured| json(&what, &measured)).transpose()?,
        idle_told: idle_told.map(UnixMicros),
    })
}

pub(crate) fn held_for(
    (project, class, gpus, from, until, refunded): HeldForRow,
) -> Result<HeldFor> {
    let what = || "an attempt that ended".to_owned();
    Ok(HeldFor {
        project: name(&what, project)?,
        class: name(&what, class)?,
        gpus: GpuMilli(unsigned("attempt", gpus)?),
        from: UnixMicros(from),
        until: UnixMicros(until),
        refunded: refunded != 0,
    })
}

/// Steps with the tasks that belong to them; both must be in order of attempt and number.
pub(crate) fn steps(rows: Vec<StepRow>, tasks: Vec<TaskRow>) -> Result<Vec<Step>> {
    let mut steps = rows.into_iter().map(step).collect::<Result<Vec<_>>>()?;
    let mut places: BTreeMap<(AttemptId, u32), &mut Step> =
        steps.iter_mut().map(|step| ((step.attempt, step.number), step)).collect();
    for row in tasks {
        let key = (attempt_id(row.0, row.1)?, small("task", row.2)?);
        if let Some(step) = places.get_mut(&key) {
            step.tasks.push(task(row)?);
        }
    }
    Ok(steps)
}

fn step((job, attempt, number, kind, created, spec): StepRow) -> Result<Step> {
    let what = || format!("step {job}.{attempt}.{number}");
    let spec: StepJson<'_> = json(&what, &spec)?;
    Ok(Step {
        attempt: attempt_id(job, attempt)?,
        number: small("step", number)?,
        kind: word(&what, &kind, StepKind::from_word)?,
        name: spec.name.into_owned(),
        argv: spec.argv.into_owned(),
        environment: spec.environment.into_owned(),
        working_directory: spec.working_directory.into_owned(),
        created: UnixMicros(created),
        tasks: Vec::new(),
        gpus_per_task: spec.gpus_per_task,
    })
}

fn task((job, attempt, step, rank, node, local_rank, state): TaskRow) -> Result<Task> {
    let what = || format!("task {job}.{attempt}.{step}.{rank}");
    Ok(Task {
        rank: small("task", rank)?,
        node: name(&what, node)?,
        local_rank: small("task", local_rank)?,
        state: json(&what, &state)?,
    })
}

pub(crate) fn ledger_entry(row: LedgerRow) -> Result<LedgerEntry> {
    let (
        seq,
        at,
        kind,
        project,
        class,
        amount,
        job,
        attempt,
        counter,
        from,
        until,
        account,
        weight,
    ) = row;
    let what = || format!("ledger entry {seq}");
    Ok(LedgerEntry {
        seq: unsigned("ledger entry", seq)?,
        at: UnixMicros(at),
        kind: word(&what, &kind, LedgerKind::from_word)?,
        project: name(&what, project)?,
        class: name(&what, class)?,
        amount: GpuMilliSeconds(amount),
        attempt: attempt_id(job, attempt)?,
        counter: word(&what, &counter, CounterAccount::from_word)?,
        stretch: Stretch {
            time: Interval { from: UnixMicros(from), until: UnixMicros(until) },
            account: UnixMicros(account),
            weight_milli: small("ledger entry", weight)?,
        },
    })
}

pub(crate) fn used((project, account, weight, amount): UsedRow) -> Result<Used> {
    let weight_milli = small("ledger entry", weight)?;
    Ok(Used {
        project: name(&|| "ledger entry".to_owned(), project)?,
        account: UnixMicros(account),
        ngh: Ngh::of(GpuMilliSeconds(amount), weight_milli),
    })
}

pub(crate) fn alert(
    (seq, at, node, percent, kind, from, period, budget, carried, used): AlertRow,
) -> Result<Alert> {
    let what = || format!("alert {seq}");
    Ok(Alert {
        seq: unsigned("alert", seq)?,
        at: UnixMicros(at),
        node: name(&what, node)?,
        percent: small("alert", percent)?,
        kind: word(&what, &kind, AlertKind::from_word)?,
        from: UnixMicros(from),
        period,
        budget: units(&what, &budget)?,
        carried: units(&what, &carried)?,
        used: units(&what, &used)?,
    })
}

/// Normalised GPU time in its unit, as digits: more than a column of numbers holds.
pub(crate) fn units(what: &dyn Fn() -> String, digits: &str) -> Result<Ngh> {
    let corrupt = |source| StoreError::Corrupt { what: what(), source: Box::new(source) };
    digits.parse().map(Ngh).map_err(corrupt)
}

pub(crate) fn event((seq, at, kind, job, attempt, state, node, text): EventRow) -> Result<Event> {
    let what = || format!("event {seq}");
    let subject = match (job, node) {
        (Some(job), _) => Subject::Job {
            id: JobId(unsigned("event", job)?),
            attempt: small("event", attempt.unwrap_or(0))?,
            state: job_state(&state.unwrap_or_default())?,
        },
        (None, Some(node)) => Subject::Node(name(&what, node)?),
        (None, None) => Subject::Quota,
    };
    let kind = word(&what, &kind, EventKind::from_word)?;
    Ok(Event { seq: unsigned("event", seq)?, at: UnixMicros(at), subject, kind, text })
}

pub(crate) fn audited(
    (seq, revision, at, subject, source, body, digest): AuditRow,
) -> Result<AuditEntry> {
    let what = || format!("audit entry {seq}");
    Ok(AuditEntry {
        seq: unsigned("audit entry", seq)?,
        revision: unsigned("audit entry", revision)?,
        at: UnixMicros(at),
        subject,
        source: word(&what, &source, Source::from_word)?,
        body: body.into(),
        digest: Digest(digest.into()),
    })
}

pub(crate) fn approval(
    (plan, base_revision, approver, document, at): ApprovalRow,
) -> Result<Approval> {
    let what = || "approval".to_owned();
    Ok(Approval {
        plan: Digest(plan.into()),
        base_revision: unsigned("approval", base_revision)?,
        by: name(&what, approver)?,
        document,
        at: UnixMicros(at),
    })
}

pub(crate) fn balance(row: BalanceRow) -> Result<Balance> {
    let (project, class, charged, overuse, refunded, held) = row;
    let what = || "balance".to_owned();
    Ok(Balance {
        project: name(&what, project)?,
        class: name(&what, class)?,
        charged: GpuMilliSeconds(charged),
        overuse: GpuMilliSeconds(overuse),
        refunded: GpuMilliSeconds(refunded),
        held: GpuMilliSeconds(held),
    })
}

pub(crate) fn submission((owner, key, digest, id): SubmissionRow) -> Result<RecordedSubmission> {
    let what = || format!("job {id}");
    Ok(RecordedSubmission {
        owner: name(&what, owner)?,
        key: name(&what, key)?,
        digest: Digest(digest.into()),
        job: JobId(unsigned("job", id)?),
    })
}

pub(crate) fn answered((owner, key, digest, answer, at): AnsweredRow) -> Result<AnsweredRequest> {
    let what = || "answered request".to_owned();
    Ok(AnsweredRequest {
        owner: name(&what, owner)?,
        key: name(&what, key)?,
        digest: Digest(digest.into()),
        answer,
        at: UnixMicros(at),
    })
}

pub(crate) fn token(row: TokenRow) -> Result<TokenRecord> {
    let (id, secret_sha256, subject, role, projects, created, expires, revoked) = row;
    let what = || "token".to_owned();
    Ok(TokenRecord {
        id,
        secret_sha256,
        subject: name(&what, subject)?,
        role,
        projects: json(&what, &projects)?,
        created: UnixMicros(created),
        expires: expires.map(UnixMicros),
        revoked: revoked.map(UnixMicros),
    })
}

pub(crate) fn join_token(row: JoinTokenRow) -> Result<JoinTokenRecord> {
    let (secret_sha256, node, expires, used_us, used_by) = row;
    let what = || "join token".to_owned();
    let used_by = used_by.map(|node| name(&what, node)).transpose()?;
    Ok(JoinTokenRecord {
        secret_sha256,
        node: node.map(|node| name(&what, node)).transpose()?,
        expires: UnixMicros(expires),
        used: used_us.map(UnixMicros).zip(used_by),
    })
}

/// A node from its inventory and what people decided.
pub(crate) fn node(
    (inventory, admin, health): (Text, Text, Option<Text>),
) -> Result<(Arc<Inventory>, Admin, NodeHealth)> {
    let what = || "node".to_owned();
    let health = health.map(|health| json(&what, &health)).transpose()?.unwrap_or_default();
    Ok((Arc::new(json(&what, &inventory)?), json(&what, &admin)?, health))
}

/// A circuit breaker as it was written.
pub(crate) fn breaker((body,): (Text,)) -> Result<Breaker> {
    json(&|| "breaker".to_owned(), &body)
}

/// A window as it was written.
pub(crate) fn window((body,): (Text,)) -> Result<Window> {
    json(&|| "window".to_owned(), &body)
}

pub(crate) fn job_state(text: &str) -> Result<JobState> {
    word(&|| "job state".to_owned(), text, JobState::from_word)
}

pub(crate) fn attempt_id(job: i64, number: i64) -> Result<AttemptId> {
    Ok(AttemptId { job: JobId(unsigned("attempt", job)?), number: small("attempt", number)? })
}

/// A count or a number that is never negative.
pub(crate) fn unsigned(what: &str, number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|source| corrupt(what.to_owned(), source))
}

pub(crate) fn small(what: &str, number: i64) -> Result<u32> {
    u32::try_from(number).map_err(|source| corrupt(what.to_owned(), source))
}

/// JSON that this program (or one before it) wrote.
pub(crate) fn json<V: DeserializeOwned>(what: &dyn Fn() -> String, text: &str) -> Result<V> {
    serde_json::from_str(text).map_err(|source| corrupt(what(), source))
}

fn name<N: TryFrom<String, Error = BadName>>(what: &dyn Fn() -> String, text: String) -> Result<N> {
    N::try_from(text).map_err(|source| corrupt(what(), source))
}

fn word<W>(what: &dyn Fn() -> String, text: &str, parse: fn(&str) -> Option<W>) -> Result<W> {
    parse(text).ok_or_else(|| corrupt(what(), UnknownWord(text.to_owned())))
}

fn corrupt(what: String, source: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Corrupt { what, source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = r#"{"name":"learn","project":"public/a","work":{"command":{"argv":["true"],"layout":"per_node"}},
        "nodes":1,"per_node":{"gpus":{"whole":{"count":1,"class":"h200"}},"cpu_milli":1000,"memory_mib":64},
        "constraints":{"nodes":[],"exclude_nodes":[],"labels":{}},"time_limit_s":60,"priority":0,"dependencies":[],
        "warning_signal":null,"requeue":true,"max_retries":0,"environment":{},"working_directory":"","output_path":"",
        "error_path":"","hold":false,"comment":"","grace_s":30}"#;
    const STATUS: &str = r#"{"state":"pending","detail":"","queued":1,"not_before":1,"started":null,"ended":null,
        "attempt":0,"failures":0,"losses":0,"waits_for":[],"avoid":[],"pending_action":null,"cause":null,"exit":null}"#;

    fn row<'r>(id: i64, key: &'r str, spec: &'r str) -> JobRow<&'r str> {
        (id, "minji", key, "digest", 1, STATUS, spec, None)
    }

    #[test]
    fn jobs_that_ask_the_same_in_the_same_words_share_it_and_others_do_not() {
        let other = SPEC.replace("learn", "test");
        let rows = [row(1, "a", SPEC), row(2, "b", &other), row(3, "c", SPEC)];
        let mut jobs = Jobs::default();
        let [first, second, third] = rows.map(|row| jobs.job(row).unwrap());
        assert!(Arc::ptr_eq(&first.spec, &third.spec));
        assert_eq!((first.spec.name.as_str(), second.spec.name.as_str()), ("learn", "test"));
        assert_eq!((first.key.as_str(), third.key.as_str()), ("a", "c"));
    }

    #[test]
    fn a_job_that_cannot_be_read_is_named() {
        let error = Jobs::default().job(row(7, "b", "{}")).unwrap_err().to_string();
        assert!(error.contains("job 7"), "{error}");
    }
}
