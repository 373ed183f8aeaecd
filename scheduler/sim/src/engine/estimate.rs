//! Ranges in which jobs are told that they will start, and what somebody would tell who knows nothing but past waits.

use std::collections::BTreeSet;

use gotgan_core::amount::UnixMicros;
use gotgan_core::change::Change;
use gotgan_core::estimate::estimator::Estimator;
use gotgan_core::estimate::outcome::Watcher;
use gotgan_core::estimate::{Foreseen, Foresight, Standing};
use gotgan_core::ids::JobId;
use gotgan_core::world::{QueueKey, World};

use super::Engine;
use crate::replay::estimates::Estimated;

/// Shortest time between two looks ahead, seconds. Shorter would tell little more and take longer than all the rest.
const LOOK_EVERY_S: i64 = 600;

/// Who estimates.
#[derive(Debug, Default)]
pub(super) struct Estimates {
    watcher: Watcher,
    ours: Estimator,
    naive: Estimator,
    /// When was looked ahead last.
    looked: Option<UnixMicros>,
    /// Jobs that were told something.
    told: BTreeSet<JobId>,
}

impl Estimates {
    /// Takes in what a round changed; the world has it already.
    fn observe(&mut self, world: &World, changes: &[Change]) {
        let outcomes = self.watcher.see(world, changes);
        self.ours.learn(&outcomes);
        self.naive.learn(&outcomes);
    }
}

impl Engine<'_> {
    /// Those who estimate see what changed.
    pub(super) fn observe_estimates(&mut self, changes: &[Change]) {
        if let Some(estimates) = &mut self.estimates {
            estimates.observe(&self.world, changes);
        }
    }

    /// Tells jobs when they will start that wait for the first time, or have waited twice as long.
    pub(super) fn estimate(&mut self) {
        let Some(estimates) = &mut self.estimates else { return };
        if estimates.looked.is_some_and(|looked| self.now < looked.plus_seconds(LOOK_EVERY_S)) {
            return;
        }
        let is_due = |key: &QueueKey| estimates.ours.is_due(key.job, key.queued, self.now);
        if !self.world.queue.iter().any(is_due) {
            return;
        }
        estimates.looked = Some(self.now);
        let found = estimates.ours.look(&self.world, &self.policy, &self.planned, self.now);
        let by_waits = estimates.naive.tell_due(&by_waits_alone(&found));
        for ((job, told), (_, naive)) in estimates.ours.tell_due(&found).into_iter().zip(by_waits) {
            let range = (told.range.from, told.range.until);
            let naive = (naive.range.from, naive.range.until);
            let queued = found.jobs.get(&job).map_or(self.now, |found| found.queued);
            let first = estimates.told.insert(job);
            let one = Estimated { at: self.now, queued, first, range, naive };
            self.record.estimated.push((job, one));
        }
    }
}

/// The same jobs, of which nothing is known but their size and how long they have waited.
fn by_waits_alone(found: &Foresight) -> Foresight {
    let alone = |foreseen: &Foreseen| {
        let waited_us = found.at.0.saturating_sub(foreseen.queued.0);
        let likely = UnixMicros(found.at.0.saturating_add(waited_us));
        Foreseen { likely, latest: None, standing: Standing::First, by: None, ..*foreseen }
    };
    let jobs = found.jobs.iter().map(|(job, foreseen)| (*job, alone(foreseen))).collect();
    Foresight { at: found.at, jobs }
}
