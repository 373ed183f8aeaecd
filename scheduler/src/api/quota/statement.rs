//! The account of a node for a period, line by line, as the API shows it.

use gotgan_core::amount::UnixMicros;
use gotgan_core::ids::ProjectPath;
use gotgan_core::quota::audit::AuditEntry;
use gotgan_core::statement::{Given, GivenKind, Statement, StatementLine, history, statement};
use gotgan_core::world::World;
use gotgan_proto::v1;
use gotgan_store::{Page, Store};
use tonic::{Code, Status};

use crate::api::error;

/// Entries of the audit chain about one node that are read at a time.
const AUDITED_PAGE: u32 = 1_000;

/// How far a listing has come: the last entry, and how many other lines were told.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mark {
    after: Option<u64>,
    told: usize,
}

impl Mark {
    /// Of a token, as in `17.2`.
    pub(super) fn of(token: &str) -> Result<Self, Status> {
        if token.is_empty() {
            return Ok(Mark::default());
        }
        let parts = token.split_once('.');
        let mark = parts.and_then(|(after, told)| {
            Some(Mark { after: Some(after.parse().ok()?), told: told.parse().ok()? })
        });
        mark.ok_or_else(|| {
            error::invalid("page.token", "MALFORMED", "use the next_token of the page before")
        })
    }

    fn token(after: u64, told: usize) -> String {
        format!("{after}.{told}")
    }
}

/// Everything the audit chain has about a node.
pub(super) async fn audited(
    store: &dyn Store,
    path: &ProjectPath,
) -> Result<Vec<AuditEntry>, Status> {
    let subject = format!("node {path}");
    let (mut entries, mut page) = (Vec::new(), Page { size: AUDITED_PAGE, after: None });
    loop {
        let found = store.audited(Some(&subject), &page).await.map_err(|e| error::store(&e))?;
        page.after = found.last().map(|last| last.seq);
        let full = found.len() >= AUDITED_PAGE as usize;
        entries.extend(found);
        if !full {
            return Ok(entries);
        }
    }
}

/// The lines of a node's period beside the entries, and whether nothing lies below the node.
pub(super) fn derive(
    world: &World,
    path: &ProjectPath,
    audited: &[AuditEntry],
    at: UnixMicros,
    now: UnixMicros,
) -> Result<(Statement, bool), Status> {
    let bodies: Result<Vec<_>, _> = audited.iter().map(AuditEntry::read).collect();
    let bodies = bodies.map_err(|fault| Status::data_loss(fault.to_string()))?;
    let past = history(&bodies, world.book.nodes.get(path));
    let found = statement(&world.book, &world.accounts, path, &past, at, now);
    let found = found.ok_or_else(|| {
        let message = format!("{path} has no budget then; for its entries use --project");
        error::status(Code::FailedPrecondition, "NO_BUDGET", message)
    })?;
    Ok((found, world.quota.is_leaf(path)))
}

/// One page.
pub(super) async fn page(
    store: &dyn Store,
    path: &ProjectPath,
    (statement, alone): (Statement, bool),
    mark: Mark,
    size: u32,
) -> Result<v1::StatementResponse, Status> {
    let span = statement.budget.span;
    let wanted = Page { size, after: mark.after };
    let entries = store.statement(path, alone, span, &wanted).await;
    let entries = entries.map_err(|e| error::store(&e))?;
    let last = entries.len() < size as usize;
    let after = entries.last().map_or(0, |entry| entry.seq);
    let (lines, told) = statement.merge(entries, mark.told, last);
    Ok(v1::StatementResponse {
        path: path.to_string(),
        period: statement.budget.period_name(),
        from_us: span.from.0,
        until_us: span.until.0,
        lines: lines.iter().map(line).collect(),
        next_token: if last { String::new() } else { Mark::token(after, told) },
    })
}

fn line(line: &StatementLine) -> v1::StatementLine {
    let units = line.ngh().0.to_string();
    match line {
        StatementLine::Given(Given { at, kind, counter, .. }) => v1::StatementLine {
            at_us: at.0,
            kind: kind.word().to_owned(),
            units,
            counter_account: counter.clone(),
            movement: match kind {
                GivenKind::Moved { number, .. } => number.0,
                GivenKind::Grant | GivenKind::Carry | GivenKind::Forfeit => 0,
            },
            ..Default::default()
        },
        StatementLine::Entry(entry) => v1::StatementLine {
            at_us: entry.at.0,
            kind: entry.kind.word().to_owned(),
            units,
            counter_account: entry.counter.word(),
            seq: entry.seq,
            movement: 0,
            project: entry.project.to_string(),
            gpu_class: entry.class.to_string(),
            job_id: entry.attempt.job.0,
            attempt: entry.attempt.number,
        },
    }
}
