//! What can go wrong with the store.

use gotgan_core::ids::Epoch;

use crate::records::Leadership;

/// What can go wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A newer leader has taken over; this one must stop writing.
    #[error("epoch {mine} was overtaken by epoch {newer}")]
    Fenced {
        /// The epoch of who wrote.
        mine: Epoch,
        /// The epoch in force.
        newer: Epoch,
    },
    /// Somebody else's lease has not run out.
    #[error("{} leads until {}", .0.holder, .0.expires.0)]
    LedByAnother(Leadership),
    /// The database's own constraints refused the round; nothing was written.
    #[error("the database refuses the change: {0}")]
    Conflict(String),
    /// The URL names no database that is known.
    #[error("database \"{0}\" is not supported; use sqlite://PATH or postgres://HOST/NAME")]
    Unsupported(String),
    /// What is stored cannot be understood; an older or newer program may have written it.
    #[error("cannot read {what} from the database")]
    Corrupt {
        /// Which object.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database failed.
    #[error("the database failed to {doing}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The database is of another version of the program, and was to be taken as it is.
    #[error(
        "the database has tables of form {found}, and this program knows form {known}; \
         use the program of the scheduler that runs on it"
    )]
    OtherForm {
        /// Number of its last migration; 0 if it has none.
        found: i64,
        /// And of this program.
        known: i64,
    },
    /// The migrations could not be applied.
    #[error("cannot bring the database's tables up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
}
