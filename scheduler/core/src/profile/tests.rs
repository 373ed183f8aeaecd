//! A profile against one that keeps what is free in every single second.

use proptest::prelude::*;

use super::*;

/// Seconds that the slow one knows; for ever is the state of the last.
const SECONDS: i64 = 60;

fn at(second: i64) -> UnixMicros {
    UnixMicros(0).plus_seconds(second)
}

/// What is free, second by second.
#[derive(Debug, Clone)]
struct Slow(Vec<i64>);

impl Slow {
    fn new(free: i64) -> Self {
        Slow(vec![free; usize::try_from(SECONDS).unwrap()])
    }

    fn change(&mut self, from: i64, until: i64, by: i64) {
        let seconds = (0..).zip(&mut self.0).filter(|(second, _)| (from..until).contains(second));
        seconds.for_each(|(_, free)| *free += by);
    }

    fn free(&self, second: i64) -> i64 {
        self.0[usize::try_from(second.min(SECONDS - 1)).unwrap()]
    }

    fn fits(&self, gpus: i64, from: i64, duration: i64) -> bool {
        (from..(from + duration).max(from + 1)).all(|second| self.free(second) >= gpus)
    }

    fn earliest(&self, gpus: i64, duration: i64, not_before: i64) -> Option<UnixMicros> {
        (not_before..SECONDS).find(|from| self.fits(gpus, *from, duration)).map(at)
    }

    fn free_until(&self, gpus: i64, from: i64) -> UnixMicros {
        (from..SECONDS).find(|second| self.free(*second) < gpus).map_or(FOREVER, at)
    }
}

/// A stretch, how much, and whether it is given back.
type Change = (i64, i64, i64, bool);

fn changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec((0..SECONDS, 0..=SECONDS, 1..6_i64, any::<bool>()), 0..40)
}

fn both(changes: &[Change]) -> (Profile, Slow) {
    let (mut quick, mut slow) = (Profile::new(at(0), GpuMilli(12)), Slow::new(12));
    for &(from, until, gpus, back) in changes {
        let end = if until == SECONDS { FOREVER } else { at(until) };
        let amount = GpuMilli(gpus.unsigned_abs());
        if back {
            quick.give_back(at(from), end, amount);
        } else {
            quick.take(at(from), end, amount);
        }
        slow.change(from, until, if back { gpus } else { -gpus });
    }
    (quick, slow)
}

fn gpus(free: i64) -> GpuMilli {
    unsigned(free)
}

proptest! {
    #[test]
    fn a_profile_is_what_every_second_says(changes in changes(), from in 0..SECONDS, length in 0..SECONDS) {
        let (quick, slow) = both(&changes);
        for second in 0..SECONDS {
            prop_assert_eq!(quick.free_at(at(second)), gpus(slow.free(second)));
        }
        let least = (from..(from + length).max(from + 1)).map(|second| slow.free(second)).min().unwrap();
        prop_assert_eq!(quick.least(at(from), at(from + length)), gpus(least));
    }

    #[test]
    fn room_is_found_where_every_second_has_it(
        changes in changes(), wanted in 0..14_i64, duration in 0..SECONDS, not_before in 0..SECONDS,
    ) {
        let (quick, slow) = both(&changes);
        let found = quick.earliest(gpus(wanted), duration, at(not_before));
        prop_assert_eq!(found, slow.earliest(wanted, duration, not_before));
        let until = quick.free_until(gpus(wanted), at(not_before));
        prop_assert_eq!(until, slow.free_until(wanted, not_before));
    }

    #[test]
    fn no_step_is_kept_at_which_nothing_changes(changes in changes()) {
        let (quick, _) = both(&changes);
        let steps = quick.steps.all();
        prop_assert!(steps.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 != pair[1].1));
    }

    #[test]
    fn what_was_taken_and_given_back_leaves_nothing_behind(changes in changes()) {
        let mut profile = Profile::new(at(0), GpuMilli(12));
        for &(from, until, amount, _) in &changes {
            profile.take(at(from), at(until), gpus(amount));
        }
        for &(from, until, amount, _) in changes.iter().rev() {
            profile.give_back(at(from), at(until), gpus(amount));
        }
        prop_assert_eq!(profile.steps(), vec![(at(0), GpuMilli(12))]);
    }

    #[test]
    fn what_is_forgotten_changes_nothing_later(changes in changes(), before in 0..SECONDS) {
        let (quick, slow) = both(&changes);
        let mut later = quick.clone();
        later.forget(at(before));
        prop_assert_eq!(later.from(), at(before));
        for second in before..SECONDS {
            prop_assert_eq!(later.free_at(at(second)), gpus(slow.free(second)));
        }
        prop_assert_eq!(later.earliest(GpuMilli(5), 3, at(0)), quick.earliest(GpuMilli(5), 3, at(before)));
        prop_assert!(later.steps().len() <= quick.steps().len() + 1);
    }
}

#[test]
fn something_may_begin_in_the_moment_in_which_something_ends() {
    let mut profile = Profile::new(at(0), GpuMilli::whole(8));
    profile.take(at(0), at(10), GpuMilli::whole(8));
    assert_eq!(profile.earliest(GpuMilli::whole(8), 5, at(0)), Some(at(10)));
    profile.take(at(15), FOREVER, GpuMilli::whole(1));
    assert_eq!(profile.earliest(GpuMilli::whole(8), 5, at(0)), Some(at(10)));
    assert_eq!(profile.earliest(GpuMilli::whole(8), 6, at(0)), None);
}

#[test]
fn a_debt_must_be_over_before_anything_fits() {
    let mut profile = Profile::new(at(0), GpuMilli::whole(8));
    profile.take(at(0), at(20), GpuMilli::whole(8));
    profile.take(at(0), at(30), GpuMilli::whole(4));
    assert_eq!(profile.free_at(at(5)), GpuMilli::ZERO);
    profile.give_back(at(0), FOREVER, GpuMilli::whole(2));
    assert_eq!(profile.free_at(at(5)), GpuMilli::ZERO);
    assert_eq!(profile.free_at(at(25)), GpuMilli::whole(6));
}
