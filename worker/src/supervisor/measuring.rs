//! What the GPUs of attempts did: looks at them are taken in as they come, and remembered from time to time.

use std::time::{Duration, Instant};

use gotgan_proto::v1::{AttemptUse, GpuReading};

use super::Supervisor;
use crate::attempt::{Attempt, Event, Phase};
use crate::clock::boot_ms;
use crate::held::{AttemptKey, Entry, Measured};
use crate::journal::JournalError;
use crate::measure::{Looked, Measuring};
use crate::shim::protocol::ShimEvent;

/// How often what was measured is written to the journal: so much of it is lost when the daemon dies.
const REMEMBER_EVERY: Duration = Duration::from_secs(60);

/// What the journal knows of an attempt's GPUs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remembered {
    at: Instant,
    /// Where every counter of energy stood.
    counts: bool,
}

impl Supervisor {
    /// From now on the GPUs are the attempt's.
    pub(super) fn begin_measuring(&mut self, key: AttemptKey) {
        if let Some(attempt) = self.attempts.get_mut(&key) {
            begin(attempt, boot_ms());
        }
    }

    /// Takes looks at GPUs in, each with when it was.
    pub(super) async fn looked(
        &mut self,
        looks: Vec<(u64, GpuReading)>,
    ) -> Result<(), JournalError> {
        let looks: Vec<_> =
            looks.iter().map(|(at_ms, reading)| Looked { at_ms: *at_ms, reading }).collect();
        let (now_ms, gap_ms) = (boot_ms(), self.gap_ms());
        for (key, attempt) in &mut self.attempts {
            if attempt.phase == Phase::Ended || !self.claims.contains(key) {
                continue;
            }
            // Of one that an earlier daemon took and did not come to remember.
            begin(attempt, now_ms);
            if let Some(measuring) = &mut attempt.held.measuring {
                measuring.look(&looks, gap_ms);
            }
        }
        self.remember_measured().await
    }

    /// Where the counters of energy stood first is remembered at once: from there on they know what came later.
    async fn remember_measured(&mut self) -> Result<(), JournalError> {
        let now = Instant::now();
        let mut measured = Vec::new();
        for (key, attempt) in &self.attempts {
            let Some(measuring) = &attempt.held.measuring else { continue };
            let counts = measuring.knows_counters();
            let is_news = |last: &Remembered| {
                now.duration_since(last.at) >= REMEMBER_EVERY || (counts && !last.counts)
            };
            if self.remembered.get(key).is_none_or(is_news) {
                let measuring = Measuring::clone(measuring);
                measured.push(Entry::Measured(Measured { key: *key, measuring }));
                self.remembered.insert(*key, Remembered { at: now, counts });
            }
        }
        if !measured.is_empty() {
            self.journal.append(measured, false).await?;
        }
        Ok(())
    }

    /// The GPUs were the attempt's until now, if this event ends it.
    pub(super) fn let_go(&self, attempt: &mut Attempt, event: &Event) {
        if !ends(attempt, event) {
            return;
        }
        if let Some(measuring) = &mut attempt.held.measuring {
            measuring.end(boot_ms(), self.gap_ms());
        }
    }

    /// What GPUs of attempts that have not ended did so far.
    pub(super) fn uses(&self) -> Vec<AttemptUse> {
        let measured = self.attempts.values().filter_map(|attempt| {
            let (key, measuring) = (attempt.held.key, attempt.held.measuring.as_ref()?);
            let (measured, idle_ms) = (measuring.measured(), measuring.idle_ms());
            Some(AttemptUse { job_id: key.job_id, attempt: key.attempt, measured, idle_ms })
        });
        measured.collect()
    }

    fn gap_ms(&self) -> u64 {
        u64::try_from(self.gpus.gap.as_millis()).unwrap_or(u64::MAX)
    }
}

fn begin(attempt: &mut Attempt, now_ms: u64) {
    let Some(order) = attempt.held.order.as_ref().filter(|order| !order.gpus.is_empty()) else {
        return;
    };
    let gpus = order.gpus.iter().map(|gpu| (gpu.uuid.clone(), gpu.milli));
    let begun = || Box::new(Measuring::begin(gpus, now_ms));
    attempt.held.measuring.get_or_insert_with(begun);
}

/// Whether nothing of the attempt is left with this event. Of one that a reboot has ended nobody knows until when it was.
fn ends(attempt: &Attempt, event: &Event) -> bool {
    match event {
        Event::Shim { event: ShimEvent::Ended { .. }, .. } | Event::ShimLost(_) => true,
        Event::StopOrdered(_) => attempt.phase != Phase::Active,
        Event::Shim { .. }
        | Event::Ordered(_)
        | Event::Prepared(_)
        | Event::StartOrdered
        | Event::TasksOrdered(_)
        | Event::Unfit(_)
        | Event::Recovered { .. }
        | Event::Acked(_)
        | Event::ForgetOrdered => false,
    }
}
