//! A whole database as one portable file, and such a file as a database of either kind.
//!
//! What is written is one state of the database, read in one transaction while others go on writing. The file is lines of
//! JSON ([`file`]): whoever has to read one without this program can.
//!
//! What was given out after the backup is lost with the database, but the world outside remembers it: workers have seen
//! epochs, and people and journals have seen numbers of jobs. So a restored database goes on well beyond both
//! ([`EPOCHS_SKIPPED`], [`JOBS_SKIPPED`]), and nothing is taken for what it is not.

pub mod file;

use std::io::{BufRead, Write};

use gotgan_core::amount::UnixMicros;

use crate::{Result, StoreError, postgres, sqlite, without_password};
use file::{BackupReader, BackupWriter, FileError, Header};

/// Every table, those that others point to first.
pub(crate) const TABLES: [&str; 22] = [
    "settings",
    "leadership",
    "jobs",
    "job_specs",
    "attempts",
    "gpu_occupancy",
    "steps",
    "tasks",
    "ledger",
    "nodes",
    "quota",
    "quota_audit",
    "quota_approvals",
    "quota_alerts",
    "events",
    "tokens",
    "join_tokens",
    "answered_requests",
    "windows",
    "breakers",
    "passes",
    "start_turns",
];

/// Leaderships that may have followed the backup: more than there can be in years, one each minute.
pub const EPOCHS_SKIPPED: u64 = 1_000_000;

/// Jobs that may have been submitted after the backup: those of ten busy days of a country.
pub const JOBS_SKIPPED: u64 = 1_000_000;

/// Why there is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The database has never been used by a scheduler.
    #[error("there is nothing of Gotgan in the database")]
    Nothing,
    /// Restoring goes into an empty database only.
    #[error(
        "the database is in use: it has rows in {table}; restore into a new database, so that nothing is lost"
    )]
    InUse {
        /// The first table with rows.
        table: &'static str,
    },
    /// The database's tables are not those of the backup.
    #[error(
        "the database has tables of form {found}, and the backup is of form {backup}; restore into a new database"
    )]
    OtherForm {
        /// Number of the last migration of the database.
        found: i64,
        /// And of the backup.
        backup: i64,
    },
    /// The backup was made by a newer program.
    #[error(
        "the backup is of form {backup}, and this program knows forms up to {newest}; use the program's newer version"
    )]
    TooNew {
        /// Number of the last migration of the backup.
        backup: i64,
        /// And of this program.
        newest: i64,
    },
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// What its first line says.
    pub header: Header,
    /// Rows in it.
    pub rows: u64,
    /// SHA-256 of all lines but the last.
    pub sha256: String,
}

/// Writes one state of the database of `url` to `out`; `now` is written into the file. The database is not changed, and
/// its scheduler need not stop.
///
/// # Errors
/// [`BackupError`].
pub async fn backup(
    url: &str,
    now: UnixMicros,
    out: &mut (dyn Write + Send),
) -> std::result::Result<Summary, BackupError> {
    let mut writer = BackupWriter::new(out, now);
    match scheme(url)? {
        Place::Sqlite(path) => sqlite::backup(path, &mut writer).await?,
        Place::Postgres => postgres::backup(url, &mut writer).await?,
    }
    Ok(writer.finish()?)
}

/// Fills the empty database of `url` from `input`, all or nothing, and brings its tables up to date.
///
/// # Errors
/// [`BackupError`]; then the database has no row.
pub async fn restore(
    url: &str,
    input: &mut (dyn BufRead + Send),
) -> std::result::Result<Summary, BackupError> {
    let mut reader = BackupReader::new(input)?;
    match scheme(url)? {
        Place::Sqlite(path) => sqlite::restore(path, &mut reader).await,
        Place::Postgres => postgres::restore(url, &mut reader).await,
    }
}

enum Place<'a> {
    Sqlite(&'a str),
    Postgres,
}

fn scheme(url: &str) -> Result<Place<'_>> {
    match url.split_once("://") {
        Some(("sqlite", path)) if !path.is_empty() => Ok(Place::Sqlite(path)),
        Some(("postgres" | "postgresql", _)) => Ok(Place::Postgres),
        _ => Err(StoreError::Unsupported(without_password(url))),
    }
}
