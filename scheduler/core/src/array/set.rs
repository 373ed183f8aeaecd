//! Places of tasks as ranges, so that a hundred thousand in a row are one entry.

use serde::{Deserialize, Serialize};

/// A set of places.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskSet(Vec<(u32, u32)>);

impl TaskSet {
    /// The places from 0 on, so many.
    #[must_use]
    pub fn all(count: u32) -> Self {
        TaskSet(count.checked_sub(1).map(|last| (0, last)).into_iter().collect())
    }

    /// One place.
    #[must_use]
    pub fn one(place: u32) -> Self {
        TaskSet(vec![(place, place)])
    }

    /// Whatever is in these ranges, ends included, in whatever order they come.
    #[must_use]
    pub fn of(ranges: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut ranges: Vec<(u32, u32)> =
            ranges.into_iter().filter(|(first, last)| first <= last).collect();
        ranges.sort_unstable();
        let mut set = TaskSet::default();
        for (first, last) in ranges {
            match set.0.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => {
                    before.1 = before.1.max(last)
                }
                Some(_) | None => set.0.push((first, last)),
            }
        }
        set
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many places it has.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Ranges it consists of, ends included, ascending, none next to another.
    pub fn ranges(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.0.iter().copied()
    }

    /// How many ranges it consists of.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.0.len()
    }

    /// The lowest place.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.0.first().map(|(first, _)| *first)
    }

    /// Whether the place is in it.
    #[must_use]
    pub fn contains(&self, place: u32) -> bool {
        let behind = self.0.partition_point(|(first, _)| *first <= place);
        behind.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|(_, last)| place <= *last)
    }

    /// How many of its places are lower than this one.
    #[must_use]
    pub fn rank(&self, place: u32) -> u32 {
        self.meet(&TaskSet::all(place)).len()
    }

    /// What is in one of the two, or in both.
    #[must_use]
    pub fn join(&self, other: &TaskSet) -> Self {
        TaskSet::of(self.ranges().chain(other.ranges()))
    }

    /// What is in both.
    #[must_use]
    pub fn meet(&self, other: &TaskSet) -> Self {
        let mut both = Vec::new();
        let (mut own, mut others) = (self.ranges().peekable(), other.ranges().peekable());
        while let (Some(a), Some(b)) = (own.peek().copied(), others.peek().copied()) {
            let (first, last) = (a.0.max(b.0), a.1.min(b.1));
            if first <= last {
                both.push((first, last));
            }
            _ = if a.1 <= b.1 { own.next() } else { others.next() };
        }
        TaskSet(both)
    }

    /// What is in this one alone.
    #[must_use]
    pub fn minus(&self, other: &TaskSet) -> Self {
        let mut left = Vec::new();
        let mut others = other.ranges().peekable();
        for (mut first, last) in self.ranges() {
            while others.next_if(|(_, end)| *end < first).is_some() {}
            let mut whole_gone = false;
            while let Some((begin, end)) =
                others.peek().copied().filter(|(begin, _)| *begin <= last)
            {
                if begin > first {
                    left.push((first, begin - 1));
                }
                if end >= last {
                    whole_gone = true;
                    break;
                }
                first = end + 1;
                others.next();
            }
            if !whole_gone {
                left.push((first, last));
            }
        }
        TaskSet(left)
    }

    /// Its lowest places, so many.
    #[must_use]
    pub fn lowest(&self, count: u32) -> Self {
        let mut left = count;
        let mut lowest = Vec::new();
        for (first, last) in self.ranges() {
            let Some(more) = left.min(last - first + 1).checked_sub(1) else { break };
            lowest.push((first, first + more));
            left -= more + 1;
        }
        TaskSet(lowest)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn a_set() -> impl Strategy<Value = TaskSet> {
        let range = (0_u32..40, 0_u32..6).prop_map(|(first, more)| (first, first + more));
        proptest::collection::vec(range, 0..6).prop_map(TaskSet::of)
    }

    fn plain(set: &TaskSet) -> BTreeSet<u32> {
        set.ranges().flat_map(|(first, last)| first..=last).collect()
    }

    proptest! {
        #[test]
        fn a_set_of_ranges_is_a_set(one in a_set(), other in a_set(), place in 0_u32..50) {
            let (a, b) = (plain(&one), plain(&other));
            prop_assert_eq!(plain(&one.join(&other)), &a | &b);
            prop_assert_eq!(plain(&one.meet(&other)), &a & &b);
            prop_assert_eq!(plain(&one.minus(&other)), &a - &b);
            prop_assert_eq!(one.contains(place), a.contains(&place));
            prop_assert_eq!(one.len() as usize, a.len());
            prop_assert_eq!(one.rank(place) as usize, a.range(..place).count());
            let lowest: BTreeSet<u32> = a.iter().copied().take(place as usize).collect();
            prop_assert_eq!(plain(&one.lowest(place)), lowest);
        }

        #[test]
        fn ranges_of_a_set_are_apart(one in a_set(), other in a_set()) {
            for set in [one.join(&other), one.meet(&other), one.minus(&other)] {
                let ranges: Vec<_> = set.ranges().collect();
                prop_assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{ranges:?}");
            }
        }
    }
}
