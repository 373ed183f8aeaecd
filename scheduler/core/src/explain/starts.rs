//! When a job is going to start, or why that cannot be told.

use super::{Explanation, sentence};
use crate::amount::UnixMicros;
use crate::estimate::StartRange;
use crate::job::JobState;
use crate::plan::BlockerKind;

/// What can be said of the start of a job that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Between two moments.
    Between(StartRange),
    /// Nothing that is going to happen by itself lets it start: why, in words.
    Not(String),
    /// It has not been looked at yet.
    NotYetKnown,
}

/// What can be said of a job that stands like this, if the look ahead made at `looked` gave it that range; `None` for
/// one that does not wait.
#[must_use]
pub fn start(
    explanation: &Explanation,
    range: Option<StartRange>,
    looked: Option<UnixMicros>,
) -> Option<Start> {
    match explanation.state {
        JobState::Held => Some(Start::Not(explanation.summary.clone())),
        JobState::Pending => {
            let kept = explanation.blockers.iter().find(|blocker| keeps_for_good(blocker.kind));
            Some(match (kept, range) {
                (Some(blocker), _) => Start::Not(sentence(blocker)),
                (None, Some(range)) => Start::Between(range),
                (None, None) if was_passed_over(explanation, looked) => {
                    Start::Not(explanation.summary.clone())
                }
                (None, None) => Start::NotYetKnown,
            })
        }
        JobState::Starting
        | JobState::Running
        | JobState::Completed
        | JobState::Failed
        | JobState::Cancelled
        | JobState::TimedOut => None,
    }
}

/// Whether the look ahead knew as much as the pass that the explanation is from, and saw no start.
fn was_passed_over(explanation: &Explanation, looked: Option<UnixMicros>) -> bool {
    looked.zip(explanation.planned).is_some_and(|(looked, planned)| looked >= planned)
}

/// Whether time and the ends of others do not help, as far as a look ahead can see.
fn keeps_for_good(kind: BlockerKind) -> bool {
    match kind {
        BlockerKind::Held
        | BlockerKind::Dependency
        // Nodes of reservations are left out of the look ahead.
        | BlockerKind::AskedReservation
        | BlockerKind::ArrayLimit
        | BlockerKind::Constraints
        | BlockerKind::Budget => true,
        BlockerKind::ProjectLimit
        | BlockerKind::ParentLimit
        | BlockerKind::Term
        | BlockerKind::NodesUnavailable
        | BlockerKind::Reservation
        | BlockerKind::Recall
        | BlockerKind::Lent
        | BlockerKind::Kept
        | BlockerKind::Capacity
        | BlockerKind::Power
        | BlockerKind::Order
        | BlockerKind::RetryDelay
        | BlockerKind::Deadline
        | BlockerKind::Tier
        | BlockerKind::FairShare
        | BlockerKind::Planned
        | BlockerKind::Maintenance
        | BlockerKind::Elastic => false,
    }
}
