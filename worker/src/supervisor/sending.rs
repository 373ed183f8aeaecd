//! What goes to the scheduler: findings and reports as they become durable, and again what nobody has acknowledged.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use gotgan_proto::v1::{WorkerMessage, worker_message::Message};
use tokio::sync::mpsc;

use super::{Supervisor, Waiting};
use crate::attempt::Effect;
use crate::handle::Attached;
use crate::held::AttemptKey;

/// Findings and reports handed to a session and not yet on the wire.
const SESSION_QUEUE: usize = 1024;
/// A report or finding not acknowledged for this long is sent again.
pub(super) const RESEND_AFTER: Duration = Duration::from_secs(10);
/// So many findings are sent again on one stream: a scheduler that knows of none is not sent thousands every time.
const RESENT_FINDINGS: usize = 256;

impl Supervisor {
    pub(super) fn attach(&mut self) -> Attached {
        let (session, reports) = mpsc::channel(SESSION_QUEUE);
        self.session = Some(session);
        self.fill_backlog();
        let held = self.attempts.values().map(|attempt| attempt.held.listed()).collect();
        let journal_id = self.findings.journal_id().to_owned();
        Attached { epoch: self.epoch, held, journal_id, reports }
    }

    /// Everything not acknowledged, for a new stream. Findings first: reports written after them must come after them.
    fn fill_backlog(&mut self) {
        self.backlog.clear();
        self.send_findings_again(usize::MAX);
        self.send_again(&self.attempts.keys().copied().collect());
    }

    /// The oldest findings that are not acknowledged. What still waits for the journal comes by itself.
    fn send_findings_again(&mut self, most: usize) {
        let waiting = self.waiting.iter().filter_map(|(_, waiting)| match waiting {
            Waiting::Finding(finding) => Some(finding.seq),
            Waiting::Effects(..) => None,
        });
        let undurable = waiting.min().unwrap_or(u64::MAX);
        let durable = self.findings.open().take_while(|finding| finding.seq < undurable);
        self.backlog.extend(durable.take(most).cloned().map(Message::Finding));
        self.findings_heard_at = Some(Instant::now());
    }

    /// All reports of attempts that are not acknowledged, from the first on: a scheduler that misses one takes none
    /// of those after it. What still waits for the journal comes by itself.
    fn send_again(&mut self, keys: &BTreeSet<AttemptKey>) {
        let undurable: BTreeSet<(AttemptKey, u64)> = self
            .waiting
            .iter()
            .filter_map(|(_, waiting)| match waiting {
                Waiting::Effects(key, effects) => Some((key, effects)),
                Waiting::Finding(_) => None,
            })
            .flat_map(|(key, effects)| effects.iter().map(|effect| (*key, effect)))
            .filter_map(|(key, effect)| match effect {
                Effect::Send(report) => Some((key, report.seq)),
                _ => None,
            })
            .collect();
        let now = Instant::now();
        for key in keys {
            let reports = self.attempts.get(key).map_or(&[][..], |attempt| &attempt.held.reports);
            let durable = reports.iter().filter(|report| !undurable.contains(&(*key, report.seq)));
            self.backlog.extend(durable.cloned().map(Message::Report));
            self.heard_at.insert(*key, now);
        }
    }

    /// Sends again what has not been acknowledged for long; repeated findings and reports are harmless.
    pub(super) fn resend_if_due(&mut self) {
        if !self.backlog.is_empty() || self.session.is_none() {
            return;
        }
        let now = Instant::now();
        if self.findings.open().next().is_none() {
            self.findings_heard_at = None;
        } else if now.duration_since(*self.findings_heard_at.get_or_insert(now)) >= RESEND_AFTER {
            self.send_findings_again(RESENT_FINDINGS);
        }
        let overdue = self.overdue(now);
        self.send_again(&overdue);
    }

    /// Attempts with reports that have not been acknowledged for long.
    fn overdue(&mut self, now: Instant) -> BTreeSet<AttemptKey> {
        let mut overdue = BTreeSet::new();
        for (key, attempt) in &self.attempts {
            if attempt.held.reports.is_empty() {
                self.heard_at.remove(key);
                continue;
            }
            let heard_at = *self.heard_at.entry(*key).or_insert(now);
            if now.duration_since(heard_at) >= RESEND_AFTER {
                overdue.insert(*key);
            }
        }
        overdue
    }

    pub(super) fn send_next(&mut self, permit: Option<mpsc::OwnedPermit<WorkerMessage>>) {
        let Some(permit) = permit else {
            // The stream is gone. A new one begins with everything not acknowledged.
            self.session = None;
            self.backlog.clear();
            return;
        };
        if let Some(message) = self.backlog.pop_front() {
            permit.send(WorkerMessage { message: Some(message) });
        }
    }
}

/// Room in the session's queue; `None` if there is no session.
pub(super) async fn reserve(
    session: Option<mpsc::Sender<WorkerMessage>>,
) -> Option<mpsc::OwnedPermit<WorkerMessage>> {
    session?.reserve_owned().await.ok()
}
