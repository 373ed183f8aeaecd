//! The clocks, read in one place; everything below is given the time.
//!
//! The wall clock is for what is stored and shown, the monotonic one for patience. The wall clock is followed and never
//! leaps ([`steady`]). With the feature `simulation` a thread may have a clock of its own ([`simulated`]), which stands until
//! whoever drives it moves it.

#[cfg(feature = "simulation")]
pub mod simulated;
mod steady;

use std::future::Future;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gotgan_core::amount::UnixMicros;
use tokio::time::{Interval, MissedTickBehavior};

use steady::{News, Steady};

/// The present by the wall clock, within a process never before what it was. One set before 1970 reads as 1970.
#[must_use]
pub fn now() -> UnixMicros {
    #[cfg(feature = "simulation")]
    if let Some(now) = simulated::now() {
        return now;
    }
    /// Since when its monotonic clock counts, and the clock.
    static CLOCK: LazyLock<(Instant, Mutex<Steady>)> =
        LazyLock::new(|| (Instant::now(), Mutex::new(Steady::begin(0, wall_ns()))));
    let (origin, clock) = &*CLOCK;
    let mut clock = clock.lock().unwrap_or_else(PoisonError::into_inner);
    let (shown_ns, news) = clock.read(nanoseconds(origin.elapsed()), wall_ns());
    drop(clock);
    tell(news);
    UnixMicros(shown_ns / 1_000)
}

fn wall_ns() -> i64 {
    nanoseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Enough for the next two centuries.
fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn tell(news: News) {
    match news {
        News::None => {}
        News::Apart(by_ns) => {
            let ahead_ms = by_ns / 1_000_000;
            tracing::warn!(
                ahead_ms,
                "this machine's clock was stepped; it is come to little by little"
            );
        }
        News::Together => tracing::info!("this machine's clock and this scheduler's agree again"),
    }
}

/// The present by the monotonic clock.
#[must_use]
pub fn instant() -> Instant {
    #[cfg(feature = "simulation")]
    if let Some(instant) = simulated::instant() {
        return instant;
    }
    Instant::now()
}

/// How long ago that was.
#[must_use]
pub fn since(earlier: Instant) -> Duration {
    instant().saturating_duration_since(earlier)
}

/// Waits that long.
pub async fn sleep(duration: Duration) {
    #[cfg(feature = "simulation")]
    if let Some(sleep) = simulated::sleep(duration) {
        return sleep.await;
    }
    tokio::time::sleep(duration).await;
}

/// What `future` answers, or `None` if it has not within that time. Then it is dropped.
pub async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    tokio::pin!(future);
    tokio::select! {
        biased;
        answer = &mut future => Some(answer),
        () = sleep(limit) => None,
    }
}

/// Ticks, the first at once. One that comes late puts off the next.
#[derive(Debug)]
pub enum Ticks {
    /// By the clock of this machine.
    Real(Interval),
    /// By a clock that is driven.
    #[cfg(feature = "simulation")]
    Simulated(simulated::Ticks),
}

/// Ticks with this period.
#[must_use]
pub fn every(period: Duration) -> Ticks {
    #[cfg(feature = "simulation")]
    if let Some(ticks) = simulated::every(period) {
        return Ticks::Simulated(ticks);
    }
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Ticks::Real(ticks)
}

impl Ticks {
    /// Waits for the next.
    pub async fn tick(&mut self) {
        match self {
            Ticks::Real(ticks) => {
                ticks.tick().await;
            }
            #[cfg(feature = "simulation")]
            Ticks::Simulated(ticks) => ticks.tick().await,
        }
    }
}
