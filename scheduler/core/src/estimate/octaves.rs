//! Waits on a scale of doublings, since what is told of a wait is wrong by a factor and not by an amount.
//!
//! A place on the scale is the logarithm to base two of a minute and the wait, in parts of a doubling; between two
//! doublings it is a straight line. Below a minute waits are as good as equal.

/// Parts of a doubling.
pub(super) const PARTS: i32 = 64;

/// What is added to each wait, seconds.
const LEAST_S: i64 = 60;

/// The place of a wait of so many seconds.
pub(super) fn place_of(wait_s: i64) -> i32 {
    let seconds = wait_s.clamp(0, i64::MAX / 4) + LEAST_S;
    let doublings = seconds.ilog2();
    let part = ((i128::from(seconds) - (1_i128 << doublings)) * i128::from(PARTS)) >> doublings;
    i32::try_from(doublings).unwrap_or(0) * PARTS + i32::try_from(part).unwrap_or(0)
}

/// The shortest wait at that place, seconds.
pub(super) fn wait_at(place: i32) -> i64 {
    let (doublings, part) = (place.div_euclid(PARTS).clamp(0, 50), place.rem_euclid(PARTS));
    let seconds = (1_i64 << doublings) * i64::from(PARTS + part) / i64::from(PARTS);
    (seconds - LEAST_S).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_wait_is_found_again_to_a_sixtieth(wait_s in 0..100_000_000_i64) {
            let again = wait_at(place_of(wait_s));
            prop_assert!(again <= wait_s && wait_s - again <= (wait_s + 60) / 60, "{again}");
        }

        #[test]
        fn a_longer_wait_has_no_lower_place(wait_s in 0..100_000_000_i64, more_s in 0..100_000_i64) {
            prop_assert!(place_of(wait_s + more_s) >= place_of(wait_s));
        }
    }
}
