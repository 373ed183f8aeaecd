//! A round as rows: one JSON array a table, in the order in which the tables must be written.
//!
//! One statement a table and transaction, however many objects changed: what a commit costs beside the disk is
//! mostly the number of statements.

use gotgan_core::amount::UnixMicros;
use serde::Serialize;
use serde_json::json;

use crate::groups::Groups;
use crate::rows::{
    AdminRow, AlertRow, AttemptRow, BreakerRow, EventRow, HealthRow, JobRow, LedgerRow,
    MovedAttemptRow, MovedJobRow, NodeRow, PassRow, QuotaRow, SpecRow, StartTurnRow, StepRow,
    TaskRow, WindowRow, plain,
};
use crate::{Result, Round, StoreError};

/// What a sheet's rows are written to, in the order of writing (a row comes after what it refers to).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Jobs,
    JobSpecs,
    MovedJobs,
    Attempts,
    MovedAttempts,
    GpusGivenBack,
    GpusTaken,
    Steps,
    Tasks,
    MovedTasks,
    Passes,
    StartTurns,
    Ledger,
    Nodes,
    Admins,
    Healths,
    Breakers,
    Windows,
    Quota,
    QuotaAudit,
    QuotaApprovals,
    QuotaAlerts,
    Events,
    Tokens,
    JoinTokens,
    Answered,
}

impl Target {
    /// All of them, in the order of writing.
    pub(crate) const ALL: [Target; 26] = [
        Target::Jobs,
        Target::JobSpecs,
        Target::MovedJobs,
        Target::Attempts,
        Target::MovedAttempts,
        Target::GpusGivenBack,
        Target::GpusTaken,
        Target::Steps,
        Target::Tasks,
        Target::MovedTasks,
        Target::Passes,
        Target::StartTurns,
        Target::Ledger,
        Target::Nodes,
        Target::Admins,
        Target::Healths,
        Target::Breakers,
        Target::Windows,
        Target::Quota,
        Target::QuotaAudit,
        Target::QuotaApprovals,
        Target::QuotaAlerts,
        Target::Events,
        Target::Tokens,
        Target::JoinTokens,
        Target::Answered,
    ];

    /// What it means if fewer rows were written than the sheet has.
    pub(crate) fn refusal(self) -> &'static str {
        match self {
            Target::MovedJobs => "a job that moves is unknown or terminal",
            Target::MovedAttempts => "an attempt that moves is unknown or has ended",
            Target::GpusGivenBack => "a GPU that is given back was never given out",
            Target::MovedTasks => "a task that moves is unknown",
            Target::Admins => "a node that is administered is unknown",
            Target::Healths => "a node whose hardware stands differently is unknown",
            Target::JoinTokens => "a join token was used before",
            Target::Jobs
            | Target::JobSpecs
            | Target::Attempts
            | Target::GpusTaken
            | Target::Steps
            | Target::Tasks
            | Target::Passes
            | Target::StartTurns
            | Target::Ledger
            | Target::Nodes
            | Target::Breakers
            | Target::Windows
            | Target::Quota
            | Target::QuotaAudit
            | Target::QuotaApprovals
            | Target::QuotaAlerts
            | Target::Events
            | Target::Tokens => "a row was not written",
            Target::Answered => "a request with that key was answered before",
        }
    }
}

/// Rows for one target.
pub(crate) struct Sheet {
    pub target: Target,
    /// A JSON array of objects.
    pub json: String,
    pub rows: u64,
}

/// For each target its sheet, if there is one; both are in the order of writing.
pub(crate) fn by_target<'a>(
    targets: &'static [Target],
    sheets: &'a [Sheet],
) -> impl Iterator<Item = Option<&'a Sheet>> {
    debug_assert!(
        sheets.iter().all(|sheet| targets.contains(&sheet.target))
            && sheets.is_sorted_by_key(|sheet| sheet.target),
        "every sheet has its place"
    );
    let mut sheets = sheets.iter().peekable();
    targets.iter().map(move |target| sheets.next_if(|sheet| sheet.target == *target))
}

/// The sheets of a round; none is empty.
pub(crate) fn sheets(round: &Round, now: UnixMicros) -> Result<Vec<Sheet>> {
    let groups = Groups::of(&round.changes)?;
    let mut sheets = Sheets::default();
    sheets.add_jobs(&groups)?;
    sheets.add_attempts(&groups)?;
    sheets.add_steps(&groups)?;
    sheets.add_passes(&groups)?;
    sheets.add(Target::Ledger, groups.entries.iter().map(|entry| LedgerRow::of(entry)))?;
    sheets.add_site(&groups, now)?;
    sheets.add(Target::Events, groups.events.iter().map(|event| EventRow::of(event)))?;
    sheets.add_access(round)?;
    Ok(sheets.0)
}

#[derive(Default)]
struct Sheets(Vec<Sheet>);

impl Sheets {
    fn add<R: Serialize>(&mut self, target: Target, rows: impl Iterator<Item = R>) -> Result<()> {
        let mut json = Vec::from(b"[");
        let mut count = 0;
        for row in rows {
            if count > 0 {
                json.push(b',');
            }
            count += 1;
            serde_json::to_writer(&mut json, &row).map_err(|source| unwritable(target, source))?;
        }
        if count > 0 {
            json.push(b']');
            let json = String::from_utf8(json).map_err(|source| unwritable(target, source))?;
            self.0.push(Sheet { target, json, rows: count });
        }
        Ok(())
    }

    fn add_jobs(&mut self, groups: &Groups<'_>) -> Result<()> {
        let jobs = || groups.jobs.values();
        self.add(Target::Jobs, jobs().map(|(job, status)| JobRow::of(job, status)))?;
        // What a task of an array asks for is written with the array.
        let own = jobs().filter(|(job, _)| job.array.is_none());
        self.add(Target::JobSpecs, own.map(|(job, _)| SpecRow { id: job.id, spec: &job.spec }))?;
        let moved = groups.moved_jobs.iter();
        self.add(Target::MovedJobs, moved.map(|(id, status)| MovedJobRow::of(*id, status)))
    }

    fn add_attempts(&mut self, groups: &Groups<'_>) -> Result<()> {
        self.add(
            Target::Attempts,
            groups.attempts.values().map(|attempt| AttemptRow::of(attempt)),
        )?;
        let moved = groups.moved_attempts.values();
        self.add(Target::MovedAttempts, moved.map(|attempt| MovedAttemptRow::of(attempt)))?;
        let deltas = groups.gpu_deltas();
        for (target, sign) in [(Target::GpusGivenBack, -1), (Target::GpusTaken, 1)] {
            let rows = deltas.iter().filter(|(_, delta)| delta.signum() == sign);
            self.add(target, rows.map(|((node, uuid), delta)| {
                json!({"node": node, "uuid": uuid, "milli": delta.saturating_abs()})
            }))?;
        }
        Ok(())
    }

    fn add_steps(&mut self, groups: &Groups<'_>) -> Result<()> {
        self.add(Target::Steps, groups.steps.values().map(|step| StepRow::of(step)))?;
        for (target, tasks) in
            [(Target::Tasks, &groups.tasks), (Target::MovedTasks, &groups.moved_tasks)]
        {
            let rows = tasks.iter().map(|(key, task)| TaskRow::of(*key, task));
            self.add(target, rows)?;
        }
        Ok(())
    }

    fn add_passes(&mut self, groups: &Groups<'_>) -> Result<()> {
        let passes = groups.passes.iter();
        self.add(Target::Passes, passes.clone().map(|record| PassRow::of(record)))?;
        let starts =
            passes.flat_map(|record| record.starts.iter().map(move |start| (record, start)));
        self.add(Target::StartTurns, starts.map(|(record, start)| StartTurnRow::of(record, start)))
    }

    fn add_site(&mut self, groups: &Groups<'_>, now: UnixMicros) -> Result<()> {
        let nodes = groups.nodes.iter();
        self.add(
            Target::Nodes,
            nodes.map(|(name, inventory)| NodeRow { name, registered_us: now.0, inventory }),
        )?;
        let admins = groups.admins.iter().map(|(name, admin)| AdminRow::of(name, admin));
        self.add(Target::Admins, admins)?;
        let healths = groups.healths.iter();
        self.add(Target::Healths, healths.map(|(name, health)| HealthRow { name, health }))?;
        let breakers = groups.breakers.iter();
        self.add(Target::Breakers, breakers.map(|(scope, body)| BreakerRow { scope, body }))?;
        self.add(Target::Windows, groups.windows.values().map(|window| WindowRow::of(window)))?;
        self.add_quota(groups)
    }

    fn add_quota(&mut self, groups: &Groups<'_>) -> Result<()> {
        let books = groups.quota.values().map(|(book, at)| QuotaRow {
            revision: book.revision,
            applied_us: at.0,
            tree: book,
        });
        self.add(Target::Quota, books)?;
        let entries = groups.audited.iter().map(|entry| {
            json!({
                "seq": entry.seq, "revision": entry.revision, "at_us": entry.at.0, "subject": entry.subject,
                "source": entry.source.word(), "body": &*entry.body, "digest": entry.digest,
            })
        });
        self.add(Target::QuotaAudit, entries)?;
        let approvals = groups.approved.iter().map(|approval| {
            json!({
                "plan": approval.plan, "approver": approval.by, "base_revision": approval.base_revision,
                "document": plain(&approval.document), "at_us": approval.at.0,
            })
        });
        self.add(Target::QuotaApprovals, approvals)?;
        let alerts = groups.alerts.iter();
        self.add(Target::QuotaAlerts, alerts.map(|alert| AlertRow::of(alert)))
    }

    fn add_access(&mut self, round: &Round) -> Result<()> {
        let tokens = last_by(&round.tokens, |token| &token.id);
        self.add(
            Target::Tokens,
            tokens.map(|token| {
                json!({
                    "id": token.id, "secret_sha256": token.secret_sha256, "subject": token.subject,
                    "role": token.role, "projects": json!(token.projects).to_string(),
                    "created_us": token.created.0, "expires_us": token.expires.map(|at| at.0),
                    "revoked_us": token.revoked.map(|at| at.0),
                })
            }),
        )?;
        let join_tokens = last_by(&round.join_tokens, |token| &token.secret_sha256);
        self.add(
            Target::JoinTokens,
            join_tokens.map(|token| {
                let (used_us, used_by) = token.used.as_ref().map(|(at, node)| (at.0, node)).unzip();
                json!({
                    "secret_sha256": token.secret_sha256, "node": token.node,
                    "expires_us": token.expires.0, "used_us": used_us, "used_by": used_by,
                })
            }),
        )?;
        self.add(Target::Answered, round.answered.iter().map(|answered| {
            json!({
                "owner": answered.owner, "idempotency_key": answered.key,
                "digest": &*answered.digest.0, "answer": answered.answer, "at_us": answered.at.0,
            })
        }))
    }
}

/// The last record of each key, in the order of keys.
fn last_by<R>(records: &[R], key: impl Fn(&R) -> &String) -> impl Iterator<Item = &R> {
    let mut last = std::collections::BTreeMap::new();
    for record in records {
        last.insert(key(record).clone(), record);
    }
    last.into_values()
}

fn unwritable(
    target: Target,
    source: impl std::error::Error + Send + Sync + 'static,
) -> StoreError {
    StoreError::Corrupt { what: format!("{target:?} to be written"), source: Box::new(source) }
}
