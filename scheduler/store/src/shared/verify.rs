//! One state of the database held against itself. Compiled once a database, as `reads`.

use futures::TryStreamExt;
use gotgan_core::ids::JobId;
use gotgan_core::quota::QuotaBook;

use super::{Connection, Db, loading, reads, sql};
use crate::audit::Audit;
use crate::consistency::{self, Chain, Occupied};
use crate::{LedgerAudit, Page, Result, StoreError, Verification, decode};

/// Attempts compared with the ledger at a time; keeps a few megabytes in memory however long the history is.
const AUDIT_ATTEMPTS: u32 = 1000;
/// Entries of the audit chain read at a time.
const AUDIT_ENTRIES: u32 = 1000;

/// Recomputes the ledger, the leases, and the audit chain with the books that follow from it.
pub(super) async fn verify(connection: &mut Connection) -> Result<Verification> {
    let mut found = Verification::default();
    let ledger = ledger(connection).await?;
    found.attempts = ledger.attempts;
    ledger.differences.into_iter().for_each(|text| found.differ(format!("ledger: {text}")));
    let (jobs, attempts) = loading::living(connection).await?;
    let occupied = sqlx::query_as::<Db, Occupied>(sql::OCCUPIED).fetch_all(&mut *connection).await;
    let occupied = occupied.map_err(failed("read what GPUs are given to"))?;
    consistency::leases(&mut found, &jobs, &attempts, &occupied);
    chain(connection, &mut found).await?;
    Ok(found)
}

/// Compares the ledger with the attempts.
pub(super) async fn ledger(connection: &mut Connection) -> Result<LedgerAudit> {
    let mut audit = Audit::default();
    let mut after = (JobId(0), 0);
    loop {
        let attempts = reads::attempts_after(connection, after, AUDIT_ATTEMPTS).await?;
        let (Some(first), Some(last)) = (attempts.first(), attempts.last()) else {
            break;
        };
        after = (last.id.job, last.id.number);
        let lines = reads::ledger_of_jobs(connection, first.id.job, last.id.job).await?;
        audit.compare(&attempts, &lines);
    }
    let orphans = LedgerAudit::DIFFERENCES_MAX;
    audit.report_orphans(&reads::ledger_orphans(connection, orphans).await?);
    Ok(audit.finish())
}

async fn chain(connection: &mut Connection, found: &mut Verification) -> Result<()> {
    let (mut chain, mut after) = (Chain::default(), None);
    loop {
        let page = Page { size: AUDIT_ENTRIES, after };
        let entries = reads::audited(connection, None, &page).await?;
        let Some(last) = entries.last() else { break };
        after = Some(last.seq);
        chain.take(found, &entries);
    }
    chain.finish(found);
    // Row by row: a book may have megabytes.
    let rows = sqlx::query_as::<Db, (String,)>(sql::ALL_QUOTA);
    let mut rows = rows.fetch(connection);
    while let Some((tree,)) = rows.try_next().await.map_err(failed("read quota trees"))? {
        let book: QuotaBook = decode::json(&|| "quota tree".to_owned(), &tree)?;
        chain.compare(found, book);
    }
    Ok(())
}

fn failed(doing: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| StoreError::Database { doing, source }
}
