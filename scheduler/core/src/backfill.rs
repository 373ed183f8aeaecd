//! Which of the jobs that wait start now, if the first of those that do not fit are promised a moment, and nothing may
//! start that would put such a promise off.
//!
//! This is about one pool and about amounts: who comes first, what a job is and where on the machine it goes is
//! decided by whoever asks. With one promise it is what is known as EASY backfilling; with none, everything starts
//! that fits; with as many as there are jobs, nobody is passed by another to his harm as the times are known now.
//!
//! ```text
//!   order ──► offer ──► room from now on, for as long as it says? ── yes ──► starts
//!                               │ no
//!                               ├── a promise is left: the earliest moment beside the others ──► promised
//!                               └── else ──► waits
//! ```

use crate::amount::{GpuMilli, UnixMicros};
use crate::profile::Profile;

/// What becomes of a job in a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It starts now, and its GPUs are taken until it must be over.
    Starts,
    /// It waits, and nothing may start in this pass that would keep it from starting then.
    Promised(UnixMicros),
    /// It waits, with nothing promised.
    Waits,
}

/// One pass over jobs in their order.
#[derive(Debug)]
pub struct Pass<'p> {
    profile: &'p mut Profile,
    now: UnixMicros,
    /// How many may still be promised something.
    promises_left: u32,
    /// What is promised, to be given back when the pass is over.
    promised: Vec<Stretch>,
    /// Until when so many are free from now on, as long as nothing is taken: the same sizes come again and again.
    known: Vec<(GpuMilli, UnixMicros)>,
}

#[derive(Debug, Clone, Copy)]
struct Stretch {
    from: UnixMicros,
    until: UnixMicros,
    gpus: GpuMilli,
}

impl<'p> Pass<'p> {
    /// A pass at `now` over what `profile` has free, in which at most `promises` jobs are promised something.
    #[must_use]
    pub fn new(profile: &'p mut Profile, now: UnixMicros, promises: u32) -> Self {
        Pass { profile, now, promises_left: promises, promised: Vec::new(), known: Vec::new() }
    }

    /// Whether nothing is free now, so that nobody can start any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.profile.free_at(self.now).is_zero()
    }

    /// The next job in the order: it wants so many, and says that it is over after `at_most_s` seconds.
    pub fn offer(&mut self, gpus: GpuMilli, at_most_s: i64) -> Verdict {
        let until = self.now.plus_seconds(at_most_s);
        if self.free_until(gpus) >= until {
            self.take(Stretch { from: self.now, until, gpus });
            return Verdict::Starts;
        }
        if self.promises_left == 0 {
            return Verdict::Waits;
        }
        let Some(from) = self.profile.earliest(gpus, at_most_s, self.now) else {
            return Verdict::Waits;
        };
        self.promises_left -= 1;
        let stretch = Stretch { from, until: from.plus_seconds(at_most_s), gpus };
        self.take(stretch);
        self.promised.push(stretch);
        Verdict::Promised(from)
    }

    fn free_until(&mut self, gpus: GpuMilli) -> UnixMicros {
        if let Some((_, until)) = self.known.iter().find(|(size, _)| *size == gpus) {
            return *until;
        }
        let until = self.profile.free_until(gpus, self.now);
        self.known.push((gpus, until));
        until
    }

    fn take(&mut self, Stretch { from, until, gpus }: Stretch) {
        self.profile.take(from, until, gpus);
        self.known.clear();
    }
}

impl Drop for Pass<'_> {
    /// A promise is good for one pass: the next one knows more.
    fn drop(&mut self) {
        for Stretch { from, until, gpus } in self.promised.drain(..) {
            self.profile.give_back(from, until, gpus);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A job by its GPUs and its longest time, seconds.
    type Wish = (u32, i64);

    fn at(second: i64) -> UnixMicros {
        UnixMicros(0).plus_seconds(second)
    }

    fn profile(total: u32, running: &[Wish]) -> Profile {
        let mut profile = Profile::new(at(0), GpuMilli::whole(total));
        for &(gpus, until) in running {
            if profile.free_at(at(0)) >= GpuMilli::whole(gpus) {
                profile.take(at(0), at(until), GpuMilli::whole(gpus));
            }
        }
        profile
    }

    fn verdicts(profile: &mut Profile, promises: u32, wishes: &[Wish]) -> Vec<Verdict> {
        let mut pass = Pass::new(profile, at(0), promises);
        wishes.iter().map(|&(gpus, at_most)| pass.offer(GpuMilli::whole(gpus), at_most)).collect()
    }

    #[test]
    fn with_one_promise_nothing_puts_off_the_first_that_waits() {
        // Four are free until 100; the job of eight can start then, with two left over.
        let mut profile = profile(10, &[(6, 100)]);
        let wishes = [(8, 50), (2, 100), (1, 500), (1, 500), (1, 10)];
        use Verdict::{Promised, Starts, Waits};
        let found = verdicts(&mut profile, 1, &wishes);
        assert_eq!(found, [Promised(at(100)), Starts, Starts, Starts, Waits]);
        assert_eq!(profile.free_at(at(100)), GpuMilli::whole(8), "the promise is given back");
    }

    #[test]
    fn without_a_promise_whatever_fits_starts() {
        let mut profile = profile(10, &[(6, 100)]);
        let found = verdicts(&mut profile, 0, &[(8, 50), (4, 500)]);
        assert_eq!(found, [Verdict::Waits, Verdict::Starts]);
    }

    #[test]
    fn a_second_promise_is_beside_the_first() {
        let mut profile = profile(10, &[(6, 100)]);
        let found = verdicts(&mut profile, 2, &[(8, 50), (8, 50), (4, 120), (4, 100)]);
        use Verdict::{Promised, Starts, Waits};
        assert_eq!(found, [Promised(at(100)), Promised(at(150)), Waits, Starts]);
    }

    /// The rule of EASY as it is usually written: a shadow time, and what is left over then.
    fn easy(total: u32, running: &[Wish], wishes: &[Wish]) -> Vec<bool> {
        let mut ends: Vec<Wish> = Vec::new();
        let mut free = total;
        for &(gpus, until) in running {
            if gpus <= free {
                free -= gpus;
                ends.push((gpus, until));
            }
        }
        let mut shadow: Option<(i64, u32)> = None;
        let mut starts = Vec::new();
        for &(gpus, at_most) in wishes {
            let start = gpus <= free
                && match &mut shadow {
                    None => true,
                    Some((time, _)) if at_most <= *time => true,
                    Some((_, extra)) if gpus <= *extra => {
                        *extra -= gpus;
                        true
                    }
                    Some(_) => false,
                };
            if start {
                free -= gpus;
                ends.push((gpus, at_most));
            } else if shadow.is_none() {
                shadow = Some(shadow_of(&ends, free, gpus));
            }
            starts.push(start);
        }
        starts
    }

    fn shadow_of(ends: &[Wish], free: u32, gpus: u32) -> (i64, u32) {
        let mut ends = ends.to_vec();
        ends.sort_by_key(|(_, until)| *until);
        let by = |time: i64| -> u32 {
            free + ends
                .iter()
                .filter(|(_, until)| *until <= time)
                .map(|(gpus, _)| gpus)
                .sum::<u32>()
        };
        let time = ends.iter().map(|(_, until)| *until).find(|time| by(*time) >= gpus).unwrap();
        (time, by(time) - gpus)
    }

    proptest! {
        #[test]
        fn one_promise_is_easy_backfilling(
            running in prop::collection::vec((1..8_u32, 1..40_i64), 0..8),
            wishes in prop::collection::vec((1..17_u32, 1..40_i64), 0..16),
        ) {
            let found = verdicts(&mut profile(16, &running), 1, &wishes);
            let starts: Vec<bool> = found.iter().map(|one| *one == Verdict::Starts).collect();
            prop_assert_eq!(starts, easy(16, &running, &wishes));
        }

        #[test]
        fn no_promise_is_put_off_by_what_comes_after_it(
            running in prop::collection::vec((1..8_u32, 1..40_i64), 0..8),
            wishes in prop::collection::vec((1..17_u32, 1..40_i64), 0..16),
            promises in 0..6_u32,
        ) {
            let mut after = profile(16, &running);
            let found = verdicts(&mut after, promises, &wishes);
            for (verdict, &(gpus, at_most)) in found.iter().zip(&wishes) {
                if let Verdict::Promised(at) = verdict {
                    prop_assert_eq!(after.earliest(GpuMilli::whole(gpus), at_most, *at), Some(*at));
                    after.take(*at, at.plus_seconds(at_most), GpuMilli::whole(gpus));
                }
            }
        }
    }
}
