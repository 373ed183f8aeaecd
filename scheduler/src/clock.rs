//! The wall clock, read in one place; everything below is given the time.

use std::time::{SystemTime, UNIX_EPOCH};

use gotgan_core::amount::UnixMicros;

/// The present. A clock set before 1970 reads as 1970.
#[must_use]
pub fn now() -> UnixMicros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMicros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
