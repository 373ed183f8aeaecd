//! The wall clock, in the one unit that reports use, and names that nobody else has. Durations are measured elsewhere, with
//! monotonic clocks.

use std::hash::{BuildHasher, RandomState};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Now, in Unix microseconds; 0 if the machine's clock stands before 1970.
pub fn now_us() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_micros()).ok())
        .unwrap_or(0)
}

/// When something was that the kernel has as so long after the boot. It does not count the time that a machine sleeps.
pub fn wall_us(since_boot_us: u64) -> i64 {
    let up = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(|up| up.tv_sec() * 1_000_000 + up.tv_nsec() / 1000);
    let written = i64::try_from(since_boot_us).unwrap_or(i64::MAX);
    let age = up.map_or(0, |up| up.saturating_sub(written).max(0));
    now_us().saturating_sub(age)
}

/// Since the boot, with the time that the machine slept, in milliseconds: the same clock for a daemon and its successor.
/// 0 if the machine has none.
pub fn boot_ms() -> u64 {
    let up = clock_gettime(ClockId::CLOCK_BOOTTIME).ok();
    let up_ms = up.map(|up| up.tv_sec() * 1000 + up.tv_nsec() / 1_000_000);
    up_ms.and_then(|up_ms| u64::try_from(up_ms).ok()).unwrap_or(0)
}

/// 32 digits, base 16, by chance: the system seeds the hasher, and time and process tell apart what it does not.
pub fn random_name() -> String {
    let half = |salt: u8| RandomState::new().hash_one((salt, now_us(), std::process::id()));
    format!("{:016x}{:016x}", half(0), half(1))
}

/// Comes back at that time; never without one.
pub async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
