//! A line: the next job of each cohort of one project that wants the same.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::CohortId;
use crate::amount::{GpuMilli, UnixMicros};
use crate::ids::JobId;

/// The next job of a cohort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Front {
    pub place: Place,
    pub cohort: CohortId,
}

/// A place in a line; the smallest is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Within a guarantee, those that others have stopped for go first: what was freed is theirs.
    pub promised: Reverse<bool>,
    pub priority: Reverse<i32>,
    pub queued: UnixMicros,
    pub gpus: Reverse<GpuMilli>,
    pub job: JobId,
}

impl Place {
    /// Before all others.
    pub const FIRST: Place = Place {
        promised: Reverse(true),
        priority: Reverse(i32::MAX),
        queued: UnixMicros(i64::MIN),
        gpus: Reverse(GpuMilli(u64::MAX)),
        job: JobId(0),
    };
}

/// Jobs in a line. Nearly all are there from the beginning and leave one after the other; those that come in between are
/// the next jobs of cohorts of which one started.
#[derive(Debug, Default)]
pub(super) struct Ready {
    /// Those from the beginning, the first at the end.
    sorted: Vec<Front>,
    between: BinaryHeap<Reverse<Front>>,
}

impl Ready {
    /// These from the beginning.
    pub fn of(mut fronts: Vec<Front>) -> Self {
        fronts.sort_unstable_by(|one, other| other.cmp(one));
        Ready { sorted: fronts, between: BinaryHeap::new() }
    }

    /// The first.
    pub fn peek(&self) -> Option<Front> {
        match (self.sorted.last(), self.between.peek()) {
            (Some(first), Some(Reverse(between))) => Some(*first.min(between)),
            (Some(first), None) | (None, Some(Reverse(first))) => Some(*first),
            (None, None) => None,
        }
    }

    /// Adds jobs of which none has had its turn.
    pub fn add_all(&mut self, fronts: Vec<Front>) {
        self.sorted.extend(fronts);
        self.sorted.sort_unstable_by(|one, other| other.cmp(one));
    }

    /// Adds a job that was not there from the beginning.
    pub fn add(&mut self, front: Front) {
        self.between.push(Reverse(front));
    }

    /// Takes out the first.
    pub fn pop(&mut self) -> Option<Front> {
        let first = self.peek()?;
        if self.sorted.last() == Some(&first) {
            self.sorted.pop();
        } else {
            self.between.pop();
        }
        Some(first)
    }
}
