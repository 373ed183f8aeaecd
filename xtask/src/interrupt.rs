//! Ctrl-C and SIGTERM as a question that loops ask, so that every exit goes through the same clean-up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Exit code after a signal, as shells count it for SIGINT.
pub const EXIT_CODE: u8 = 130;
/// How often waiting loops look; short enough to feel immediate.
const POLL: Duration = Duration::from_millis(50);

static REQUESTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// The error with which work ends after a signal.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("stopped by a signal; what it started is gone")
    }
}

impl std::error::Error for Interrupted {}

/// From here on signals end this program only where it asks for them.
pub fn watch() -> Result<()> {
    let flag = REQUESTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(flag))
            .context("signals cannot be watched")?;
    }
    Ok(())
}

pub fn requested() -> bool {
    REQUESTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// Fails with [`Interrupted`] after a signal.
pub fn check() -> Result<()> {
    if requested() { Err(Interrupted.into()) } else { Ok(()) }
}

/// Waits until `probe` has an answer; fails on a signal, on its error, or when `limit` is over.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begin = Instant::now();
    loop {
        check()?;
        if let Some(found) = probe()? {
            return Ok(found);
        }
        if begin.elapsed() > limit {
            bail!("waited {} s in vain for {what}", limit.as_secs());
        }
        thread::sleep(POLL);
    }
}
