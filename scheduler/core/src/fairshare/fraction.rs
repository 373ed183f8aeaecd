//! Fractions that compare exactly, whatever their size.

use std::cmp::Ordering;

/// `over / under`; `under` is never zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fraction {
    over: u128,
    under: u128,
}

impl Fraction {
    /// Nothing.
    pub const ZERO: Self = Self { over: 0, under: 1 };
    /// The mean.
    pub const ONE: Self = Self { over: 1, under: 1 };

    /// `None` if `under` is zero.
    pub fn new(over: u128, under: u128) -> Option<Self> {
        (under != 0).then_some(Self { over, under })
    }

    /// In thousandths of `unit`, rounded down; for people, comparisons are exact.
    pub fn per_mille_of(self, unit: u128) -> u64 {
        let whole = (self.over / self.under).saturating_mul(1000);
        let part = (self.over % self.under).saturating_mul(1000) / self.under;
        u64::try_from(whole.saturating_add(part) / unit.max(1)).unwrap_or(u64::MAX)
    }
}

impl Ord for Fraction {
    /// By cross-multiplication. Products need twice the width: a use times a sum of shares is on both sides.
    fn cmp(&self, other: &Self) -> Ordering {
        // So it is among siblings with the same share, which most are.
        if self.under == other.under {
            return self.over.cmp(&other.over);
        }
        product(self.over, other.under).cmp(&product(other.over, self.under))
    }
}

impl PartialOrd for Fraction {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Fraction {
    /// 1/2 is 2/4.
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Fraction {}

/// The upper and the lower half of a product, as on paper with digits of 64 bits.
fn product(one: u128, other: u128) -> (u128, u128) {
    const LOW: u128 = u64::MAX as u128;
    let (one_high, one_low) = (one >> 64, one & LOW);
    let (other_high, other_low) = (other >> 64, other & LOW);
    let low = one_low * other_low;
    let middle = one_high * other_low + (low >> 64);
    let carried = one_low * other_high + (middle & LOW);
    (one_high * other_high + (middle >> 64) + (carried >> 64), (carried << 64) | (low & LOW))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn products_of_the_greatest_numbers_are_right() {
        assert_eq!(product(u128::MAX, u128::MAX), (u128::MAX - 1, 1));
        assert_eq!(product(1 << 127, 6), (3, 0));
        assert_eq!(product(u128::MAX, 1), (0, u128::MAX));
    }

    #[test]
    fn neighbours_that_a_float_cannot_tell_apart_differ() {
        let one = Fraction::new(u128::MAX - 1, u128::MAX).unwrap();
        assert!(one < Fraction::ONE && Fraction::ZERO < one);
        assert!(Fraction::new(1, 0).is_none());
    }

    proptest! {
        #[test]
        fn small_fractions_compare_as_their_cross_products(
            a in 0..1000_u128, b in 1..1000_u128, c in 0..1000_u128, d in 1..1000_u128,
        ) {
            let (one, other) = (Fraction::new(a, b).unwrap(), Fraction::new(c, d).unwrap());
            prop_assert_eq!(one.cmp(&other), (a * d).cmp(&(c * b)));
            let scaled = Fraction::new(a << 110, b << 110).unwrap();
            prop_assert_eq!(scaled, one);
        }
    }
}
