//! A clock that a thread drives for itself: what runs on the thread reads it, and sleeps by it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use gotgan_core::amount::UnixMicros;

thread_local! {
    static CLOCK: RefCell<Option<Clock>> = const { RefCell::new(None) };
}

struct Clock {
    /// Stands for the beginning; only differences from it matter.
    origin: Instant,
    /// Wall clock of the beginning.
    epoch: UnixMicros,
    /// Since then.
    passed: Duration,
    /// By when they wake; who fell asleep first wakes first.
    sleepers: BTreeMap<Place, Waker>,
    slept: u64,
}

/// When it wakes, and a number of its own.
type Place = (Duration, u64);

/// Gives this thread a clock that shows `epoch` and stands. Who slept by an earlier one never wakes.
pub fn begin(epoch: UnixMicros) {
    let (passed, sleepers) = (Duration::ZERO, BTreeMap::new());
    let clock = Clock { origin: Instant::now(), epoch, passed, sleepers, slept: 0 };
    let before = CLOCK.with_borrow_mut(|place| place.replace(clock));
    // Outside of the borrow: a waker that is dropped may drop what looks at the clock.
    drop(before);
}

/// Gives this thread the clock of the machine again.
pub fn end() {
    let before = CLOCK.with_borrow_mut(Option::take);
    drop(before);
}

/// Moves the clock on, and wakes who has slept long enough.
pub fn advance(by: Duration) {
    with(|clock| clock.passed += by);
    while let Some(waker) = with(Clock::wake_one).flatten() {
        waker.wake();
    }
}

/// Moves the clock to when the next sleeper wakes, and wakes it. False if nobody sleeps.
pub fn advance_to_next() -> bool {
    let Some(by) = until_next() else { return false };
    advance(by);
    true
}

/// How long until the next sleeper wakes; `None` if nobody sleeps.
#[must_use]
pub fn until_next() -> Option<Duration> {
    with(|clock| {
        let ((until, _), _) = clock.sleepers.first_key_value()?;
        Some(until.saturating_sub(clock.passed))
    })?
}

impl Clock {
    fn wake_one(&mut self) -> Option<Waker> {
        let ((until, _), _) = self.sleepers.first_key_value()?;
        if *until > self.passed {
            return None;
        }
        self.sleepers.pop_first().map(|(_, waker)| waker)
    }
}

fn with<T>(then: impl FnOnce(&mut Clock) -> T) -> Option<T> {
    CLOCK.with_borrow_mut(|clock| clock.as_mut().map(then))
}

pub(super) fn now() -> Option<UnixMicros> {
    with(|clock| {
        let passed = i64::try_from(clock.passed.as_micros()).unwrap_or(i64::MAX);
        UnixMicros(clock.epoch.0.saturating_add(passed))
    })
}

pub(super) fn instant() -> Option<Instant> {
    with(|clock| clock.origin + clock.passed)
}

/// How long the thread's clock has run; zero without one.
#[must_use]
pub fn passed() -> Duration {
    with(|clock| clock.passed).unwrap_or_default()
}

pub(super) fn sleep(duration: Duration) -> Option<Sleep> {
    let until = with(|clock| clock.passed.saturating_add(duration))?;
    Some(Sleep { until, place: None })
}

/// Sleeps by the thread's clock.
#[derive(Debug)]
pub struct Sleep {
    until: Duration,
    place: Option<Place>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (until, place, waker) = (self.until, self.place, context.waker());
        let waits = with(|clock| {
            if clock.passed >= until {
                return None;
            }
            clock.slept += 1;
            let place = place.unwrap_or((until, clock.slept));
            clock.sleepers.insert(place, waker.clone());
            Some(place)
        });
        self.place = waits.flatten();
        if self.place.is_some() { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            // Dropped outside of the borrow.
            drop(with(|clock| clock.sleepers.remove(&place)));
        }
    }
}

/// Ticks by the thread's clock.
#[derive(Debug)]
pub struct Ticks {
    period: Duration,
    next: Duration,
}

pub(super) fn every(period: Duration) -> Option<Ticks> {
    with(|clock| Ticks { period, next: clock.passed })
}

impl Ticks {
    pub(super) async fn tick(&mut self) {
        Sleep { until: self.next, place: None }.await;
        self.next = passed() + self.period;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeper_wakes_when_the_clock_is_moved_there_and_not_before() {
        begin(UnixMicros(5));
        let mut sleeping = std::pin::pin!(crate::clock::sleep(Duration::from_micros(10)));
        let mut context = std::task::Context::from_waker(Waker::noop());
        assert!(sleeping.as_mut().poll(&mut context).is_pending());
        advance(Duration::from_micros(9));
        assert!(sleeping.as_mut().poll(&mut context).is_pending());
        assert_eq!(until_next(), Some(Duration::from_micros(1)));
        assert!(advance_to_next());
        assert!(sleeping.as_mut().poll(&mut context).is_ready());
        assert_eq!(crate::clock::now(), UnixMicros(15));
        end();
    }
}
