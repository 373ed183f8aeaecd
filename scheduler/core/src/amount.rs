//! Amounts and times as integers; no floating point in anything that is charged or compared.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};

use serde::{Deserialize, Serialize};

/// Defines an unsigned amount that adds, and subtracts only what is there.
macro_rules! amount_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $name(pub u64);

        impl $name {
            /// Nothing.
            pub const ZERO: Self = Self(0);

            /// What is left after taking `other`, or nothing.
            #[must_use]
            pub fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }

            /// What is left after taking `other`, `None` if that is more than there is.
            #[must_use]
            pub fn checked_sub(self, other: Self) -> Option<Self> {
                self.0.checked_sub(other.0).map(Self)
            }

            /// This amount `count` times.
            #[must_use]
            pub fn times(self, count: u64) -> Self {
                Self(self.0.saturating_mul(count))
            }

            /// Whether there is none.
            #[must_use]
            pub fn is_zero(self) -> bool {
                self.0 == 0
            }
        }

        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }
        }

        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }

        impl Sub for $name {
            type Output = Self;
            fn sub(self, other: Self) -> Self {
                debug_assert!(self.0 >= other.0, "{} - {} is negative", self.0, other.0);
                self.saturating_sub(other)
            }
        }

        impl SubAssign for $name {
            fn sub_assign(&mut self, other: Self) {
                *self = *self - other;
            }
        }

        impl Sum for $name {
            fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
                amounts.fold(Self::ZERO, Add::add)
            }
        }
    };
}

amount_type!(
    /// GPUs in thousandths; a whole GPU is 1000.
    GpuMilli
);
amount_type!(
    /// CPUs in thousandths.
    CpuMilli
);
amount_type!(
    /// Memory in MiB.
    MemoryMib
);

impl GpuMilli {
    /// One whole GPU.
    pub const WHOLE: Self = Self(1000);

    /// `count` whole GPUs.
    #[must_use]
    pub fn whole(count: u32) -> Self {
        Self::WHOLE.times(u64::from(count))
    }
}

impl fmt::Display for GpuMilli {
    /// In GPUs: `8`, `0.25`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_thousandths(f, self.0)
    }
}

impl fmt::Display for CpuMilli {
    /// In CPUs: `16`, `0.5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_thousandths(f, self.0)
    }
}

impl fmt::Display for MemoryMib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0)
    }
}

fn write_thousandths(f: &mut fmt::Formatter<'_>, milli: u64) -> fmt::Result {
    let (whole, part) = (milli / 1000, milli % 1000);
    if part == 0 {
        return write!(f, "{whole}");
    }
    let digits = format!("{part:03}");
    write!(f, "{whole}.{}", digits.trim_end_matches('0'))
}

/// GPU time in thousandths of a GPU-second; signed, since a ledger subtracts. One GPU for one second is 1000.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct GpuMilliSeconds(pub i64);

impl Add for GpuMilliSeconds {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for GpuMilliSeconds {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for GpuMilliSeconds {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::default(), Add::add)
    }
}

/// Normalised GPU time: GPU time times the weight of its class. Signed, since accounts subtract.
///
/// One unit is a thousandth of a GPU for a second at a weight of a thousandth, so that every sum is exact.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Ngh(pub i128);

impl Ngh {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// Units in a thousandth of a normalised GPU-hour.
    const UNITS_PER_MILLI: i128 = 3_600_000;

    /// `count` normalised GPU-hours.
    #[must_use]
    pub fn whole(count: u64) -> Self {
        Self(i128::from(count) * 1000 * Self::UNITS_PER_MILLI)
    }

    /// `count` thousandths of a normalised GPU-hour.
    #[must_use]
    pub fn thousandths(count: u64) -> Self {
        Self(i128::from(count) * Self::UNITS_PER_MILLI)
    }

    /// What that much time of a class of this weight, in thousandths, comes to.
    #[must_use]
    pub fn of(time: GpuMilliSeconds, weight_milli: u32) -> Self {
        Self(i128::from(time.0) * i128::from(weight_milli))
    }

    /// In whole thousandths of a normalised GPU-hour, rounded down; nothing if it is negative.
    #[must_use]
    pub fn thousandths_down(self) -> u64 {
        u64::try_from(self.0.max(0) / Self::UNITS_PER_MILLI).unwrap_or(u64::MAX)
    }

    /// The same rounded up.
    #[must_use]
    pub fn thousandths_up(self) -> u64 {
        u64::try_from((self.0.max(0) + Self::UNITS_PER_MILLI - 1) / Self::UNITS_PER_MILLI)
            .unwrap_or(u64::MAX)
    }

    /// So many `parts` of a `whole`, rounded down.
    #[must_use]
    pub fn part(self, parts: u32, whole: u32) -> Self {
        Self((self.0 * i128::from(parts)).div_euclid(i128::from(whole.max(1))))
    }

    /// This, or nothing if it is negative.
    #[must_use]
    pub fn or_zero(self) -> Self {
        Self(self.0.max(0))
    }
}

impl Add for Ngh {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Ngh {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Ngh {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl SubAssign for Ngh {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Ngh {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for Ngh {
    /// In normalised GPU-hours: `4,000`, `12.5`; less than a thousandth is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milli = self.0.unsigned_abs() / Self::UNITS_PER_MILLI.unsigned_abs();
        let (whole, part) = (milli / 1000, milli % 1000);
        let sign = if self.0 < 0 && milli > 0 { "-" } else { "" };
        write!(f, "{sign}{}", with_commas(whole))?;
        if part == 0 {
            return Ok(());
        }
        let digits = format!("{part:03}");
        write!(f, ".{}", digits.trim_end_matches('0'))
    }
}

/// `1800000` as `1,800,000`.
fn with_commas(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A moment in Unix microseconds.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct UnixMicros(pub i64);

/// Microseconds in a second.
pub const MICROS_PER_SECOND: i64 = 1_000_000;

impl UnixMicros {
    /// Whole seconds of the wall clock at this moment; ticks of the ledger.
    #[must_use]
    pub fn whole_seconds(self) -> i64 {
        self.0.div_euclid(MICROS_PER_SECOND)
    }

    /// The moment `seconds` later.
    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(MICROS_PER_SECOND)))
    }

    /// The moment `millis` later.
    #[must_use]
    pub fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis.saturating_mul(1000)))
    }

    /// Whole milliseconds since `earlier`; negative if that is later.
    #[must_use]
    pub fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousandths_print_as_gpus() {
        assert_eq!(GpuMilli::whole(8).to_string(), "8");
        assert_eq!(GpuMilli(250).to_string(), "0.25");
        assert_eq!(GpuMilli(1005).to_string(), "1.005");
    }

    #[test]
    fn normalised_hours_print_with_commas_and_thousandths() {
        assert_eq!(Ngh::whole(1_800_000).to_string(), "1,800,000");
        assert_eq!(Ngh::thousandths(12_500).to_string(), "12.5");
        assert_eq!(Ngh(-1).to_string(), "0");
        assert_eq!((Ngh::ZERO - Ngh::whole(3)).to_string(), "-3");
        let hour = GpuMilliSeconds(3_600_000);
        assert_eq!(Ngh::of(hour, 2500), Ngh::thousandths(2500));
        assert_eq!((Ngh(1).thousandths_down(), Ngh(1).thousandths_up()), (0, 1));
    }

    #[test]
    fn shares_of_a_gpu_add_up_exactly() {
        let shares: GpuMilli = [333, 333, 334].into_iter().map(GpuMilli).sum();
        assert_eq!(shares, GpuMilli::WHOLE);
    }
}
