//! Stretches of time, in ticks of a half-life; those that touch are one.

use std::collections::BTreeMap;

use super::decay::{HalfLife, REMEMBERED_ERAS};

/// Ticks in a half-life, for forgetting.
const TICKS_REMEMBERED: i64 = (REMEMBERED_ERAS + 1) * HalfLife::TICKS;

/// A set of ticks. In whatever order they are added, and however often, the same is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Spans {
    /// First tick of each stretch, and the one after its last.
    ticks: BTreeMap<i64, i64>,
}

impl Spans {
    /// Adds all ticks from `first` to `last`, and forgets what is too old beside the newest.
    pub fn add(&mut self, first: i64, last: i64) {
        let (mut first, mut end) = (first, last.saturating_add(1));
        // The only stretches that can touch are those that begin no later than the end: from there backwards.
        while let Some((begin, until)) = self.before(end).filter(|(_, until)| *until >= first) {
            self.ticks.remove(&begin);
            (first, end) = (first.min(begin), end.max(until));
        }
        self.ticks.insert(first, end);
        self.forget();
    }

    /// The stretch that begins last of those that begin no later than `tick`.
    fn before(&self, tick: i64) -> Option<(i64, i64)> {
        self.ticks.range(..=tick).next_back().map(|(begin, until)| (*begin, *until))
    }

    fn forget(&mut self) {
        let Some((_, newest)) = self.ticks.last_key_value() else { return };
        let oldest = newest.saturating_sub(TICKS_REMEMBERED);
        while let Some((begin, until)) = self.ticks.first_key_value().map(|(from, to)| (*from, *to))
        {
            if begin >= oldest {
                return;
            }
            self.ticks.pop_first();
            if until > oldest {
                self.ticks.insert(oldest, until);
            }
        }
    }

    /// The first tick and the one after the last of each stretch that begins before `tick`, cut off there.
    pub fn until(&self, tick: i64) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.ticks.range(..tick).map(move |(begin, until)| (*begin, (*until).min(tick)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn spans_are_the_set_of_their_ticks_in_whatever_order_they_come(
            added in proptest::collection::vec((0..60_i64, 0..9_i64), 0..12),
        ) {
            let (mut forward, mut backward, mut ticks) = (Spans::default(), Spans::default(), BTreeSet::new());
            for &(first, more) in &added {
                forward.add(first, first + more);
                ticks.extend(first..=first + more);
            }
            for &(first, more) in added.iter().rev() {
                backward.add(first, first + more);
            }
            prop_assert_eq!(&forward, &backward);
            let found: BTreeSet<i64> = forward.until(i64::MAX).flat_map(|(first, end)| first..end).collect();
            prop_assert_eq!(found, ticks);
            prop_assert!(forward.until(30).all(|(first, end)| first < end && end <= 30));
        }
    }

    #[test]
    fn what_is_too_old_beside_the_newest_is_forgotten_in_either_order() {
        let (mut old_first, mut new_first) = (Spans::default(), Spans::default());
        for (first, last) in [(0, 5), (6, TICKS_REMEMBERED + 3)] {
            old_first.add(first, last);
        }
        new_first.add(6, TICKS_REMEMBERED + 3);
        new_first.add(0, 5);
        assert_eq!(old_first, new_first);
        assert_eq!(old_first.until(i64::MAX).collect::<Vec<_>>(), [(4, TICKS_REMEMBERED + 4)]);
    }
}
