//! The whole of what a scheduler works on, read at its start. Compiled once a database, as `reads` is.

use std::sync::Arc;

use futures::{Stream, TryStreamExt};
use gotgan_core::amount::UnixMicros;
use gotgan_core::attempt::Attempt;
use gotgan_core::fairshare::{HalfLife, History};
use gotgan_core::job::Job;
use gotgan_core::quota::audit::ChainHead;
use gotgan_core::world::{QuotaAudit, Sequences, Snapshot};
use sqlx::Database;

use super::reads::{each, job_of, row, rows};
use super::{Connection, Db, sql};
use crate::decode;
use crate::{Result, StoreError};

/// Rows that are decoded at a time.
const BATCH: usize = 4_096;
const LOAD_JOBS: &str = "load the jobs";

/// A long list of rows through a decoder of many, beside the fetching of further ones: a start waits for it.
async fn beside<R, T>(
    mut rows: impl Stream<Item = sqlx::Result<R>> + Unpin,
    doing: &'static str,
    decode: fn(Vec<R>) -> Result<Vec<T>>,
) -> Result<Vec<T>>
where
    R: Send + 'static,
    T: Send + 'static,
{
    let (mut batch, mut decoding) = (Vec::with_capacity(BATCH), Vec::new());
    loop {
        let row = rows.try_next().await.map_err(|source| StoreError::Database { doing, source })?;
        let is_last = row.is_none();
        batch.extend(row);
        if is_last || batch.len() == BATCH {
            let batch = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
            decoding.push(tokio::task::spawn_blocking(move || decode(batch)));
        }
        if is_last {
            break;
        }
    }
    let mut all = Vec::new();
    for decoded in decoding {
        let broken = |error| sqlx::Error::Io(std::io::Error::other(error));
        let decoded = decoded.await.map_err(broken);
        all.append(&mut decoded.map_err(|source| StoreError::Database { doing, source })??);
    }
    Ok(all)
}

pub(super) async fn load(
    connection: &mut Connection,
    half_life: HalfLife,
    now: UnixMicros,
) -> Result<Snapshot> {
    let sequences: Option<SequenceRow> = row!(connection, "load the counters", sql::SEQUENCES);
    let nodes = rows!(connection, "load the nodes", sql::NODES);
    let windows = rows!(connection, "load the windows", sql::LIVE_WINDOWS);
    let breakers = rows!(connection, "load the breakers", sql::BREAKERS);
    let quota: Option<(String,)> = row!(connection, "load the quota tree", sql::QUOTA);
    let audit = quota_audit(connection).await?;
    let (jobs, attempts) = living(connection).await?;
    let steps = rows!(connection, "load the steps", sql::LIVE_STEPS);
    let tasks = rows!(connection, "load the tasks", sql::LIVE_TASKS);
    let used = rows!(connection, "load what was used", sql::USED);
    let alerts = rows!(connection, "load the last alerts", sql::LAST_ALERTS);
    let tree = quota.map(|(tree,)| decode::json(&|| "quota tree".to_owned(), &tree));
    Ok(Snapshot {
        sequences: decode_sequences(sequences.unwrap_or((1, 1, 1, 1, 1)))?,
        nodes: each(nodes, decode::node)?,
        book: Arc::new(tree.transpose()?.unwrap_or_default()),
        audit,
        jobs,
        attempts,
        steps: decode::steps(steps, tasks)?,
        history: history(connection, half_life, now).await?,
        used: each(used, decode::used)?,
        alerts: each(alerts, decode::alert)?,
        windows: each(windows, decode::window)?,
        power: Arc::default(),
        breakers: each(breakers, decode::breaker)?,
    })
}

/// Jobs that have not ended, and attempts that have not.
pub(super) async fn living(connection: &mut Connection) -> Result<(Vec<Arc<Job>>, Vec<Attempt>)> {
    let mut jobs: Vec<Arc<Job>> = Vec::new();
    for statement in [sql::LIVE_JOBS, sql::LIVE_ARRAY_TASKS] {
        let rows = sqlx::query::<Db>(statement).fetch(&mut *connection);
        jobs.append(&mut beside(rows, LOAD_JOBS, jobs_of).await?);
    }
    jobs.sort_by_key(|job| job.id);
    let rows = sqlx::query_as::<Db, _>(sql::LIVE_ATTEMPTS).fetch(&mut *connection);
    let attempts = beside(rows, "load the attempts", |rows| each(rows, decode::attempt)).await?;
    Ok((jobs, attempts))
}

fn jobs_of(rows: Vec<<Db as Database>::Row>) -> Result<Vec<Arc<Job>>> {
    let mut known = decode::Jobs::default();
    rows.iter().map(|row| job_of(&mut known, row, LOAD_JOBS).map(Arc::new)).collect()
}

/// Where the audit chain ends, and what stands for its next entry.
async fn quota_audit(connection: &mut Connection) -> Result<QuotaAudit> {
    let last = row!(connection, "load the end of the audit chain", sql::LAST_AUDITED);
    let unfiled = rows!(connection, "load changes by command", sql::UNFILED);
    let approvals = rows!(connection, "load approvals", sql::APPROVALS);
    let mut audit = QuotaAudit::default();
    for entry in each(unfiled, decode::audited)? {
        audit.enter(&entry);
    }
    audit.head = ChainHead::default();
    if let Some(last) = last.map(decode::audited).transpose()? {
        audit.head.pass(&last);
    }
    audit.approvals = each(approvals, decode::approval)?;
    Ok(audit)
}

/// What attempts used that have ended, as far back as it counts. Row by row: there may be millions.
async fn history(
    connection: &mut Connection,
    half_life: HalfLife,
    now: UnixMicros,
) -> Result<History> {
    let failed = |source| StoreError::Database { doing: "load what was used", source };
    let since = half_life.remembered_since(now);
    let rows = sqlx::query_as::<Db, decode::HeldForRow>(sql::HELD_SINCE).bind(since.0);
    let mut rows = rows.fetch(connection);
    let mut history = History::new(half_life);
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        history.add(&decode::held_for(row)?);
    }
    Ok(history)
}

/// The next of each: job, event, entry of the ledger, window, record of a pass.
type SequenceRow = (i64, i64, i64, i64, i64);

fn decode_sequences((job, event, entry, window, pass): SequenceRow) -> Result<Sequences> {
    Ok(Sequences {
        next_job: decode::unsigned("job", job)?,
        next_event: decode::unsigned("event", event)?,
        next_entry: decode::unsigned("ledger entry", entry)?,
        next_window: decode::unsigned("window", window)?,
        next_pass: decode::unsigned("pass", pass)?,
    })
}
