//! The wall clock, in the one unit that reports use. Durations are measured elsewhere, with monotonic clocks.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in Unix microseconds; 0 if the machine's clock stands before 1970.
pub fn now_us() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_micros()).ok())
        .unwrap_or(0)
}
