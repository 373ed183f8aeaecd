//! Why a job did not compete at a moment that has passed, from what happened to it.

use crate::amount::UnixMicros;
use crate::change::{Event, EventKind, Subject};
use crate::job::{Job, JobState};

/// Why a job did not compete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// It was submitted later.
    NotSubmitted {
        /// When.
        at: UnixMicros,
    },
    /// It was held.
    Held {
        /// Until when; `None`: it still is.
        until: Option<UnixMicros>,
    },
    /// It waited for another job.
    Dependent {
        /// Until when; `None`: it still does.
        until: Option<UnixMicros>,
    },
    /// It had failed and waited before its next try.
    Delayed {
        /// Until when.
        until: UnixMicros,
    },
    /// It held resources in an earlier attempt.
    Running,
    /// It had ended.
    Ended,
}

/// Why the job did not compete at that moment; `None` if it did. `events` are its own in their order, for a task of an
/// array with those of the array.
#[must_use]
pub fn absence(job: &Job, events: &[Event], at: UnixMicros) -> Option<Absence> {
    if job.submitted > at {
        return Some(Absence::NotSubmitted { at: job.submitted });
    }
    let later = |kind: EventKind| {
        let after = events.iter().filter(move |event| event.at > at);
        after.filter(move |event| event.kind == kind).map(|event| event.at)
    };
    match state_at(events, at).unwrap_or(JobState::Pending) {
        JobState::Held => Some(Absence::Held { until: later(EventKind::Released).next() }),
        JobState::Starting | JobState::Running => Some(Absence::Running),
        JobState::Completed | JobState::Failed | JobState::Cancelled | JobState::TimedOut => {
            Some(Absence::Ended)
        }
        JobState::Pending => match later(EventKind::DependencyMet).next_back() {
            Some(until) => Some(Absence::Dependent { until: Some(until) }),
            None if !job.status.waits_for.is_empty() => Some(Absence::Dependent { until: None }),
            None => {
                let until = job.status.not_before;
                (until > at).then_some(Absence::Delayed { until })
            }
        },
    }
}

/// The state that the last event until then left the job in.
fn state_at(events: &[Event], at: UnixMicros) -> Option<JobState> {
    let until = events.iter().filter(|event| event.at <= at);
    until.filter_map(state_after).next_back()
}

/// The state that the job was in after an event of its own.
fn state_after(event: &Event) -> Option<JobState> {
    match event.subject {
        Subject::Job { state, .. } => Some(state),
        Subject::Node(_) | Subject::Quota => None,
    }
}
