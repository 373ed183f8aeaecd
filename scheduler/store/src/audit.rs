//! The ledger recomputed from the attempts. Pure: rows in, differences out.
//!
//! Where an attempt was cut into lines follows from books that may since have changed, so the cuts are not computed
//! again. What is: each line costs what its time costs, the lines of an attempt do not overlap, and together they are
//! exactly what it held.

use std::collections::BTreeMap;

use gotgan_core::amount::{GpuMilliSeconds, UnixMicros};
use gotgan_core::attempt::{Attempt, AttemptState, Cause};
use gotgan_core::ids::AttemptId;
use gotgan_core::ledger::{self, CounterAccount, LedgerEntry, LedgerKind};
use gotgan_core::meter::Footing;

use crate::LedgerAudit;

/// An audit under way.
#[derive(Default)]
pub(crate) struct Audit(LedgerAudit);

impl Audit {
    /// Compares attempts with the lines of their jobs; lines of other attempts are left alone.
    pub(crate) fn compare(&mut self, attempts: &[Attempt], entries: &[LedgerEntry]) {
        let mut lines: BTreeMap<AttemptId, Vec<&LedgerEntry>> = BTreeMap::new();
        for entry in entries {
            lines.entry(entry.attempt).or_default().push(entry);
        }
        for attempt in attempts {
            self.0.attempts += 1;
            self.compare_one(attempt, lines.remove(&attempt.id).unwrap_or_default());
        }
    }

    fn compare_one(&mut self, attempt: &Attempt, found: Vec<&LedgerEntry>) {
        if attempt.state == AttemptState::Ended
            && (attempt.ended.is_none() || attempt.outcome.is_none())
        {
            self.report(format!("attempt {} has ended without time or cause", attempt.id));
        }
        let (own, foreign): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|entry| belongs(attempt, entry));
        let foreign =
            foreign.into_iter().map(|entry| format!("nothing accounts for the {}", words(entry)));
        let differences =
            foreign.chain(wrong_lines(attempt, &own)).chain(wrong_sums(attempt, &own));
        for difference in differences {
            self.report(format!("attempt {}: {difference}", attempt.id));
        }
    }

    /// Lines whose attempt does not exist.
    pub(crate) fn report_orphans(&mut self, entries: &[LedgerEntry]) {
        for entry in entries {
            self.report(format!(
                "entry {}: there is no attempt {} for the {}",
                entry.seq,
                entry.attempt,
                words(entry)
            ));
        }
    }

    /// The result.
    pub(crate) fn finish(self) -> LedgerAudit {
        self.0
    }

    fn report(&mut self, difference: String) {
        if self.0.differences.len() < LedgerAudit::DIFFERENCES_MAX {
            self.0.differences.push(difference);
        }
    }
}

/// Whether the attempt can have such a line: who pays, for what, and against which account.
fn belongs(attempt: &Attempt, entry: &LedgerEntry) -> bool {
    let counter = match (entry.kind, entry.counter) {
        (LedgerKind::Hold | LedgerKind::Release, counter) => counter == CounterAccount::Holds,
        (LedgerKind::Charge, CounterAccount::Pool) => attempt.meter.footing != Footing::Overuse,
        (LedgerKind::Overuse, CounterAccount::Pool) => attempt.meter.footing == Footing::Overuse,
        (LedgerKind::Charge | LedgerKind::Overuse, _) => false,
        (LedgerKind::Refund, CounterAccount::Loss(cause)) => refunded(attempt) == Some(cause),
        (LedgerKind::Refund, counter) => counter == CounterAccount::Pool,
    };
    counter
        && entry.project == attempt.project
        && attempt.placement.class.as_ref() == Some(&entry.class)
}

/// The cause for which all of its use is given back.
fn refunded(attempt: &Attempt) -> Option<Cause> {
    let ended = attempt.state == AttemptState::Ended;
    let cause = attempt.outcome.as_ref().filter(|_| ended)?.cause;
    ledger::is_refunded(cause).then_some(cause)
}

/// Lines of use and refunds that do not cost what their time costs, or overlap.
fn wrong_lines(attempt: &Attempt, own: &[&LedgerEntry]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut used_until = attempt.leased;
    for entry in own {
        let time = entry.stretch.time;
        let costs = ledger::cost(attempt.gpus(), time.from, time.until);
        match entry.kind {
            LedgerKind::Hold | LedgerKind::Release => continue,
            LedgerKind::Charge | LedgerKind::Overuse => {
                if time.from < used_until {
                    wrong.push(format!("the time of the {} was charged before", words(entry)));
                }
                used_until = used_until.max(time.until);
            }
            LedgerKind::Refund => {}
        }
        if entry.amount != costs {
            wrong.push(format!("the {} should be of {}", words(entry), costs.0));
        }
    }
    wrong
}

/// Sums that do not agree with what the attempt held and what is set aside for it.
fn wrong_sums(attempt: &Attempt, own: &[&LedgerEntry]) -> Vec<String> {
    let sum = |wanted: &dyn Fn(&LedgerEntry) -> bool| -> i64 {
        own.iter().filter(|entry| wanted(entry)).map(|entry| entry.amount.0).sum()
    };
    let kind = |kind| sum(&|entry| entry.kind == kind);
    let refund = |pool: bool| {
        sum(&|entry| {
            entry.kind == LedgerKind::Refund && (entry.counter == CounterAccount::Pool) == pool
        })
    };
    let used = kind(LedgerKind::Charge) + kind(LedgerKind::Overuse) - refund(true);
    let held = kind(LedgerKind::Hold) - kind(LedgerKind::Release);
    let costs = if attempt.placement.class.is_some() { cost_so_far(attempt).0 } else { 0 };
    let given_back = if refunded(attempt).is_some() { costs } else { 0 };
    let set_aside = if attempt.state == AttemptState::Ended { 0 } else { attempt.hold.0 };
    let compared = [
        ("was charged", used, costs),
        ("was given back", refund(false), given_back),
        ("has set aside", held, set_aside),
    ];
    let wrong = compared.into_iter().filter(|(_, is, should)| is != should);
    wrong
        .map(|(what, is, should)| format!("{what} {is} milli-GPU-seconds, should be {should}"))
        .collect()
}

/// What it held until its end, or until it was settled last.
fn cost_so_far(attempt: &Attempt) -> GpuMilliSeconds {
    let until: UnixMicros = attempt.ended.unwrap_or(attempt.meter.settled);
    ledger::cost(attempt.gpus(), attempt.leased, until)
}

fn words(entry: &LedgerEntry) -> String {
    format!(
        "{} of {} milli-GPU-seconds of {} by {} against {}",
        entry.kind.word(),
        entry.amount.0,
        entry.class,
        entry.project,
        entry.counter.word()
    )
}
