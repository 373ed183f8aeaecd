//! What can go wrong with the store.

use gotgan_core::ids::Epoch;
use sqlx::migrate::MigrateError;

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
    Migrate(#[source] MigrateError),
}

/// PostgreSQL: connections end or cannot be made while it shuts down, starts, or recovers from a crash, and while there are
/// too many; all of these pass. (Appendix A of its manual.)
const PASSING_STATES: [&str; 4] = ["57P01", "57P02", "57P03", "53300"];

impl StoreError {
    /// Whether the same may go well in a moment, with nobody doing anything about this program: a server that restarts,
    /// recovers or fails over, or a network that is away.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Database { source, .. } | Self::Migrate(MigrateError::Execute(source)) => {
                passes(source)
            }
            Self::Fenced { .. }
            | Self::LedByAnother(_)
            | Self::Conflict(_)
            | Self::Unsupported(_)
            | Self::Corrupt { .. }
            | Self::OtherForm { .. }
            | Self::Migrate(_) => false,
        }
    }
}

fn passes(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Database(told) => {
            told.code().is_some_and(|code| PASSING_STATES.contains(&code.as_ref()))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_broke_passes_and_a_wrong_url_does_not() {
        let of = |source| StoreError::Database { doing: "connect", source };
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert!(of(sqlx::Error::Io(broken)).is_passing());
        assert!(!of(sqlx::Error::RowNotFound).is_passing());
        assert!(!StoreError::Unsupported("mysql://".into()).is_passing());
        assert!(!StoreError::Conflict("key".into()).is_passing());
    }
}
