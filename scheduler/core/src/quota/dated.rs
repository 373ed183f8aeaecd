//! Values that hold from one moment until another.

use serde::{Deserialize, Serialize};

use crate::amount::UnixMicros;

/// A stretch of time: `from` belongs to it, `until` does not. An end of time is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Interval {
    /// First moment.
    #[serde(skip_serializing_if = "begins_time")]
    pub from: UnixMicros,
    /// The moment after the last.
    #[serde(skip_serializing_if = "ends_time")]
    pub until: UnixMicros,
}

impl Default for Interval {
    /// All time.
    fn default() -> Self {
        Interval::ALWAYS
    }
}

fn begins_time(from: &UnixMicros) -> bool {
    *from == Interval::ALWAYS.from
}

fn ends_time(until: &UnixMicros) -> bool {
    *until == Interval::ALWAYS.until
}

impl Interval {
    /// All time.
    pub const ALWAYS: Self = Interval { from: UnixMicros(i64::MIN), until: UnixMicros(i64::MAX) };

    /// Whether it is all time.
    #[must_use]
    pub fn is_always(&self) -> bool {
        *self == Self::ALWAYS
    }

    /// Whether `at` lies in it.
    #[must_use]
    pub fn contains(self, at: UnixMicros) -> bool {
        self.from <= at && at < self.until
    }

    /// What belongs to both; it ends no later than it begins where nothing does.
    #[must_use]
    pub fn both(self, other: Interval) -> Self {
        Interval { from: self.from.max(other.from), until: self.until.min(other.until) }
    }

    /// The part that `at` lies in once it is cut at `edge`.
    #[must_use]
    pub fn cut(self, edge: UnixMicros, at: UnixMicros) -> Self {
        if edge <= at {
            Interval { from: self.from.max(edge), ..self }
        } else {
            Interval { until: self.until.min(edge), ..self }
        }
    }

    /// Its ends, those at the ends of time left out.
    pub fn edges(self) -> impl Iterator<Item = UnixMicros> {
        [self.from, self.until]
            .into_iter()
            .filter(|edge| *edge > Self::ALWAYS.from && *edge < Self::ALWAYS.until)
    }
}

/// A value over time: stretches that do not overlap, in order. Where there is no stretch there is no value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dated<T>(Vec<(Interval, T)>);

impl<T> Default for Dated<T> {
    fn default() -> Self {
        Dated(Vec::new())
    }
}

/// Two stretches that both claim a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlap {
    /// The stretch that begins later.
    pub later: Interval,
    /// End of the one before it.
    pub until: UnixMicros,
}

impl<T> Dated<T> {
    /// The same at all times.
    #[must_use]
    pub fn always(value: T) -> Self {
        Dated(vec![(Interval::ALWAYS, value)])
    }

    /// From stretches in any order, each with its end if it was given one; else it lasts until the next one begins.
    ///
    /// # Errors
    /// [`Overlap`] for the first two that claim the same moment, which two that begin together always do.
    pub fn of(mut stretches: Vec<(UnixMicros, Option<UnixMicros>, T)>) -> Result<Self, Overlap> {
        stretches.sort_by_key(|(from, _, _)| *from);
        let begins: Vec<UnixMicros> = stretches.iter().skip(1).map(|(from, _, _)| *from).collect();
        let mut values = Vec::with_capacity(stretches.len());
        for (place, (from, until, value)) in stretches.into_iter().enumerate() {
            let next = begins.get(place).copied().unwrap_or(Interval::ALWAYS.until);
            let until = until.unwrap_or(next);
            if until > next || next == from {
                let later = Interval { from: next, until: Interval::ALWAYS.until };
                return Err(Overlap { later, until });
            }
            values.push((Interval { from, until }, value));
        }
        Ok(Dated(values))
    }

    /// What holds at that moment.
    #[must_use]
    pub fn at(&self, at: UnixMicros) -> Option<&T> {
        self.0.iter().find(|(interval, _)| interval.contains(at)).map(|(_, value)| value)
    }

    /// Whether it holds at no time.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every stretch, in order.
    pub fn iter(&self) -> impl Iterator<Item = &(Interval, T)> {
        self.0.iter()
    }

    /// The values as words, at the same times.
    #[must_use]
    pub(super) fn spelt(&self, word: impl Fn(&T) -> String) -> Dated<String> {
        Dated(self.0.iter().map(|(interval, value)| (*interval, word(value))).collect())
    }

    /// Every moment at which it changes.
    pub fn edges(&self) -> impl Iterator<Item = UnixMicros> {
        self.0.iter().flat_map(|(interval, _)| interval.edges())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(moment: i64) -> UnixMicros {
        UnixMicros(moment)
    }

    #[test]
    fn a_value_lasts_until_the_next_one_begins_whatever_their_order() {
        let value = Dated::of(vec![(at(20), None, 'b'), (at(10), None, 'a')]).unwrap();
        let seen = [9, 10, 19, 20, 99].map(|moment| value.at(at(moment)).copied());
        assert_eq!(seen, [None, Some('a'), Some('a'), Some('b'), Some('b')]);
        assert_eq!(value.edges().collect::<Vec<_>>(), [at(10), at(20), at(20)]);
    }

    #[test]
    fn an_end_that_is_given_leaves_a_gap() {
        let value = Dated::of(vec![(at(10), Some(at(15)), 'a'), (at(20), None, 'b')]).unwrap();
        assert_eq!(
            [14, 15, 20].map(|moment| value.at(at(moment)).copied()),
            [Some('a'), None, Some('b')]
        );
    }

    #[test]
    fn stretches_that_overlap_or_begin_together_are_refused() {
        let overlap =
            Dated::of(vec![(at(10), Some(at(21)), 'a'), (at(20), None, 'b')]).unwrap_err();
        assert_eq!((overlap.later.from, overlap.until), (at(20), at(21)));
        assert!(Dated::of(vec![(at(10), None, 'a'), (at(10), None, 'b')]).is_err());
    }
}
