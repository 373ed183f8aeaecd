//! Waiting for conditions. A test never sleeps for a while and hopes; it asks again until the answer is right, and
//! stops with what it last saw if that takes too long.

use std::time::{Duration, Instant};

/// Long enough for anything on a loaded machine; reaching it is a failure, never a measurement.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks until the answer is `Ok`, at most [`LIMIT`].
///
/// # Panics
/// With `what` and the last `Err`, which says what was there instead, when the time is over.
pub async fn until<T>(what: &str, probe: impl AsyncFnMut() -> Result<T, String>) -> T {
    until_within(LIMIT, what, probe).await
}

/// As [`until`], with a limit of its own.
///
/// # Panics
/// As [`until`].
pub async fn until_within<T>(
    limit: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let begun = Instant::now();
    loop {
        match probe().await {
            Ok(found) => return found,
            Err(instead) if begun.elapsed() > limit => {
                panic!("waited {limit:?} for {what}; last seen: {instead}")
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Awaits something that must come by itself, at most [`LIMIT`].
///
/// # Panics
/// With `what`, when the time is over.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {LIMIT:?} for {what}"),
    }
}

/// As [`until`], for what is no future (processes, files).
///
/// # Panics
/// As [`until`].
pub fn until_blocking<T>(what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match probe() {
            Ok(found) => return found,
            Err(instead) if begun.elapsed() > LIMIT => {
                panic!("waited {LIMIT:?} for {what}; last seen: {instead}")
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
