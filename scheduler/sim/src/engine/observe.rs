//! What changed: for the record, the meters, the workers, and whether there is something to plan.

use std::collections::BTreeSet;

use gotgan_core::alert::Alert;
use gotgan_core::attempt::{Attempt, AttemptState};
use gotgan_core::change::Change;
use gotgan_core::fairshare::HeldFor;
use gotgan_core::ids::JobId;
use gotgan_core::job::JobState;
use gotgan_core::ledger::LedgerEntry;
use gotgan_core::quota::Interval;

use super::{Engine, Step};
use crate::record::AttemptEnd;

impl Engine<'_> {
    /// Takes in what a round changed, and tells workers.
    pub(super) fn observe(&mut self, changes: &[Change]) {
        self.observe_estimates(changes);
        let mut touched = BTreeSet::new();
        for change in changes {
            match change {
                Change::JobSubmitted(job) => self.moved(job.id, job.status.state),
                Change::JobMoved { id, status } => self.moved(*id, status.state),
                Change::AttemptLeased(attempt) => {
                    self.dirty.parts = true;
                    touched.insert(attempt.id);
                }
                Change::AttemptMoved(attempt) => {
                    self.attempt_moved(attempt);
                    touched.insert(attempt.id);
                }
                Change::Booked(entry) => self.book(entry),
                Change::NodeRegistered(_)
                | Change::NodeAdministered { .. }
                | Change::NodeHealth { .. }
                | Change::BreakerMoved(_)
                | Change::NodeHeard { .. }
                | Change::NodeLeftovers { .. } => self.service_changed(),
                Change::WindowMoved(window) => {
                    self.service_changed();
                    if let Some(turn) = window.next_turn() {
                        self.at(turn, Step::Date);
                    }
                }
                Change::QuotaApplied { .. } | Change::QuotaTurned { .. } => {
                    self.service_changed();
                    self.dirty.tree = true;
                    self.expect_quota_date();
                }
                Change::QuotaAlerted(alert) => self.record.alerts.push(Alert::clone(alert)),
                Change::QuotaAudited(_)
                | Change::QuotaApproved(_)
                | Change::StepCreated(_)
                | Change::PassRecorded(_)
                | Change::TaskMoved { .. }
                | Change::Happened(_) => {}
            }
        }
        if !touched.is_empty() {
            self.expect_settling();
        }
        self.expect_alert();
        self.dispatch(&touched);
    }

    /// What is due, what GPUs do and what can be planned may be something else now.
    pub(super) fn service_changed(&mut self) {
        self.dirty.plan = true;
        self.dirty.parts = true;
        self.dirty.due = true;
    }

    fn expect_quota_date(&mut self) {
        let next = self.world.quota_until;
        if next < Interval::ALWAYS.until {
            self.at(next, Step::Date);
        }
    }

    fn expect_settling(&mut self) {
        if let Some(due) = self.world.next_due() {
            self.at(due.max(self.now), Step::Date);
        }
    }

    /// People are told at the very second. A moment that was expected and is not due any more is looked at all the
    /// same; another is noted only if it comes before.
    fn expect_alert(&mut self) {
        let Some(due) = self.world.next_alert() else { return };
        let due = due.max(self.now);
        if self.alert.is_none_or(|expected| due < expected || expected <= self.now) {
            self.alert = Some(due);
            self.at(due, Step::Date);
        }
    }

    fn book(&mut self, entry: &LedgerEntry) {
        self.meter.book(entry);
        let account = (entry.project.clone(), entry.stretch.account);
        *self.used.entry(account).or_default() += entry.used();
    }

    fn moved(&mut self, id: JobId, state: JobState) {
        self.dirty.plan |= state == JobState::Pending;
        let Some(facts) = self.record.jobs.get_mut(&id) else { return };
        facts.state = state;
        if state.is_terminal() {
            self.workers.work.remove(&id);
            self.no_longer_asked_for(id);
        }
    }

    fn attempt_moved(&mut self, attempt: &Attempt) {
        self.note_start(attempt);
        if attempt.state != AttemptState::Ended {
            return;
        }
        self.dirty.plan = true;
        self.dirty.parts = true;
        self.meter.ended(attempt);
        if let Some(held) = HeldFor::of(attempt) {
            self.history.add(&held);
        }
        let Some(outcome) = &attempt.outcome else { return };
        let at = attempt.ended.unwrap_or(self.now);
        let lost_ms = self.workers.forget(attempt, outcome.cause, self.now);
        if let Some(facts) = self.record.jobs.get_mut(&attempt.id.job) {
            facts.ends.push(AttemptEnd { at, cause: outcome.cause, lost_ms });
        }
    }

    /// An attempt is seen many times and starts once.
    fn note_start(&mut self, attempt: &Attempt) {
        let facts = self.record.jobs.get_mut(&attempt.id.job);
        let (Some(facts), Some(started)) = (facts, attempt.started) else { return };
        if facts.last_started < attempt.id.number {
            facts.last_started = attempt.id.number;
            facts.starts.push(started);
        }
    }
}
