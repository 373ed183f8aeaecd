//! How bad everything is: drawn for each play, and calm at its end.

use std::cell::Cell;
use std::time::Duration;

use gotgan_scheduler::clock;

use crate::draw;

/// One in so many; 0: never.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Steps between kills of a scheduler.
    pub kill: u64,
    /// Steps between pauses of one.
    pub pause: u64,
    /// Something asked of the database takes long.
    pub slow: u64,
    /// It is lost before it is done, or its answer is.
    pub broken: u64,
    /// A message is much later than the others.
    pub late: u64,
    /// A report overtakes, or comes twice.
    pub loose: u64,
    /// A request or an answer of a person is lost.
    pub lost: u64,
    /// How long a node behaves, in milliseconds; 0: for ever.
    pub node_ms: u64,
}

thread_local! {
    static NOW: Cell<Weather> = const { Cell::new(Weather {
        kill: 0, pause: 0, slow: 0, broken: 0, late: 0, loose: 0, lost: 0, node_ms: 0,
    }) };
}

impl Weather {
    /// Some of everything, or much of something.
    #[must_use]
    pub fn drawn() -> Self {
        let rate = |often: u64, seldom: u64| match draw::below(4) {
            0 => 0,
            1 => often,
            _ => draw::between(often, seldom),
        };
        Weather {
            kill: rate(400, 8_000),
            pause: rate(1_500, 20_000),
            slow: rate(10, 300),
            broken: rate(15, 600),
            late: rate(6, 100),
            loose: rate(3, 40),
            lost: rate(4, 60),
            node_ms: rate(2_000, 60_000),
        }
    }
}

/// The weather of now.
pub fn now() -> Weather {
    NOW.get()
}

/// Changes it.
pub fn set(weather: Weather) {
    NOW.set(weather);
}

/// Waits for as long as something on its way takes.
pub async fn travel() {
    clock::sleep(delay(now().late)).await;
}

/// How long something takes that is much later once in so many times.
#[must_use]
pub fn delay(late: u64) -> Duration {
    if draw::one_in(late) {
        if draw::one_in(4) { draw::millis(500, 6_000) } else { draw::millis(20, 500) }
    } else {
        Duration::from_micros(draw::below(4_000))
    }
}
