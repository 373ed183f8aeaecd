//! A store in memory, for those who run the flow without a database. It keeps what the databases keep and refuses what they
//! refuse, as the conformance suite shows; what it has is gone with it.
//!
//! One [`Memory`] is the database; each [`Memory::store`] is a connection to it.

mod commit;
mod reads;
mod tables;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

use crate::{
    AnsweredRequest, Balance, Claim, DatabaseKind, JobDetail, JobFilter, JoinTokenRecord,
    Leadership, LedgerAudit, LedgerFilter, Page, RecordedSubmission, Result, Round, StartRecord,
    Store, StoreError, TokenRecord, Verification,
};

pub use tables::Tables;

/// A database in memory. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Mutex<Tables>>);

impl Memory {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A connection to it.
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.clone())
    }

    /// What it holds.
    pub fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error of a connection that broke while something was done.
    #[must_use]
    pub fn broken_connection(doing: &'static str) -> StoreError {
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        StoreError::Database { doing, source: sqlx::Error::Io(broken) }
    }
}

#[async_trait]
impl Store for Memory {
    /// It stands for the database that is at hand without a server.
    fn kind(&self) -> DatabaseKind {
        DatabaseKind::Sqlite
    }

    async fn succeed_leader(
        &self,
        holder: &str,
        address: &str,
        claim: Claim,
    ) -> Result<Leadership> {
        self.tables().succeed_leader(holder, address, claim)
    }

    async fn renew_leadership(&self, epoch: Epoch, now: UnixMicros, lease_ms: i64) -> Result<()> {
        self.tables().renew_leadership(epoch, now.plus_millis(lease_ms))
    }

    async fn resign(&self, epoch: Epoch, now: UnixMicros) -> Result<()> {
        self.tables().resign(epoch, now);
        Ok(())
    }

    async fn leadership(&self) -> Result<Option<Leadership>> {
        Ok(self.tables().leadership.clone())
    }

    async fn load(&self, half_life: HalfLife, now: UnixMicros) -> Result<Snapshot> {
        Ok(self.tables().load(half_life, now))
    }

    /// Nothing is ever on its way.
    async fn settle(&self) -> Result<()> {
        Ok(())
    }

    async fn commit(&self, epoch: Epoch, _now: UnixMicros, round: &Round) -> Result<()> {
        self.tables().commit(epoch, round)
    }

    async fn submissions(
        &self,
        keys: &[(UserName, IdempotencyKey)],
    ) -> Result<Vec<RecordedSubmission>> {
        Ok(self.tables().submissions(keys))
    }

    async fn recent_submissions(&self, limit: u32) -> Result<Vec<RecordedSubmission>> {
        Ok(self.tables().recent_submissions(limit))
    }

    async fn answered(
        &self,
        owner: &UserName,
        key: &IdempotencyKey,
    ) -> Result<Option<AnsweredRequest>> {
        Ok(self.tables().answered.get(&(owner.clone(), key.clone())).cloned())
    }

    async fn job(&self, id: JobId) -> Result<Option<JobDetail>> {
        Ok(self.tables().job(id))
    }

    async fn jobs(&self, filter: &JobFilter, page: &Page) -> Result<Vec<JobDetail>> {
        Ok(self.tables().list(filter, page))
    }

    async fn start_record(&self, attempt: AttemptId) -> Result<Option<StartRecord>> {
        Ok(self.tables().start_record(attempt))
    }

    async fn job_states(&self, ids: &[JobId]) -> Result<BTreeMap<JobId, JobState>> {
        let tables = self.tables();
        Ok(ids.iter().filter_map(|id| Some((*id, tables.state(*id)?))).collect())
    }

    async fn task_states(&self, array: JobId) -> Result<BTreeMap<JobId, JobState>> {
        Ok(self.tables().task_states(array))
    }

    async fn count_jobs(&self) -> Result<BTreeMap<JobState, u64>> {
        let mut counts = BTreeMap::new();
        for job in self.tables().jobs.values() {
            *counts.entry(job.status.state).or_default() += 1;
        }
        Ok(counts)
    }

    async fn events(&self, after: u64, jobs: Option<&[JobId]>, limit: u32) -> Result<Vec<Event>> {
        Ok(self.tables().events(after, jobs, limit))
    }

    async fn events_of_node(&self, node: &NodeName, limit: u32) -> Result<Vec<Event>> {
        Ok(self.tables().events_of_node(node, limit))
    }

    async fn ledger(&self, filter: &LedgerFilter, page: &Page) -> Result<Vec<LedgerEntry>> {
        Ok(self.tables().entries(filter, page))
    }

    async fn statement(
        &self,
        node: &ProjectPath,
        _alone: bool,
        accounts: Interval,
        page: &Page,
    ) -> Result<Vec<LedgerEntry>> {
        Ok(self.tables().statement(node, accounts, page))
    }

    async fn alerts(&self, within: &[ProjectPath], page: &Page) -> Result<Vec<Alert>> {
        Ok(self.tables().alerts(within, page))
    }

    async fn audited(&self, subject: Option<&str>, page: &Page) -> Result<Vec<AuditEntry>> {
        Ok(self.tables().audited(subject, page))
    }

    async fn quota_at(&self, at: UnixMicros) -> Result<Option<QuotaBook>> {
        Ok(self.tables().quota_at(at))
    }

    async fn balances(&self, within: Option<&ProjectPath>) -> Result<Vec<Balance>> {
        Ok(self.tables().balances(within))
    }

    async fn audit_ledger(&self) -> Result<LedgerAudit> {
        Ok(self.tables().audit_ledger())
    }

    async fn verify(&self) -> Result<Verification> {
        Ok(self.tables().verify())
    }

    async fn tokens(&self) -> Result<Vec<TokenRecord>> {
        let mut tokens: Vec<TokenRecord> = self.tables().tokens.values().cloned().collect();
        tokens.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(tokens)
    }

    async fn join_token(&self, secret_sha256: &str) -> Result<Option<JoinTokenRecord>> {
        Ok(self.tables().join_tokens.get(secret_sha256).cloned())
    }

    async fn setting_or_insert(&self, name: &str, value: &str) -> Result<String> {
        let mut tables = self.tables();
        Ok(tables.settings.entry(name.to_owned()).or_insert_with(|| value.to_owned()).clone())
    }

    async fn setting(&self, name: &str) -> Result<Option<String>> {
        Ok(self.tables().settings.get(name).cloned())
    }

    async fn keep_setting(&self, epoch: Epoch, name: &str, value: &str) -> Result<()> {
        let mut tables = self.tables();
        tables.check_epoch(epoch)?;
        tables.settings.insert(name.to_owned(), value.to_owned());
        Ok(())
    }
}
