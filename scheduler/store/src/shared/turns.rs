//! By what order a job started. Compiled once a database, as `reads`.

use gotgan_core::ids::{AttemptId, Epoch};

use super::writes::signed;
use super::{Connection, Db, sql};
use crate::{Result, StartRecord, StoreError, decode};

/// What was written down of the start of an attempt; `None` if nothing was.
pub(super) async fn start_record(
    connection: &mut Connection,
    attempt: AttemptId,
) -> Result<Option<StartRecord>> {
    let row = sqlx::query_as::<Db, (i64, i64, String, String)>(sql::START_RECORD)
        .bind(signed(attempt.job.0))
        .bind(i64::from(attempt.number))
        .fetch_optional(&mut *connection)
        .await
        .map_err(|source| StoreError::Database {
            doing: "read by what order a job started",
            source,
        })?;
    let Some((pass, epoch, sheet, turn)) = row else { return Ok(None) };
    Ok(Some(StartRecord {
        pass: decode::unsigned("pass", pass)?,
        epoch: Epoch(decode::unsigned("epoch", epoch)?),
        sheet: decode::json(&|| "what a pass knew".to_owned(), &sheet)?,
        start: decode::json(&|| "the rank of a start".to_owned(), &turn)?,
    }))
}
