//! The durable store of Gotgan: the only truth.
//!
//! One trait, [`Store`], one transaction a method, in the words of the domain; two implementations, on embedded
//! SQLite and on PostgreSQL, that pass one conformance suite. Every write names the leader's epoch and is refused
//! ([`StoreError::Fenced`]) when a newer one was taken. Times come from the caller; there is no clock in SQL.
//!
//! What is stored: jobs, attempts with their steps and tasks, what every GPU is given to, the ledger, nodes, windows, the
//! quota tree with its audit chain, by what order jobs started, tokens, answered requests, events, and the leadership. What is not: heartbeats, readings, output.

//!
//! Where things are: a round becomes rows in `groups` and `sheets`; rows become types in `decode`; `shared/` holds
//! what is the same on both databases and is compiled into each of `sqlite` and `postgres`, whose modules supply
//! the connection type and the statements (`sql` has those whose text serves both).

#![expect(
    clippy::duplicate_mod,
    reason = "the files of shared/ are compiled for both databases: the same text over two connection types"
)]

mod audit;
pub mod backup;
mod consistency;
mod decode;
mod error;
mod groups;
#[cfg(feature = "memory")]
pub mod memory;
mod migrations;
mod postgres;
mod records;
mod rows;
mod sheets;
mod sql;
mod sqlite;
mod write_op;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use gotgan_core::alert::Alert;
use gotgan_core::amount::UnixMicros;
use gotgan_core::change::Event;
use gotgan_core::fairshare::HalfLife;
use gotgan_core::ids::{AttemptId, Epoch, IdempotencyKey, JobId, NodeName, ProjectPath, UserName};
use gotgan_core::job::JobState;
use gotgan_core::ledger::LedgerEntry;
use gotgan_core::quota::audit::AuditEntry;
use gotgan_core::quota::{Interval, QuotaBook};
use gotgan_core::world::Snapshot;

pub use error::StoreError;
pub use records::{
    AnsweredRequest, Balance, Claim, DatabaseKind, JobDetail, JobFilter, JoinTokenRecord,
    Leadership, LedgerAudit, LedgerFilter, Page, RecordedSubmission, Round, Sight, StartRecord,
    TaskFilter, TokenRecord, Verification,
};

/// What a store answers.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The durable state of one Gotgan. Every method is one transaction.
#[async_trait]
pub trait Store: Send + Sync + Debug {
    /// Which database this is.
    fn kind(&self) -> DatabaseKind;

    /// Becomes leader if nobody else is, or if who was has given its lease up or let it run out, as `claim` says; the
    /// epoch grows by one.
    ///
    /// # Errors
    /// [`StoreError::LedByAnother`] with the leader in force.
    async fn succeed_leader(&self, holder: &str, address: &str, claim: Claim)
    -> Result<Leadership>;

    /// [`Self::succeed_leader`] where all clocks are one: if the lease of who led has run out at `now`. On success the
    /// lease runs until `now` plus `lease_ms`.
    ///
    /// # Errors
    /// [`StoreError::LedByAnother`] with the leader in force.
    async fn take_leadership(
        &self,
        holder: &str,
        address: &str,
        now: UnixMicros,
        lease_ms: i64,
    ) -> Result<Leadership> {
        let claim = Claim { over: now, unless_renewed: None, until: now.plus_millis(lease_ms) };
        self.succeed_leader(holder, address, claim).await
    }

    /// Extends the lease of the leader of `epoch`.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if a newer epoch was taken.
    async fn renew_leadership(&self, epoch: Epoch, now: UnixMicros, lease_ms: i64) -> Result<()>;

    /// Ends the lease of the leader of `epoch` at `now`, so that another need not wait. Not an error if it has ended.
    async fn resign(&self, epoch: Epoch, now: UnixMicros) -> Result<()>;

    /// Who leads, or led last.
    async fn leadership(&self) -> Result<Option<Leadership>>;

    /// Lets others see that the process that leads in `epoch` is there, as long as it is; called again and again. What
    /// others do when they no longer see it is safe in any case: every write checks the epoch.
    async fn show_leader(&self, _epoch: Epoch) -> Result<()> {
        Ok(())
    }

    /// Looks whether the process that leads in `epoch` is there; nobody need wait for its lease to run out if it is gone. A
    /// store that cannot tell does not.
    async fn look_for_leader(&self, _epoch: Epoch) -> Result<Sight> {
        Ok(Sight::Unknown)
    }

    /// Everything a world is rebuilt from at `now`, with what was used, fading as `half_life` says. Goes through all
    /// attempts there ever were.
    async fn load(&self, half_life: HalfLife, now: UnixMicros) -> Result<Snapshot>;

    /// Waits until all that was asked of the store and never answered is done, or can no longer be: the commit of a round
    /// whose connection broke may still be on its way. Who loads again without it may miss that round for ever.
    async fn settle(&self) -> Result<()>;

    /// Writes all changes of a round, or none. Durable when it returns.
    ///
    /// Of several changes to one object in the round the last one counts. GPUs that are taken and given back are
    /// summed over the round before they are written, and the database itself refuses more than 1000 thousandths
    /// of one GPU.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if a newer epoch was taken; [`StoreError::Conflict`] if the database refuses a change
    /// (a key used twice, a GPU given twice); then nothing was written.
    async fn commit(&self, epoch: Epoch, now: UnixMicros, round: &Round) -> Result<()>;

    /// The submissions that are stored under these keys; keys that are not stored are absent.
    async fn submissions(
        &self,
        keys: &[(UserName, IdempotencyKey)],
    ) -> Result<Vec<RecordedSubmission>>;

    /// The submissions stored last, at most `limit`, the youngest first.
    async fn recent_submissions(&self, limit: u32) -> Result<Vec<RecordedSubmission>>;

    /// The answer given earlier to another kind of request of this caller under this key.
    async fn answered(
        &self,
        owner: &UserName,
        key: &IdempotencyKey,
    ) -> Result<Option<AnsweredRequest>>;

    /// A job with its attempts (oldest first), their steps and tasks, and what it paid. A task of an array that is no job
    /// of its own is answered as the job it would be.
    async fn job(&self, id: JobId) -> Result<Option<JobDetail>>;

    /// Jobs that pass the filter, newest first, with the nodes of the latest attempt.
    async fn jobs(&self, filter: &JobFilter, page: &Page) -> Result<Vec<JobDetail>>;

    /// By what order an attempt started; `None` if nothing was written down of it.
    async fn start_record(&self, attempt: AttemptId) -> Result<Option<StartRecord>>;

    /// States of these jobs and tasks of arrays; unknown ones are absent.
    async fn job_states(&self, ids: &[JobId]) -> Result<BTreeMap<JobId, JobState>>;

    /// States of all tasks of an array, also of those that are no jobs of their own; empty if it is none.
    async fn task_states(&self, array: JobId) -> Result<BTreeMap<JobId, JobState>>;

    /// How many jobs there are in each state.
    async fn count_jobs(&self) -> Result<BTreeMap<JobState, u64>>;

    /// Events with a position above `after`, in order, at most `limit`. With `jobs` only events of these.
    async fn events(&self, after: u64, jobs: Option<&[JobId]>, limit: u32) -> Result<Vec<Event>>;

    /// The last events of a node, the newest first, at most `limit`.
    async fn events_of_node(&self, node: &NodeName, limit: u32) -> Result<Vec<Event>>;

    /// Entries of the ledger, oldest first; the page's `after` is the position of the last entry seen.
    async fn ledger(&self, filter: &LedgerFilter, page: &Page) -> Result<Vec<LedgerEntry>>;

    /// Entries of a node and what is below in the accounts that begin in `accounts`, in order; the page's `after` is the
    /// position of the last entry seen. `alone`: nothing is below it, which is found faster.
    async fn statement(
        &self,
        node: &ProjectPath,
        alone: bool,
        accounts: Interval,
        page: &Page,
    ) -> Result<Vec<LedgerEntry>>;

    /// Alerts of these nodes and those below (or all), oldest first; the page's `after` is the position of the last
    /// one seen.
    async fn alerts(&self, within: &[ProjectPath], page: &Page) -> Result<Vec<Alert>>;

    /// Entries of the audit chain in order, all or those of one subject; the page's `after` is the position of the
    /// last entry seen.
    async fn audited(&self, subject: Option<&str>, page: &Page) -> Result<Vec<AuditEntry>>;

    /// The quota book that was in force at `at`; `None` if none had been applied by then.
    async fn quota_at(&self, at: UnixMicros) -> Result<Option<QuotaBook>>;

    /// Sums of the ledger by project and class, for `within` and what is below (or all).
    async fn balances(&self, within: Option<&ProjectPath>) -> Result<Vec<Balance>>;

    /// Recomputes the ledger from the attempts: every ended one charged exactly what it held and refunded by rule,
    /// every hold released at the end, no line that belongs to nothing.
    async fn audit_ledger(&self) -> Result<LedgerAudit>;

    /// Recomputes from the rows of one moment the ledger, what GPUs are given to, and the audit chain with every book that
    /// follows from it.
    async fn verify(&self) -> Result<Verification>;

    /// All tokens of people and programs, revoked and expired ones included.
    async fn tokens(&self) -> Result<Vec<TokenRecord>>;

    /// The join token whose secret has this SHA-256; `None` if there is none.
    async fn join_token(&self, secret_sha256: &str) -> Result<Option<JoinTokenRecord>>;

    /// A value kept under a name since the store was made; `value` is stored if there is none yet. For secrets
    /// that must be the same for every leader.
    async fn setting_or_insert(&self, name: &str, value: &str) -> Result<String>;

    /// A value kept under a name; `None` if there is none.
    async fn setting(&self, name: &str) -> Result<Option<String>>;

    /// Keeps a value under a name, instead of what was kept there.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if a newer epoch was taken.
    async fn keep_setting(&self, epoch: Epoch, name: &str, value: &str) -> Result<()>;
}

/// Opens the store of a URL: `sqlite://PATH` (made if missing) or `postgres://…`; applies the migrations.
///
/// # Errors
/// [`StoreError::Unsupported`] for another scheme, [`StoreError::Database`] if it cannot be opened or migrated.
pub async fn open(url: &str) -> Result<Arc<dyn Store>> {
    match url.split_once("://") {
        Some(("sqlite", path)) if !path.is_empty() => sqlite::open(path).await,
        Some(("postgres" | "postgresql", _)) => postgres::open(url).await,
        _ => Err(StoreError::Unsupported(without_password(url))),
    }
}

/// Opens the store of a URL that is there, as it is: nothing is made and no migration applied.
///
/// # Errors
/// As [`open`], and [`StoreError::OtherForm`] if the tables are not those this program knows.
pub async fn open_as_it_is(url: &str) -> Result<Arc<dyn Store>> {
    match url.split_once("://") {
        Some(("sqlite", path)) if !path.is_empty() => sqlite::open_as_it_is(path).await,
        Some(("postgres" | "postgresql", _)) => postgres::open_as_it_is(url).await,
        _ => Err(StoreError::Unsupported(without_password(url))),
    }
}

/// The URL as it may appear in an error.
#[must_use]
pub fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}://…{}", &url[..scheme], &url[at..]),
        _ => url.to_owned(),
    }
}
