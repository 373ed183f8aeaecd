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
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _};

use crate::backup::file::{BackupReader, BackupWriter};
use crate::backup::{BackupError, Summary};
use crate::migrations::migrator;
use crate::sheets::{Sheet, Target, by_target};
use crate::write_op::refused_round;
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
    let mut writer = options.connect().await.map_err(failed)?;
    migrator(KIND).run_direct(None, &mut writer, false).await.map_err(StoreError::Migrate)?;
    prepare(&mut writer).await.map_err(failed)?;
    Ok(backend(options, writer))
}

/// Connects and changes nothing.
pub(crate) async fn open_as_it_is(url: &str) -> Result<Arc<dyn Store>> {
    let options = options(url).map_err(failed)?;
    let mut writer = options.connect().await.map_err(failed)?;
    transfer::check_form(&mut writer).await?;
    Ok(backend(options, writer))
}

/// Writes all rows of a database.
pub(crate) async fn backup(
    url: &str,
    out: &mut BackupWriter<'_>,
) -> std::result::Result<(), BackupError> {
    let options = options(url).map_err(failed)?;
    transfer::backup(&mut options.connect().await.map_err(failed)?, out).await
}

/// Fills an empty database.
pub(crate) async fn restore(
    url: &str,
    input: &mut BackupReader<'_>,
) -> std::result::Result<Summary, BackupError> {
    let options = options(url).map_err(failed)?;
    transfer::restore(&mut options.connect().await.map_err(failed)?, input).await
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

/// Connects for writing: the connection has what writes a round.
async fn connect(options: &Options) -> sqlx::Result<Connection> {
    let mut connection = options.connect().await?;
    prepare(&mut connection).await?;
    Ok(connection)
}

async fn prepare(connection: &mut Connection) -> sqlx::Result<()> {
    // Made of constants alone.
    sqlx::raw_sql(AssertSqlSafe(sql::make_write_round())).execute(connection).await?;
    Ok(())
}

/// Begins, writes all sheets in one exchange with the server, and commits.
///
/// The commit is an exchange of its own: see [`sql::SETTLE`].
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
    let json_and_rows = by_target(&Target::ALL, sheets).map(|sheet| {
        (sheet.map(|sheet| sheet.json.as_str()), sheet.map(|sheet| writes::signed(sheet.rows)))
    });
    let (json, rows): (Vec<Option<&str>>, Vec<Option<i64>>) = json_and_rows.unzip();
    sqlx::query::<Db>(sql::WRITE_ROUND)
        .bind(writes::signed(epoch.0))
        .bind(json)
        .bind(rows)
        .execute(connection)
        .await
        .map_err(|error| refused_round(writes::COMMIT, error, epoch))?;
    Ok(())
}
