//! The store itself: connections, the one place where a write transaction begins, commits and is run again, and
//! the trait. Compiled once a database (see the crate's documentation).

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
use sqlx::pool::PoolConnection;
use sqlx::{Connection as _, Transaction};
use tokio::sync::Mutex;

use super::{
    Connection, Db, KIND, Options, Pool, events, loading, reads, sessions, sql, states, turns,
    verify, writes,
};
use crate::sheets::sheets;
use crate::write_op::{TRIES_MAX, WriteOp, is_broken, may_be_run_again};
use crate::{
    AnsweredRequest, Balance, Claim, DatabaseKind, JobDetail, JobFilter, JoinTokenRecord,
    Leadership, LedgerAudit, LedgerFilter, Page, RecordedSubmission, Result, Round, Sight,
    StartRecord, Store, StoreError, TokenRecord, Verification,
};

/// A store on this database.
pub(super) struct Backend {
    options: Options,
    /// Held all the time, since taking one from a pool costs as much as a statement. `None` after a failure.
    writer: Mutex<Option<Connection>>,
    readers: Pool,
    sessions: sessions::Sessions,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").field("kind", &KIND).finish_non_exhaustive()
    }
}

impl Backend {
    pub(super) fn new(options: Options, writer: Connection, readers: Pool) -> Self {
        let sessions = sessions::Sessions::default();
        Backend { options, writer: Mutex::new(Some(writer)), readers, sessions }
    }

    /// Runs a write in a transaction of its own, again if the database gave it up for another's sake.
    async fn write<W: WriteOp<Connection>>(&self, op: W) -> Result<W::Answer> {
        let mut writer = self.writer.lock().await;
        let mut tries = 0;
        loop {
            tries += 1;
            // Out of its place while in use: if this write is given up half way, the connection is closed, and what
            // was begun on it ends with it.
            let mut connection = match writer.take() {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            let done = write_once(&mut connection, &op).await;
            if !done.as_ref().is_err_and(is_broken) {
                *writer = Some(connection);
            }
            match done {
                Err(error) if may_be_run_again(&error) && tries < TRIES_MAX => {
                    tracing::debug!(doing = W::DOING, tries, %error, "a write is run again");
                }
                done => return done,
            }
        }
    }

    async fn connect(&self) -> Result<Connection> {
        let connected = super::connect(&self.options).await;
        connected.map_err(|source| StoreError::Database { doing: "connect again", source })
    }

    /// A connection for a read of one statement, which needs no transaction of its own.
    async fn read_one(&self) -> Result<PoolConnection<Db>> {
        let acquired = self.readers.acquire().await;
        acquired.map_err(|source| StoreError::Database { doing: "begin to read", source })
    }

    /// A transaction that sees one state of the database throughout.
    async fn read(&self) -> Result<Transaction<'static, Db>> {
        let begun = self.readers.begin_with(sql::BEGIN_READ).await;
        begun.map_err(|source| StoreError::Database { doing: "begin to read", source })
    }
}

async fn write_once<W: WriteOp<Connection>>(
    connection: &mut Connection,
    op: &W,
) -> Result<W::Answer> {
    if W::BEGINS {
        return op.run(connection).await;
    }
    let failed = |source| StoreError::Database { doing: W::DOING, source };
    let mut transaction = connection.begin_with(sql::BEGIN_WRITE).await.map_err(failed)?;
    match op.run(&mut transaction).await {
        Ok(answer) => transaction.commit().await.map_err(failed).map(|()| answer),
        Err(error) => {
            // What failed first is what matters; a connection that cannot even roll back fails at its next begin.
            transaction.rollback().await.ok();
            Err(error)
        }
    }
}

#[async_trait]
impl Store for Backend {
    fn kind(&self) -> DatabaseKind {
        KIND
    }

    async fn succeed_leader(
        &self,
        holder: &str,
        address: &str,
        claim: Claim,
    ) -> Result<Leadership> {
        self.write(writes::TakeLeadership { holder, address, claim }).await
    }

    async fn renew_leadership(&self, epoch: Epoch, now: UnixMicros, lease_ms: i64) -> Result<()> {
        self.write(writes::RenewLeadership { epoch, expires: now.plus_millis(lease_ms) }).await
    }

    async fn resign(&self, epoch: Epoch, now: UnixMicros) -> Result<()> {
        self.write(writes::Resign { epoch, now }).await
    }

    async fn leadership(&self) -> Result<Option<Leadership>> {
        reads::leadership(&mut *self.read_one().await?).await
    }

    async fn show_leader(&self, epoch: Epoch) -> Result<()> {
        self.sessions.show(&self.options, epoch).await
    }

    async fn look_for_leader(&self, epoch: Epoch) -> Result<Sight> {
        self.sessions.look(&self.options, epoch).await
    }

    async fn load(&self, half_life: HalfLife, now: UnixMicros) -> Result<Snapshot> {
        loading::load(&mut *self.read().await?, half_life, now).await
    }

    async fn settle(&self) -> Result<()> {
        self.write(writes::Settle).await
    }

    async fn commit(&self, epoch: Epoch, now: UnixMicros, round: &Round) -> Result<()> {
        self.write(writes::Commit { epoch, sheets: sheets(round, now)? }).await
    }

    async fn submissions(
        &self,
        keys: &[(UserName, IdempotencyKey)],
    ) -> Result<Vec<RecordedSubmission>> {
        reads::submissions(&mut *self.read_one().await?, keys).await
    }

    async fn recent_submissions(&self, limit: u32) -> Result<Vec<RecordedSubmission>> {
        reads::recent_submissions(&mut *self.read_one().await?, limit).await
    }

    async fn answered(
        &self,
        owner: &UserName,
        key: &IdempotencyKey,
    ) -> Result<Option<AnsweredRequest>> {
        reads::answered(&mut *self.read_one().await?, owner, key).await
    }

    async fn job(&self, id: JobId) -> Result<Option<JobDetail>> {
        reads::job(&mut *self.read().await?, id).await
    }

    async fn jobs(&self, filter: &JobFilter, page: &Page) -> Result<Vec<JobDetail>> {
        reads::jobs(&mut *self.read().await?, filter, page).await
    }

    async fn task_states(&self, array: JobId) -> Result<BTreeMap<JobId, JobState>> {
        states::task_states(&mut *self.read_one().await?, array).await
    }

    async fn start_record(&self, attempt: AttemptId) -> Result<Option<StartRecord>> {
        turns::start_record(&mut *self.read_one().await?, attempt).await
    }

    async fn job_states(&self, ids: &[JobId]) -> Result<BTreeMap<JobId, JobState>> {
        reads::job_states(&mut *self.read_one().await?, ids).await
    }

    async fn count_jobs(&self) -> Result<BTreeMap<JobState, u64>> {
        reads::count_jobs(&mut *self.read().await?).await
    }

    async fn events_of_node(&self, node: &NodeName, limit: u32) -> Result<Vec<Event>> {
        events::events_of_node(&mut *self.read().await?, node, limit).await
    }

    async fn events(&self, after: u64, jobs: Option<&[JobId]>, limit: u32) -> Result<Vec<Event>> {
        events::events(&mut *self.read().await?, after, jobs, limit).await
    }

    async fn ledger(&self, filter: &LedgerFilter, page: &Page) -> Result<Vec<LedgerEntry>> {
        reads::ledger(&mut *self.read().await?, filter, page).await
    }

    async fn statement(
        &self,
        node: &ProjectPath,
        alone: bool,
        accounts: Interval,
        page: &Page,
    ) -> Result<Vec<LedgerEntry>> {
        reads::statement(&mut *self.read().await?, node, alone, accounts, page).await
    }

    async fn alerts(&self, within: &[ProjectPath], page: &Page) -> Result<Vec<Alert>> {
        reads::alerts(&mut *self.read().await?, within, page).await
    }

    async fn audited(&self, subject: Option<&str>, page: &Page) -> Result<Vec<AuditEntry>> {
        reads::audited(&mut *self.read().await?, subject, page).await
    }

    async fn quota_at(&self, at: UnixMicros) -> Result<Option<QuotaBook>> {
        reads::quota_at(&mut *self.read().await?, at).await
    }

    async fn balances(&self, within: Option<&ProjectPath>) -> Result<Vec<Balance>> {
        reads::balances(&mut *self.read().await?, within).await
    }

    async fn audit_ledger(&self) -> Result<LedgerAudit> {
        verify::ledger(&mut *self.read().await?).await
    }

    async fn verify(&self) -> Result<Verification> {
        verify::verify(&mut *self.read().await?).await
    }

    async fn tokens(&self) -> Result<Vec<TokenRecord>> {
        reads::tokens(&mut *self.read_one().await?).await
    }

    async fn join_token(&self, secret_sha256: &str) -> Result<Option<JoinTokenRecord>> {
        reads::join_token(&mut *self.read_one().await?, secret_sha256).await
    }

    async fn setting_or_insert(&self, name: &str, value: &str) -> Result<String> {
        self.write(writes::InsertSetting { name, value }).await
    }

    async fn setting(&self, name: &str) -> Result<Option<String>> {
        reads::setting(&mut *self.read_one().await?, name).await
    }

    async fn keep_setting(&self, epoch: Epoch, name: &str, value: &str) -> Result<()> {
        self.write(writes::KeepSetting { epoch, name, value }).await
    }
}
