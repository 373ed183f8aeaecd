//! At which parts of a budget people are told.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Percentages of a budget, in rising order, none of them twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thresholds(Vec<u32>);

/// Why some percentages are no thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadThresholds {
    /// Too many.
    #[error("has at most {} percentages", Thresholds::COUNT_MAX)]
    TooMany,
    /// One is nothing, or more than can be used.
    #[error("must be 1 to {} percent each", Thresholds::PERCENT_MAX)]
    OutOfRange,
    /// Not in order, or one twice.
    #[error("must rise, each percentage once, as in [75, 90, 100]")]
    NotRising,
}

impl Thresholds {
    /// Most percentages of a node.
    pub const COUNT_MAX: usize = 10;
    /// The highest: ten times the budget, as much as overuse can allow.
    pub const PERCENT_MAX: u32 = 1_000;
    /// Where nothing else is said.
    const USUAL: [u32; 5] = [50, 75, 90, 100, 125];

    /// These percentages; without any, nobody is told.
    ///
    /// # Errors
    /// [`BadThresholds`].
    pub fn new(percents: Vec<u32>) -> Result<Self, BadThresholds> {
        if percents.len() > Self::COUNT_MAX {
            return Err(BadThresholds::TooMany);
        }
        if !percents.iter().all(|percent| (1..=Self::PERCENT_MAX).contains(percent)) {
            return Err(BadThresholds::OutOfRange);
        }
        if !percents.is_sorted_by(|one, next| one < next) {
            return Err(BadThresholds::NotRising);
        }
        Ok(Thresholds(percents))
    }

    /// All of them, in rising order.
    pub fn percents(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds(Self::USUAL.to_vec())
    }
}

impl fmt::Display for Thresholds {
    /// `75, 90, 100 %`, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let percents: Vec<String> = self.percents().map(|percent| percent.to_string()).collect();
        write!(f, "{} %", percents.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_rise_and_are_few() {
        let new = |percents: &[u32]| Thresholds::new(percents.to_vec());
        assert_eq!(new(&[75, 90, 100]).unwrap().to_string(), "75, 90, 100 %");
        assert_eq!(new(&[]).unwrap().to_string(), "none");
        assert_eq!(new(&[90, 90]), Err(BadThresholds::NotRising));
        assert_eq!(new(&[0, 90]), Err(BadThresholds::OutOfRange));
        assert_eq!(new(&[1001]), Err(BadThresholds::OutOfRange));
        let many: Vec<u32> = (1..=11).collect();
        assert_eq!(new(&many), Err(BadThresholds::TooMany));
    }
}
