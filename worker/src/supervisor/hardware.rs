//! What the node's hardware has to do with attempts: findings name those they hit, the end of one that failed waits for
//! what the driver says, and GPUs that nobody has are known with since when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use gotgan_proto::v1::{FindingAck, HeldAttempt, RunAttempt};

use super::{Supervisor, Waiting};
use crate::attempt::{Attempt, Event, Phase};
use crate::health::findings::Observed;
use crate::health::leftover::Unused;
use crate::held::{AttemptKey, Entry};
use crate::journal::JournalError;
use crate::metrics::Using;
use crate::orders::needs_sync;
use crate::shim::protocol::{Ending, ShimEvent};

/// Between two lines of the log about the same error.
const LOG_GAP: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Names the journal unless it has a name: findings are numbered in it.
    pub(super) async fn begin_findings(&mut self) -> Result<(), JournalError> {
        if let Some(begun) = self.findings.begin(crate::clock::random_name) {
            self.journal.append(vec![begun], true).await?;
        }
        Ok(())
    }

    pub(super) async fn found(&mut self, observed: Observed) -> Result<(), JournalError> {
        let attempts = self.attempts_on(&observed.gpu_uuid);
        self.log_error(&observed);
        if self.gpus.cards.has(&observed.gpu_uuid) {
            self.last_xids.insert(observed.gpu_uuid.clone(), observed.xid.number);
        }
        let entries = self.findings.found(observed, attempts, Instant::now());
        self.write_findings(entries).await
    }

    /// One line a second of the same error.
    fn log_error(&mut self, observed: &Observed) {
        let Observed { gpu_uuid, xid, detail, .. } = observed;
        let now = Instant::now();
        let same = |(gpu, number, at): &(String, u32, Instant)| {
            (gpu, *number) == (gpu_uuid, xid.number) && now.duration_since(*at) < LOG_GAP
        };
        if !self.error_logged.as_ref().is_some_and(same) {
            self.error_logged = Some((gpu_uuid.clone(), xid.number, now));
            let (number, pid) = (xid.number, xid.pid);
            tracing::warn!(gpu = gpu_uuid, xid = number, pid, detail, "an error of the GPU driver");
        }
    }

    pub(super) async fn counted(
        &mut self,
        uuid: &str,
        count: u64,
        at_us: i64,
    ) -> Result<(), JournalError> {
        let attempts = self.attempts_on(uuid);
        let entries = self.findings.counted(uuid, count, at_us, attempts);
        self.write_findings(entries).await
    }

    pub(super) async fn log_read(&mut self, number: u64) -> Result<(), JournalError> {
        let read = self.findings.log_read(number);
        self.write_findings(read.into_iter().collect()).await
    }

    pub(super) async fn finding_acked(&mut self, ack: &FindingAck) -> Result<(), JournalError> {
        if let Some(acked) = self.findings.acked(ack) {
            self.findings_heard_at = Some(Instant::now());
            self.journal.append(vec![acked], false).await?;
        }
        Ok(())
    }

    /// They are sent once they are durable, in the order of all that is written.
    async fn write_findings(&mut self, entries: Vec<Entry>) -> Result<(), JournalError> {
        if entries.is_empty() {
            return Ok(());
        }
        let found: Vec<Waiting> = entries.iter().filter_map(Waiting::of).collect();
        let sync = entries.iter().any(needs_sync);
        let number = self.journal.append(entries, sync).await?;
        self.waiting.extend(found.into_iter().map(|waiting| (number, waiting)));
        Ok(())
    }

    /// Attempts that have a GPU, or part of it, and have not ended; without a GPU those that have any.
    fn attempts_on(&self, uuid: &str) -> Vec<HeldAttempt> {
        let has = |attempt: &&Attempt| {
            let gpus = attempt.held.order.iter().flat_map(|order| &order.gpus);
            attempt.phase != Phase::Ended
                && gpus.into_iter().any(|gpu| uuid.is_empty() || self.card_of(&gpu.uuid) == uuid)
        };
        self.attempts.values().filter(has).map(|attempt| attempt.held.listed()).collect()
    }

    /// Whether this is the end of an attempt that failed by itself, on GPUs that somebody watches.
    fn is_to_settle(&self, key: AttemptKey, event: &Event) -> bool {
        let Event::Shim { event: ShimEvent::Ended { ending: Ending::Own, exit, .. }, .. } = event
        else {
            return false;
        };
        let attempt = self.attempts.get(&key).filter(|attempt| attempt.phase == Phase::Active);
        let order = attempt.and_then(|attempt| attempt.held.order.as_ref());
        let has_gpus = order.is_some_and(|order| !order.gpus.is_empty());
        !self.gpus.settle.is_zero() && has_gpus && (exit.code, exit.signal) != (0, 0)
    }

    /// Keeps the end of a failing attempt back for a while; gives everything else back at once. Nothing comes after it: it
    /// is the shim's last word.
    pub(super) fn settle(&mut self, key: AttemptKey, event: Event) -> Option<Event> {
        if !self.is_to_settle(key, &event) {
            return Some(event);
        }
        let until = Instant::now() + self.gpus.settle;
        self.settling.entry(key).or_insert((until, event));
        None
    }

    /// When something that was kept back is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let settled = self.settling.values().map(|(until, _)| *until).min();
        settled.into_iter().chain(self.findings.next_due()).min()
    }

    pub(super) async fn write_due(&mut self) -> Result<(), JournalError> {
        let now = Instant::now();
        let over = self.findings.due(now);
        self.write_findings(over).await?;
        let settled = self.settling.extract_if(.., |_, (until, _)| *until <= now);
        let settled: Vec<_> = settled.map(|(key, (_, event))| (key, event)).collect();
        if !settled.is_empty() {
            let folded = self.findings.flush();
            self.write_findings(folded).await?;
        }
        for (key, event) in settled {
            self.occur(key, event).await?;
        }
        Ok(())
    }

    /// Notes that an attempt has let go of its GPUs.
    pub(super) fn note_use(&mut self, key: AttemptKey, was: Phase) {
        let Some(attempt) = self.attempts.get(&key) else {
            return;
        };
        if was == Phase::Ended || attempt.phase != Phase::Ended || !self.claims.contains(&key) {
            return;
        }
        let gpus = attempt.held.order.iter().flat_map(|order| &order.gpus);
        let cards: Vec<String> = gpus.map(|gpu| self.card_of(&gpu.uuid)).collect();
        let now = Instant::now();
        self.used_until.extend(cards.into_iter().map(|uuid| (uuid, now)));
    }

    /// Who has which GPUs, and what the driver told of these.
    pub(super) fn using(&self) -> Using {
        let living = || self.attempts.values().filter(|attempt| attempt.phase != Phase::Ended);
        let mut jobs = BTreeMap::<String, Vec<u64>>::new();
        for attempt in living() {
            let order =
                attempt.held.order.iter().filter(|_| self.claims.contains(&attempt.held.key));
            for gpu in order.flat_map(|order| &order.gpus) {
                let jobs = jobs.entry(self.card_of(&gpu.uuid)).or_default();
                if jobs.last() != Some(&attempt.held.key.job_id) {
                    jobs.push(attempt.held.key.job_id);
                }
            }
        }
        let attempts = living().count().try_into().unwrap_or(u64::MAX);
        Using { attempts, jobs, xids: self.last_xids.clone() }
    }

    /// GPUs that no attempt has now, each with since when; since this daemon began if it has seen none.
    pub(super) fn unused(&self) -> Unused {
        let held = self.living_orders().flat_map(|order| &order.gpus);
        let used: BTreeSet<String> = held.map(|gpu| self.card_of(&gpu.uuid)).collect();
        let since = |uuid: &String| self.used_until.get(uuid).copied().unwrap_or(self.began);
        let all = self.gpus.cards.devices().into_iter().map(|device| device.uuid);
        let free = all.filter(|uuid| !used.contains(uuid) && !self.checking.has(uuid));
        free.map(|uuid| (uuid.clone(), since(&uuid))).collect()
    }

    pub(super) fn used_milli(&self, key: AttemptKey, uuid: &str) -> u32 {
        let others = self
            .living_orders()
            .filter(|order| AttemptKey::new(order.job_id, order.attempt) != key);
        others
            .flat_map(|order| &order.gpus)
            .filter(|gpu| gpu.uuid == uuid)
            .map(|gpu| gpu.milli)
            .sum()
    }

    /// Orders of the attempts that have their GPUs.
    pub(super) fn living_orders(&self) -> impl Iterator<Item = &RunAttempt> {
        let attempts = self.claims.iter().filter_map(|key| self.attempts.get(key));
        let live = attempts.filter(|attempt| attempt.phase != Phase::Ended);
        live.filter_map(|attempt| attempt.held.order.as_deref())
    }

    /// The GPU of that name, or that the instance of that name is cut from.
    pub(super) fn card_of(&self, uuid: &str) -> String {
        self.gpus.cards.card_of(uuid).unwrap_or_else(|| uuid.to_owned())
    }
}

impl Waiting {
    fn of(entry: &Entry) -> Option<Self> {
        match entry {
            Entry::Found(finding) => Some(Self::Finding(finding.clone())),
            _ => None,
        }
    }
}
