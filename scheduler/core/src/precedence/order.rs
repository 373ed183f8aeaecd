//! Why one job started and another did not, put together from a record.

use std::cmp::Ordering;

use super::rank::{Rank, Ruling, compare};
use super::sheet::{PassSheet, Passed, StartTurn};
use super::stood::Absence;
use crate::ids::JobId;
use crate::job::Job;

/// What is known of a start and of a job that did not start then.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What the pass knew.
    pub sheet: &'a PassSheet,
    /// The start.
    pub start: &'a StartTurn,
    /// The other job.
    pub other: &'a Job,
    /// Why the other did not compete; `None` if it did.
    pub absence: Option<Absence>,
}

/// Why the one started and the other did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderOf {
    /// Why.
    pub verdict: Verdict,
    /// The rank of the other; `None` if it did not compete or the sheet does not tell.
    pub other: Option<Rank>,
}

/// Why, in one word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The other did not compete.
    Absent(Absence),
    /// The turn of the one came first.
    First(Ruling),
    /// The turn of the other came first, and it could not start; `None`: why is not kept.
    PassedOver(Ruling, Option<Passed>),
    /// The sheet does not tell where the other stood.
    NotKept,
}

/// Judges a start. `is_like` says whether the other job is of one cohort with that job.
#[must_use]
pub fn judge(facts: Facts<'_>, is_like: impl Fn(JobId) -> bool) -> OrderOf {
    let Facts { sheet, start, other, absence } = facts;
    if let Some(absence) = absence {
        return OrderOf { verdict: Verdict::Absent(absence), other: None };
    }
    let Some((rank, is_whole)) = sheet.rank_as_kept(other, start.takes) else {
        return OrderOf { verdict: Verdict::NotKept, other: None };
    };
    let ruling = compare(&start.rank, &rank);
    if !is_whole && !ruling.rule.is_by_project() {
        return OrderOf { verdict: Verdict::NotKept, other: None };
    }
    let verdict = match ruling.first {
        Ordering::Less | Ordering::Equal => Verdict::First(ruling),
        Ordering::Greater => Verdict::PassedOver(ruling, sheet.passed(other.id, is_like).cloned()),
    };
    OrderOf { verdict, other: Some(rank) }
}
