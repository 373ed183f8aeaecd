//! A scheduler's way to the database: what it asks may take long, be lost before it is done, or be done while the answer is
//! lost. What was sent is done or lost whether or not whoever sent it still lives.

use std::collections::BTreeMap;

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
use gotgan_scheduler::clock;
use gotgan_store::memory::Memory;
use gotgan_store::{
    AnsweredRequest, Balance, Claim, DatabaseKind, JobDetail, JobFilter, JoinTokenRecord,
    Leadership, LedgerAudit, LedgerFilter, Page, RecordedSubmission, Result, Round, Sight,
    StartRecord, Store, StoreError, TokenRecord, Verification,
};
use tokio::sync::oneshot;

use crate::executor::{self, Group};
use crate::{draw, judge, weather};

/// A connection.
#[derive(Debug, Clone)]
pub struct Way(pub Memory);

impl Way {
    /// A read: it sees one moment.
    async fn read(&self, doing: &'static str) -> Result<&Memory> {
        clock::sleep(weather::delay(weather::now().slow)).await;
        if draw::one_in(weather::now().broken) {
            return Err(Memory::broken_connection(doing));
        }
        Ok(&self.0)
    }

    /// A write, which goes on without whoever asked for it.
    async fn write<T: Send + 'static, F>(
        &self,
        doing: &'static str,
        write: impl FnOnce(Memory) -> F + 'static,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>> + 'static,
    {
        let (tell, told) = oneshot::channel();
        let memory = self.0.clone();
        executor::spawn(Group::Stage, async move {
            clock::sleep(weather::delay(weather::now().slow)).await;
            let fate = if draw::one_in(weather::now().broken) { draw::below(2) } else { 2 };
            if fate == 0 {
                return;
            }
            let answer = write(memory).await;
            if fate == 1 {
                return;
            }
            clock::sleep(weather::delay(weather::now().slow)).await;
            // Whoever asked may be gone.
            let _ = tell.send(answer);
        });
        told.await.unwrap_or_else(|_| Err(Memory::broken_connection(doing)))
    }
}

#[async_trait]
impl Store for Way {
    fn kind(&self) -> DatabaseKind {
        self.0.kind()
    }

    async fn succeed_leader(
        &self,
        holder: &str,
        address: &str,
        claim: Claim,
    ) -> Result<Leadership> {
        let (holder, address) = (holder.to_owned(), address.to_owned());
        let take = move |memory: Memory| async move {
            memory.succeed_leader(&holder, &address, claim).await
        };
        self.write("take the leadership", take).await
    }

    async fn renew_leadership(&self, epoch: Epoch, now: UnixMicros, lease_ms: i64) -> Result<()> {
        let renew = move |memory: Memory| async move {
            memory.renew_leadership(epoch, now, lease_ms).await
        };
        self.write("renew the leadership", renew).await
    }

    async fn resign(&self, epoch: Epoch, now: UnixMicros) -> Result<()> {
        let resign = move |memory: Memory| async move { memory.resign(epoch, now).await };
        self.write("give up the leadership", resign).await
    }

    async fn leadership(&self) -> Result<Option<Leadership>> {
        self.read("read the leadership").await?.leadership().await
    }

    /// A leader seems to be gone whose session broke, though it lives.
    async fn look_for_leader(&self, epoch: Epoch) -> Result<Sight> {
        let seen = self.read("look for the leader").await?.look_for_leader(epoch).await?;
        Ok(if draw::one_in(weather::now().broken) { Sight::Gone } else { seen })
    }

    async fn load(&self, half_life: HalfLife, now: UnixMicros) -> Result<Snapshot> {
        self.read("load the world").await?.load(half_life, now).await
    }

    /// What breaks is lost or done before anybody hears of it: nothing comes late here.
    async fn settle(&self) -> Result<()> {
        self.read("wait for earlier writes").await.map(drop)
    }

    async fn commit(&self, epoch: Epoch, now: UnixMicros, round: &Round) -> Result<()> {
        let round = round.clone();
        let commit = move |memory: Memory| async move {
            let outcome = memory.commit(epoch, now, &round).await;
            match &outcome {
                Ok(()) => judge::committed(&memory, &round),
                Err(StoreError::Fenced { .. }) => judge::with(|judge| judge.counts.fenced += 1),
                // A key that its memory has lost is found by this, as the writer says.
                Err(StoreError::Conflict(why)) if why.starts_with("the key") => {}
                // What else a database refuses, a leader must not ask for.
                Err(error) => judge::with(|judge| judge.find(1, &[], format!("a round: {error}"))),
            }
            outcome
        };
        self.write("commit a round", commit).await
    }

    async fn submissions(
        &self,
        keys: &[(UserName, IdempotencyKey)],
    ) -> Result<Vec<RecordedSubmission>> {
        self.read("find submissions").await?.submissions(keys).await
    }

    async fn recent_submissions(&self, limit: u32) -> Result<Vec<RecordedSubmission>> {
        // Keys that memory forgot are looked up: sometimes it never knew them.
        let limit = if draw::one_in(3) { limit.min(2) } else { limit };
        self.read("find recent submissions").await?.recent_submissions(limit).await
    }

    async fn answered(
        &self,
        owner: &UserName,
        key: &IdempotencyKey,
    ) -> Result<Option<AnsweredRequest>> {
        self.read("find an answer").await?.answered(owner, key).await
    }

    async fn job(&self, id: JobId) -> Result<Option<JobDetail>> {
        self.read("read a job").await?.job(id).await
    }

    async fn jobs(&self, filter: &JobFilter, page: &Page) -> Result<Vec<JobDetail>> {
        self.read("list jobs").await?.jobs(filter, page).await
    }

    async fn start_record(&self, attempt: AttemptId) -> Result<Option<StartRecord>> {
        self.read("read a start").await?.start_record(attempt).await
    }

    async fn job_states(&self, ids: &[JobId]) -> Result<BTreeMap<JobId, JobState>> {
        self.read("read states").await?.job_states(ids).await
    }

    async fn task_states(&self, array: JobId) -> Result<BTreeMap<JobId, JobState>> {
        self.read("read states").await?.task_states(array).await
    }

    async fn count_jobs(&self) -> Result<BTreeMap<JobState, u64>> {
        self.read("count jobs").await?.count_jobs().await
    }

    async fn events(&self, after: u64, jobs: Option<&[JobId]>, limit: u32) -> Result<Vec<Event>> {
        self.read("read events").await?.events(after, jobs, limit).await
    }

    async fn events_of_node(&self, node: &NodeName, limit: u32) -> Result<Vec<Event>> {
        self.read("read events").await?.events_of_node(node, limit).await
    }

    async fn ledger(&self, filter: &LedgerFilter, page: &Page) -> Result<Vec<LedgerEntry>> {
        self.read("read the ledger").await?.ledger(filter, page).await
    }

    async fn statement(
        &self,
        node: &ProjectPath,
        alone: bool,
        accounts: Interval,
        page: &Page,
    ) -> Result<Vec<LedgerEntry>> {
        self.read("read a statement").await?.statement(node, alone, accounts, page).await
    }

    async fn alerts(&self, within: &[ProjectPath], page: &Page) -> Result<Vec<Alert>> {
        self.read("read alerts").await?.alerts(within, page).await
    }

    async fn audited(&self, subject: Option<&str>, page: &Page) -> Result<Vec<AuditEntry>> {
        self.read("read the chain").await?.audited(subject, page).await
    }

    async fn quota_at(&self, at: UnixMicros) -> Result<Option<QuotaBook>> {
        self.read("read a book").await?.quota_at(at).await
    }

    async fn balances(&self, within: Option<&ProjectPath>) -> Result<Vec<Balance>> {
        self.read("sum the ledger").await?.balances(within).await
    }

    async fn audit_ledger(&self) -> Result<LedgerAudit> {
        self.read("audit the ledger").await?.audit_ledger().await
    }

    async fn verify(&self) -> Result<Verification> {
        self.read("verify").await?.verify().await
    }

    async fn tokens(&self) -> Result<Vec<TokenRecord>> {
        self.read("read the tokens").await?.tokens().await
    }

    async fn join_token(&self, secret_sha256: &str) -> Result<Option<JoinTokenRecord>> {
        self.read("read a join token").await?.join_token(secret_sha256).await
    }

    async fn setting_or_insert(&self, name: &str, value: &str) -> Result<String> {
        let (name, value) = (name.to_owned(), value.to_owned());
        let insert =
            move |memory: Memory| async move { memory.setting_or_insert(&name, &value).await };
        self.write("keep a setting", insert).await
    }

    async fn setting(&self, name: &str) -> Result<Option<String>> {
        self.read("read a setting").await?.setting(name).await
    }

    async fn keep_setting(&self, epoch: Epoch, name: &str, value: &str) -> Result<()> {
        let (name, value) = (name.to_owned(), value.to_owned());
        let keep =
            move |memory: Memory| async move { memory.keep_setting(epoch, &name, &value).await };
        self.write("keep a setting", keep).await
    }
}
