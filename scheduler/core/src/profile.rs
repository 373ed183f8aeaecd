//! What will be free when: GPUs as a step function of time, from a moment on for ever.
//!
//! Whoever plans ahead takes from it what runs, until the moment at which that must be over, and what is promised, and
//! asks where something still fits. It knows no jobs and no nodes: `gpus` are of one pool. The steps lie in a balanced
//! tree, so that taking costs the logarithm of their number, and looking for room skips stretches in which there is
//! none and stretches in which there is plenty ([`tree`]).
//!
//! A stretch is from its first moment until before its last, so that something may begin in the very moment in which
//! something else ends. More can be taken than there is, as it is when a node is lost: then there is a debt, and
//! nothing fits until it is over.

mod tree;

use crate::amount::{GpuMilli, UnixMicros};
use tree::{Room, Steps};

/// The end of what has none.
pub const FOREVER: UnixMicros = UnixMicros(i64::MAX);

/// Free GPUs from a moment on.
#[derive(Debug, Clone)]
pub struct Profile {
    from: UnixMicros,
    steps: Steps,
}

impl Profile {
    /// From `from` on `free` are free, and nothing is taken yet.
    #[must_use]
    pub fn new(from: UnixMicros, free: GpuMilli) -> Self {
        let mut steps = Steps::default();
        steps.insert(from, signed(free));
        Profile { from, steps }
    }

    /// The moment it begins with; what is asked about an earlier one is answered for this one.
    #[must_use]
    pub fn from(&self) -> UnixMicros {
        self.from
    }

    /// What is free at `at`; nothing where more was taken than there is.
    #[must_use]
    pub fn free_at(&self, at: UnixMicros) -> GpuMilli {
        unsigned(self.steps.value_at(at.max(self.from)))
    }

    /// What is free all the time from `from` until before `until`; at `from` alone if that is not later.
    #[must_use]
    pub fn least(&self, from: UnixMicros, until: UnixMicros) -> GpuMilli {
        let from = from.max(self.from);
        let at_first = self.steps.value_at(from);
        unsigned(
            self.steps.least_between(from, until).map_or(at_first, |least| least.min(at_first)),
        )
    }

    /// Until when so many are free without a gap, from `from` on: `from` itself if they are not free then, [`FOREVER`]
    /// if it never ends.
    #[must_use]
    pub fn free_until(&self, gpus: GpuMilli, from: UnixMicros) -> UnixMicros {
        let (from, wanted) = (from.max(self.from), signed(gpus));
        if self.steps.value_at(from) < wanted {
            return from;
        }
        self.steps.first_below(wanted, from).unwrap_or(FOREVER)
    }

    /// The first moment from `not_before` on at which so many are free for `duration_s` seconds without a gap. `None`
    /// if there is none, since more is held for ever than leaves so many.
    #[must_use]
    pub fn earliest(
        &self,
        gpus: GpuMilli,
        duration_s: i64,
        not_before: UnixMicros,
    ) -> Option<UnixMicros> {
        let from = not_before.max(self.from);
        let wanted = signed(gpus);
        let since = (self.steps.value_at(from) >= wanted).then_some(from);
        self.steps.room(Room { wanted, duration_s: duration_s.max(0), after: from, since })
    }

    /// Takes so many from `from` until before `until`.
    pub fn take(&mut self, from: UnixMicros, until: UnixMicros, gpus: GpuMilli) {
        self.change(from, until, signed(gpus).saturating_neg());
    }

    /// Gives so many back that were taken from `from` until before `until`; it need not be the whole stretch.
    pub fn give_back(&mut self, from: UnixMicros, until: UnixMicros, gpus: GpuMilli) {
        self.change(from, until, signed(gpus));
    }

    /// Forgets what was before `at`: the profile begins there.
    pub fn forget(&mut self, at: UnixMicros) {
        if at <= self.from {
            return;
        }
        self.cut(at);
        self.steps.drop_before(at);
        self.from = at;
    }

    /// Moments at which something changes, with what is free from then on; the first is its beginning.
    #[must_use]
    pub fn steps(&self) -> Vec<(UnixMicros, GpuMilli)> {
        self.steps.all().into_iter().map(|(at, free)| (at, unsigned(free))).collect()
    }

    fn change(&mut self, from: UnixMicros, until: UnixMicros, by: i64) {
        let from = from.max(self.from);
        if from >= until || by == 0 {
            return;
        }
        self.cut(from);
        if until < FOREVER {
            self.cut(until);
        }
        self.steps.add_between(from, until, by);
        self.join(until);
        self.join(from);
    }

    /// Makes a step of a moment that is none yet.
    fn cut(&mut self, at: UnixMicros) {
        let (step, free) = self.steps.step_at(at);
        if step != at {
            self.steps.insert(at, free);
        }
    }

    /// Drops a step at which nothing changes, so that there are never more of them than moments that matter.
    fn join(&mut self, at: UnixMicros) {
        if at <= self.from || at == FOREVER {
            return;
        }
        let (step, free) = self.steps.step_at(at);
        if step == at && self.steps.value_at(UnixMicros(at.0 - 1)) == free {
            self.steps.remove(at);
        }
    }
}

/// More GPUs than anybody will ever have, and few enough that no sum of amounts overflows.
const MOST: i64 = 1 << 40;

/// A debt is a negative number of free GPUs.
fn signed(gpus: GpuMilli) -> i64 {
    i64::try_from(gpus.0).unwrap_or(MOST).min(MOST)
}

fn unsigned(free: i64) -> GpuMilli {
    GpuMilli(u64::try_from(free).unwrap_or(0))
}

#[cfg(test)]
mod tests;
