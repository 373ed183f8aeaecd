//! A job and the states a person sees it in.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::amount::UnixMicros;
use crate::array::{self, ArraySpec, ArrayTasks};
use crate::attempt::{Cause, ExitStatus};
use crate::ids::{IdempotencyKey, JobId, NodeName, UserName};
use crate::spec::{Dependency, DependencyKind, JobSpec, TaskName};

/// A job: what was asked, by whom, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its number.
    pub id: JobId,
    /// Who submitted it.
    pub owner: UserName,
    /// The client's key for the submission.
    pub key: IdempotencyKey,
    /// Digest of the submission, to tell a repetition from another body under the same key.
    pub digest: Digest,
    /// When it was submitted.
    pub submitted: UnixMicros,
    /// What was asked.
    pub spec: Arc<JobSpec>,
    /// How it stands.
    pub status: JobStatus,
    /// The array that it is a task of.
    pub array: Option<JobId>,
}

impl Job {
    /// Whether it is an array of tasks, which never runs itself.
    #[must_use]
    pub fn is_array(&self) -> bool {
        self.spec.array.is_some() && self.array.is_none()
    }

    /// The highest job number that belongs to it: that of the last task of an array, its own otherwise.
    #[must_use]
    pub fn last_id(&self) -> JobId {
        let tasks = self.spec.array.as_ref().filter(|_| self.array.is_none()).map(ArraySpec::len);
        JobId(self.id.0.saturating_add(tasks.map_or(0, u64::from)))
    }

    /// Its index in its array, if it is a task of one.
    #[must_use]
    pub fn task_index(&self) -> Option<u32> {
        let place = array::place_of(self.array?, self.id)?;
        self.spec.array.as_ref()?.index_at(place)
    }

    /// How many tasks of its array may be starting or running at once; `None` if it is none, or if the array does not
    /// say.
    #[must_use]
    pub fn array_limit(&self) -> Option<(JobId, u32)> {
        Some((self.array?, self.spec.array.as_ref()?.at_once?))
    }

    /// By when it must have ended.
    #[must_use]
    pub fn deadline(&self) -> Option<UnixMicros> {
        self.spec.deadline.map(|deadline| deadline.moment(self.submitted))
    }

    /// The last moment at which it may start: from then on its time limit could be over after its deadline.
    #[must_use]
    pub fn starts_by(&self) -> Option<UnixMicros> {
        self.deadline().map(|deadline| deadline.plus_seconds(-self.spec.time_limit_s))
    }

    /// The task of this array with that job number, as the job it would be; `None` if it is a job of its own or none of
    /// this array. One that neither waits nor is held was cancelled before it started.
    #[must_use]
    pub fn folded_task(&self, id: JobId) -> Option<Job> {
        let place = array::place_of(self.id, id).filter(|_| id <= self.last_id())?;
        let tasks = self.status.tasks.as_ref()?;
        let state = tasks.folded_state(place)?;
        let detail =
            if state == JobState::Held { self.status.detail.clone() } else { String::new() };
        let mut waits_for = self.status.waits_for.clone();
        waits_for.extend(self.counterpart(tasks, place));
        Some(self.task(id, JobStatus::new(state, detail, self.status.queued, waits_for)))
    }

    /// The task of another array that the one at this place waits for.
    fn counterpart(&self, tasks: &ArrayTasks, place: u32) -> Option<Dependency> {
        let (job, index) = (tasks.counterpart(place)?, self.spec.array.as_ref()?.index_at(place)?);
        let array = tasks.behind.as_ref()?.array;
        let task = Some(TaskName { array, index });
        Some(Dependency { kind: DependencyKind::AfterCorr, job, task })
    }

    /// A task of this array that never became a job of its own and has gone, as the job it would have been.
    #[must_use]
    pub fn dropped_task(&self, id: JobId) -> Option<Job> {
        array::place_of(self.id, id).filter(|_| id <= self.last_id())?;
        let detail = "cancelled before it started".to_owned();
        let status = JobStatus::new(JobState::Cancelled, detail, self.status.queued, Vec::new());
        Some(self.task(id, JobStatus { ended: self.status.ended, ..status }))
    }

    fn task(&self, id: JobId, status: JobStatus) -> Job {
        Job {
            id,
            owner: self.owner.clone(),
            key: IdempotencyKey::of_task(id),
            digest: self.digest.clone(),
            submitted: self.submitted,
            spec: Arc::clone(&self.spec),
            status,
            array: Some(self.id),
        }
    }
}

pub use crate::digest::Digest;

/// State of a job as a person sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Kept from starting until released.
    Held,
    /// Waits for resources, for other jobs or for its turn.
    Pending,
    /// An attempt holds resources, nothing runs yet.
    Starting,
    /// Its processes run.
    Running,
    /// Ended with success.
    Completed,
    /// Ended without success.
    Failed,
    /// Ended by its user or an operator.
    Cancelled,
    /// Ended at its time limit.
    TimedOut,
}

impl JobState {
    /// All states, in the order of life.
    pub const ALL: [JobState; 8] = [
        JobState::Held,
        JobState::Pending,
        JobState::Starting,
        JobState::Running,
        JobState::Completed,
        JobState::Failed,
        JobState::Cancelled,
        JobState::TimedOut,
    ];

    /// Whether it never changes again.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        match self {
            JobState::Completed | JobState::Failed | JobState::Cancelled | JobState::TimedOut => {
                true
            }
            JobState::Held | JobState::Pending | JobState::Starting | JobState::Running => false,
        }
    }

    /// Whether an attempt holds resources.
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(self, JobState::Starting | JobState::Running)
    }

    /// The word in listings, in the store and in the API.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            JobState::Held => "held",
            JobState::Pending => "pending",
            JobState::Starting => "starting",
            JobState::Running => "running",
            JobState::Completed => "completed",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
            JobState::TimedOut => "timed_out",
        }
    }

    /// The state of that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }
}

/// The part of a job that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// As a person sees it.
    pub state: JobState,
    /// One line on how it came to this state.
    pub detail: String,
    /// Since when it competes for resources; kept over requeues.
    pub queued: UnixMicros,
    /// No attempt before this moment; set between tries.
    pub not_before: UnixMicros,
    /// Start of the latest attempt that ran.
    pub started: Option<UnixMicros>,
    /// When it became terminal.
    pub ended: Option<UnixMicros>,
    /// Number of the latest attempt, 0 before the first.
    pub attempt: u32,
    /// Tries that failed by its own doing.
    pub failures: u32,
    /// Tries lost to hardware, node, network or site.
    pub losses: u32,
    /// Dependencies not yet fulfilled.
    pub waits_for: Vec<Dependency>,
    /// Nodes it lost an attempt on; avoided from then on, newest last, at most [`AVOIDED_MAX`].
    pub avoid: BTreeSet<NodeName>,
    /// A cancellation or requeue is under way: what to do once the attempt has ended.
    pub pending_action: Option<PendingAction>,
    /// Nodes on which others stop, or have stopped, to make room for it. Until it starts it goes first of those within
    /// a guarantee and is given these nodes, so that nobody else takes what was freed.
    #[serde(default)]
    pub promised: BTreeSet<NodeName>,
    /// Why the last attempt ended, once terminal.
    pub cause: Option<Cause>,
    /// How the deciding task ended, once terminal.
    pub exit: Option<ExitStatus>,
    /// Of an array: how its tasks stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Arc<ArrayTasks>>,
}

impl JobStatus {
    /// The status of a job that was just stored.
    #[must_use]
    pub fn new(
        state: JobState,
        detail: String,
        queued: UnixMicros,
        waits_for: Vec<Dependency>,
    ) -> Self {
        JobStatus {
            state,
            detail,
            queued,
            not_before: queued,
            started: None,
            ended: None,
            attempt: 0,
            failures: 0,
            losses: 0,
            waits_for,
            avoid: BTreeSet::new(),
            pending_action: None,
            promised: BTreeSet::new(),
            cause: None,
            exit: None,
            tasks: None,
        }
    }
}

/// Nodes remembered as lost for one job; past that the set is cleared, so that a small cluster is not locked out.
pub const AVOIDED_MAX: usize = 16;

/// What was asked for a job whose attempt must end first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PendingAction {
    /// Becomes cancelled.
    Cancel {
        /// Shown in the detail.
        reason: String,
    },
    /// Goes back to the queue.
    Requeue {
        /// Shown in the detail.
        reason: String,
    },
}

/// What can happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobEvent {
    /// Kept from starting.
    Held,
    /// No longer kept from starting.
    Released,
    /// An attempt was given resources.
    Leased,
    /// Its first process is there.
    Started,
    /// The attempt ended and the job is tried again.
    Requeued,
    /// The attempt ended and the job must be released by somebody.
    RequeuedHeld,
    /// Ended with success.
    Completed,
    /// Ended without success.
    Failed,
    /// Ended by request.
    Cancelled,
    /// Ended at its time limit.
    TimedOut,
}

impl JobEvent {
    /// All events.
    pub const ALL: [JobEvent; 10] = [
        JobEvent::Held,
        JobEvent::Released,
        JobEvent::Leased,
        JobEvent::Started,
        JobEvent::Requeued,
        JobEvent::RequeuedHeld,
        JobEvent::Completed,
        JobEvent::Failed,
        JobEvent::Cancelled,
        JobEvent::TimedOut,
    ];
}

/// A move that the state machine does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a {} job cannot take the event {event:?}", state.word())]
pub struct IllegalJobMove {
    /// Where it stood.
    pub state: JobState,
    /// What was to happen.
    pub event: JobEvent,
}

/// The state after `event`.
///
/// # Errors
/// [`IllegalJobMove`] if the machine has no such move; a terminal state has none at all.
pub fn transition(state: JobState, event: JobEvent) -> Result<JobState, IllegalJobMove> {
    use JobEvent as E;
    use JobState as S;
    match (state, event) {
        (S::Pending, E::Held) => Ok(S::Held),
        (S::Held, E::Released) => Ok(S::Pending),
        (S::Pending, E::Leased) => Ok(S::Starting),
        (S::Starting, E::Started) => Ok(S::Running),
        (S::Starting | S::Running, E::Requeued) => Ok(S::Pending),
        (S::Starting | S::Running, E::RequeuedHeld) => Ok(S::Held),
        (S::Starting | S::Running, E::Completed) => Ok(S::Completed),
        (S::Starting | S::Running, E::Failed) => Ok(S::Failed),
        (S::Starting | S::Running, E::TimedOut) => Ok(S::TimedOut),
        (S::Held | S::Pending | S::Starting | S::Running, E::Cancelled) => Ok(S::Cancelled),
        (state, event) => Err(IllegalJobMove { state, event }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_terminal_job_takes_no_event_at_all() {
        for state in JobState::ALL.into_iter().filter(|state| state.is_terminal()) {
            for event in JobEvent::ALL {
                assert!(transition(state, event).is_err(), "{state:?} {event:?}");
            }
        }
    }

    #[test]
    fn every_state_can_be_reached_from_pending() {
        let mut reached = BTreeSet::from([JobState::Pending]);
        for _ in JobState::ALL {
            for state in reached.clone() {
                reached.extend(JobEvent::ALL.into_iter().filter_map(|e| transition(state, e).ok()));
            }
        }
        assert_eq!(reached.len(), JobState::ALL.len());
    }

    #[test]
    fn every_word_names_its_state() {
        for state in JobState::ALL {
            assert_eq!(JobState::from_word(state.word()), Some(state));
        }
    }
}
