//! Use that fades: after one half-life it counts half, after two a quarter.
//!
//! **How.** What is kept is not the faded use but the use weighted with 2^(time / half-life), counted from the
//! beginning of the newest half-life it knows of (its *era*). The value at a moment is that sum divided by the
//! moment's own weight. So nothing has to be touched for use to fade, one half-life is exactly one bit, and use adds
//! up in whole numbers.
//!
//! **Seconds.** As in the ledger, a second belongs to whoever holds the GPU when the wall clock reaches it, and it has
//! the weight of that moment: intervals that follow each other never share a second and never lose one.
//!
//! **Errors.** A half-life has 60 ticks; between them the weight is a straight line, at most 1.7e-5 of it above the
//! true curve. That a second is weighted at its end adds at most ln 2 / (seconds in a half-life), which is 5.8e-7
//! for 14 days and 2e-4 for the shortest half-life, an hour. Both are of the value, not of the passing of time: they
//! do not add up. The sum's unit is less than 2^-45 of a thousandth of a GPU-second. A new era rounds it down by less
//! than one unit, less than two over all eras since earlier roundings fade too; what is added or merged late, into
//! an era that is over, is rounded down by less than one unit for each piece and era. Values are rounded down to
//! whole [`GpuMilliSeconds`]. Intervals added in the order of time sum up to exactly what one interval would.
//!
//! **Size.** 50,000 GPUs held for ever under the longest half-life, ten years, come to less than 2^120 units. What
//! does not fit stays at the greatest number.
//!
//! **Clocks.** A value is never taken for a moment before the newest that was added: use does not come back when the
//! clock does. An interval that ends before it begins adds nothing. A moment far in the future fades everything
//! before it, so a caller passes only times that it believes.

use super::Part;
use crate::amount::{GpuMilli, GpuMilliSeconds, UnixMicros};

/// Ticks in a half-life, and seconds in a minute: a half-life of m minutes has ticks of m seconds.
const TICKS: usize = 60;

/// 2^(k/60) in 2^-40, rounded to the nearest.
#[rustfmt::skip]
const GROWTH: [u64; TICKS + 1] = [
    1_099_511_627_776, 1_112_287_337_496, 1_125_211_493_813, 1_138_285_821_592, 1_151_512_065_743,
    1_164_891_991_448, 1_178_427_384_400, 1_192_120_051_044, 1_205_971_818_809, 1_219_984_536_364,
    1_234_160_073_853, 1_248_500_323_155, 1_263_007_198_126, 1_277_682_634_866, 1_292_528_591_967,
    1_307_547_050_779, 1_322_740_015_678, 1_338_109_514_325, 1_353_657_597_944, 1_369_386_341_593,
    1_385_297_844_439, 1_401_394_230_043, 1_417_677_646_638, 1_434_150_267_421, 1_450_814_290_837,
    1_467_671_940_879, 1_484_725_467_379, 1_501_977_146_312, 1_519_429_280_098, 1_537_084_197_911,
    1_554_944_255_988, 1_573_011_837_943, 1_591_289_355_088, 1_609_779_246_753, 1_628_483_980_610,
    1_647_406_053_005, 1_666_547_989_291, 1_685_912_344_163, 1_705_501_702_000, 1_725_318_677_211,
    1_745_365_914_583, 1_765_646_089_632, 1_786_161_908_965, 1_806_916_110_636, 1_827_911_464_514,
    1_849_150_772_653, 1_870_636_869_665, 1_892_372_623_099, 1_914_360_933_822, 1_936_604_736_409,
    1_959_106_999_532, 1_981_870_726_358, 2_004_898_954_949, 2_028_194_758_668, 2_051_761_246_587,
    2_075_601_563_905, 2_099_718_892_368, 2_124_116_450_688, 2_148_797_494_981, 2_173_765_319_195,
    2_199_023_255_552,
];

/// Half-lives after which nothing is left of any sum that fits; older use is not even looked at.
const FORGOTTEN: i64 = 128;

/// How long it takes until use counts half; whole minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HalfLife {
    minutes: u32,
}

impl Default for HalfLife {
    /// 14 days.
    fn default() -> Self {
        HalfLife { minutes: 14 * 24 * 60 }
    }
}

impl HalfLife {
    /// An hour: below it the second's grain shows.
    pub const SHORTEST_MINUTES: u32 = 60;
    /// Ten years: up to here all sums fit.
    pub const LONGEST_MINUTES: u32 = 3660 * 24 * 60;

    /// `None` unless between the shortest and the longest.
    #[must_use]
    pub fn from_minutes(minutes: u32) -> Option<Self> {
        let allowed = Self::SHORTEST_MINUTES..=Self::LONGEST_MINUTES;
        allowed.contains(&minutes).then_some(HalfLife { minutes })
    }

    /// In minutes.
    #[must_use]
    pub fn minutes(self) -> u32 {
        self.minutes
    }

    /// In seconds.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.tick_s() * 60
    }

    fn tick_s(self) -> i64 {
        i64::from(self.minutes)
    }

    /// Era of that second, and seconds of the era before it.
    fn era_and_phase(self, second: i64) -> (i64, i64) {
        (second.div_euclid(self.seconds()), second.rem_euclid(self.seconds()))
    }

    /// Weights of all seconds of an era from `phase` until before `end`, in 2^-40 / tick.
    fn weights(self, mut phase: i64, end: i64) -> u128 {
        let mut sum = 0_u128;
        while phase < end {
            let tick_end = (phase / self.tick_s() + 1) * self.tick_s();
            let until = tick_end.min(end);
            sum += self.weights_in_tick(phase, until - phase);
            phase = until;
        }
        sum
    }

    /// Weights of `count` seconds from `phase` on that lie in one tick: the sum of a straight line.
    fn weights_in_tick(self, phase: i64, count: i64) -> u128 {
        let tick_s = whole(self.tick_s());
        let (tick, offset) = (phase / self.tick_s(), whole(phase % self.tick_s()));
        let (low, high) = growth(tick);
        let count = whole(count);
        let steps = count * offset + count * count.saturating_sub(1) / 2;
        count * low * tick_s + (high - low) * steps
    }

    /// Weight of one second.
    fn weight(self, phase: i64) -> u128 {
        self.weights_in_tick(phase, 1)
    }
}

/// Growth at the beginning and the end of a tick.
fn growth(tick: i64) -> (u128, u128) {
    let index = usize::try_from(tick).unwrap_or(0).min(TICKS - 1);
    (u128::from(GROWTH[index]), u128::from(GROWTH[index + 1]))
}

fn whole(seconds: i64) -> u128 {
    u128::try_from(seconds).unwrap_or(0)
}

/// GPU time that fades; of a project, of a whole tree, or of the GPUs there were to use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DecayedUse {
    half_life: HalfLife,
    /// Number of the half-life since 1970 whose beginning has the weight 1.
    era: i64,
    /// Thousandths of GPU-seconds, each times its weight.
    weighted: u128,
    /// The newest second that was added, here or in what was merged.
    latest: i64,
}

impl DecayedUse {
    /// Nothing used yet.
    #[must_use]
    pub fn new(half_life: HalfLife) -> Self {
        DecayedUse { half_life, ..DecayedUse::default() }
    }

    /// How it fades.
    #[must_use]
    pub fn half_life(&self) -> HalfLife {
        self.half_life
    }

    /// Counts `gpus` held from `from` until `until`.
    pub fn add(&mut self, gpus: GpuMilli, from: UnixMicros, until: UnixMicros) {
        let (from, until) = (from.whole_seconds(), until.whole_seconds());
        if until <= from {
            return;
        }
        let oldest = self.latest.max(until) - self.half_life.seconds() * FORGOTTEN;
        let mut second = (from + 1).max(oldest);
        while second <= until {
            let (era, phase) = self.half_life.era_and_phase(second);
            let end = self.half_life.seconds().min(phase + until - second + 1);
            let weights = self.half_life.weights(phase, end);
            self.add_weighted(era, weights.saturating_mul(u128::from(gpus.0)));
            second += end - phase;
        }
        self.latest = self.latest.max(until);
    }

    /// Counts what `other` counted. One that fades differently is taken as what it is worth at its newest moment.
    pub fn merge(&mut self, other: &DecayedUse) {
        let other = other.with_half_life(self.half_life);
        self.add_weighted(other.era, other.weighted);
        self.latest = self.latest.max(other.latest);
    }

    /// The same value at its newest moment, fading as `half_life` says from there on.
    #[must_use]
    pub fn with_half_life(&self, half_life: HalfLife) -> Self {
        if half_life == self.half_life {
            return *self;
        }
        let (era, phase) = half_life.era_and_phase(self.latest);
        let weighted = self.units_at(self.latest).saturating_mul(half_life.weight(phase));
        DecayedUse { half_life, era, weighted, latest: self.latest }
    }

    /// What it is worth at `at`, or at the newest moment it knows of if that is later.
    #[must_use]
    pub fn value_at(&self, at: UnixMicros) -> GpuMilliSeconds {
        let units = self.units_at(at.whole_seconds());
        GpuMilliSeconds(i64::try_from(units).unwrap_or(i64::MAX))
    }

    /// Which part this is of the GPU time that there was, which fades in the same way. Not of what everybody used
    /// together: by that measure, whoever works alone on an idle machine has used all of it.
    ///
    /// Parts that are compared need a capacity counted at least as far as each of them, so that all are taken for the
    /// same moment.
    #[must_use]
    pub fn part_of(&self, capacity: &DecayedUse, at: UnixMicros) -> Part {
        let second = at.whole_seconds().max(self.latest).max(capacity.latest);
        let used = u64::try_from(self.units_at(second)).unwrap_or(u64::MAX);
        let capacity = u64::try_from(capacity.units_at(second)).unwrap_or(u64::MAX);
        Part::of(used, capacity)
    }

    /// Value in thousandths of GPU-seconds; `self.era` is never later than the era of `self.latest`.
    fn units_at(&self, second: i64) -> u128 {
        let (era, phase) = self.half_life.era_and_phase(second.max(self.latest));
        faded(self.weighted, era - self.era) / self.half_life.weight(phase)
    }

    /// Adds a sum that is weighted for `era`, and moves to that era if it is newer.
    fn add_weighted(&mut self, era: i64, weighted: u128) {
        if era > self.era {
            self.weighted = faded(self.weighted, era - self.era);
            self.era = era;
        }
        self.weighted = self.weighted.saturating_add(faded(weighted, self.era - era));
    }
}

/// Half for each half-life.
fn faded(weighted: u128, half_lives: i64) -> u128 {
    u32::try_from(half_lives).ok().and_then(|count| weighted.checked_shr(count)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: i64 = 24 * 60 * 60;
    /// Some day of 2026.
    const START: i64 = 1_790_000_000;

    fn at(second: i64) -> UnixMicros {
        UnixMicros(0).plus_seconds(second)
    }

    fn held(gpus: u64, from: i64, until: i64) -> DecayedUse {
        let mut used = DecayedUse::default();
        used.add(GpuMilli(gpus), at(from), at(until));
        used
    }

    /// The integral of the true curve, which may be a float since only a test compares with it.
    fn true_value(gpus: u64, from: i64, until: i64, now: i64, half_life: HalfLife) -> f64 {
        let half_life = half_life.seconds() as f64;
        let left = |second: i64| ((second - now) as f64 / half_life).exp2();
        gpus as f64 * half_life / std::f64::consts::LN_2 * (left(until) - left(from))
    }

    #[test]
    fn the_table_is_the_sixtieth_root_of_two_multiplied_with_itself() {
        assert_eq!((GROWTH[0], GROWTH[TICKS]), (1 << 40, 1 << 41));
        for (one, other) in (0..=TICKS).flat_map(|one| (0..=TICKS - one).map(move |two| (one, two)))
        {
            let product = (u128::from(GROWTH[one]) * u128::from(GROWTH[other])) >> 40;
            assert!(product.abs_diff(u128::from(GROWTH[one + other])) <= 2, "{one} and {other}");
        }
    }

    #[test]
    fn a_second_counts_whole_when_it_has_just_passed() {
        assert_eq!(held(8000, START, START + 1).value_at(at(START + 1)).0, 8000);
    }

    #[test]
    fn a_clock_that_goes_back_neither_adds_use_nor_brings_it_back() {
        let mut used = held(8000, START, START + DAY);
        let before = used;
        used.add(GpuMilli(8000), at(START + DAY), at(START));
        assert_eq!(used, before);
        assert_eq!(used.value_at(at(0)), used.value_at(at(START + DAY)));
        assert_eq!(used.value_at(UnixMicros(i64::MIN)), used.value_at(at(START + DAY)));
    }

    #[test]
    fn the_wildest_numbers_and_times_do_not_panic() {
        let mut used = DecayedUse::new(HalfLife::from_minutes(HalfLife::LONGEST_MINUTES).unwrap());
        used.add(GpuMilli(u64::MAX), UnixMicros(i64::MIN), UnixMicros(i64::MAX));
        used.add(GpuMilli(u64::MAX), UnixMicros(i64::MIN), UnixMicros(i64::MAX));
        assert_eq!(used.value_at(UnixMicros(i64::MAX)).0, i64::MAX);
        used.merge(&held(u64::MAX, i64::MIN / 4_000_000, 0));
        assert!(used.part_of(&DecayedUse::default(), at(0)) == Part::NONE);
        assert_eq!(DecayedUse::default().value_at(UnixMicros(i64::MAX)).0, 0);
    }

    #[test]
    fn fifty_thousand_gpus_for_thirty_years_fit_under_the_longest_half_life() {
        let half_life = HalfLife::from_minutes(HalfLife::LONGEST_MINUTES).unwrap();
        let mut used = DecayedUse::new(half_life);
        used.add(GpuMilli::whole(50_000), at(START), at(START + 30 * 366 * DAY));
        assert!(used.weighted < 1 << 120);
        let expected = true_value(
            50_000_000,
            START,
            START + 30 * 366 * DAY,
            START + 30 * 366 * DAY,
            half_life,
        );
        let found = used.value_at(at(START + 30 * 366 * DAY)).0 as f64;
        assert!((found / expected - 1.0).abs() < 1.8e-5, "{found} is not {expected}");
    }

    #[test]
    fn a_half_life_out_of_bounds_is_refused() {
        assert_eq!(HalfLife::from_minutes(HalfLife::SHORTEST_MINUTES - 1), None);
        assert_eq!(HalfLife::from_minutes(HalfLife::LONGEST_MINUTES + 1), None);
        assert_eq!(HalfLife::default().seconds(), 14 * DAY);
    }

    #[test]
    fn another_half_life_begins_with_the_same_value() {
        let used = held(8000, START, START + 20 * DAY);
        let week = HalfLife::from_minutes(7 * 24 * 60).unwrap();
        let now = at(START + 20 * DAY);
        assert!(used.value_at(now).0.abs_diff(used.with_half_life(week).value_at(now).0) <= 1);
        let later = at(START + 27 * DAY);
        assert!(
            used.with_half_life(week).value_at(later).0.abs_diff(used.value_at(now).0 / 2) <= 1
        );
    }

    #[test]
    fn merged_use_is_the_sum_at_the_newest_moment_of_either() {
        let (early, late) = (held(8000, START, START + DAY), held(4000, START, START + 30 * DAY));
        let mut merged = early;
        merged.merge(&late);
        let newest = at(START + 30 * DAY);
        let sum = early.value_at(newest).0 + late.value_at(newest).0;
        assert!(merged.value_at(newest).0.abs_diff(sum) <= 1);
        assert_eq!(merged.value_at(at(START + DAY)), merged.value_at(newest));
    }

    #[test]
    fn whoever_works_alone_on_an_idle_machine_has_used_only_what_it_held() {
        let capacity = held(16_000, START, START + 40 * DAY);
        let all_along = held(8000, START, START + 40 * DAY);
        let half = all_along.part_of(&capacity, at(START + 40 * DAY));
        assert!(half.0.abs_diff(Part::WHOLE.0 / 2) <= 1, "{half:?}");
        let of_late = held(8000, START + 26 * DAY, START + 40 * DAY);
        assert!(of_late.part_of(&capacity, at(START + 40 * DAY)) < half);
    }

    /// Seconds of up to some half-lives, and a number of GPUs.
    fn intervals() -> impl Strategy<Value = Vec<(i64, u64)>> {
        proptest::collection::vec((0..30 * DAY, 1..50_000_000_u64), 1..12)
    }

    proptest! {
        #[test]
        fn use_halves_with_every_half_life(
            length in 1..90 * DAY, gpus in 1..50_000_000_u64, wait in 0..90 * DAY, times in 1..20_u32,
        ) {
            let used = held(gpus, START, START + length);
            let now = START + length + wait;
            let later = now + i64::from(times) * HalfLife::default().seconds();
            prop_assert_eq!(used.value_at(at(later)).0, used.value_at(at(now)).0 >> times);
        }

        #[test]
        fn use_follows_the_true_curve(
            length in 60..90 * DAY, gpus in 1_000..50_000_000_u64, wait in 0..90 * DAY, minutes in 60..100_000_u32,
        ) {
            let half_life = HalfLife::from_minutes(minutes).unwrap();
            let mut used = DecayedUse::new(half_life);
            used.add(GpuMilli(gpus), at(START), at(START + length));
            let now = START + length + wait;
            let expected = true_value(gpus, START, START + length, now, half_life);
            let found = used.value_at(at(now)).0 as f64;
            let allowed = expected * (1.7e-5 + 0.7 / half_life.seconds() as f64) + 1.0;
            prop_assert!((found - expected).abs() <= allowed, "{} is not {}", found, expected);
        }

        #[test]
        fn an_interval_in_pieces_is_exactly_the_interval(
            length in 2..200 * DAY, cuts in proptest::collection::vec(0..200 * DAY, 0..20), gpus in 1..50_000_000_u64,
        ) {
            let mut cuts: Vec<i64> = cuts.into_iter().map(|cut| START + cut % length).collect();
            cuts.extend([START, START + length]);
            cuts.sort_unstable();
            let mut pieces = DecayedUse::default();
            for pair in cuts.windows(2) {
                pieces.add(GpuMilli(gpus), at(pair[0]), at(pair[1]));
            }
            prop_assert_eq!(pieces, held(gpus, START, START + length));
        }

        #[test]
        fn the_order_in_which_pieces_arrive_changes_less_than_a_unit_for_each_era(held_by in intervals()) {
            let (mut forward, mut backward, mut merged) =
                (DecayedUse::default(), DecayedUse::default(), DecayedUse::default());
            for &(begin, gpus) in &held_by {
                forward.add(GpuMilli(gpus), at(START + begin), at(START + begin + 20 * DAY));
                merged.merge(&held(gpus, START + begin, START + begin + 20 * DAY));
            }
            for &(begin, gpus) in held_by.iter().rev() {
                backward.add(GpuMilli(gpus), at(START + begin), at(START + begin + 20 * DAY));
            }
            // Each interval lies in at most three eras.
            let allowed = 3 * held_by.len() as u128 + 2;
            prop_assert!(forward.weighted.abs_diff(backward.weighted) <= allowed);
            prop_assert!(forward.weighted.abs_diff(merged.weighted) <= allowed);
        }

        #[test]
        fn use_never_grows_by_itself_and_never_shrinks_by_more_of_it(
            length in 1..90 * DAY, gpus in 1..50_000_000_u64, wait in 0..90 * DAY, step in 1..DAY,
        ) {
            let used = held(gpus, START, START + length);
            let now = START + length + wait;
            prop_assert!(used.value_at(at(now + step)) <= used.value_at(at(now)));
            let longer = held(gpus, START - step, START + length);
            prop_assert!(longer.value_at(at(now)) >= used.value_at(at(now)));
            let more = held(gpus + 1, START, START + length);
            prop_assert!(more.value_at(at(now)) >= used.value_at(at(now)));
        }
    }
}
