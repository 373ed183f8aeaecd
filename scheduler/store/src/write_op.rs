//! What every write has in common: it is one operation on a connection inside a transaction, which may be run
//! again from its start, and what the database refuses becomes a [`StoreError`].

use std::future::Future;

use gotgan_core::ids::Epoch;
use sqlx::error::ErrorKind;

use crate::{Result, StoreError};

/// One write. It may run several times; only the last one is committed.
pub(crate) trait WriteOp<C>: Sync {
    /// What it answers.
    type Answer: Send;
    /// In words for an error: "the database failed to …".
    const DOING: &'static str;

    /// It begins and ends its transaction itself.
    const BEGINS: bool = false;

    /// Writes within the transaction that is open on `connection`, or in its own if it [begins](Self::BEGINS) one.
    fn run(&self, connection: &mut C) -> impl Future<Output = Result<Self::Answer>> + Send;
}

/// What a failed statement means: a broken constraint or an impossible value is a conflict.
pub(crate) fn refused(doing: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| match &source {
        sqlx::Error::Database(error) if is_conflict(error.as_ref()) => {
            StoreError::Conflict(error.message().to_owned())
        }
        _ => StoreError::Database { doing, source },
    }
}

/// Fails the round that another leader has overtaken; what follows it in the message is the epoch that is stored.
pub(crate) const FENCED: &str = "fenced by epoch ";

/// Tells a round that was overtaken from one that was refused.
pub(crate) fn refused_round(doing: &'static str, source: sqlx::Error, mine: Epoch) -> StoreError {
    let message = source.as_database_error().map_or("", |error| error.message());
    match message.strip_prefix(FENCED).and_then(|newer| newer.parse().ok()) {
        Some(newer) => StoreError::Fenced { mine, newer: Epoch(newer) },
        None => refused(doing)(source),
    }
}

/// `SQLITE_CONSTRAINT_DATATYPE`: a number that fits no column.
const SQLITE_WRONG_TYPE: &str = "3091";
/// `SQLITE_CONSTRAINT_TRIGGER`: the trigger that writes a round refused it.
const SQLITE_TRIGGER: &str = "1811";
/// Class of the codes of PostgreSQL for values that cannot be stored.
const POSTGRES_DATA_EXCEPTION: &str = "22";

fn is_conflict(error: &dyn sqlx::error::DatabaseError) -> bool {
    let constraint = match error.kind() {
        ErrorKind::UniqueViolation
        | ErrorKind::ForeignKeyViolation
        | ErrorKind::NotNullViolation
        | ErrorKind::CheckViolation
        | ErrorKind::ExclusionViolation => true,
        // The enum may grow; the codes below tell the rest.
        _ => false,
    };
    let code = error.code();
    let value = code.is_some_and(|code| {
        code == SQLITE_WRONG_TYPE
            || code == SQLITE_TRIGGER
            || (code.len() == 5 && code.starts_with(POSTGRES_DATA_EXCEPTION))
    });
    constraint || value
}

/// Tries of one write that the database gave up for another's sake, the first included. The only writers besides
/// the leader are those that want to become it, so a second collision is rare already.
pub(crate) const TRIES_MAX: u32 = 5;

/// Whether the database gave the transaction up for another's sake and says to run it again.
pub(crate) fn may_be_run_again(error: &StoreError) -> bool {
    let StoreError::Database { source: sqlx::Error::Database(error), .. } = error else {
        return false;
    };
    // serialization_failure, deadlock_detected
    matches!(error.code().as_deref(), Some("40001" | "40P01"))
}

/// Whether the connection is of no use any more: it broke, or the server is shutting down (class 57P).
pub(crate) fn is_broken(error: &StoreError) -> bool {
    match error {
        StoreError::Database { source: sqlx::Error::Database(error), .. } => {
            error.code().is_some_and(|code| code.starts_with("57P"))
        }
        StoreError::Database { .. } => true,
        StoreError::Fenced { .. }
        | StoreError::LedByAnother(_)
        | StoreError::Conflict(_)
        | StoreError::Unsupported(_)
        | StoreError::Corrupt { .. }
        | StoreError::OtherForm { .. }
        | StoreError::Migrate(_) => false,
    }
}
