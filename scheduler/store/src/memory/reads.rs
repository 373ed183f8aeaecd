//! What is read of a store in memory: plain searches through everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotgan_core::alert::Alert;
use gotgan_core::amount::{GpuMilliSeconds, Ngh, UnixMicros};
use gotgan_core::attempt::{Attempt, AttemptState};
use gotgan_core::change::{Event, Subject};
use gotgan_core::fairshare::{HalfLife, HeldFor, History};
use gotgan_core::ids::{
    AttemptId, GpuClass, IdempotencyKey, JobId, NodeName, ProjectPath, UserName,
};
use gotgan_core::job::{Job, JobState};
use gotgan_core::ledger::{CounterAccount, LedgerEntry, LedgerKind};
use gotgan_core::quota::audit::{AuditEntry, ChainHead, Source};
use gotgan_core::quota::{Interval, QuotaBook};
use gotgan_core::window::{Window, WindowState};
use gotgan_core::world::{QuotaAudit, Sequences, Snapshot, Used};

use super::Tables;
use crate::audit::Audit;
use crate::consistency::{self, Chain, Occupied};
use crate::{
    Balance, JobDetail, JobFilter, LedgerAudit, LedgerFilter, Page, RecordedSubmission,
    StartRecord, TaskFilter, Verification,
};

/// As many reservations that are over as a world remembers.
const ENDED_MAX: usize = 1000;
/// The setting of a restored backup that says which numbers may have been given out.
const SKIPPED: &str = "jobs_skipped_until";

impl Tables {
    /// Everything a world is rebuilt from.
    #[must_use]
    pub fn load(&self, half_life: HalfLife, now: UnixMicros) -> Snapshot {
        let attempts = self.living_attempts();
        let lives = |id: &AttemptId| attempts.iter().any(|attempt| attempt.id == *id);
        let steps = self.steps.values().filter(|step| lives(&step.attempt));
        let steps = steps.cloned().collect();
        Snapshot {
            sequences: self.sequences(),
            nodes: self.nodes.values().cloned().collect(),
            breakers: self.breakers.values().cloned().collect(),
            book: self
                .books
                .last_key_value()
                .map(|(_, (book, _))| Arc::clone(book))
                .unwrap_or_default(),
            audit: self.quota_audit(),
            jobs: self.living_jobs(),
            attempts,
            steps,
            history: self.history(half_life, now),
            used: self.used(),
            alerts: self.last_alerts(),
            windows: self.live_windows(),
            power: Arc::default(),
        }
    }

    fn living_jobs(&self) -> Vec<Arc<Job>> {
        let living = self.jobs.values().filter(|job| !job.status.state.is_terminal());
        living.cloned().map(Arc::new).collect()
    }

    fn living_attempts(&self) -> Vec<Attempt> {
        let lives = |attempt: &&Attempt| attempt.state != AttemptState::Ended;
        self.attempts.values().filter(lives).cloned().collect()
    }

    fn sequences(&self) -> Sequences {
        fn next<V>(rows: &BTreeMap<u64, V>) -> u64 {
            rows.last_key_value().map_or(0, |(last, _)| *last) + 1
        }
        let skipped = self.settings.get(SKIPPED).and_then(|text| text.parse().ok()).unwrap_or(0);
        let last_job = self.jobs.values().map(|job| job.last_id().0).max().unwrap_or(0);
        Sequences {
            next_job: last_job.max(skipped) + 1,
            next_event: next(&self.events),
            next_entry: next(&self.ledger),
            next_window: self.windows.last_key_value().map_or(0, |(last, _)| last.0) + 1,
            next_pass: next(&self.passes),
        }
    }

    fn quota_audit(&self) -> QuotaAudit {
        let mut audit = QuotaAudit::default();
        let filed_later = |entry: &AuditEntry| {
            let mut later = self.audited.range(entry.seq + 1..).map(|(_, later)| later);
            later.any(|later| later.source == Source::Files && later.subject == entry.subject)
        };
        for entry in self.audited.values() {
            if entry.source == Source::Command && !filed_later(entry) {
                audit.enter(entry);
            }
        }
        audit.head = ChainHead::default();
        if let Some((_, last)) = self.audited.last_key_value() {
            audit.head.pass(last);
        }
        let revision = self.books.last_key_value().map_or(0, |(revision, _)| *revision);
        let counts = self.approvals.values().filter(|it| it.base_revision == revision);
        audit.approvals = counts.cloned().collect();
        audit.approvals.sort_by(|a, b| (a.at, &a.plan, &a.by).cmp(&(b.at, &b.plan, &b.by)));
        audit
    }

    fn lines_of(&self, id: AttemptId) -> impl Iterator<Item = &LedgerEntry> {
        self.lines.get(&id).into_iter().flatten().filter_map(|seq| self.ledger.get(seq))
    }

    fn history(&self, half_life: HalfLife, now: UnixMicros) -> History {
        let since = half_life.remembered_since(now);
        let mut history = History::new(half_life);
        for attempt in self.attempts.values() {
            let (Some(until), Some(class)) = (attempt.ended, &attempt.placement.class) else {
                continue;
            };
            let weightless = self.lines_of(attempt.id).any(|it| it.stretch.weight_milli == 0);
            if until < since || attempt.gpus().0 == 0 || weightless {
                continue;
            }
            let refunded = self
                .lines_of(attempt.id)
                .any(|it| it.kind == LedgerKind::Refund && it.counter != CounterAccount::Pool);
            history.add(&HeldFor {
                project: attempt.project.clone(),
                class: class.clone(),
                gpus: attempt.gpus(),
                from: attempt.leased,
                until,
                refunded,
            });
        }
        history
    }

    fn used(&self) -> Vec<Used> {
        let mut sums: BTreeMap<(&ProjectPath, UnixMicros, u32), i64> = BTreeMap::new();
        for entry in self.ledger.values() {
            let sign = match entry.kind {
                LedgerKind::Charge | LedgerKind::Overuse => 1,
                LedgerKind::Refund => -1,
                LedgerKind::Hold | LedgerKind::Release => continue,
            };
            let place = (&entry.project, entry.stretch.account, entry.stretch.weight_milli);
            *sums.entry(place).or_default() += sign * entry.amount.0;
        }
        let used = sums.into_iter().map(|((project, account, weight_milli), amount)| Used {
            project: project.clone(),
            account,
            ngh: Ngh::of(GpuMilliSeconds(amount), weight_milli),
        });
        used.collect()
    }

    fn last_alerts(&self) -> Vec<Alert> {
        let mut last: BTreeMap<(&ProjectPath, u32), &Alert> = BTreeMap::new();
        for alert in self.alerts.values() {
            last.insert((&alert.node, alert.percent), alert);
        }
        let mut last: Vec<Alert> = last.into_values().cloned().collect();
        last.sort_by_key(|alert| alert.seq);
        last
    }

    fn live_windows(&self) -> Vec<Window> {
        let counts = |it: &Window| matches!(it.state, WindowState::Planned | WindowState::Open);
        let ended = self.windows.values().rev().filter(|it| it.reserved.is_some() && !counts(it));
        let remembered: Vec<_> = ended.take(ENDED_MAX).map(|window| window.id).collect();
        let wanted = |it: &&Window| counts(it) || remembered.contains(&it.id);
        self.windows.values().filter(wanted).cloned().collect()
    }

    pub(super) fn submissions(
        &self,
        keys: &[(UserName, IdempotencyKey)],
    ) -> Vec<RecordedSubmission> {
        let found = keys.iter().filter_map(|key| self.jobs.get(self.keys.get(key)?));
        let mut found: Vec<RecordedSubmission> = found.map(submission).collect();
        found.sort_by_key(|it| it.job);
        found
    }

    pub(super) fn recent_submissions(&self, limit: u32) -> Vec<RecordedSubmission> {
        let submitted = self.jobs.values().rev().filter(|job| job.array.is_none());
        submitted.take(limit as usize).map(submission).collect()
    }

    /// The array among whose numbers this one is.
    fn array_over(&self, id: JobId) -> Option<&Job> {
        let before = self.jobs.range(..id).rev().map(|(_, job)| job);
        let mut arrays = before.filter(|job| job.is_array());
        arrays.next().filter(|array| id <= array.last_id())
    }

    fn folded_task(&self, id: JobId) -> Option<Job> {
        let array = self.array_over(id)?;
        array.folded_task(id).or_else(|| array.dropped_task(id))
    }

    /// State of a job, or of a task of an array.
    #[must_use]
    pub fn state(&self, id: JobId) -> Option<JobState> {
        let own = self.jobs.get(&id).map(|job| job.status.state);
        own.or_else(|| Some(self.folded_task(id)?.status.state))
    }

    pub(super) fn task_states(&self, array: JobId) -> BTreeMap<JobId, JobState> {
        let Some(array) = self.jobs.get(&array).filter(|job| job.is_array()) else {
            return BTreeMap::new();
        };
        let tasks = (array.id.0 + 1..=array.last_id().0).map(JobId);
        tasks.filter_map(|id| Some((id, self.state(id)?))).collect()
    }

    fn attempts_of(&self, job: JobId) -> impl DoubleEndedIterator<Item = &Attempt> {
        let (first, last) = (AttemptId { job, number: 0 }, AttemptId { job, number: u32::MAX });
        self.attempts.range(first..=last).map(|(_, attempt)| attempt)
    }

    pub(super) fn job(&self, id: JobId) -> Option<JobDetail> {
        let Some(job) = self.jobs.get(&id) else {
            return self.folded_task(id).map(JobDetail::of);
        };
        let mut detail = self.paid(JobDetail::of(job.clone()));
        detail.attempts = self.attempts_of(id).cloned().collect();
        let of_job = self.steps.range((AttemptId { job: id, number: 0 }, 0)..);
        let of_job = of_job.take_while(|((attempt, _), _)| attempt.job == id);
        detail.steps = of_job.map(|(_, step)| Arc::new(step.clone())).collect();
        Some(detail)
    }

    /// With what its attempts paid.
    fn paid(&self, mut detail: JobDetail) -> JobDetail {
        for attempt in self.attempts_of(detail.job.id) {
            let (mut charged, mut refunded) = (0, 0);
            for entry in self.lines_of(attempt.id) {
                match entry.kind {
                    LedgerKind::Charge | LedgerKind::Overuse => charged += entry.amount.0,
                    LedgerKind::Refund => refunded += entry.amount.0,
                    LedgerKind::Hold | LedgerKind::Release => {}
                }
            }
            let number = attempt.id.number;
            if charged != 0 {
                detail.charged.push((number, GpuMilliSeconds(charged)));
            }
            if refunded != 0 {
                detail.refunded.push((number, GpuMilliSeconds(refunded)));
            }
            detail.paid += GpuMilliSeconds(charged - refunded);
        }
        detail
    }

    pub(super) fn list(&self, filter: &JobFilter, page: &Page) -> Vec<JobDetail> {
        let before = page.after.unwrap_or(u64::MAX);
        let jobs = self.jobs.range(..JobId(before)).rev().map(|(_, job)| job);
        let found = jobs.filter(|job| passes(filter, job)).take(page.size as usize);
        let detail = |job: &Job| {
            let mut detail = self.paid(JobDetail::of(job.clone()));
            (detail.charged, detail.refunded) = Default::default();
            detail.attempts = self.attempts_of(job.id).next_back().cloned().into_iter().collect();
            detail
        };
        found.map(detail).collect()
    }

    pub(super) fn start_record(&self, attempt: AttemptId) -> Option<StartRecord> {
        let (pass, start) = self.turns.get(&attempt)?;
        let record = self.passes.get(pass)?;
        let (epoch, sheet) = (record.epoch, record.sheet.clone());
        Some(StartRecord { pass: *pass, epoch, sheet, start: start.clone() })
    }

    pub(super) fn events(&self, after: u64, jobs: Option<&[JobId]>, limit: u32) -> Vec<Event> {
        let is_wanted = |event: &&Arc<Event>| match (&event.subject, jobs) {
            (_, None) => true,
            (Subject::Job { id, .. }, Some(jobs)) => jobs.contains(id),
            (Subject::Node(_) | Subject::Quota, Some(_)) => false,
        };
        let later = self.events.range(after.saturating_add(1)..).map(|(_, event)| event);
        later.filter(is_wanted).take(limit as usize).map(|event| Event::clone(event)).collect()
    }

    pub(super) fn events_of_node(&self, node: &NodeName, limit: u32) -> Vec<Event> {
        let is_of = |event: &&Arc<Event>| event.subject == Subject::Node(node.clone());
        let newest = self.events.values().rev().filter(is_of);
        newest.take(limit as usize).map(|event| Event::clone(event)).collect()
    }

    pub(super) fn entries(&self, filter: &LedgerFilter, page: &Page) -> Vec<LedgerEntry> {
        let is_wanted = |entry: &&LedgerEntry| {
            filter.job.is_none_or(|job| job == entry.attempt.job)
                && (filter.within.is_empty() || is_in(&filter.within, &entry.project))
        };
        self.entries_after(page).filter(is_wanted).take(page.size as usize).cloned().collect()
    }

    fn entries_after(&self, page: &Page) -> impl Iterator<Item = &LedgerEntry> {
        self.ledger.range(page.after.unwrap_or(0) + 1..).map(|(_, entry)| entry)
    }

    pub(super) fn statement(
        &self,
        node: &ProjectPath,
        accounts: Interval,
        page: &Page,
    ) -> Vec<LedgerEntry> {
        let is_wanted = |entry: &&LedgerEntry| {
            let account = entry.stretch.account;
            entry.project.is_within(node.as_str())
                && accounts.from <= account
                && account < accounts.until
        };
        self.entries_after(page).filter(is_wanted).take(page.size as usize).cloned().collect()
    }

    pub(super) fn alerts(&self, within: &[ProjectPath], page: &Page) -> Vec<Alert> {
        let later = self.alerts.range(page.after.unwrap_or(0) + 1..).map(|(_, alert)| alert);
        let wanted = later.filter(|alert| within.is_empty() || is_in(within, &alert.node));
        wanted.take(page.size as usize).cloned().collect()
    }

    pub(super) fn audited(&self, subject: Option<&str>, page: &Page) -> Vec<AuditEntry> {
        let later = self.audited.range(page.after.unwrap_or(0) + 1..).map(|(_, entry)| entry);
        let wanted = later.filter(|entry| subject.is_none_or(|subject| entry.subject == subject));
        wanted.take(page.size as usize).cloned().collect()
    }

    pub(super) fn quota_at(&self, at: UnixMicros) -> Option<QuotaBook> {
        let mut in_force = self.books.values().rev().filter(|(_, applied)| *applied <= at);
        in_force.next().map(|(book, _)| QuotaBook::clone(book))
    }

    pub(super) fn balances(&self, within: Option<&ProjectPath>) -> Vec<Balance> {
        let mut sums: BTreeMap<(ProjectPath, GpuClass), Balance> = BTreeMap::new();
        let is_wanted =
            |entry: &&LedgerEntry| within.is_none_or(|path| entry.project.is_within(path.as_str()));
        for entry in self.ledger.values().filter(is_wanted) {
            let place = (entry.project.clone(), entry.class.clone());
            let sum = sums.entry(place).or_insert_with(|| Balance {
                project: entry.project.clone(),
                class: entry.class.clone(),
                charged: GpuMilliSeconds(0),
                overuse: GpuMilliSeconds(0),
                refunded: GpuMilliSeconds(0),
                held: GpuMilliSeconds(0),
            });
            match entry.kind {
                LedgerKind::Hold => sum.held.0 += entry.amount.0,
                LedgerKind::Release => sum.held.0 -= entry.amount.0,
                LedgerKind::Charge => sum.charged.0 += entry.amount.0,
                LedgerKind::Overuse => {
                    sum.charged.0 += entry.amount.0;
                    sum.overuse.0 += entry.amount.0;
                }
                LedgerKind::Refund => sum.refunded.0 += entry.amount.0,
            }
        }
        sums.into_values().collect()
    }

    /// Recomputes the ledger from the attempts.
    #[must_use]
    pub fn audit_ledger(&self) -> LedgerAudit {
        let mut audit = Audit::default();
        let attempts: Vec<Attempt> = self.attempts.values().cloned().collect();
        let mut lines: Vec<LedgerEntry> = self.ledger.values().cloned().collect();
        lines.sort_by_key(|entry| (entry.attempt.job, entry.seq));
        audit.compare(&attempts, &lines);
        let orphans = lines.into_iter().filter(|line| !self.attempts.contains_key(&line.attempt));
        let orphans: Vec<LedgerEntry> = orphans.take(LedgerAudit::DIFFERENCES_MAX).collect();
        audit.report_orphans(&orphans);
        audit.finish()
    }

    /// Holds everything against itself.
    #[must_use]
    pub fn verify(&self) -> Verification {
        let mut found = Verification::default();
        let ledger = self.audit_ledger();
        found.attempts = ledger.attempts;
        ledger.differences.into_iter().for_each(|text| found.differ(format!("ledger: {text}")));
        let occupied = self.occupied.iter();
        let occupied =
            occupied.map(|((node, gpu), milli)| (node.to_string(), gpu.to_string(), *milli));
        let occupied: Vec<Occupied> = occupied.collect();
        consistency::leases(&mut found, &self.living_jobs(), &self.living_attempts(), &occupied);
        let mut chain = Chain::default();
        let entries: Vec<AuditEntry> = self.audited.values().cloned().collect();
        chain.take(&mut found, &entries);
        chain.finish(&mut found);
        for (book, _) in self.books.values() {
            chain.compare(&mut found, QuotaBook::clone(book));
        }
        found
    }
}

fn submission(job: &Job) -> RecordedSubmission {
    let (owner, key) = (job.owner.clone(), job.key.clone());
    RecordedSubmission { owner, key, digest: job.digest.clone(), job: job.id }
}

fn is_in(paths: &[ProjectPath], project: &ProjectPath) -> bool {
    paths.iter().any(|path| project.is_within(path.as_str()))
}

fn passes(filter: &JobFilter, job: &Job) -> bool {
    let tasks = match filter.tasks {
        TaskFilter::Beside => true,
        TaskFilter::Without => job.array.is_none(),
        TaskFilter::Of(array) => job.array == Some(array),
    };
    let project = &job.spec.project;
    tasks
        && (filter.states.is_empty() || filter.states.contains(&job.status.state))
        && (filter.within.is_empty() || is_in(&filter.within, project))
        && filter.project.as_ref().is_none_or(|path| project.is_within(path.as_str()))
        && filter.owner.as_ref().is_none_or(|owner| *owner == job.owner)
        && filter.name.as_ref().is_none_or(|name| *name == job.spec.name)
        && (filter.ids.is_empty() || filter.ids.contains(&job.id))
}
