//! Applying changes to the world, and keeping what follows from them.

use std::sync::Arc;

use crate::amount::UnixMicros;

use super::{Node, QueueKey, World};
use crate::account::Pace;
use crate::attempt::{Attempt, AttemptState};
use crate::change::Change;
use crate::ids::{AttemptId, JobId, NodeName};
use crate::job::{Job, JobState, JobStatus};
use crate::meter;
use crate::node::{Admin, Inventory};
use crate::quota::Approval;
use crate::step::Task;

impl World {
    /// Applies one change. Never fails: a change about something unknown is ignored, so that replicas cannot
    /// differ by what they choose to refuse.
    pub fn apply(&mut self, change: &Change) {
        self.version += 1;
        match change {
            Change::JobSubmitted(job) => {
                self.sequences.next_job = self.sequences.next_job.max(job.last_id().0 + 1);
                self.people.enter(job);
                self.insert_job(Arc::clone(job));
            }
            Change::JobMoved { id, status } => self.move_job(*id, status),
            Change::AttemptLeased(attempt) => self.take(attempt),
            Change::AttemptMoved(attempt) => self.move_attempt(attempt),
            Change::StepCreated(step) => {
                self.steps.insert((step.attempt, step.number), Arc::clone(step));
            }
            Change::TaskMoved { attempt, step, task } => self.move_task(*attempt, *step, task),
            Change::PassRecorded(record) => {
                self.sequences.next_pass = self.sequences.next_pass.max(record.number + 1);
            }
            Change::Booked(entry) => {
                self.sequences.next_entry = self.sequences.next_entry.max(entry.seq + 1);
                self.accounts.enter(&entry.project, entry.stretch.account, entry.used());
                self.expect_alerts(&entry.project);
            }
            Change::NodeRegistered(inventory) => self.register(inventory),
            Change::NodeAdministered { node, admin } => {
                self.with_node(node, |node| node.admin = admin.clone());
            }
            Change::NodeHealth { node, health, changes_room } => {
                self.with_node(node, |node| node.health = Arc::clone(health));
                if *changes_room {
                    self.recompute_known(node);
                }
            }
            Change::BreakerMoved(breaker) => {
                self.breakers.insert(breaker.scope.clone(), Arc::clone(breaker));
            }
            Change::WindowMoved(window) => self.put_window(window),
            Change::NodeHeard { node, liveness, at } => self.with_node(node, |node| {
                node.liveness = *liveness;
                node.liveness_since = *at;
                node.awaited = false;
            }),
            Change::NodeLeftovers { node, attempts } => {
                self.with_node(node, |node| node.leftovers = attempts.iter().copied().collect());
            }
            Change::QuotaApplied { book, at } => {
                self.book = Arc::clone(book);
                self.audit.approvals.retain(|approval| approval.base_revision == book.revision);
                self.turn_quota(*at);
            }
            Change::QuotaAudited(entry) => self.audit.enter(entry),
            Change::QuotaApproved(approval) => {
                self.audit.approvals.push(Approval::clone(approval));
            }
            Change::QuotaAlerted(alert) => {
                self.alerts.tell(alert);
                self.expect_alerts(&alert.node);
            }
            Change::QuotaTurned { at } => self.turn_quota(*at),
            Change::Happened(event) => {
                self.sequences.next_event = self.sequences.next_event.max(event.seq + 1);
            }
        }
    }

    /// Puts in force what the quota book says for that moment.
    pub(super) fn turn_quota(&mut self, at: UnixMicros) {
        self.quota = Arc::new(self.book.at(at));
        self.quota_until = self.book.next_change(at);
        let dues = self.attempts.values().filter_map(|attempt| self.due_of(attempt));
        self.dues = dues.collect();
        self.expect_all_alerts();
    }

    /// Applies a list of changes in order.
    pub fn apply_all<'a>(&mut self, changes: impl IntoIterator<Item = &'a Change>) {
        for change in changes {
            self.apply(change);
        }
    }

    pub(super) fn insert_job(&mut self, job: Arc<Job>) {
        if job.status.state.is_terminal() {
            return;
        }
        if job.is_array() {
            self.link_array(&job);
            self.arrays.insert(job.id, job);
        } else {
            self.link(&job);
            self.jobs.insert(job.id, job);
        }
    }

    fn move_job(&mut self, id: JobId, status: &Arc<JobStatus>) {
        let mut job = if let Some(job) = self.jobs.remove(&id) {
            self.unlink(&job);
            job
        } else if let Some(array) = self.arrays.remove(&id) {
            self.unlink_array(&array);
            array
        } else {
            return;
        };
        // Other worlds may share it as it was.
        Arc::make_mut(&mut job).status = JobStatus::clone(status);
        if job.status.state.is_terminal() {
            self.people.leave(&job);
        }
        self.insert_job(job);
    }

    /// Enters the job into the queue, the counts and the list of those that wait for others.
    fn link(&mut self, job: &Job) {
        let project = &job.spec.project;
        self.scavengers += u64::from(job.spec.scavenger);
        self.requests.count(job, 1, true);
        match job.status.state {
            JobState::Pending => {
                self.queue.insert(QueueKey::of(job));
                self.cohorts.insert(job);
                self.usage.count_waiting(project, 1, true);
                self.deadlines.extend(start_of(job));
            }
            JobState::Held => {
                self.usage.count_waiting(project, 1, true);
                self.deadlines.extend(start_of(job));
            }
            JobState::Starting | JobState::Running => self.usage.count_active(project, true),
            JobState::Completed | JobState::Failed | JobState::Cancelled | JobState::TimedOut => {}
        }
        self.link_dependencies(job);
    }

    /// It need not start by any moment any more.
    pub(super) fn drop_deadline(&mut self, job: &Job) {
        if let Some(start) = start_of(job) {
            self.deadlines.remove(&start);
        }
    }

    /// Enters the job into the list of those that wait for others.
    pub(super) fn link_dependencies(&mut self, job: &Job) {
        for dependency in &job.status.waits_for {
            self.dependents.entry(dependency.job).or_default().insert(job.id);
        }
    }

    fn unlink(&mut self, job: &Job) {
        let project = &job.spec.project;
        self.scavengers = self.scavengers.saturating_sub(u64::from(job.spec.scavenger));
        self.requests.count(job, 1, false);
        match job.status.state {
            JobState::Pending => {
                self.queue.remove(&QueueKey::of(job));
                self.cohorts.remove(job);
                self.usage.count_waiting(project, 1, false);
                self.drop_deadline(job);
            }
            JobState::Held => {
                self.usage.count_waiting(project, 1, false);
                self.drop_deadline(job);
            }
            JobState::Starting | JobState::Running => self.usage.count_active(project, false),
            JobState::Completed | JobState::Failed | JobState::Cancelled | JobState::TimedOut => {}
        }
        self.unlink_dependencies(job);
    }

    /// Takes the job out of the list of those that wait for others.
    pub(super) fn unlink_dependencies(&mut self, job: &Job) {
        for dependency in &job.status.waits_for {
            if let Some(waiting) = self.dependents.get_mut(&dependency.job) {
                waiting.remove(&job.id);
                if waiting.is_empty() {
                    self.dependents.remove(&dependency.job);
                }
            }
        }
    }

    /// Enters an attempt and takes what it holds.
    pub(super) fn take(&mut self, attempt: &Arc<Attempt>) {
        if self.attempts.insert(attempt.id, Arc::clone(attempt)).is_some() {
            return;
        }
        for allocation in &attempt.placement.nodes {
            self.with_node(&allocation.node, |node| node.take(attempt.id, allocation));
        }
        self.imex.take(attempt);
        self.usage.begin(attempt);
        self.history.begin(attempt);
        self.count_in(attempt);
    }

    /// Counts what is set aside for the attempt, and when it must be settled.
    fn count_in(&mut self, attempt: &Attempt) {
        self.accounts.hold(&attempt.project, attempt.held_ngh());
        self.accounts.begin(&attempt.project, Pace::of(attempt));
        self.dues.extend(self.due_of(attempt));
        self.expect_alerts(&attempt.project);
    }

    fn count_out(&mut self, attempt: &Attempt) {
        self.accounts.release(&attempt.project, attempt.held_ngh());
        self.accounts.stop(&attempt.project, Pace::of(attempt));
        self.expect_alerts(&attempt.project);
        if let Some(due) = self.due_of(attempt) {
            self.dues.remove(&due);
        }
    }

    fn due_of(&self, attempt: &Attempt) -> Option<(UnixMicros, AttemptId)> {
        Some((meter::due(&self.book, attempt)?, attempt.id))
    }

    fn move_attempt(&mut self, attempt: &Arc<Attempt>) {
        let Some(before) = self.attempts.get(&attempt.id).cloned() else {
            return;
        };
        let same_meter = (before.hold, &before.meter) == (attempt.hold, &attempt.meter);
        if !same_meter || attempt.state == AttemptState::Ended {
            self.count_out(&before);
        }
        match attempt.state {
            AttemptState::Ended => self.give_back(attempt),
            AttemptState::Leased
            | AttemptState::Accepted
            | AttemptState::Prolog
            | AttemptState::Running
            | AttemptState::Stopping => {
                self.attempts.insert(attempt.id, Arc::clone(attempt));
                if !same_meter {
                    self.count_in(attempt);
                }
            }
        }
    }

    fn give_back(&mut self, attempt: &Attempt) {
        self.attempts.remove(&attempt.id);
        let first = (attempt.id, 0);
        let last = (attempt.id, u32::MAX);
        let steps: Vec<_> = self.steps.range(first..=last).map(|(key, _)| *key).collect();
        for key in steps {
            self.steps.remove(&key);
        }
        for allocation in &attempt.placement.nodes {
            self.with_node(&allocation.node, |node| node.give_back(attempt.id, allocation));
            self.recompute_if_oversubscribed(&allocation.node);
        }
        self.imex.give_back(attempt);
        self.usage.end(attempt);
        self.history.end(attempt);
    }

    fn move_task(&mut self, attempt: AttemptId, step: u32, task: &Arc<Task>) {
        let Some(step) = self.steps.get_mut(&(attempt, step)) else { return };
        let step = Arc::make_mut(step);
        if let Some(place) = step.tasks.iter_mut().find(|place| place.rank == task.rank) {
            *place = Task::clone(task);
        }
    }

    fn register(&mut self, inventory: &Arc<Inventory>) {
        if self.nodes.contains_key(&inventory.node) {
            self.recompute(inventory);
        } else {
            self.enter_node(Node::new(Arc::clone(inventory), Admin::Active, Arc::default()));
        }
    }

    pub(super) fn enter_node(&mut self, node: Node) {
        let name = node.inventory.node.clone();
        if node.has_gpus_left() {
            self.with_gpus_left.insert(name.clone());
        }
        self.nodes.insert(name.clone(), node);
        self.recount_power(&name);
    }

    fn recompute_if_oversubscribed(&mut self, name: &NodeName) {
        if self.nodes.get(name).is_some_and(Node::is_oversubscribed) {
            self.recompute_known(name);
        }
    }

    /// Finds anew what is free on a node with the inventory that it has.
    fn recompute_known(&mut self, name: &NodeName) {
        if let Some(registered) = self.nodes.get(name).map(|node| Arc::clone(&node.registered)) {
            self.recompute(&registered);
        }
    }

    /// Gives a known node this inventory, and what is free on it beside what its attempts hold.
    fn recompute(&mut self, inventory: &Arc<Inventory>) {
        let Some(node) = self.nodes.get(&inventory.node) else { return };
        let attempts = node.attempts.iter().filter_map(|id| self.attempts.get(id).cloned());
        let attempts: Vec<Arc<Attempt>> = attempts.collect();
        self.with_node(&inventory.node, |node| {
            let held = attempts.iter().flat_map(|attempt| &attempt.placement.nodes);
            let held = held.filter(|allocation| allocation.node == inventory.node);
            node.reregister(Arc::clone(inventory), held);
        });
    }

    fn with_node(&mut self, name: &NodeName, change: impl FnOnce(&mut Node)) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        let before = node.has_gpus_left();
        change(node);
        match (before, node.has_gpus_left()) {
            (false, true) => _ = self.with_gpus_left.insert(name.clone()),
            (true, false) => _ = self.with_gpus_left.remove(name),
            (true, true) | (false, false) => {}
        }
        self.recount_power(name);
    }
}

/// By when it must start, if it has a deadline.
pub(super) fn start_of(job: &Job) -> Option<(UnixMicros, JobId)> {
    Some((job.starts_by()?, job.id))
}
