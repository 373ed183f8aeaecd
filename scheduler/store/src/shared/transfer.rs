//! All rows out, and all rows in. Compiled once a database, as `reads`.

use futures::TryStreamExt;
use sqlx::{AssertSqlSafe, Connection as _};

use super::{Connection, Db, KIND, sql};
use crate::backup::file::{BackupReader, BackupWriter, Part};
use crate::backup::{BackupError, EPOCHS_SKIPPED, JOBS_SKIPPED, Summary, TABLES};
use crate::migrations::{NEWEST, migrator, migrator_until};
use crate::write_op::refused;
use crate::{Result, StoreError};

type Transferred<T> = std::result::Result<T, BackupError>;

/// A column and its type, in this database's words.
type Column = (String, String);

fn failed(doing: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| StoreError::Database { doing, source }
}

/// Writes every row of one state of the database.
pub(super) async fn backup(
    connection: &mut Connection,
    out: &mut BackupWriter<'_>,
) -> Transferred<()> {
    let begun = connection.begin_with(sql::BEGIN_READ).await;
    let mut transaction = begun.map_err(failed("begin to read"))?;
    let form = form(&mut transaction).await?.ok_or(BackupError::Nothing)?;
    out.begin(form, KIND)?;
    for table in TABLES {
        let columns = columns(&mut transaction, table).await?;
        // An older form has not all tables.
        if !columns.is_empty() {
            export(&mut transaction, table, &columns, out).await?;
        }
    }
    Ok(())
}

/// Row by row: there may be millions.
async fn export(
    connection: &mut Connection,
    table: &str,
    columns: &[Column],
    out: &mut BackupWriter<'_>,
) -> Transferred<()> {
    let names: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
    out.table(table, &names)?;
    // Made of the names of our own tables and columns.
    let statement = AssertSqlSafe(sql::export_rows(table, &names));
    let mut rows = sqlx::query_as::<Db, (String,)>(statement).fetch(connection);
    while let Some((row,)) = rows.try_next().await.map_err(failed("read all rows"))? {
        out.row(&row)?;
    }
    Ok(())
}

/// Fills an empty database.
pub(super) async fn restore(
    connection: &mut Connection,
    input: &mut BackupReader<'_>,
) -> Transferred<Summary> {
    let backup = input.header().form;
    if backup > NEWEST {
        return Err(BackupError::TooNew { backup, newest: NEWEST });
    }
    if let Some(found) = form(connection).await?.filter(|found| *found != backup) {
        return Err(BackupError::OtherForm { found, backup });
    }
    let migrated = migrator_until(KIND, backup).run_direct(None, connection, false).await;
    migrated.map_err(StoreError::Migrate)?;
    let begun = connection.begin_with(sql::BEGIN_WRITE).await;
    let mut transaction = begun.map_err(failed("begin to write"))?;
    let summary = fill(&mut transaction, input).await?;
    transaction.commit().await.map_err(failed("commit what was restored"))?;
    let migrated = migrator(KIND).run_direct(None, connection, false).await;
    migrated.map_err(StoreError::Migrate)?;
    Ok(summary)
}

async fn fill(connection: &mut Connection, input: &mut BackupReader<'_>) -> Transferred<Summary> {
    for table in TABLES {
        if has_rows(connection, table).await? {
            return Err(BackupError::InUse { table });
        }
    }
    let mut insert = None;
    loop {
        match input.part()? {
            Part::Table { table, columns } => {
                insert = Some(insert_into(connection, &table, &columns).await?);
            }
            Part::Rows { json, count } => {
                let Some(statement) = &insert else {
                    return Err(StoreError::Conflict("rows of no table".to_owned()).into());
                };
                let query = sqlx::query::<Db>(AssertSqlSafe(statement.clone())).bind(json);
                let done = query.execute(&mut *connection).await;
                let written = done.map_err(refused("write rows"))?.rows_affected();
                if written != count {
                    let message = format!("{written} rows of {count} were written");
                    return Err(StoreError::Conflict(message).into());
                }
            }
            Part::End(summary) => {
                go_on_beyond(connection).await?;
                return Ok(summary);
            }
        }
    }
}

/// The statement that writes rows of a table, if the table is ours and has exactly these columns.
async fn insert_into(
    connection: &mut Connection,
    table: &str,
    names: &[String],
) -> Transferred<String> {
    let known = TABLES.into_iter().find(|known| *known == table);
    let unknown = || StoreError::Conflict(format!("there is no table {table} with these columns"));
    let columns = columns(connection, known.ok_or_else(unknown)?).await?;
    let places: Option<Vec<(usize, &Column)>> = columns
        .iter()
        .map(|column| Some((names.iter().position(|name| *name == column.0)?, column)))
        .collect();
    let places = places.filter(|places| places.len() == names.len()).ok_or_else(unknown)?;
    Ok(sql::import_rows(table, &places))
}

/// Epochs and numbers of jobs that were given out after the backup are not given out again.
async fn go_on_beyond(connection: &mut Connection) -> Result<()> {
    let skipped = super::writes::signed(EPOCHS_SKIPPED);
    let leadership = sqlx::query::<Db>(sql::END_LEADERSHIP).bind(skipped);
    leadership.execute(&mut *connection).await.map_err(failed("skip epochs"))?;
    let skipped = super::writes::signed(JOBS_SKIPPED);
    let numbers = sqlx::query::<Db>(sql::SKIP_JOBS).bind(skipped);
    numbers.execute(&mut *connection).await.map_err(failed("skip numbers of jobs"))?;
    Ok(())
}

/// Whether the tables are those that this program knows.
pub(super) async fn check_form(connection: &mut Connection) -> Result<()> {
    let found = form(connection).await?.unwrap_or(0);
    if found == NEWEST { Ok(()) } else { Err(StoreError::OtherForm { found, known: NEWEST }) }
}

/// Number of the last migration; `None` if there never was one.
async fn form(connection: &mut Connection) -> Result<Option<i64>> {
    if columns(connection, "_sqlx_migrations").await?.is_empty() {
        return Ok(None);
    }
    let (form,): (Option<i64>,) = sqlx::query_as::<Db, _>(sql::FORM)
        .fetch_one(connection)
        .await
        .map_err(failed("read its form"))?;
    Ok(form)
}

/// In the order of the table; empty if there is none of that name.
async fn columns(connection: &mut Connection, table: &str) -> Result<Vec<Column>> {
    let found = sqlx::query_as::<Db, Column>(sql::COLUMNS).bind(table).fetch_all(connection).await;
    found.map_err(failed("read its columns"))
}

async fn has_rows(connection: &mut Connection, table: &str) -> Result<bool> {
    if columns(connection, table).await?.is_empty() {
        return Ok(false);
    }
    // Made of the name of one of our own tables.
    let statement =
        AssertSqlSafe(format!("SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT 1) AS one"));
    let (count,): (i64,) = sqlx::query_as::<Db, _>(statement)
        .fetch_one(connection)
        .await
        .map_err(failed("look for rows"))?;
    Ok(count > 0)
}
