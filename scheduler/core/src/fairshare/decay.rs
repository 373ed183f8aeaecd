//! Use that fades: after one half-life it counts half, after two a quarter.
//!
//! **How.** What is kept is not the faded use but the use weighted with 2^(time / half-life), for each half-life since
//! 1970 (an *era*) counted from that era's own beginning. The value at a moment is the sum of these, each halved for
//! every era since, divided by the moment's own weight. So nothing has to be touched for use to fade, one half-life is
//! exactly one bit, and use adds up in whole numbers: in whatever order intervals arrive, and however they are cut,
//! the same is kept. A scheduler that reads them back from its store knows what it knew before.
//!
//! **Seconds.** As in the ledger, a second belongs to whoever holds the GPU when the wall clock reaches it, and it has
//! the weight of that moment: intervals that follow each other never share a second and never lose one.
//!
//! **Errors.** A half-life has 60 ticks; between them the weight is a straight line, at most 1.7e-5 of it above the
//! true curve. That a second is weighted at its end adds at most ln 2 / (seconds in a half-life), which is 5.8e-7
//! for 14 days and 2e-4 for the shortest half-life, an hour. Both are of the value, not of the passing of time: they
//! do not add up. What is older than [`REMEMBERED_ERAS`] is forgotten. The sum's unit is less than 2^-45 of a thousandth
//! of a GPU-second; taking a value rounds down by less than one unit for each era, and then to whole
//! [`GpuMilliSeconds`].
//!
//! **Size.** 50,000 GPUs held for ever under the longest half-life, ten years, come to less than 2^120 units. What
//! does not fit stays at the greatest number.
//!
//! **Clocks.** A value is never taken for a moment before the newest that was added: use does not come back when the
//! clock does. An interval that ends before it begins adds nothing. A moment far in the future makes everything
//! before it forgotten, so a caller passes only times that it believes.

use std::collections::BTreeMap;

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

/// Sums of [`GROWTH`] before each tick.
const GROWN: [u64; TICKS + 1] = {
    let mut sums = [0; TICKS + 1];
    let mut tick = 0;
    while tick < TICKS {
        sums[tick + 1] = sums[tick] + GROWTH[tick];
        tick += 1;
    }
    sums
};

/// Eras that are kept before the present one. Of what is older less than a 65,536th would be left.
pub const REMEMBERED_ERAS: i64 = 16;

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

    /// Ticks in a half-life.
    pub(super) const TICKS: i64 = TICKS as i64;

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

    /// The oldest moment of which anything counts at `now`.
    #[must_use]
    pub fn remembered_since(self, now: UnixMicros) -> UnixMicros {
        let era = now.whole_seconds().div_euclid(self.seconds()) - REMEMBERED_ERAS;
        UnixMicros(0).plus_seconds(era.saturating_mul(self.seconds()))
    }

    /// Number of the tick since 1970 that a second lies in.
    pub(super) fn tick(self, second: i64) -> i64 {
        second.div_euclid(self.tick_s())
    }

    /// First second of a tick.
    pub(super) fn tick_begins(self, tick: i64) -> i64 {
        tick.saturating_mul(self.tick_s())
    }

    fn tick_s(self) -> i64 {
        i64::from(self.minutes)
    }

    /// Era of that second, and seconds of the era before it.
    pub(super) fn era_and_phase(self, second: i64) -> (i64, i64) {
        (second.div_euclid(self.seconds()), second.rem_euclid(self.seconds()))
    }

    /// The seconds from `first` until before `end` by their eras, with the weights of all of them in each.
    fn pieces(self, first: i64, end: i64) -> impl Iterator<Item = (i64, u128)> {
        let mut second = first;
        std::iter::from_fn(move || {
            if second >= end {
                return None;
            }
            let (era, phase) = self.era_and_phase(second);
            let until = self.seconds().min(phase + (end - second));
            second += until - phase;
            Some((era, self.weights_until(until) - self.weights_until(phase)))
        })
    }

    /// Weights of all seconds of an era before `phase`, in 2^-40 / tick; with [`HalfLife::seconds`]: of all.
    pub(super) fn weights_until(self, phase: i64) -> u128 {
        let tick_s = whole(self.tick_s());
        let (tick, count) = (phase / self.tick_s(), whole(phase % self.tick_s()));
        let tick = usize::try_from(tick).unwrap_or(0).min(TICKS);
        let low = u128::from(GROWTH[tick]);
        let whole_ticks = u128::from(GROWN[tick]) * tick_s * tick_s
            + (low - u128::from(GROWTH[0])) * (tick_s * (tick_s - 1) / 2);
        let high = u128::from(GROWTH[(tick + 1).min(TICKS)]);
        whole_ticks + count * low * tick_s + (high - low) * (count * count.saturating_sub(1) / 2)
    }

    /// Weight of one second.
    fn weight(self, phase: i64) -> u128 {
        self.weights_until(phase + 1) - self.weights_until(phase)
    }
}

fn whole(seconds: i64) -> u128 {
    u128::try_from(seconds).unwrap_or(0)
}

/// A second for which values are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    half_life: HalfLife,
    era: i64,
    /// Seconds of the era that have passed, this one included.
    passed: i64,
    weight: u128,
}

impl Moment {
    /// The second that `at` lies in.
    #[must_use]
    pub fn of(half_life: HalfLife, at: UnixMicros) -> Self {
        Self::of_second(half_life, at.whole_seconds())
    }

    fn of_second(half_life: HalfLife, second: i64) -> Self {
        let (era, phase) = half_life.era_and_phase(second);
        Moment { half_life, era, passed: phase + 1, weight: half_life.weight(phase) }
    }

    /// How things fade.
    pub(super) fn half_life(self) -> HalfLife {
        self.half_life
    }

    /// Number of the half-life since 1970.
    pub(super) fn era(self) -> i64 {
        self.era
    }

    /// The second after this one.
    pub(super) fn end(self) -> i64 {
        self.era * self.half_life.seconds() + self.passed
    }

    /// What something is worth in seconds that has been so always: the half-life divided by ln 2.
    #[must_use]
    pub fn always_s(self) -> u64 {
        u64::try_from(self.worth(self.always())).unwrap_or(u64::MAX)
    }

    /// Which part of all time, fading, lies in these seconds, from the first until before the end of each.
    pub(super) fn part(self, spans: impl Iterator<Item = (i64, i64)>) -> Part {
        let pieces = spans.flat_map(|(first, end)| {
            self.half_life.pieces(first.max(self.oldest()), end.min(self.end()))
        });
        let sum =
            pieces.map(|(era, weights)| self.fade(era, weights)).fold(0, u128::saturating_add);
        // Both are short of 2^92: so the quotient fits, with what is cut off below its grain.
        let part = (sum >> 16) * u128::from(Part::WHOLE.0) / (self.always() >> 16).max(1);
        Part(u64::try_from(part).unwrap_or(u64::MAX)).min(Part::WHOLE)
    }

    /// Weights of all seconds there ever were: an era before this one is worth half of the one after it.
    fn always(self) -> u128 {
        self.half_life.weights_until(self.half_life.seconds())
            + self.half_life.weights_until(self.passed)
    }

    fn oldest(self) -> i64 {
        (self.era - REMEMBERED_ERAS).saturating_mul(self.half_life.seconds())
    }

    /// What is left of a sum that is weighted for `era`, weighted for the moment's own. Later ones count whole.
    pub(super) fn fade(self, era: i64, weighted: u128) -> u128 {
        let eras = (self.era - era).max(0);
        if eras > REMEMBERED_ERAS {
            return 0;
        }
        u32::try_from(eras).ok().and_then(|count| weighted.checked_shr(count)).unwrap_or(0)
    }

    /// A sum that is weighted for the moment's era, in the unit of what was weighted.
    pub(super) fn worth(self, weighted: u128) -> u128 {
        weighted / self.weight
    }

    /// Weights of the seconds of an era that have passed at the moment.
    pub(super) fn passed_of(self, era: i64) -> u128 {
        match era.cmp(&self.era) {
            std::cmp::Ordering::Less => self.half_life.weights_until(self.half_life.seconds()),
            std::cmp::Ordering::Equal => self.half_life.weights_until(self.passed),
            std::cmp::Ordering::Greater => 0,
        }
    }
}

/// GPU time that fades.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DecayedUse {
    half_life: HalfLife,
    /// By number of the half-life since 1970: thousandths of GPU-seconds, each times its weight.
    eras: BTreeMap<i64, u128>,
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
        let first = (from + 1).max(Moment::of_second(self.half_life, until).oldest());
        for (era, weights) in self.half_life.pieces(first, until + 1) {
            self.add_weighted(era, weights.saturating_mul(u128::from(gpus.0)));
        }
        self.latest = self.latest.max(until);
    }

    /// Counts what `other` counted, which fades in the same way.
    pub fn merge(&mut self, other: &DecayedUse) {
        debug_assert_eq!(self.half_life, other.half_life);
        for (era, weighted) in &other.eras {
            self.add_weighted(*era, *weighted);
        }
        self.latest = self.latest.max(other.latest);
    }

    /// What it is worth at `at`, or at the newest moment it knows of if that is later.
    #[must_use]
    pub fn value_at(&self, at: UnixMicros) -> GpuMilliSeconds {
        let units = self.units_at(at.whole_seconds());
        GpuMilliSeconds(i64::try_from(units).unwrap_or(i64::MAX))
    }

    /// Value in thousandths of GPU-seconds.
    fn units_at(&self, second: i64) -> u128 {
        let moment = Moment::of_second(self.half_life, second.max(self.latest));
        moment.worth(self.weighted_at(moment))
    }

    /// All of it, weighted for the era of the moment.
    pub(super) fn weighted_at(&self, moment: Moment) -> u128 {
        let left = self.eras.iter().map(|(era, weighted)| moment.fade(*era, *weighted));
        left.fold(0, u128::saturating_add)
    }

    /// Adds a sum that is weighted for `era`, and forgets what is too old beside the newest.
    fn add_weighted(&mut self, era: i64, weighted: u128) {
        let sum = self.eras.entry(era).or_default();
        *sum = sum.saturating_add(weighted);
        let newest = self.eras.last_key_value().map_or(era, |(newest, _)| *newest);
        while self.eras.first_key_value().is_some_and(|(era, _)| *era < newest - REMEMBERED_ERAS) {
            self.eras.pop_first();
        }
    }
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
        let before = used.clone();
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
        used.merge(&used.clone());
        assert_eq!(DecayedUse::default().value_at(UnixMicros(i64::MAX)).0, 0);
    }

    #[test]
    fn fifty_thousand_gpus_for_thirty_years_fit_under_the_longest_half_life() {
        let half_life = HalfLife::from_minutes(HalfLife::LONGEST_MINUTES).unwrap();
        let mut used = DecayedUse::new(half_life);
        used.add(GpuMilli::whole(50_000), at(START), at(START + 30 * 366 * DAY));
        assert!(used.eras.values().all(|weighted| *weighted < 1 << 120));
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
    fn merged_use_is_the_sum_at_the_newest_moment_of_either() {
        let (early, late) = (held(8000, START, START + DAY), held(4000, START, START + 30 * DAY));
        let mut merged = early.clone();
        merged.merge(&late);
        let newest = at(START + 30 * DAY);
        let sum = early.value_at(newest).0 + late.value_at(newest).0;
        assert!(merged.value_at(newest).0.abs_diff(sum) <= 1);
        assert_eq!(merged.value_at(at(START + DAY)), merged.value_at(newest));
    }

    /// Seconds of up to some half-lives, and a number of GPUs.
    fn intervals() -> impl Strategy<Value = Vec<(i64, u64)>> {
        proptest::collection::vec((0..300 * DAY, 1..50_000_000_u64), 1..12)
    }

    proptest! {
        #[test]
        fn use_halves_with_every_half_life(
            length in 1..90 * DAY, gpus in 1..50_000_000_u64, wait in 0..60 * DAY, times in 1..6_u32,
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
            let forgotten = gpus as f64 * half_life.seconds() as f64 / f64::from(1 << 15);
            let allowed = expected * (1.7e-5 + 0.7 / half_life.seconds() as f64) + 1.0 + forgotten;
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
        fn the_order_in_which_pieces_arrive_changes_nothing(held_by in intervals()) {
            let (mut forward, mut backward, mut merged) =
                (DecayedUse::default(), DecayedUse::default(), DecayedUse::default());
            for &(begin, gpus) in &held_by {
                forward.add(GpuMilli(gpus), at(START + begin), at(START + begin + 20 * DAY));
                merged.merge(&held(gpus, START + begin, START + begin + 20 * DAY));
            }
            for &(begin, gpus) in held_by.iter().rev() {
                backward.add(GpuMilli(gpus), at(START + begin), at(START + begin + 20 * DAY));
            }
            prop_assert_eq!(&forward, &backward);
            prop_assert_eq!(&forward, &merged);
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
