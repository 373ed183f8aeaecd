//! The store on embedded SQLite: one file, one writer.

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

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use gotgan_core::ids::Epoch;
use sqlx::pool::PoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions};

use crate::backup::file::{BackupReader, BackupWriter};
use crate::backup::{BackupError, Summary};
use crate::migrations::migrator;
use crate::sheets::{Sheet, by_target};
use crate::write_op::refused_round;
use crate::{DatabaseKind, Result, Store, StoreError};

type Db = sqlx::Sqlite;
type Connection = SqliteConnection;
type Options = SqliteConnectOptions;
type Pool = sqlx::SqlitePool;

const KIND: DatabaseKind = DatabaseKind::Sqlite;
/// There is one statement a shape of listing, so a plan made once serves.
const KEEPS_LISTINGS_PREPARED: bool = true;

/// How long a statement waits for another process's lock (a second scheduler, a backup) before it fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that read at once; each is a thread with a cache.
const READERS_MAX: u32 = 4;
/// Page cache of a connection, KiB (the sign is SQLite's).
const CACHE: &str = "-65536";
/// Bytes of the file that are read without copying.
const MMAP: &str = "268435456";
/// Pages (4 KiB) of the log before they go into the file. A page that changes in many commits then moves once; ten
/// times the default makes the pause ten times rarer and little longer.
const CHECKPOINT_PAGES: &str = "10000";
/// Rows that the driver's thread reads before somebody takes them: a page, so that it need not wait for its reader, nor
/// its reader be woken, at every one of them.
const ROWS_AHEAD: usize = 1_024;
/// Bytes the log may keep on disk after a checkpoint.
const LOG_SIZE_LIMIT: &str = "134217728";

/// Opens the file, makes it if it is missing, and brings its tables up to date.
pub(crate) async fn open(path: &str) -> Result<Arc<dyn Store>> {
    let options = options(path);
    let failed = |source| StoreError::Database { doing: "open the file", source };
    // Before there is a trigger that names tables, so that a migration may make a table anew.
    let mut writer = options.connect().await.map_err(failed)?;
    migrator(KIND).run_direct(None, &mut writer, false).await.map_err(StoreError::Migrate)?;
    prepare(&mut writer).await.map_err(failed)?;
    let readers = PoolOptions::new()
        .max_connections(READERS_MAX)
        .test_before_acquire(false)
        .connect_lazy_with(options.clone().read_only(true));
    Ok(Arc::new(backend::Backend::new(options, writer, readers)))
}

/// Opens a file that is there, for reading alone.
pub(crate) async fn open_as_it_is(path: &str) -> Result<Arc<dyn Store>> {
    let options = options(path).create_if_missing(false).read_only(true);
    let failed = |source| StoreError::Database { doing: "open the file", source };
    let mut writer = options.connect().await.map_err(failed)?;
    transfer::check_form(&mut writer).await?;
    let readers = PoolOptions::new()
        .max_connections(READERS_MAX)
        .test_before_acquire(false)
        .connect_lazy_with(options.clone());
    Ok(Arc::new(backend::Backend::new(options, writer, readers)))
}

/// Writes all rows of a file that is there.
pub(crate) async fn backup(
    path: &str,
    out: &mut BackupWriter<'_>,
) -> std::result::Result<(), BackupError> {
    let options = options(path).create_if_missing(false).read_only(true);
    let failed = |source| StoreError::Database { doing: "open the file", source };
    transfer::backup(&mut options.connect().await.map_err(failed)?, out).await
}

/// Fills a file that is empty or not there.
pub(crate) async fn restore(
    path: &str,
    input: &mut BackupReader<'_>,
) -> std::result::Result<Summary, BackupError> {
    let failed = |source| StoreError::Database { doing: "open the file", source };
    transfer::restore(&mut options(path).connect().await.map_err(failed)?, input).await
}

fn options(path: &str) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // NORMAL loses acknowledged commits when the power fails.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
        .row_buffer_size(ROWS_AHEAD)
        .pragma("temp_store", "MEMORY")
        .pragma("cache_size", CACHE)
        .pragma("mmap_size", MMAP)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        .pragma("journal_size_limit", LOG_SIZE_LIMIT)
        .disable_statement_logging()
}

/// Opens the file; every connection that writes has what writes a round.
async fn connect(options: &Options) -> sqlx::Result<Connection> {
    let mut connection = options.connect().await?;
    prepare(&mut connection).await?;
    Ok(connection)
}

async fn prepare(connection: &mut Connection) -> sqlx::Result<()> {
    for statement in sql::ROUND_VIEWS.iter().flat_map(sql::RoundView::make) {
        // Made of constants alone.
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Writes the round in one exchange with the driver, which is one transaction.
async fn commit(connection: &mut Connection, epoch: Epoch, sheets: &[Sheet]) -> Result<()> {
    static STATEMENTS: LazyLock<Vec<String>> =
        LazyLock::new(|| sql::ROUND_VIEWS.iter().map(sql::RoundView::write).collect());
    let view = sql::RoundView::for_sheets(sheets);
    let mut query = sqlx::query::<Db>(STATEMENTS[view].as_str()).bind(writes::signed(epoch.0));
    for sheet in by_target(sql::ROUND_VIEWS[view].targets, sheets) {
        let rows = sheet.map(|sheet| writes::signed(sheet.rows));
        query = query.bind(sheet.map(|sheet| sheet.json.as_str())).bind(rows);
    }
    query.execute(connection).await.map_err(|error| refused_round(writes::COMMIT, error, epoch))?;
    Ok(())
}
