//! How fast attempts that live use GPU time, so that what was used can be said of any second between two slices.

use crate::amount::{Ngh, UnixMicros};
use crate::attempt::Attempt;

/// What is used each second, and how much of it was settled: at a second `s`, `per_second * s - settled` is used and
/// not charged. Paces add up, so one serves a node with everything below it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// Normalised GPU time used in each second.
    per_second: Ngh,
    /// The same times the second up to which it was settled, summed.
    settled: Ngh,
}

impl Pace {
    /// Of one attempt; none if it has no GPUs.
    #[must_use]
    pub fn of(attempt: &Attempt) -> Self {
        if attempt.placement.class.is_none() {
            return Pace::default();
        }
        let weight = i128::from(attempt.meter.weight_milli);
        let per_second = i128::from(attempt.gpus().0).saturating_mul(weight);
        let settled_s = i128::from(attempt.meter.settled.whole_seconds());
        Pace { per_second: Ngh(per_second), settled: Ngh(per_second.saturating_mul(settled_s)) }
    }

    /// Together with another.
    #[must_use]
    pub fn and(self, other: Pace) -> Self {
        Pace {
            per_second: self.per_second + other.per_second,
            settled: self.settled + other.settled,
        }
    }

    /// Without another that is part of it.
    #[must_use]
    pub fn without(self, other: Pace) -> Self {
        Pace {
            per_second: self.per_second - other.per_second,
            settled: self.settled - other.settled,
        }
    }

    /// What is used and not charged at `at`, to the second.
    #[must_use]
    pub fn uncharged(self, at: UnixMicros) -> Ngh {
        let all = self.per_second.0.saturating_mul(i128::from(at.whole_seconds()));
        (Ngh(all) - self.settled).or_zero()
    }

    /// The first second at which that much is used and not charged; `None` if it never will be.
    #[must_use]
    pub fn reaches(self, ngh: Ngh) -> Option<UnixMicros> {
        let all = ngh + self.settled;
        if self.per_second <= Ngh::ZERO {
            return (ngh <= Ngh::ZERO).then_some(UnixMicros(i64::MIN));
        }
        let second = all.0.div_euclid(self.per_second.0)
            + i128::from(all.0.rem_euclid(self.per_second.0) > 0);
        let second = i64::try_from(second).unwrap_or(i64::MAX);
        Some(UnixMicros::default().plus_seconds(second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pace(per_second: i128, settled_s: i128) -> Pace {
        Pace { per_second: Ngh(per_second), settled: Ngh(per_second * settled_s) }
    }

    #[test]
    fn what_stands_still_reaches_only_what_it_has() {
        assert_eq!(Pace::default().reaches(Ngh(1)), None);
        assert_eq!(Pace::default().reaches(Ngh::ZERO), Some(UnixMicros(i64::MIN)));
        assert_eq!(Pace::default().uncharged(UnixMicros(5_000_000)), Ngh::ZERO);
    }

    proptest! {
        #[test]
        fn an_amount_is_reached_in_the_first_second_in_which_it_is_there(
            paces in proptest::collection::vec((1..1000_i128, 0..10_000_i128), 1..6),
            wanted in 1..10_000_000_i128,
        ) {
            let all = paces.iter().fold(Pace::default(), |sum, (speed, from)| sum.and(pace(*speed, *from)));
            let at = all.reaches(Ngh(wanted)).unwrap();
            prop_assert!(all.uncharged(at) >= Ngh(wanted));
            prop_assert!(all.uncharged(at.plus_seconds(-1)) < Ngh(wanted));
        }

        #[test]
        fn what_is_taken_out_again_leaves_no_trace(one in (1..1000_i128, 0..10_000_i128)) {
            let pace = pace(one.0, one.1);
            prop_assert_eq!(Pace::default().and(pace).without(pace), Pace::default());
        }
    }
}
