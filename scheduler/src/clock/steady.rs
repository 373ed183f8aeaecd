//! A wall clock that nobody can step: it goes at the pace of the monotonic one, and when the machine's wall clock is put
//! right or wrong it comes to it little by little.
//!
//! What is decided by the time (deadlines, retries, slices of a charge) would go wrong at once if the clock leapt: a
//! wrong clock of two seconds would end what has hours left, and put right again it would stand in the future of itself.
//! It never goes back, so what happens later is never stored as earlier by the same process.

/// At most this part of the time that has passed is put right: a clock ahead goes at three quarters of its pace.
const PART: i64 = 4;
/// From further behind it leaps: a machine that slept for hours is not to be wrong for days.
const LEAP_NS: i64 = 3_600 * 1_000_000_000;
/// Further apart than this is worth a word.
const TELL_NS: i64 = 1_000_000_000;

/// What it showed last, and when that was by the monotonic clock. In nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steady {
    monotonic_ns: i64,
    shown_ns: i64,
    is_apart: bool,
}

/// What a reading found of the machine's wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing new.
    None,
    /// It is apart by so much since, nanoseconds; above 0: it is ahead.
    Apart(i64),
    /// Both show the same again.
    Together,
}

impl Steady {
    /// It begins with what the wall clock shows.
    pub(super) fn begin(monotonic_ns: i64, wall_ns: i64) -> Self {
        Self { monotonic_ns, shown_ns: wall_ns, is_apart: false }
    }

    /// What it shows now, and whether the wall clock left it or came back.
    pub(super) fn read(&mut self, monotonic_ns: i64, wall_ns: i64) -> (i64, News) {
        // Readings of several threads may come in another order than they were taken.
        let passed_ns = monotonic_ns.saturating_sub(self.monotonic_ns).max(0);
        let plain_ns = self.shown_ns.saturating_add(passed_ns);
        let apart_ns = wall_ns.saturating_sub(plain_ns);
        let most_ns = if apart_ns > LEAP_NS { apart_ns } else { passed_ns / PART };
        self.monotonic_ns = self.monotonic_ns.max(monotonic_ns);
        self.shown_ns = plain_ns.saturating_add(apart_ns.clamp(-(passed_ns / PART), most_ns));
        let left_ns = wall_ns.saturating_sub(self.shown_ns);
        let is_apart = left_ns.saturating_abs() > TELL_NS;
        let news = match (std::mem::replace(&mut self.is_apart, is_apart), is_apart) {
            (false, true) => News::Apart(apart_ns),
            (true, false) => News::Together,
            (false, false) if apart_ns > LEAP_NS => News::Apart(apart_ns),
            (false, false) | (true, true) => News::None,
        };
        (self.shown_ns, news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: i64 = 1_000_000_000;
    /// Some moment of this century.
    const NOON_NS: i64 = 1_800_000_000 * SECOND_NS;

    /// Reads it ten times a second over a time in which the wall clock is off by what `off_s` says of each second, and
    /// tells how far it was off at the end of each; it never goes back meanwhile.
    fn errors_s(seconds: i64, off_s: impl Fn(i64) -> i64) -> Vec<f64> {
        let mut clock = Steady::begin(0, NOON_NS);
        let (mut before, mut errors) = (NOON_NS, Vec::new());
        for tick in 1..=seconds * 10 {
            let passed_ns = tick * SECOND_NS / 10;
            let wall_ns = NOON_NS + passed_ns + off_s(passed_ns / SECOND_NS) * SECOND_NS;
            let (shown_ns, _) = clock.read(passed_ns, wall_ns);
            assert!(shown_ns > before, "it went from {before} to {shown_ns}");
            before = shown_ns;
            if tick % 10 == 0 {
                errors.push((shown_ns - NOON_NS - passed_ns) as f64 / SECOND_NS as f64);
            }
        }
        errors
    }

    #[test]
    fn a_step_is_come_to_little_by_little_from_either_side_and_never_backwards() {
        for by_s in [20, -20] {
            let errors = errors_s(100, |_| by_s);
            let expected = by_s as f64;
            assert!(
                (errors[3] - expected.signum()).abs() < 0.01,
                "{} after four seconds",
                errors[3]
            );
            assert!((errors[99] - expected).abs() < 0.01, "{} in the end", errors[99]);
        }
    }

    #[test]
    fn a_clock_that_is_wrong_for_a_moment_does_little() {
        for by_s in [300, -300] {
            let errors = errors_s(20, |second| if (5..7).contains(&second) { by_s } else { 0 });
            assert!(errors.iter().all(|error| error.abs() <= 0.51), "{errors:?}");
            assert!(errors[19].abs() < 0.01, "{errors:?}");
        }
    }

    #[test]
    fn one_far_behind_leaps_and_one_far_ahead_only_slows_down() {
        let day_s = 24 * 3_600;
        assert!((errors_s(1, |_| day_s)[0] - day_s as f64).abs() < 0.01);
        assert!((errors_s(4, |_| -day_s)[3] + 1.0).abs() < 0.01);
    }

    #[test]
    fn it_tells_once_that_the_wall_clock_left_and_once_that_it_is_back() {
        let mut clock = Steady::begin(0, NOON_NS);
        let mut read = |second: i64, off_s: i64| {
            clock.read(second * SECOND_NS, NOON_NS + (second + off_s) * SECOND_NS).1
        };
        assert_eq!(read(1, 0), News::None);
        assert_eq!(read(2, 10), News::Apart(10 * SECOND_NS));
        assert_eq!(read(3, 10), News::None);
        assert_eq!(read(90, 10), News::Together);
        assert_eq!(read(91, 10), News::None);
    }

    #[test]
    fn a_reading_that_comes_late_from_another_thread_takes_nothing_back() {
        let mut clock = Steady::begin(0, NOON_NS);
        let (later, _) = clock.read(9, NOON_NS + 9);
        assert_eq!(clock.read(5, NOON_NS + 5).0, later);
    }
}
