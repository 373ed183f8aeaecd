//! The ledger recomputed from the attempts, line by line. Pure: rows in, differences out.

use std::collections::BTreeMap;

use gotgan_core::amount::GpuMilliSeconds;
use gotgan_core::attempt::{Attempt, AttemptState};
use gotgan_core::ids::AttemptId;
use gotgan_core::ledger::{self, CounterAccount, LedgerEntry, LedgerKind};

use crate::LedgerAudit;

/// What a line says beside its position and time.
type Line = (LedgerKind, i64, String, String, String);

/// An audit under way.
#[derive(Default)]
pub(crate) struct Audit(LedgerAudit);

impl Audit {
    /// Compares attempts with the lines of their jobs; lines of other attempts are left alone.
    pub(crate) fn compare(&mut self, attempts: &[Attempt], entries: &[LedgerEntry]) {
        let mut lines: BTreeMap<AttemptId, Vec<Line>> = BTreeMap::new();
        for entry in entries {
            lines.entry(entry.attempt).or_default().push(line_of(entry));
        }
        for attempt in attempts {
            self.0.attempts += 1;
            self.compare_one(attempt, lines.remove(&attempt.id).unwrap_or_default());
        }
    }

    fn compare_one(&mut self, attempt: &Attempt, mut found: Vec<Line>) {
        if attempt.state == AttemptState::Ended
            && (attempt.ended.is_none() || attempt.outcome.is_none())
        {
            self.report(format!("attempt {} has ended without time or cause", attempt.id));
        }
        for line in expected_lines(attempt) {
            match found.iter().position(|other| *other == line) {
                Some(place) => {
                    found.swap_remove(place);
                }
                None => {
                    self.report(format!("attempt {}: there is no {}", attempt.id, words(&line)))
                }
            }
        }
        for line in found {
            self.report(format!(
                "attempt {}: nothing accounts for the {}",
                attempt.id,
                words(&line)
            ));
        }
    }

    /// Lines whose attempt does not exist.
    pub(crate) fn report_orphans(&mut self, entries: &[LedgerEntry]) {
        for entry in entries {
            let words = words(&line_of(entry));
            self.report(format!(
                "entry {}: there is no attempt {} for the {words}",
                entry.seq, entry.attempt
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

fn expected_lines(attempt: &Attempt) -> Vec<Line> {
    let mut lines = ledger::lines_at_lease(attempt);
    if let (AttemptState::Ended, Some(ended), Some(outcome)) =
        (attempt.state, attempt.ended, &attempt.outcome)
    {
        lines.extend(ledger::lines_at_end(attempt, ended, outcome.cause));
    }
    let class = attempt.placement.class.as_ref().map(ToString::to_string).unwrap_or_default();
    let line = |(kind, amount, counter): (LedgerKind, GpuMilliSeconds, CounterAccount)| {
        (kind, amount.0, counter.word(), attempt.project.to_string(), class.clone())
    };
    lines.into_iter().map(line).collect()
}

fn line_of(entry: &LedgerEntry) -> Line {
    let (project, class) = (entry.project.to_string(), entry.class.to_string());
    (entry.kind, entry.amount.0, entry.counter.word(), project, class)
}

fn words((kind, amount, counter, project, class): &Line) -> String {
    format!(
        "{} of {amount} milli-GPU-seconds of {class} by {project} against {counter}",
        kind.word()
    )
}
