//! The last values of something, in the order in which they came and in that of their sizes.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// How many values are remembered: enough for the outer tenths, few enough to follow what changes.
pub const REMEMBERED: usize = 128;

/// The last values, at most [`REMEMBERED`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<i32>", into = "Vec<i32>")]
pub struct Sample {
    recent: VecDeque<i32>,
    sorted: Vec<i32>,
}

impl Sample {
    /// Adds a value; the oldest goes if there are too many.
    pub fn add(&mut self, value: i32) {
        if self.recent.len() >= REMEMBERED
            && let Some(oldest) = self.recent.pop_front()
            && let Ok(at) = self.sorted.binary_search(&oldest)
        {
            self.sorted.remove(at);
        }
        self.recent.push_back(value);
        self.sorted.insert(self.sorted.partition_point(|other| *other < value), value);
    }

    /// All, the smallest first.
    #[must_use]
    pub fn sorted(&self) -> &[i32] {
        &self.sorted
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }
}

impl From<Vec<i32>> for Sample {
    fn from(values: Vec<i32>) -> Self {
        let mut sample = Sample::default();
        values.into_iter().for_each(|value| sample.add(value));
        sample
    }
}

impl From<Sample> for Vec<i32> {
    fn from(sample: Sample) -> Self {
        sample.recent.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_has_the_last_values_in_order(values in prop::collection::vec(-5..5_i32, 0..300)) {
            let sample = Sample::from(values.clone());
            let mut last = values[values.len().saturating_sub(REMEMBERED)..].to_vec();
            prop_assert_eq!(Vec::from(sample.clone()), last.clone());
            last.sort_unstable();
            prop_assert_eq!(sample.sorted(), last);
        }
    }
}
