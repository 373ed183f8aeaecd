//! Fair share: whose turn it is, from what everybody has used and what everybody has a right to.
//!
//! [`decay`] measures use that fades with time, [`history`] keeps it for every node of the tree, and
//! [`order`](mod@order) says who comes before whom by it.
//! Nothing here is charged: the ledger counts exactly and never fades, and it alone says what may be used at all.
//! Neither is anything here about GPUs that are free now; that is the planner's.

pub mod decay;
mod fraction;
pub mod history;
pub mod order;
mod spans;

use serde::{Deserialize, Serialize};

pub use decay::{DecayedUse, HalfLife};
pub use history::{HeldFor, History};
pub use order::{OrderRule, Standing, Turn, order};

/// A part of a whole, in 2^-32. More than the whole is possible, for a measure that was changed meanwhile.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Part(pub u64);

impl Part {
    /// Nothing of it.
    pub const NONE: Self = Self(0);
    /// All of it.
    pub const WHOLE: Self = Self(1 << 32);

    /// `amount` in `whole`, rounded down; nothing of a whole that is nothing.
    #[must_use]
    pub fn of(amount: u64, whole: u64) -> Self {
        let scaled = u128::from(amount) * u128::from(Self::WHOLE.0);
        let part = scaled.checked_div(u128::from(whole)).unwrap_or(0);
        Self(u64::try_from(part).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_a_fraction_of_the_whole_and_nothing_of_nothing() {
        assert_eq!(Part::of(7, 7), Part::WHOLE);
        assert_eq!(Part::of(1, 4), Part(1 << 30));
        assert_eq!(Part::of(7, 0), Part::NONE);
        assert_eq!(Part::of(u64::MAX, 1), Part(u64::MAX));
    }
}
