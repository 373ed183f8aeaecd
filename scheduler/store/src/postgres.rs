//! The store on a PostgreSQL server, shared by the leader and those that stand by.

#[path = "shared/backend.rs"]
mod backend;
#[path = "shared/events.rs"]
mod events;
#[path = "shared/loading.rs"]
mod loading;
#[path = "shared/reads.rs"]
mod reads;
mod sessions;
mod sql;
#[path = "shared/states.rs"]
mod states;
#[path = "shared/transfer.rs"]
mod transfer;
#[path = "shared/turns.rs"]
mod turns;
#[path = "shared/verify.rs"]
mod verify;
#[path = "shared/writes.rs"]
mod writes;
mod writes_sql;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use gotgan_core::ids::Epoch;
use sqlx::pool::PoolOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection as _};

use crate::backup::file::{BackupReader, BackupWriter};
use crate::backup::{BackupError, Summary};
use crate::migrations::migrator;
use crate::sheets::Sheet;
use crate::write_op::refused;
use crate::{DatabaseKind, Result, Store, StoreError};

type Db = sqlx::Postgres;
type Connection = PgConnection;
type Options = PgConnectOptions;
type Pool = sqlx::PgPool;

const KIND: DatabaseKind = DatabaseKind::Postgres;
/// Listings are planned with their values: see `LIST`.
const KEEPS_LISTINGS_PREPARED: bool = false;

/// Connections that read at once, beside the one that writes.
const READERS_MAX: u32 = 8;
/// How long a reader waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects and brings the tables up to date.
pub(crate) async fn open(url: &str) -> Result<Arc<dyn Store>> {
    let options = options(url).map_err(failed)?;
    let mut writer = connect(&options).await.map_err(failed)?;
    migrator(KIND).run_direct(None, &mut writer, false).await.map_err(StoreError::Migrate)?;
    Ok(backend(options, writer))
}

/// Connects and changes nothing.
pub(crate) async fn open_as_it_is(url: &str) -> Result<Arc<dyn Store>> {
    let options = options(url).map_err(failed)?;
    let mut writer = connect(&options).await.map_err(failed)?;
    transfer::check_form(&mut writer).await?;
    Ok(backend(options, writer))
}

/// Writes all rows of a database.
pub(crate) async fn backup(
    url: &str,
    out: &mut BackupWriter<'_>,
) -> std::result::Result<(), BackupError> {
    let options = options(url).map_err(failed)?;
    transfer::backup(&mut connect(&options).await.map_err(failed)?, out).await
}

/// Fills an empty database.
pub(crate) async fn restore(
    url: &str,
    input: &mut BackupReader<'_>,
) -> std::result::Result<Summary, BackupError> {
    let options = options(url).map_err(failed)?;
    transfer::restore(&mut connect(&options).await.map_err(failed)?, input).await
}

fn failed(source: sqlx::Error) -> StoreError {
    StoreError::Database { doing: "connect", source }
}

fn options(url: &str) -> sqlx::Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url)?;
    Ok(options.application_name("gotgan-scheduler").disable_statement_logging())
}

fn backend(options: Options, writer: Connection) -> Arc<dyn Store> {
    let readers = PoolOptions::new()
        .max_connections(READERS_MAX)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(options.clone());
    Arc::new(backend::Backend::new(options, writer, readers))
}

async fn connect(options: &Options) -> sqlx::Result<Connection> {
    options.connect().await
}

/// Begins, checks the epoch, writes the sheets, one statement each, and commits.
async fn commit(connection: &mut Connection, epoch: Epoch, sheets: &[Sheet]) -> Result<()> {
    let failed = |source| StoreError::Database { doing: writes::COMMIT, source };
    let mut transaction = connection.begin_with(sql::BEGIN_WRITE).await.map_err(failed)?;
    match write_sheets(&mut transaction, epoch, sheets).await {
        Ok(()) => transaction.commit().await.map_err(failed),
        Err(error) => {
            // What failed first is what matters; a connection that cannot even roll back fails at its next begin.
            transaction.rollback().await.ok();
            Err(error)
        }
    }
}

async fn write_sheets(connection: &mut Connection, epoch: Epoch, sheets: &[Sheet]) -> Result<()> {
    writes::check_epoch(connection, epoch).await?;
    for sheet in sheets {
        let done = sqlx::query::<Db>(sql::statement(sheet.target))
            .bind(sheet.json.as_str())
            .execute(&mut *connection)
            .await
            .map_err(refused(writes::COMMIT))?;
        check_rows(sheet, done.rows_affected())?;
    }
    Ok(())
}

/// Refuses a sheet of which not every row was written.
fn check_rows(sheet: &Sheet, written: u64) -> Result<()> {
    if written == sheet.rows {
        return Ok(());
    }
    let refusal = sheet.target.refusal();
    Err(StoreError::Conflict(format!("{refusal} ({written} of {})", sheet.rows)))
}
