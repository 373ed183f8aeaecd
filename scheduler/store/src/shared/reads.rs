//! What is read. Compiled once a database (see the crate's documentation): `super` is the database's module with
//! its connection type and its statements.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::TryStreamExt;
use gotgan_core::alert::Alert;
use gotgan_core::amount::{GpuMilliSeconds, UnixMicros};
use gotgan_core::attempt::Attempt;
use gotgan_core::ids::{IdempotencyKey, JobId, ProjectPath, UserName};
use gotgan_core::job::{Job, JobState};
use gotgan_core::ledger::LedgerEntry;
use gotgan_core::quota::audit::AuditEntry;
use gotgan_core::quota::{Interval, QuotaBook};
use serde_json::json;
use sqlx::{Database, FromRow};

use super::writes::signed;
use super::{Connection, Db, sql};
use crate::decode::{self, JobRow};
use crate::{
    AnsweredRequest, Balance, JobDetail, JobFilter, JoinTokenRecord, Leadership, LedgerFilter,
    Page, RecordedSubmission, Result, StoreError, TaskFilter, TokenRecord,
};

/// Rows of a statement, decoded; the error of a statement says what was being done.
macro_rules! rows {
    ($connection:expr, $doing:literal, $sql:expr $(, $bind:expr)*) => {
        sqlx::query_as::<Db, _>($sql)
            $(.bind($bind))*
            .fetch_all(&mut *$connection)
            .await
            .map_err(|source| StoreError::Database { doing: $doing, source })?
    };
}

/// The first row of a statement, if there is one.
macro_rules! row {
    ($connection:expr, $doing:literal, $sql:expr $(, $bind:expr)*) => {
        sqlx::query_as::<Db, _>($sql)
            $(.bind($bind))*
            .fetch_optional(&mut *$connection)
            .await
            .map_err(|source| StoreError::Database { doing: $doing, source })?
    };
}

pub(super) use {row, rows};

/// A list of rows through a decoder.
pub(super) fn each<R, T>(rows: Vec<R>, decode: impl Fn(R) -> Result<T>) -> Result<Vec<T>> {
    rows.into_iter().map(decode).collect()
}

/// The job of a row, whose texts stay there until they are decoded.
pub(super) fn job_of(
    known: &mut decode::Jobs,
    row: &<Db as Database>::Row,
    doing: &'static str,
) -> Result<Job> {
    known.job(JobRow::from_row(row).map_err(|source| StoreError::Database { doing, source })?)
}

pub(super) async fn leadership(connection: &mut Connection) -> Result<Option<Leadership>> {
    row!(connection, "read the leadership", sql::LEADERSHIP).map(decode::leadership).transpose()
}

pub(super) async fn audited(
    connection: &mut Connection,
    subject: Option<&str>,
    page: &Page,
) -> Result<Vec<AuditEntry>> {
    let (after, size) = (signed(page.after.unwrap_or(0)), i64::from(page.size));
    let rows = match subject {
        None => rows!(connection, "read the audit chain", sql::AUDITED, after, size),
        Some(subject) => {
            rows!(connection, "read audit entries", sql::AUDITED_SUBJECT, after, size, subject)
        }
    };
    each(rows, decode::audited)
}

pub(super) async fn quota_at(
    connection: &mut Connection,
    at: UnixMicros,
) -> Result<Option<QuotaBook>> {
    let found: Option<(String,)> = row!(connection, "read a quota tree", sql::QUOTA_AT, at.0);
    found.map(|(tree,)| decode::json(&|| "quota tree".to_owned(), &tree)).transpose()
}

pub(super) async fn setting(connection: &mut Connection, name: &str) -> Result<Option<String>> {
    let found: Option<(String,)> = row!(connection, "read a setting", sql::SETTING, name);
    Ok(found.map(|(value,)| value))
}

pub(super) async fn submissions(
    connection: &mut Connection,
    keys: &[(UserName, IdempotencyKey)],
) -> Result<Vec<RecordedSubmission>> {
    let keys = json!(keys).to_string();
    each(rows!(connection, "find submissions", sql::SUBMISSIONS, keys), decode::submission)
}

pub(super) async fn recent_submissions(
    connection: &mut Connection,
    limit: u32,
) -> Result<Vec<RecordedSubmission>> {
    let limit = i64::from(limit);
    each(
        rows!(connection, "find recent submissions", sql::RECENT_SUBMISSIONS, limit),
        decode::submission,
    )
}

pub(super) async fn answered(
    connection: &mut Connection,
    owner: &UserName,
    key: &IdempotencyKey,
) -> Result<Option<AnsweredRequest>> {
    row!(connection, "find an answer", sql::ANSWERED, owner.as_str(), key.as_str())
        .map(decode::answered)
        .transpose()
}

pub(super) async fn job(connection: &mut Connection, id: JobId) -> Result<Option<JobDetail>> {
    let number = signed(id.0);
    let Some(job) = row!(connection, "read a job", sql::JOB, number) else {
        return Ok(folded_task(connection, id).await?.map(JobDetail::of));
    };
    let attempts = rows!(connection, "read a job's attempts", sql::ATTEMPTS_OF_JOB, number);
    let steps = rows!(connection, "read a job's steps", sql::STEPS_OF_JOB, number);
    let tasks = rows!(connection, "read a job's tasks", sql::TASKS_OF_JOB, number);
    let sums: Vec<(i64, i64, i64)> =
        rows!(connection, "read what a job paid", sql::SUMS_OF_JOB, number);
    let mut detail = JobDetail {
        attempts: each(attempts, decode::attempt)?,
        steps: decode::steps(steps, tasks)?.into_iter().map(Arc::new).collect(),
        ..JobDetail::of(decode::job(job)?)
    };
    for (attempt, charged, refunded) in sums {
        let attempt = decode::small("ledger entry", attempt)?;
        detail.charged.push((attempt, GpuMilliSeconds(charged)));
        detail.refunded.push((attempt, GpuMilliSeconds(refunded)));
        detail.paid += GpuMilliSeconds(charged.saturating_sub(refunded));
    }
    // An attempt that paid nothing has no line.
    detail.charged.retain(|(_, amount)| amount.0 != 0);
    detail.refunded.retain(|(_, amount)| amount.0 != 0);
    Ok(Some(detail))
}

pub(super) async fn jobs(
    connection: &mut Connection,
    filter: &JobFilter,
    page: &Page,
) -> Result<Vec<JobDetail>> {
    let jobs = list(connection, filter, page).await?;
    // What has never been tried has no attempt and has paid nothing.
    let tried = jobs.iter().filter(|job| job.status.attempt > 0);
    let ids = json!(tried.map(|job| job.id).collect::<Vec<_>>()).to_string();
    let attempts = rows!(connection, "list attempts", sql::LATEST_ATTEMPTS, ids.as_str());
    let mut attempts: BTreeMap<JobId, Attempt> = each(attempts, decode::attempt)?
        .into_iter()
        .map(|attempt| (attempt.id.job, attempt))
        .collect();
    let paid: Vec<(i64, i64)> = rows!(connection, "sum what jobs paid", sql::PAID, ids.as_str());
    let paid: BTreeMap<i64, i64> = paid.into_iter().collect();
    let details = jobs.into_iter().map(|job| JobDetail {
        attempts: attempts.remove(&job.id).into_iter().collect(),
        paid: GpuMilliSeconds(paid.get(&signed(job.id.0)).copied().unwrap_or(0)),
        ..JobDetail::of(job)
    });
    Ok(details.collect())
}

async fn list(connection: &mut Connection, filter: &JobFilter, page: &Page) -> Result<Vec<Job>> {
    let states: BTreeSet<&str> = filter.states.iter().map(|state| state.word()).collect();
    let states: Vec<&str> = states.into_iter().collect();
    let doing = "list jobs";
    let mut rows = sqlx::query::<Db>(list_statement(filter))
        .bind(page.after.map_or(i64::MAX, signed))
        .bind(list_or_null(&states))
        .bind(list_or_null(&paths(filter)))
        .bind(filter.project.as_ref().map(ProjectPath::as_str))
        .bind(filter.owner.as_ref().map(UserName::as_str))
        .bind(filter.name.as_deref().map(|name| name.replace('\0', "\u{fffd}")))
        .bind(list_or_null(&filter.ids))
        .bind(i64::from(page.size))
        .bind((filter.tasks == TaskFilter::Without).then_some(1_i64))
        .bind(array_of(filter).map(|array| signed(array.0)))
        .persistent(super::KEEPS_LISTINGS_PREPARED)
        .fetch(connection);
    // Each is decoded while the database looks for those after it.
    let (mut known, mut jobs) = (decode::Jobs::default(), Vec::new());
    let failed = |source| StoreError::Database { doing, source };
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        jobs.push(job_of(&mut known, &row, doing)?);
    }
    Ok(jobs)
}

/// The statement that runs along the index of the narrowest condition. States narrow only if all are of jobs that
/// live: most jobs there ever were have ended, and the newest of those are found faster from the end.
fn list_statement(filter: &JobFilter) -> &'static str {
    let only_living =
        !filter.states.is_empty() && !filter.states.iter().any(|state| state.is_terminal());
    match filter {
        JobFilter { tasks: TaskFilter::Of(_), .. } => sql::LIST_BY_ARRAY,
        JobFilter { ids, .. } if !ids.is_empty() => sql::LIST_BY_ID,
        JobFilter { owner: Some(_), .. } => sql::LIST_BY_OWNER,
        _ if only_living => sql::LIST_BY_STATE,
        _ if !paths(filter).is_empty() => sql::LIST_WITHIN,
        JobFilter { tasks: TaskFilter::Without, .. } => sql::LIST_SUBMITTED,
        JobFilter { .. } => sql::LIST_ALL,
    }
}

fn array_of(filter: &JobFilter) -> Option<JobId> {
    match filter.tasks {
        TaskFilter::Of(array) => Some(array),
        TaskFilter::Beside | TaskFilter::Without => None,
    }
}

/// A task of an array that is no job of its own, as the job it would be, or would have been.
async fn folded_task(connection: &mut Connection, id: JobId) -> Result<Option<Job>> {
    let array = row!(connection, "find an array", sql::ARRAY_OVER, signed(id.0));
    let array = array.map(decode::job).transpose()?;
    Ok(array.and_then(|array| array.folded_task(id).or_else(|| array.dropped_task(id))))
}

/// A JSON array, or null for an empty list: no filter.
fn list_or_null<T: serde::Serialize>(list: &[T]) -> Option<String> {
    (!list.is_empty()).then(|| json!(list).to_string())
}

/// Subtrees to look in: the narrower path alone if it lies in one of the wider ones.
fn paths(filter: &JobFilter) -> Vec<&str> {
    let within = &filter.within;
    match &filter.project {
        Some(path)
            if within.is_empty() || within.iter().any(|wide| path.is_within(wide.as_str())) =>
        {
            vec![path.as_str()]
        }
        Some(_) | None => outermost(within),
    }
}

/// The paths without those that lie below another of them.
fn outermost(paths: &[ProjectPath]) -> Vec<&str> {
    let mut outermost: Vec<&str> = paths
        .iter()
        .filter(|path| !paths.iter().any(|other| *path != other && path.is_within(other.as_str())))
        .map(ProjectPath::as_str)
        .collect();
    outermost.sort_unstable();
    outermost.dedup();
    outermost
}

pub(super) async fn job_states(
    connection: &mut Connection,
    ids: &[JobId],
) -> Result<BTreeMap<JobId, JobState>> {
    let list = json!(ids).to_string();
    let rows: Vec<(i64, String)> = rows!(connection, "read states of jobs", sql::JOB_STATES, list);
    let mut states = BTreeMap::new();
    for (id, state) in rows {
        states.insert(JobId(decode::unsigned("job", id)?), decode::job_state(&state)?);
    }
    for id in ids {
        if !states.contains_key(id)
            && let Some(task) = folded_task(connection, *id).await?
        {
            states.insert(*id, task.status.state);
        }
    }
    Ok(states)
}

pub(super) async fn count_jobs(connection: &mut Connection) -> Result<BTreeMap<JobState, u64>> {
    let rows: Vec<(String, i64)> = rows!(connection, "count jobs", sql::COUNT_JOBS);
    let counts = rows
        .into_iter()
        .map(|(state, count)| Ok((decode::job_state(&state)?, decode::unsigned("count", count)?)));
    counts.collect()
}

pub(super) async fn ledger(
    connection: &mut Connection,
    filter: &LedgerFilter,
    page: &Page,
) -> Result<Vec<LedgerEntry>> {
    let statement = match (filter.job, filter.within.is_empty()) {
        (Some(_), _) => sql::LEDGER_OF_JOB,
        (None, false) => sql::LEDGER_WITHIN,
        (None, true) => sql::LEDGER,
    };
    let rows = rows!(
        connection,
        "read the ledger",
        statement,
        signed(page.after.unwrap_or(0)),
        list_or_null(&outermost(&filter.within)),
        filter.job.map(|job| signed(job.0)),
        i64::from(page.size)
    );
    each(rows, decode::ledger_entry)
}

/// Entries of a node in some accounts. The first page of a node with others below it begins at the first entry there is
/// in these accounts; entries are then gone through in order.
pub(super) async fn statement(
    connection: &mut Connection,
    node: &ProjectPath,
    alone: bool,
    accounts: Interval,
    page: &Page,
) -> Result<Vec<LedgerEntry>> {
    let first: Option<(i64,)> =
        row!(connection, "find the first entry", sql::FIRST_OF_ACCOUNTS, accounts.from.0);
    let Some((first,)) = first else { return Ok(Vec::new()) };
    let after = signed(page.after.unwrap_or(0)).max(first.saturating_sub(1));
    let statement = if alone { sql::STATEMENT_ALONE } else { sql::STATEMENT };
    let rows = rows!(
        connection,
        "read a statement",
        statement,
        after,
        node.as_str(),
        accounts.from.0,
        accounts.until.0,
        i64::from(page.size)
    );
    each(rows, decode::ledger_entry)
}

pub(super) async fn alerts(
    connection: &mut Connection,
    within: &[ProjectPath],
    page: &Page,
) -> Result<Vec<Alert>> {
    let statement = if within.is_empty() { sql::ALERTS } else { sql::ALERTS_WITHIN };
    let rows = rows!(
        connection,
        "read the alerts",
        statement,
        signed(page.after.unwrap_or(0)),
        list_or_null(&outermost(within)),
        i64::from(page.size)
    );
    each(rows, decode::alert)
}

pub(super) async fn balances(
    connection: &mut Connection,
    within: Option<&ProjectPath>,
) -> Result<Vec<Balance>> {
    let statement = if within.is_some() { sql::BALANCES_WITHIN } else { sql::BALANCES };
    let path = within.map(ProjectPath::as_str);
    each(rows!(connection, "sum the ledger", statement, path), decode::balance)
}

/// The next attempts after a job and number, oldest first.
pub(super) async fn attempts_after(
    connection: &mut Connection,
    (job, number): (JobId, u32),
    limit: u32,
) -> Result<Vec<Attempt>> {
    let (job, number, limit) = (signed(job.0), i64::from(number), i64::from(limit));
    each(
        rows!(connection, "read attempts", sql::ATTEMPTS_AFTER, job, number, limit),
        decode::attempt,
    )
}

/// The ledger's lines of the jobs from one to another.
pub(super) async fn ledger_of_jobs(
    connection: &mut Connection,
    first: JobId,
    last: JobId,
) -> Result<Vec<LedgerEntry>> {
    let (first, last) = (signed(first.0), signed(last.0));
    let rows = rows!(connection, "read the ledger of jobs", sql::LEDGER_OF_JOBS, first, last);
    each(rows, decode::ledger_entry)
}

/// The ledger's lines that belong to no attempt.
pub(super) async fn ledger_orphans(
    connection: &mut Connection,
    limit: usize,
) -> Result<Vec<LedgerEntry>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    each(
        rows!(connection, "find lines of no attempt", sql::LEDGER_ORPHANS, limit),
        decode::ledger_entry,
    )
}

pub(super) async fn tokens(connection: &mut Connection) -> Result<Vec<TokenRecord>> {
    each(rows!(connection, "read the tokens", sql::TOKENS), decode::token)
}

pub(super) async fn join_token(
    connection: &mut Connection,
    secret_sha256: &str,
) -> Result<Option<JoinTokenRecord>> {
    let found = row!(connection, "read a join token", sql::JOIN_TOKEN, secret_sha256);
    found.map(decode::join_token).transpose()
}
