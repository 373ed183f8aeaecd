//! Chance, all of it from one seed: SplitMix64, one stream for the thread. The same seed draws the same numbers.

use std::cell::Cell;
use std::time::Duration;

thread_local! {
    static STATE: Cell<u64> = const { Cell::new(0) };
}

/// Begins anew from a seed.
pub fn begin(seed: u64) {
    STATE.set(seed ^ 0x5851_f42d_4c95_7f2d);
    any();
}

/// Any number.
pub fn any() -> u64 {
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mut mixed = state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A number below `end`, or 0.
pub fn below(end: u64) -> u64 {
    let wide = u128::from(any()) * u128::from(end);
    u64::try_from(wide >> 64).unwrap_or(0)
}

/// One of `least` to `most`.
pub fn between(least: u64, most: u64) -> u64 {
    least + below(most.saturating_sub(least) + 1)
}

/// Whether something happens that does once in so many times; 0: never.
pub fn one_in(times: u64) -> bool {
    times > 0 && below(times) == 0
}

/// One of a list; `None` if it is empty.
pub fn of<T>(list: &[T]) -> Option<&T> {
    list.get(usize::try_from(below(list.len() as u64)).unwrap_or(0))
}

/// So many milliseconds, or up to so many.
pub fn millis(least: u64, most: u64) -> Duration {
    Duration::from_micros(between(least * 1_000, most * 1_000))
}
