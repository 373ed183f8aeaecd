//! Writing a round: everything that a database would refuse is looked for first, and then all of it is written.

use std::collections::BTreeSet;
use std::sync::Arc;

use gotgan_core::attempt::AttemptState;
use gotgan_core::change::Change;
use gotgan_core::health::NodeHealth;
use gotgan_core::ids::{AttemptId, Epoch, JobId};
use gotgan_core::job::Job;
use gotgan_core::node::Admin;

use super::Tables;
use crate::groups::Groups;
use crate::sheets::Target;
use crate::{JoinTokenRecord, Result, Round, StoreError};

/// Thousandths of a GPU that there are.
const WHOLE_GPU_MILLI: i64 = 1000;

fn refuse_if(refused: bool, why: impl FnOnce() -> String) -> Result<()> {
    if refused { Err(StoreError::Conflict(why())) } else { Ok(()) }
}

fn refuse(refused: bool, target: Target) -> Result<()> {
    refuse_if(refused, || target.refusal().to_owned())
}

impl Tables {
    pub(super) fn commit(&mut self, epoch: Epoch, round: &Round) -> Result<()> {
        let groups = Groups::of(&round.changes)?;
        self.check_epoch(epoch)?;
        self.check_jobs(&groups)?;
        self.check_attempts(&groups)?;
        self.check_steps(&groups)?;
        self.check_records(&groups)?;
        self.check_site(&groups)?;
        self.check_access(round)?;
        self.write_work(&groups);
        self.write_records(&round.changes);
        self.write_site(&groups);
        self.write_access(round);
        Ok(())
    }

    fn check_jobs(&self, groups: &Groups<'_>) -> Result<()> {
        let mut keys = BTreeSet::new();
        for (job, _) in groups.jobs.values() {
            refuse_if(self.jobs.contains_key(&job.id), || format!("job {} is there", job.id))?;
            let key = (job.owner.clone(), job.key.clone());
            let used = self.keys.contains_key(&key) || !keys.insert(key);
            refuse_if(used, || format!("the key of job {} was used before", job.id))?;
        }
        let may_move =
            |id: &JobId| self.jobs.get(id).is_some_and(|job| !job.status.state.is_terminal());
        refuse(!groups.moved_jobs.keys().all(may_move), Target::MovedJobs)
    }

    fn check_attempts(&self, groups: &Groups<'_>) -> Result<()> {
        for id in groups.attempts.keys() {
            refuse_if(self.attempts.contains_key(id), || format!("attempt {id} is there"))?;
            let has_job = self.jobs.contains_key(&id.job) || groups.jobs.contains_key(&id.job);
            refuse_if(!has_job, || format!("attempt {id} has no job"))?;
        }
        let may_move = |id: &AttemptId| {
            self.attempts.get(id).is_some_and(|attempt| attempt.state != AttemptState::Ended)
        };
        refuse(!groups.moved_attempts.keys().all(may_move), Target::MovedAttempts)?;
        for ((node, uuid), delta) in groups.gpu_deltas() {
            let before = self.occupied.get(&(node.clone(), uuid.clone())).copied();
            refuse(delta < 0 && before.is_none(), Target::GpusGivenBack)?;
            let after = before.unwrap_or(0).saturating_add(delta);
            let fits = (0..=WHOLE_GPU_MILLI).contains(&after);
            refuse_if(!fits, || format!("GPU {uuid} would be given out by {after} thousandths"))?;
        }
        Ok(())
    }

    fn has_attempt(&self, groups: &Groups<'_>, id: AttemptId) -> bool {
        self.attempts.contains_key(&id) || groups.attempts.contains_key(&id)
    }

    fn check_steps(&self, groups: &Groups<'_>) -> Result<()> {
        for key in groups.steps.keys() {
            let wrong = self.steps.contains_key(key) || !self.has_attempt(groups, key.0);
            refuse_if(wrong, || format!("step {} of attempt {} cannot be", key.1, key.0))?;
        }
        let is_known = |(attempt, step, rank): &(AttemptId, u32, u32)| {
            let step = self.steps.get(&(*attempt, *step));
            step.is_some_and(|step| step.tasks.iter().any(|task| task.rank == *rank))
        };
        refuse(!groups.moved_tasks.keys().all(is_known), Target::MovedTasks)
    }

    fn check_records(&self, groups: &Groups<'_>) -> Result<()> {
        for record in &groups.passes {
            refuse(self.passes.contains_key(&record.number), Target::Passes)?;
            let wrong =
                |id: AttemptId| self.turns.contains_key(&id) || !self.has_attempt(groups, id);
            refuse(record.starts.iter().any(|(id, _)| wrong(*id)), Target::StartTurns)?;
        }
        let again = groups.entries.iter().any(|entry| self.ledger.contains_key(&entry.seq));
        refuse(again, Target::Ledger)?;
        let again = groups.audited.iter().any(|entry| self.audited.contains_key(&entry.seq));
        refuse(again, Target::QuotaAudit)?;
        let key = |it: &gotgan_core::quota::Approval| (it.plan.clone(), it.by.clone());
        let again = groups.approved.iter().any(|it| self.approvals.contains_key(&key(it)));
        refuse(again, Target::QuotaApprovals)?;
        let again = groups.alerts.iter().any(|alert| self.alerts.contains_key(&alert.seq));
        refuse(again, Target::QuotaAlerts)?;
        let again = groups.events.iter().any(|event| self.events.contains_key(&event.seq));
        refuse(again, Target::Events)?;
        refuse(groups.quota.keys().any(|it| self.books.contains_key(it)), Target::Quota)
    }

    fn check_site(&self, groups: &Groups<'_>) -> Result<()> {
        let is_known = |name| self.nodes.contains_key(name) || groups.nodes.contains_key(&name);
        refuse(!groups.admins.keys().all(|name| is_known(*name)), Target::Admins)?;
        refuse(!groups.healths.keys().all(|name| is_known(*name)), Target::Healths)
    }

    fn check_access(&self, round: &Round) -> Result<()> {
        let used = |token: &JoinTokenRecord| {
            let before = self.join_tokens.get(&token.secret_sha256);
            before.is_some_and(|before| before.used.is_some() && before.used != token.used)
        };
        refuse(round.join_tokens.iter().any(used), Target::JoinTokens)?;
        let key = |it: &crate::AnsweredRequest| (it.owner.clone(), it.key.clone());
        let again = round.answered.iter().any(|it| self.answered.contains_key(&key(it)));
        refuse(again, Target::Answered)
    }

    fn write_work(&mut self, groups: &Groups<'_>) {
        for (job, status) in groups.jobs.values() {
            self.keys.insert((job.owner.clone(), job.key.clone()), job.id);
            let spec = Arc::clone(&job.spec);
            let (owner, key, digest) = (job.owner.clone(), job.key.clone(), job.digest.clone());
            let (id, submitted, array) = (job.id, job.submitted, job.array);
            let status = (*status).clone();
            self.jobs.insert(id, Job { id, owner, key, digest, submitted, spec, status, array });
        }
        for (id, status) in &groups.moved_jobs {
            if let Some(job) = self.jobs.get_mut(id) {
                job.status.clone_from(status);
            }
        }
        for ((node, uuid), delta) in groups.gpu_deltas() {
            *self.occupied.entry((node.clone(), uuid.clone())).or_default() += delta;
        }
        for attempt in groups.attempts.values().chain(groups.moved_attempts.values()) {
            self.attempts.insert(attempt.id, (*attempt).clone());
        }
        for (key, step) in &groups.steps {
            self.steps.insert(*key, (*step).clone());
        }
        for ((attempt, step, rank), task) in groups.tasks.iter().chain(&groups.moved_tasks) {
            let step = self.steps.get_mut(&(*attempt, *step));
            let place = step.and_then(|it| it.tasks.iter_mut().find(|task| task.rank == *rank));
            if let Some(place) = place {
                place.clone_from(task);
            }
        }
    }

    /// What is only ever added.
    fn write_records(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::PassRecorded(record) => {
                    for (id, turn) in &record.starts {
                        self.turns.insert(*id, (record.number, turn.clone()));
                    }
                    self.passes.insert(record.number, Arc::clone(record));
                }
                Change::Booked(entry) => {
                    self.lines.entry(entry.attempt).or_default().push(entry.seq);
                    self.ledger.insert(entry.seq, entry.clone());
                }
                Change::QuotaApplied { book, at } => {
                    self.books.insert(book.revision, (Arc::clone(book), *at));
                }
                Change::QuotaAudited(entry) => {
                    self.audited.insert(entry.seq, (**entry).clone());
                }
                Change::QuotaApproved(it) => {
                    self.approvals.insert((it.plan.clone(), it.by.clone()), (**it).clone());
                }
                Change::QuotaAlerted(alert) => {
                    self.alerts.insert(alert.seq, (**alert).clone());
                }
                Change::Happened(event) => {
                    self.events.insert(event.seq, Arc::clone(event));
                }
                Change::JobSubmitted(_)
                | Change::JobMoved { .. }
                | Change::AttemptLeased(_)
                | Change::AttemptMoved(_)
                | Change::StepCreated(_)
                | Change::TaskMoved { .. }
                | Change::NodeRegistered(_)
                | Change::NodeAdministered { .. }
                | Change::NodeHealth { .. }
                | Change::BreakerMoved(_)
                | Change::WindowMoved(_)
                | Change::NodeHeard { .. }
                | Change::NodeLeftovers { .. }
                | Change::QuotaTurned { .. } => {}
            }
        }
    }

    fn write_site(&mut self, groups: &Groups<'_>) {
        for (name, inventory) in &groups.nodes {
            let inventory = Arc::new((*inventory).clone());
            let node = self.nodes.entry((*name).clone());
            let fresh = (Arc::clone(&inventory), Admin::Active, NodeHealth::default());
            node.or_insert(fresh).0 = inventory;
        }
        for (name, admin) in &groups.admins {
            if let Some(node) = self.nodes.get_mut(*name) {
                node.1 = (*admin).clone();
            }
        }
        for (name, health) in &groups.healths {
            if let Some(node) = self.nodes.get_mut(*name) {
                node.2 = (*health).clone();
            }
        }
        for (scope, breaker) in &groups.breakers {
            self.breakers.insert((*scope).to_owned(), (*breaker).clone());
        }
        for (id, window) in &groups.windows {
            self.windows.insert(*id, (*window).clone());
        }
    }

    fn write_access(&mut self, round: &Round) {
        for token in &round.tokens {
            self.tokens.insert(token.id.clone(), token.clone());
        }
        for token in &round.join_tokens {
            self.join_tokens.insert(token.secret_sha256.clone(), token.clone());
        }
        for answer in &round.answered {
            let key = (answer.owner.clone(), answer.key.clone());
            self.answered.insert(key, answer.clone());
        }
    }
}
