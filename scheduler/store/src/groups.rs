//! The changes of a round, grouped by object: of several changes to one object the last one counts.
//!
//! Pure; says nothing about tables. [`crate::sheets`] turns the groups into rows.

use std::collections::BTreeMap;

use gotgan_core::alert::Alert;
use gotgan_core::amount::UnixMicros;
use gotgan_core::attempt::{Attempt, AttemptState, NodeAllocation};
use gotgan_core::change::{Change, Event, PassRecord};
use gotgan_core::health::{Breaker, NodeHealth};
use gotgan_core::ids::{AttemptId, GpuUuid, JobId, NodeName};
use gotgan_core::job::{Job, JobStatus};
use gotgan_core::ledger::LedgerEntry;
use gotgan_core::node::{Admin, Inventory};
use gotgan_core::quota::audit::AuditEntry;
use gotgan_core::quota::{Approval, QuotaBook};
use gotgan_core::step::{Step, Task};
use gotgan_core::window::{Window, WindowId};

use crate::{Result, StoreError};

/// Attempt, step, rank.
pub(crate) type TaskKey = (AttemptId, u32, u32);

/// A round's changes by object.
#[derive(Default)]
pub(crate) struct Groups<'r> {
    pub jobs: BTreeMap<JobId, (&'r Job, &'r JobStatus)>,
    pub moved_jobs: BTreeMap<JobId, &'r JobStatus>,
    pub attempts: BTreeMap<AttemptId, &'r Attempt>,
    pub moved_attempts: BTreeMap<AttemptId, &'r Attempt>,
    pub steps: BTreeMap<(AttemptId, u32), &'r Step>,
    pub tasks: BTreeMap<TaskKey, &'r Task>,
    pub moved_tasks: BTreeMap<TaskKey, &'r Task>,
    pub passes: Vec<&'r PassRecord>,
    pub entries: Vec<&'r LedgerEntry>,
    pub nodes: BTreeMap<&'r NodeName, &'r Inventory>,
    pub admins: BTreeMap<&'r NodeName, &'r Admin>,
    pub healths: BTreeMap<&'r NodeName, &'r NodeHealth>,
    pub breakers: BTreeMap<&'r str, &'r Breaker>,
    pub windows: BTreeMap<WindowId, &'r Window>,
    pub quota: BTreeMap<u64, (&'r QuotaBook, UnixMicros)>,
    pub audited: Vec<&'r AuditEntry>,
    pub approved: Vec<&'r Approval>,
    pub alerts: Vec<&'r Alert>,
    pub events: Vec<&'r Event>,
}

impl<'r> Groups<'r> {
    /// Groups the changes.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if something final is changed within the round.
    pub(crate) fn of(changes: &'r [Change]) -> Result<Self> {
        let mut groups = Groups::default();
        for change in changes {
            groups.add(change)?;
        }
        Ok(groups)
    }

    fn add(&mut self, change: &'r Change) -> Result<()> {
        match change {
            Change::JobSubmitted(job) => {
                let again = self.jobs.insert(job.id, (job, &job.status)).is_some();
                refuse_if(again, || format!("job {} submitted twice in one round", job.id))?;
            }
            Change::JobMoved { id, status } => self.move_job(*id, status)?,
            Change::AttemptLeased(attempt) => {
                let again = self.attempts.insert(attempt.id, attempt).is_some();
                refuse_if(again, || format!("attempt {} leased twice in one round", attempt.id))?;
            }
            Change::AttemptMoved(attempt) => self.move_attempt(attempt)?,
            Change::StepCreated(step) => self.create_step(step),
            Change::TaskMoved { attempt, step, task } => {
                self.move_task((*attempt, *step, task.rank), task);
            }
            Change::PassRecorded(record) => self.passes.push(record),
            Change::Booked(entry) => self.entries.push(entry),
            Change::NodeRegistered(inventory) => {
                self.nodes.insert(&inventory.node, inventory);
            }
            Change::NodeAdministered { node, admin } => {
                self.admins.insert(node, admin);
            }
            Change::NodeHealth { node, health, .. } => {
                self.healths.insert(node, health);
            }
            Change::BreakerMoved(breaker) => {
                self.breakers.insert(&breaker.scope, breaker);
            }
            Change::WindowMoved(window) => {
                self.windows.insert(window.id, window);
            }
            Change::QuotaApplied { book, at } => {
                self.quota.insert(book.revision, (book, *at));
            }
            Change::QuotaAudited(entry) => self.audited.push(entry),
            Change::QuotaApproved(approval) => self.approved.push(approval),
            Change::QuotaAlerted(alert) => self.alerts.push(alert),
            Change::Happened(event) => self.events.push(event),
            Change::NodeHeard { .. }
            | Change::NodeLeftovers { .. }
            | Change::QuotaTurned { .. } => {}
        }
        Ok(())
    }

    fn move_job(&mut self, id: JobId, status: &'r JobStatus) -> Result<()> {
        let before = match self.jobs.get_mut(&id) {
            Some((_, current)) => Some(std::mem::replace(current, status)),
            None => self.moved_jobs.insert(id, status),
        };
        let final_before = before.map(|status| status.state).filter(|state| state.is_terminal());
        refuse_if(final_before.is_some_and(|state| state != status.state), || {
            format!("job {id} is terminal and changes again in one round")
        })
    }

    fn move_attempt(&mut self, attempt: &'r Attempt) -> Result<()> {
        let before = match self.attempts.get_mut(&attempt.id) {
            Some(current) => Some(std::mem::replace(current, attempt)),
            None => self.moved_attempts.insert(attempt.id, attempt),
        };
        let had_ended = before.is_some_and(has_ended);
        refuse_if(had_ended && !has_ended(attempt), || {
            format!("attempt {} has ended and lives again in one round", attempt.id)
        })
    }

    fn create_step(&mut self, step: &'r Step) {
        self.steps.insert((step.attempt, step.number), step);
        for task in &step.tasks {
            self.tasks.insert((step.attempt, step.number, task.rank), task);
        }
    }

    fn move_task(&mut self, key: TaskKey, task: &'r Task) {
        match self.tasks.get_mut(&key) {
            Some(current) => *current = task,
            None => {
                self.moved_tasks.insert(key, task);
            }
        }
    }

    /// What each GPU gains (or loses) of given-out thousandths over the round; none is zero.
    pub(crate) fn gpu_deltas(&self) -> BTreeMap<(&'r NodeName, &'r GpuUuid), i64> {
        let mut deltas = BTreeMap::new();
        let taken = self.attempts.values().filter(|attempt| !has_ended(attempt));
        let given_back = self.moved_attempts.values().filter(|attempt| has_ended(attempt));
        for (attempts, sign) in [(taken.collect::<Vec<_>>(), 1), (given_back.collect(), -1)] {
            for allocation in attempts.iter().flat_map(|attempt| &attempt.placement.nodes) {
                add_gpus(&mut deltas, allocation, sign);
            }
        }
        deltas.retain(|_, delta| *delta != 0);
        deltas
    }
}

fn add_gpus<'r>(
    deltas: &mut BTreeMap<(&'r NodeName, &'r GpuUuid), i64>,
    allocation: &'r NodeAllocation,
    sign: i64,
) {
    for gpu in &allocation.gpus {
        // More than fits is more than any GPU has, so the database refuses it all the same.
        let milli = i64::try_from(gpu.milli.0).unwrap_or(i64::MAX);
        let delta = deltas.entry((&allocation.node, &gpu.uuid)).or_insert(0_i64);
        *delta = delta.saturating_add(sign * milli);
    }
}

fn has_ended(attempt: &Attempt) -> bool {
    attempt.state == AttemptState::Ended
}

fn refuse_if(refused: bool, why: impl FnOnce() -> String) -> Result<()> {
    if refused { Err(StoreError::Conflict(why())) } else { Ok(()) }
}
