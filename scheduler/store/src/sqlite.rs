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

use sqlx::ConnectOptions;
use sqlx::pool::PoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};

use crate::migrations::migrator;
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
