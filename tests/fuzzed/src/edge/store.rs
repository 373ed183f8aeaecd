//! A store that knows the jobs of one world and keeps nothing: where the edge of the services ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
use gotgan_core::world::{Snapshot, World};
use gotgan_store::{
    AnsweredRequest, Balance, Claim, DatabaseKind, JobDetail, JobFilter, JoinTokenRecord,
    Leadership, LedgerAudit, LedgerFilter, Page, RecordedSubmission, Round, StartRecord, Store,
    StoreError, TokenRecord, Verification,
};

type Result<T> = std::result::Result<T, StoreError>;

/// The store.
#[derive(Debug)]
pub struct Shelf {
    world: World,
    /// Rounds that wrote something.
    written: AtomicU64,
}

impl Shelf {
    /// One that knows the jobs of this world.
    pub fn of(world: World) -> Self {
        Shelf { world, written: AtomicU64::new(0) }
    }

    /// How many rounds wrote something until now.
    pub fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    fn detail(&self, id: JobId) -> Option<JobDetail> {
        let job = self.world.record(id)?;
        let attempts = self.world.attempts.values().filter(|attempt| attempt.id.job == id);
        let attempts = attempts.map(|attempt| attempt.as_ref().clone()).collect();
        Some(JobDetail { attempts, ..JobDetail::of(job.clone()) })
    }
}

#[async_trait]
impl Store for Shelf {
    fn kind(&self) -> DatabaseKind {
        DatabaseKind::Sqlite
    }

    async fn succeed_leader(
        &self,
        holder: &str,
        address: &str,
        claim: Claim,
    ) -> Result<Leadership> {
        let (holder, address) = (holder.to_owned(), address.to_owned());
        Ok(Leadership { epoch: Epoch(1), holder, address, expires: claim.until })
    }

    async fn renew_leadership(&self, _: Epoch, _: UnixMicros, _: i64) -> Result<()> {
        Ok(())
    }

    async fn settle(&self) -> Result<()> {
        Ok(())
    }

    async fn resign(&self, _: Epoch, _: UnixMicros) -> Result<()> {
        Ok(())
    }

    async fn leadership(&self) -> Result<Option<Leadership>> {
        Ok(None)
    }

    async fn load(&self, _: HalfLife, _: UnixMicros) -> Result<Snapshot> {
        panic!("a command panicked, and the writer loads its world again");
    }

    async fn commit(&self, _: Epoch, _: UnixMicros, round: &Round) -> Result<()> {
        if !round.is_empty() {
            self.written.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    async fn submissions(
        &self,
        _: &[(UserName, IdempotencyKey)],
    ) -> Result<Vec<RecordedSubmission>> {
        Ok(Vec::new())
    }

    async fn recent_submissions(&self, _: u32) -> Result<Vec<RecordedSubmission>> {
        Ok(Vec::new())
    }

    async fn answered(&self, _: &UserName, _: &IdempotencyKey) -> Result<Option<AnsweredRequest>> {
        Ok(None)
    }

    async fn job(&self, id: JobId) -> Result<Option<JobDetail>> {
        Ok(self.detail(id))
    }

    async fn jobs(&self, _: &JobFilter, page: &Page) -> Result<Vec<JobDetail>> {
        let jobs = self.world.jobs.keys().filter_map(|id| self.detail(*id));
        Ok(jobs.take(page.size as usize).collect())
    }

    async fn start_record(&self, _: AttemptId) -> Result<Option<StartRecord>> {
        Ok(None)
    }

    async fn job_states(&self, ids: &[JobId]) -> Result<BTreeMap<JobId, JobState>> {
        let state = |id: &JobId| Some((*id, self.world.jobs.get(id)?.status.state));
        Ok(ids.iter().filter_map(state).collect())
    }

    async fn task_states(&self, _: JobId) -> Result<BTreeMap<JobId, JobState>> {
        Ok(BTreeMap::new())
    }

    async fn count_jobs(&self) -> Result<BTreeMap<JobState, u64>> {
        Ok(BTreeMap::new())
    }

    async fn events(&self, _: u64, _: Option<&[JobId]>, _: u32) -> Result<Vec<Event>> {
        Ok(Vec::new())
    }

    async fn events_of_node(&self, _: &NodeName, _: u32) -> Result<Vec<Event>> {
        Ok(Vec::new())
    }

    async fn ledger(&self, _: &LedgerFilter, _: &Page) -> Result<Vec<LedgerEntry>> {
        Ok(Vec::new())
    }

    async fn statement(
        &self,
        _: &ProjectPath,
        _: bool,
        _: Interval,
        _: &Page,
    ) -> Result<Vec<LedgerEntry>> {
        Ok(Vec::new())
    }

    async fn alerts(&self, _: &[ProjectPath], _: &Page) -> Result<Vec<Alert>> {
        Ok(Vec::new())
    }

    async fn audited(&self, _: Option<&str>, _: &Page) -> Result<Vec<AuditEntry>> {
        Ok(Vec::new())
    }

    async fn quota_at(&self, _: UnixMicros) -> Result<Option<QuotaBook>> {
        Ok(None)
    }

    async fn balances(&self, _: Option<&ProjectPath>) -> Result<Vec<Balance>> {
        Ok(Vec::new())
    }

    async fn audit_ledger(&self) -> Result<LedgerAudit> {
        Ok(LedgerAudit::default())
    }

    async fn verify(&self) -> Result<Verification> {
        Ok(Verification::default())
    }

    async fn tokens(&self) -> Result<Vec<TokenRecord>> {
        Ok(Vec::new())
    }

    async fn join_token(&self, _: &str) -> Result<Option<JoinTokenRecord>> {
        Ok(None)
    }

    async fn setting_or_insert(&self, _: &str, value: &str) -> Result<String> {
        Ok(value.to_owned())
    }

    async fn setting(&self, _: &str) -> Result<Option<String>> {
        Ok(None)
    }

    async fn keep_setting(&self, _: Epoch, _: &str, _: &str) -> Result<()> {
        Ok(())
    }
}
