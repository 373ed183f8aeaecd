//! The world: everything the planner and the commands look at, as the sum of all changes so far.
//!
//! It holds jobs that are not terminal, attempts that have not ended, nodes, the quota tree, and what follows
//! from them (the queue, free amounts, use by project). Terminal jobs live in the store alone. The leader has one
//! world and the planner's thread a replica; both are kept by [`World::apply`] and can be dropped and rebuilt
//! from a [`Snapshot`].

mod alerts;
mod apply;
mod array;
mod audit;
mod cohort;
mod cohorts;
mod node;
mod numbered;
mod people;
mod requests;
mod sketch;
mod usage;
mod windows;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::account::Accounts;
use crate::alert::Alert;
use crate::amount::{GpuMilli, Ngh, UnixMicros};
use crate::attempt::Attempt;
use crate::fairshare::History;
use crate::health::{Breaker, NodeHealth};
use crate::ids::{AttemptId, GpuClass, JobId, NodeName, ProjectPath};
use crate::imex::ImexChannels;
use crate::job::Job;
use crate::node::{Admin, Inventory};
use crate::power::PowerTerms;
use crate::power::budget::PowerBudget;
use crate::quota::{Interval, QuotaBook, QuotaTree};
use crate::step::Step;
use crate::window::Window;

pub use alerts::Alerts;
pub use audit::QuotaAudit;
pub use cohort::{CohortJobs, CohortKey, CohortPlace, Wish};
pub use cohorts::{Cohort, CohortNumber, Cohorts, Wants};
pub use node::{Node, NodeFree};
pub use people::People;
pub use requests::Requests;
pub use usage::{PathUsage, Usage};
pub use windows::Windows;

/// Everything decisions are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// Grows by one with every change.
    pub version: u64,
    /// What the next new things are called.
    pub sequences: Sequences,
    /// Nodes that ever registered.
    pub nodes: BTreeMap<NodeName, Node>,
    /// Those of which some GPU is not wholly taken, whether or not they take work.
    pub with_gpus_left: BTreeSet<NodeName>,
    /// Everything that was decided about quotas, over all time.
    pub book: Arc<QuotaBook>,
    /// The quota tree in force: what the quota book says for now.
    pub quota: Arc<QuotaTree>,
    /// When another tree comes into force by its date; at the end of time if none does.
    pub quota_until: UnixMicros,
    /// Where the audit chain of the book ends, and what stands for its next change.
    pub audit: QuotaAudit,
    /// Jobs that are not terminal; of arrays those tasks that are jobs of their own.
    pub jobs: BTreeMap<JobId, Arc<Job>>,
    /// Arrays that are not terminal.
    pub arrays: BTreeMap<JobId, Arc<Job>>,
    /// Tasks of arrays that are no jobs of their own, held ones included.
    pub folded: u64,
    /// Attempts that have not ended.
    pub attempts: BTreeMap<AttemptId, Arc<Attempt>>,
    /// Steps of those attempts.
    pub steps: BTreeMap<(AttemptId, u32), Arc<Step>>,
    /// Pending jobs in the order of the queue.
    pub queue: BTreeSet<QueueKey>,
    /// The same jobs by what they wait for.
    pub cohorts: Cohorts,
    /// What the jobs ask of their nodes.
    pub requests: Requests,
    /// How many of the jobs are scavengers.
    pub scavengers: u64,
    /// The same jobs and arrays by who submitted them.
    pub people: People,
    /// When what waits must have started, of jobs with a deadline.
    pub(crate) deadlines: BTreeSet<(UnixMicros, JobId)>,
    /// Jobs that wait for each job.
    pub dependents: BTreeMap<JobId, BTreeSet<JobId>>,
    /// Arrays of which tasks wait for the task of the same index of each array.
    pub behind: BTreeMap<JobId, BTreeSet<JobId>>,
    /// What every node of the quota tree holds, and how many jobs it has.
    pub usage: Usage,
    /// What every node of it used, fading with time, for fair share.
    pub history: History,
    /// What every node of the quota tree has used and set aside.
    pub accounts: Accounts,
    /// Which parts of which budgets were said to be used, and when another will be.
    pub alerts: Alerts,
    /// Windows in which nodes take no jobs, that are planned or open.
    pub windows: Windows,
    /// Circuit breakers that ever broke, by what they are of.
    pub breakers: BTreeMap<String, Arc<Breaker>>,
    /// What the site says of power: as configured, and in no store.
    pub power: Arc<PowerTerms>,
    /// What of its limits is reserved.
    pub power_budget: PowerBudget,
    /// Which attempt holds which IMEX channel.
    pub imex: ImexChannels,
    /// When attempts must be settled next.
    dues: BTreeSet<(UnixMicros, AttemptId)>,
}

/// Counters of the store, so that numbers are never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequences {
    /// Number of the next job.
    pub next_job: u64,
    /// Position of the next event.
    pub next_event: u64,
    /// Position of the next line of the ledger.
    pub next_entry: u64,
    /// Number of the next window.
    pub next_window: u64,
    /// Number of the next record of a pass.
    pub next_pass: u64,
}

impl Default for Sequences {
    fn default() -> Self {
        Sequences { next_job: 1, next_event: 1, next_entry: 1, next_window: 1, next_pass: 1 }
    }
}

/// Place in the queue: higher priority first, then the longest waiting, then the lower number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueueKey {
    /// Higher first.
    pub priority: Reverse<i32>,
    /// Earlier first.
    pub queued: UnixMicros,
    /// Lower first, so that the order is total.
    pub job: JobId,
}

impl QueueKey {
    /// Where `job` stands.
    #[must_use]
    pub fn of(job: &Job) -> Self {
        QueueKey { priority: Reverse(job.spec.priority), queued: job.status.queued, job: job.id }
    }
}

/// What the store knows, enough to rebuild a world.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Counters.
    pub sequences: Sequences,
    /// Every node with what people decided for it, and how its hardware stands.
    pub nodes: Vec<(Arc<Inventory>, Admin, NodeHealth)>,
    /// Circuit breakers that ever broke.
    pub breakers: Vec<Breaker>,
    /// Everything that was decided about quotas.
    pub book: Arc<QuotaBook>,
    /// Where the audit chain of the book ends, and what stands for its next change.
    pub audit: QuotaAudit,
    /// Jobs and arrays that are not terminal.
    pub jobs: Vec<Arc<Job>>,
    /// Attempts that have not ended.
    pub attempts: Vec<Attempt>,
    /// Steps of those attempts, with their tasks.
    pub steps: Vec<Step>,
    /// What attempts that have ended used.
    pub history: History,
    /// What the ledger says was used.
    pub used: Vec<Used>,
    /// The last alert of each node and percentage.
    pub alerts: Vec<Alert>,
    /// Windows that are planned or open.
    pub windows: Vec<Window>,
    /// What the site says of power, which no store knows.
    pub power: Arc<PowerTerms>,
}

/// What a project has used in an account, by the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// Which project.
    pub project: ProjectPath,
    /// Beginning of the account's stretch.
    pub account: UnixMicros,
    /// Charges less refunds.
    pub ngh: Ngh,
}

impl Default for World {
    fn default() -> Self {
        World {
            version: 0,
            sequences: Sequences::default(),
            nodes: BTreeMap::new(),
            with_gpus_left: BTreeSet::new(),
            book: Arc::default(),
            quota: Arc::default(),
            quota_until: Interval::ALWAYS.until,
            audit: QuotaAudit::default(),
            jobs: BTreeMap::new(),
            arrays: BTreeMap::new(),
            folded: 0,
            attempts: BTreeMap::new(),
            steps: BTreeMap::new(),
            queue: BTreeSet::new(),
            cohorts: Cohorts::default(),
            requests: Requests::default(),
            scavengers: 0,
            people: People::default(),
            deadlines: BTreeSet::new(),
            dependents: BTreeMap::new(),
            behind: BTreeMap::new(),
            usage: Usage::default(),
            history: History::default(),
            accounts: Accounts::default(),
            alerts: Alerts::default(),
            windows: Windows::default(),
            breakers: BTreeMap::new(),
            power: Arc::default(),
            power_budget: PowerBudget::default(),
            imex: ImexChannels::default(),
            dues: BTreeSet::new(),
        }
    }
}

impl World {
    /// Rebuilds the world of that moment from what the store knows. Every node is unknown until its worker is heard.
    #[must_use]
    pub fn restore(snapshot: Snapshot, now: UnixMicros) -> Self {
        let Snapshot { sequences, book, audit, .. } = &snapshot;
        let (book, audit) = (Arc::clone(book), audit.clone());
        let power = Arc::clone(&snapshot.power);
        let mut world = World { sequences: *sequences, book, audit, power, ..World::default() };
        snapshot.alerts.iter().for_each(|alert| world.alerts.tell(alert));
        world.turn_quota(now);
        world.history = snapshot.history;
        for (inventory, admin, health) in snapshot.nodes {
            world.enter_node(Node::new(inventory, admin, Arc::new(health)));
        }
        for breaker in snapshot.breakers {
            world.breakers.insert(breaker.scope.clone(), Arc::new(breaker));
        }
        for window in snapshot.windows {
            world.put_window(&Arc::new(window));
        }
        for job in snapshot.jobs {
            world.people.enter(&job);
            world.insert_job(job);
        }
        for Used { project, account, ngh } in snapshot.used {
            world.accounts.enter(&project, account, ngh);
            world.expect_alerts(&project);
        }
        for attempt in snapshot.attempts {
            world.take(&Arc::new(attempt));
        }
        for step in snapshot.steps {
            world.steps.insert((step.attempt, step.number), Arc::new(step));
        }
        world
    }

    /// Attempts that must be settled by `now`, the longest due first.
    pub fn due_by(&self, now: UnixMicros) -> impl Iterator<Item = AttemptId> + '_ {
        self.dues.iter().take_while(move |(due, _)| *due <= now).map(|(_, id)| *id)
    }

    /// Jobs and arrays that wait and can no longer end by their deadlines if they start at `now`, the longest overdue
    /// first.
    pub fn overdue(&self, now: UnixMicros) -> impl Iterator<Item = JobId> + '_ {
        self.deadlines.iter().take_while(move |(start, _)| *start < now).map(|(_, id)| *id)
    }

    /// When the next attempt must be settled; `None` if none holds GPUs.
    #[must_use]
    pub fn next_due(&self) -> Option<UnixMicros> {
        self.dues.first().map(|(due, _)| *due)
    }

    /// GPUs that count as capacity, by class, those of spare nodes that stand by left out; of a class of which none is in
    /// service, zero.
    #[must_use]
    pub fn in_service(&self) -> BTreeMap<GpuClass, GpuMilli> {
        let standby = crate::fabric::standby(self);
        let mut in_service: BTreeMap<GpuClass, GpuMilli> = BTreeMap::new();
        for (name, node) in &self.nodes {
            let counts = node.is_in_service() && !standby.contains(name);
            for gpu in &node.inventory.gpus {
                let of = in_service.entry(gpu.class.clone()).or_default();
                if counts {
                    *of += gpu.amount();
                }
            }
        }
        in_service
    }

    /// Jobs of the project that wait, held ones included.
    #[must_use]
    pub fn waiting_jobs_of(&self, project: &ProjectPath) -> u64 {
        self.usage.waiting(project.as_str())
    }
}
