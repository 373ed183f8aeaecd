//! The store on embedded SQLite: one file, one writer.

#[path = "shared/backend.rs"]
mod backend;
#[path = "shared/reads.rs"]
mod reads;
mod sql;
#[path = "shared/writes.rs"]
mod writes;
mod writes_sql;

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use gotgan_core::ids::Epoch;
use sqlx::pool::PoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Either, Executor, Row};

use crate::migrations::migrator;
use crate::sheets::Sheet;
use crate::write_op::refused;
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
/// Bytes the log may keep on disk after a checkpoint.
const LOG_SIZE_LIMIT: &str = "134217728";

/// Opens the file, makes it if it is missing, and brings its tables up to date.
pub(crate) async fn open(path: &str) -> Result<Arc<dyn Store>> {
    let options = options(path);
    let failed = |source| StoreError::Database { doing: "open the file", source };
    let mut writer = options.connect().await.map_err(failed)?;
    migrator(KIND).run_direct(None, &mut writer, false).await.map_err(StoreError::Migrate)?;
    let readers = PoolOptions::new()
        .max_connections(READERS_MAX)
        .test_before_acquire(false)
        .connect_lazy_with(options.clone().read_only(true));
    Ok(Arc::new(backend::Backend::new(options, writer, readers)))
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
        .pragma("temp_store", "MEMORY")
        .pragma("cache_size", CACHE)
        .pragma("mmap_size", MMAP)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        .pragma("journal_size_limit", LOG_SIZE_LIMIT)
        .disable_statement_logging()
}

/// Begins, checks the epoch, writes the sheets, all as one text of several statements, and commits.
///
/// The driver hands each text to the connection's own thread and waits for it; with a statement a text, a busy
/// machine spends more on these exchanges than on the writing.
async fn commit(connection: &mut Connection, epoch: Epoch, sheets: &[Sheet]) -> Result<()> {
    let written = write_sheets(connection, epoch, sheets).await;
    let end = if written.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = sqlx::query::<Db>(end).execute(connection).await;
    match written {
        Ok(()) => ended.map(|_| ()).map_err(refused(writes::COMMIT)),
        // What failed first is what matters; a connection that cannot even roll back fails at its next begin.
        Err(error) => Err(error),
    }
}

async fn write_sheets(connection: &mut Connection, epoch: Epoch, sheets: &[Sheet]) -> Result<()> {
    // Made of constants alone; everything that came from outside is a parameter.
    let mut query = sqlx::query::<Db>(AssertSqlSafe(round_text(sheets)));
    for sheet in sheets {
        query = query.bind(sheet.json.as_str());
    }
    let mut stored = None;
    let mut written = Vec::with_capacity(sheets.len() + 1);
    let mut results = connection.fetch_many(query);
    while let Some(result) = results.try_next().await.map_err(refused(writes::COMMIT))? {
        match result {
            Either::Left(done) => written.push(done.rows_affected()),
            Either::Right(row) => stored = Some(row.try_get(0).map_err(refused(writes::COMMIT))?),
        }
    }
    writes::compare_epoch(stored, epoch)?;
    // The first results are of the statements that began and that read the epoch.
    let mut written = written.into_iter().skip(2);
    sheets.iter().try_for_each(|sheet| writes::check_rows(sheet, written.next().unwrap_or(0)))
}

/// The statements of a round, with the parameter of each numbered by its place.
fn round_text(sheets: &[Sheet]) -> String {
    let mut text = format!("{};{}", sql::BEGIN_WRITE, sql::EPOCH);
    for (place, sheet) in (1_usize..).zip(sheets) {
        text.push(';');
        text.push_str(&sql::statement(sheet.target).replace("$1", &format!("${place}")));
    }
    text
}
