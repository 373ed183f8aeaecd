//! Changes being drafted against the leader's world.

use std::sync::Arc;

use crate::amount::UnixMicros;
use crate::array::TaskSet;
use crate::attempt::Attempt;
use crate::change::{Change, Event, EventKind, Subject};
use crate::ids::{Epoch, GpuClass, JobId, NodeName};
use crate::job::{JobState, JobStatus};
use crate::ledger::{LedgerEntry, Line};
use crate::policy::Policy;
use crate::world::World;

/// Changes drafted so far, already applied to the world they are drafted against.
#[derive(Debug)]
pub struct Draft<'a> {
    /// The leader's world.
    pub world: &'a mut World,
    /// Numbers of the site.
    pub policy: &'a Policy,
    /// Leadership in force.
    pub epoch: Epoch,
    /// The present.
    pub now: UnixMicros,
    /// Arrays that came further, and tasks that went with theirs: what waits for them is still to be settled.
    pub(super) reached: Vec<(JobId, JobState)>,
    /// Tasks of arrays that were cancelled before they started: what waits for each of them is still to be settled.
    pub(super) dropped: Vec<(JobId, TaskSet)>,
    changes: Vec<Change>,
}

impl<'a> Draft<'a> {
    /// An empty draft.
    #[must_use]
    pub fn new(world: &'a mut World, policy: &'a Policy, epoch: Epoch, now: UnixMicros) -> Self {
        let (reached, dropped, changes) = Default::default();
        Draft { world, policy, epoch, now, reached, dropped, changes }
    }

    /// Everything drafted, in order.
    #[must_use]
    pub fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    /// Drafts one change.
    pub(super) fn push(&mut self, change: Change) {
        self.world.apply(&change);
        self.changes.push(change);
    }

    /// Drafts a job's new status, and what that makes of the array that it is a task of.
    pub(super) fn move_job(&mut self, id: JobId, status: JobStatus) {
        let task = self.world.jobs.get(&id).and_then(|job| Some((job.array?, job.status.state)));
        let state = status.state;
        self.push(Change::JobMoved { id, status: Arc::new(status) });
        if let Some((array, before)) = task {
            self.follow_task(array, before, state);
        }
    }

    /// The state that a job was moved to last in this draft.
    pub(super) fn last_state(&self, of: JobId) -> Option<JobState> {
        self.changes.iter().rev().find_map(|change| match change {
            Change::JobMoved { id, status } if *id == of => Some(status.state),
            _ => None,
        })
    }

    /// Drafts an attempt's new state.
    pub(super) fn move_attempt(&mut self, attempt: Attempt) {
        self.push(Change::AttemptMoved(Arc::new(attempt)));
    }

    /// Drafts something to tell about a job.
    pub(super) fn tell_job(
        &mut self,
        id: JobId,
        attempt: u32,
        state: JobState,
        kind: EventKind,
        text: impl Into<String>,
    ) {
        self.tell(Subject::Job { id, attempt, state }, kind, text.into());
    }

    /// Drafts something to tell about a node.
    pub(super) fn tell_node(&mut self, node: &NodeName, kind: EventKind, text: impl Into<String>) {
        self.tell(Subject::Node(node.clone()), kind, text.into());
    }

    /// Drafts something to tell.
    pub(super) fn tell(&mut self, subject: Subject, kind: EventKind, text: String) {
        let seq = self.world.sequences.next_event;
        let event = Event { seq, at: self.now, subject, kind, text };
        self.push(Change::Happened(Arc::new(event)));
    }

    /// Drafts lines of the ledger for an attempt that has GPUs.
    pub(super) fn book(&mut self, attempt: &Attempt, class: &GpuClass, lines: Vec<Line>) {
        for Line { kind, amount, counter, stretch } in lines {
            self.push(Change::Booked(LedgerEntry {
                seq: self.world.sequences.next_entry,
                at: self.now,
                kind,
                project: attempt.project.clone(),
                class: class.clone(),
                amount,
                attempt: attempt.id,
                counter,
                stretch,
            }));
        }
    }
}
