//! States of all tasks of an array. Compiled once a database, as `reads`.

use std::collections::BTreeMap;

use gotgan_core::ids::JobId;
use gotgan_core::job::{Job, JobState};

use super::writes::signed;
use super::{Connection, Db, sql};
use crate::{Result, StoreError, decode};

/// Of every task: that of its row, or what follows from the array. The array is read first, so that what becomes a job
/// in between is seen as one.
pub(super) async fn task_states(
    connection: &mut Connection,
    array: JobId,
) -> Result<BTreeMap<JobId, JobState>> {
    let Some(array) = array_of(connection, array).await? else { return Ok(BTreeMap::new()) };
    let without_row = |id: JobId| array.folded_task(id).or_else(|| array.dropped_task(id));
    let (first, last) = (array.id.0.saturating_add(1), array.last_id().0);
    let tasks = (first..=last).map(JobId);
    let tasks = tasks.filter_map(|id| Some((id, without_row(id)?.status.state)));
    let mut states: BTreeMap<JobId, JobState> = tasks.collect();
    let rows = sqlx::query_as::<Db, (i64, String)>(sql::TASK_STATES)
        .bind(signed(first))
        .bind(signed(last))
        .fetch_all(&mut *connection)
        .await
        .map_err(|source| StoreError::Database { doing: "read states of tasks", source })?;
    for (id, state) in rows {
        states.insert(JobId(decode::unsigned("job", id)?), decode::job_state(&state)?);
    }
    Ok(states)
}

/// The array of that number; `None` if it is none.
async fn array_of(connection: &mut Connection, id: JobId) -> Result<Option<Job>> {
    let row = sqlx::query_as::<Db, _>(sql::JOB)
        .bind(signed(id.0))
        .fetch_optional(&mut *connection)
        .await
        .map_err(|source| StoreError::Database { doing: "read an array", source })?;
    Ok(row.map(decode::job).transpose()?.filter(Job::is_array))
}
