//! The way from an order to an attempt's first instruction, which is as short as it can be.
//!
//! What an attempt needs is made ready while the journal still syncs its order: nothing of that is an act of the job's. Its
//! shim is started once the order is durable, so that no attempt runs twice though the machine lost its power; and once
//! all that is known of it is written, which a daemon after this one will find. A sync for what was written last would
//! be for a machine that goes down, and with it the shim.

use std::collections::{BTreeMap, VecDeque};

use super::Supervisor;
use crate::attempt::Effect;
use crate::held::AttemptKey;

/// Shims that are to be started.
#[derive(Debug, Default)]
pub(super) struct Launching {
    /// Batch of the journal with the order of each attempt that came to this daemon.
    orders: BTreeMap<AttemptKey, u64>,
    queue: VecDeque<Launch>,
}

/// A shim to be started or found, and what it is told then.
#[derive(Debug)]
struct Launch {
    key: AttemptKey,
    effects: Vec<Effect>,
    /// Batches that must be written, and durable.
    written: u64,
    durable: u64,
}

impl Launching {
    /// The order of an attempt is in this batch.
    pub(super) fn ordered(&mut self, key: AttemptKey, number: u64) {
        self.orders.insert(key, number);
    }

    /// The attempt is forgotten.
    pub(super) fn forget(&mut self, key: AttemptKey) {
        self.orders.remove(&key);
    }

    /// Whether a shim waits for the journal.
    pub(super) fn waits(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Of effects that rest on a batch: takes those that begin with a shim.
    fn take(&mut self, key: AttemptKey, written: u64, effects: &mut Vec<Effect>) {
        let shim = effects.iter().position(|effect| matches!(effect, Effect::Attach { .. }));
        if let Some(at) = shim {
            // Out of an earlier daemon's journal: durable.
            let durable = self.orders.get(&key).copied().unwrap_or_default();
            let effects = effects.split_off(at);
            self.queue.push_back(Launch { key, effects, written, durable });
        }
    }

    /// The next whose batches are there. Orders are durable in turn, so that none waits long for one before it.
    fn next(&mut self, written: u64, durable: u64) -> Option<Launch> {
        self.queue.pop_front_if(|next| next.written <= written && next.durable <= durable)
    }
}

impl Supervisor {
    /// Prepares at once, and leaves shims until they may be started. Returns what waits for the batch to be durable.
    pub(super) fn prepare_and_launch(
        &mut self,
        key: AttemptKey,
        number: u64,
        mut effects: Vec<Effect>,
    ) -> Vec<Effect> {
        self.launching.take(key, number, &mut effects);
        let is_first = |effect: &Effect| matches!(effect, Effect::Prepare);
        if effects.iter().any(is_first) {
            effects.retain(|effect| !is_first(effect));
            self.carry_out(key, Effect::Prepare);
        }
        effects
    }

    /// Starts the shims that rest on batches up to these.
    pub(super) fn launch_up_to(&mut self, written: u64, durable: u64) {
        while let Some(launch) = self.launching.next(written, durable) {
            launch.effects.into_iter().for_each(|effect| self.carry_out(launch.key, effect));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: AttemptKey = AttemptKey { job_id: 7, attempt: 1 };

    fn launching(order: u64, written: u64) -> Launching {
        let mut launching = Launching::default();
        launching.ordered(KEY, order);
        let mut effects = vec![Effect::Attach { launch: true }];
        launching.take(KEY, written, &mut effects);
        assert!(effects.is_empty() && launching.waits());
        launching
    }

    #[test]
    fn a_shim_waits_for_its_durable_order_and_for_what_else_is_written() {
        assert!(launching(1, 2).next(2, 0).is_none(), "the order is not durable");
        assert!(launching(1, 2).next(1, 1).is_none(), "what came last is not written");
        let mut ready = launching(1, 2);
        assert!(ready.next(2, 1).is_some());
        assert!(!ready.waits());
    }

    #[test]
    fn what_comes_before_a_shim_is_left_alone_and_what_comes_after_goes_with_it() {
        let report = Effect::Send(gotgan_proto::v1::Report::default());
        let stop = Effect::Stop(gotgan_proto::v1::StopAttempt::default());
        let mut launching = Launching::default();
        let mut effects = vec![report.clone(), Effect::Attach { launch: false }, stop];
        launching.take(KEY, 3, &mut effects);
        assert_eq!(effects, [report]);
        let launch = launching.next(3, 0);
        assert_eq!(launch.map(|launch| launch.effects.len()), Some(2), "remembered: durable");
    }
}
