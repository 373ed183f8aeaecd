//! Numbers that look drawn by chance and are the same on every machine: SplitMix64, in integers throughout.
//!
//! Each stream and project has a generator of its own, named by the seed and their names. So what one of them draws
//! does not depend on what the others do, and a counterfactual draws the same jobs.

/// A generator.
#[derive(Debug, Clone)]
pub struct Draw(u64);

/// Fractional bits of logarithms.
const BITS: u32 = 16;

/// The natural logarithm of 2 with that many fractional bits.
const LN_2: u128 = 45_426;

impl Draw {
    /// The generator of that name under `seed`.
    #[must_use]
    pub fn named(seed: u64, name: &str) -> Self {
        // FNV-1a; only to tell names apart.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut draw = Draw(seed ^ hash);
        draw.any();
        draw
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, or 0.
    pub fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.any()) * u128::from(end);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// A number of `least` to `most`, all alike.
    pub fn between(&mut self, least: i64, most: i64) -> i64 {
        let width = u64::try_from(most.saturating_sub(least)).unwrap_or(0).saturating_add(1);
        least.saturating_add(i64::try_from(self.below(width)).unwrap_or(0))
    }

    /// A wait with that mean for something that happens at any moment alike.
    pub fn exponential(&mut self, mean: i64) -> i64 {
        let wait = u128::from(mean.unsigned_abs()) * negative_log(self.any().max(1));
        i64::try_from(wait >> BITS).unwrap_or(i64::MAX)
    }
}

/// -ln(`x` / 2^64) with [`BITS`] fractional bits: the binary logarithm bit by bit, by squaring.
fn negative_log(x: u64) -> u128 {
    let zeros = x.leading_zeros();
    // From 1 up to 2, with 63 fractional bits.
    let mut mantissa = u128::from(x << zeros);
    let mut log = u128::from(63 - zeros);
    for _ in 0..BITS {
        mantissa = (mantissa * mantissa) >> 63;
        let bit = mantissa >> 64;
        mantissa >>= bit;
        log = (log << 1) | bit;
    }
    let full = 64_u128 << BITS;
    ((full - log) * LN_2) >> BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_the_numbers_of_its_definition() {
        let mut draw = Draw(1_234_567);
        let first = [draw.any(), draw.any(), draw.any()];
        assert_eq!(
            first,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn names_have_generators_of_their_own() {
        assert_ne!(Draw::named(1, "a").any(), Draw::named(1, "b").any());
        assert_ne!(Draw::named(1, "a").any(), Draw::named(2, "a").any());
        assert_eq!(Draw::named(1, "a").any(), Draw::named(1, "a").any());
    }

    #[test]
    fn waits_have_their_mean_and_numbers_their_range() {
        let mut draw = Draw::named(1, "mean");
        let waits: i64 = (0..20_000).map(|_| draw.exponential(10_000)).sum();
        assert!((9_700..10_300).contains(&(waits / 20_000)), "{}", waits / 20_000);
        let numbers: Vec<i64> = (0..1000).map(|_| draw.between(3, 7)).collect();
        assert_eq!((numbers.iter().min(), numbers.iter().max()), (Some(&3), Some(&7)));
    }

    #[test]
    fn the_logarithm_of_a_half_and_of_a_quarter_is_right() {
        assert_eq!(negative_log(1 << 63), LN_2);
        assert_eq!(negative_log(1 << 62), 2 * LN_2);
    }
}
