//! What happened. Compiled once a database, as `reads`.

use gotgan_core::change::Event;
use gotgan_core::ids::{JobId, NodeName};
use serde_json::json;

use super::writes::signed;
use super::{Connection, Db, sql};
use crate::{Result, StoreError, decode};

/// From a position on, of all or of some jobs.
pub(super) async fn events(
    connection: &mut Connection,
    after: u64,
    jobs: Option<&[JobId]>,
    limit: u32,
) -> Result<Vec<Event>> {
    let statement = match jobs {
        None => sql::EVENTS,
        Some(_) => sql::EVENTS_OF_JOBS,
    };
    let query = sqlx::query_as::<Db, _>(statement).bind(signed(after)).bind(i64::from(limit));
    let query = match jobs {
        None => query,
        Some(jobs) => query.bind(json!(jobs).to_string()),
    };
    let rows = query.fetch_all(&mut *connection).await;
    let rows = rows.map_err(|source| StoreError::Database { doing: "read events", source })?;
    rows.into_iter().map(decode::event).collect()
}

/// The last of a node, the newest first.
pub(super) async fn events_of_node(
    connection: &mut Connection,
    node: &NodeName,
    limit: u32,
) -> Result<Vec<Event>> {
    let rows = sqlx::query_as::<Db, _>(sql::EVENTS_OF_NODE)
        .bind(node.as_str())
        .bind(i64::from(limit))
        .fetch_all(&mut *connection)
        .await;
    let doing = "read events of a node";
    let rows = rows.map_err(|source| StoreError::Database { doing, source })?;
    rows.into_iter().map(decode::event).collect()
}
