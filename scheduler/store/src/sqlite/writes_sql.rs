//! What writes a round on SQLite: one `INSERT` into a view, whose trigger writes the sheets.
//!
//! The driver hands each statement to a thread of the connection and waits for every result of it; with a statement a
//! sheet, a busy machine spends more on these exchanges than on the writing. One statement is one exchange, and being
//! alone it is a transaction as well. Views and triggers are temporary, so they are of this program's version whatever
//! the file's history is.
//!
//! A trigger opens its tables with all their indexes for each sheet, also for one without rows, which for all sheets takes as long as to
//! write some jobs. So what rounds are mostly made of has views of its own, and a round is written by the smallest that does.

use crate::sheets::{Sheet, Target};
use crate::write_op::FENCED;

/// A view that rounds of some sheets are written into.
///
/// It has the writer's epoch and two columns a sheet: its rows, and how many of them must be written.
#[derive(Debug)]
pub(crate) struct RoundView {
    name: &'static str,
    /// In the order of [`Target::ALL`].
    pub targets: &'static [Target],
}

/// All views, a smaller one before those that have its sheets as well.
pub(crate) static ROUND_VIEWS: [RoundView; 3] = [
    RoundView {
        name: "round_of_submissions",
        targets: &[Target::Jobs, Target::JobSpecs, Target::Events],
    },
    RoundView {
        name: "round_of_lives",
        targets: &[
            Target::Jobs,
            Target::JobSpecs,
            Target::MovedJobs,
            Target::Attempts,
            Target::MovedAttempts,
            Target::GpusGivenBack,
            Target::GpusTaken,
            Target::Passes,
            Target::StartTurns,
            Target::Ledger,
            Target::Events,
        ],
    },
    RoundView { name: "round", targets: &Target::ALL },
];

impl RoundView {
    /// Which of [`ROUND_VIEWS`] has all of these sheets.
    pub fn for_sheets(sheets: &[Sheet]) -> usize {
        let has =
            |view: &RoundView| sheets.iter().all(|sheet| view.targets.contains(&sheet.target));
        ROUND_VIEWS.iter().position(has).unwrap_or(ROUND_VIEWS.len() - 1)
    }

    /// Makes it and its trigger on a connection.
    pub fn make(&self) -> [String; 2] {
        let Self { name, targets } = self;
        let places = 0..targets.len();
        let columns = places.map(|place| format!(", NULL AS rows{place}, NULL AS count{place}"));
        let columns: String = columns.collect();
        let view = format!("CREATE TEMP VIEW {name} AS SELECT NULL AS epoch{columns}");
        let sheets = targets.iter().enumerate().map(|(place, target)| write_sheet(place, *target));
        let trigger = format!(
            "CREATE TEMP TRIGGER write_{name} INSTEAD OF INSERT ON {name} BEGIN {}{} END",
            format_args!(
                "SELECT RAISE(ABORT, '{FENCED}' || leader.epoch) FROM \
                 (SELECT coalesce((SELECT epoch FROM leadership WHERE single = 1), 0) AS epoch) AS leader \
                 WHERE leader.epoch <> NEW.epoch;"
            ),
            sheets.collect::<String>()
        );
        [view, trigger]
    }

    /// Writes a round into it: the epoch, then rows and their number for each of its targets, null for a sheet without rows.
    pub fn write(&self) -> String {
        let values = (2..=2 * self.targets.len() + 1).map(|number| format!(", ${number}"));
        format!("INSERT INTO {} VALUES ($1{})", self.name, values.collect::<String>())
    }
}

/// One sheet within the trigger. Without rows it writes nothing.
fn write_sheet(place: usize, target: Target) -> String {
    let write = statement(target).replace("$1", &format!("NEW.rows{place}"));
    let refusal = target.refusal();
    format!(
        "{write}; SELECT RAISE(ABORT, '{refusal} (' || changes() || ' of ' || NEW.count{place} || ')') \
         WHERE NEW.count{place} <> changes();"
    )
}

/// The statement that writes a sheet for `target`; `$1` stands for the sheet.
fn statement(target: Target) -> &'static str {
    match target {
        Target::Jobs => JOBS,
        Target::JobSpecs => JOB_SPECS,
        Target::MovedJobs => MOVED_JOBS,
        Target::Attempts => ATTEMPTS,
        Target::MovedAttempts => MOVED_ATTEMPTS,
        Target::GpusGivenBack => GPUS_GIVEN_BACK,
        Target::GpusTaken => GPUS_TAKEN,
        Target::Steps => STEPS,
        Target::Tasks => TASKS,
        Target::MovedTasks => MOVED_TASKS,
        Target::Passes => PASSES,
        Target::StartTurns => START_TURNS,
        Target::Ledger => LEDGER,
        Target::Nodes => NODES,
        Target::Admins => ADMINS,
        Target::Healths => HEALTHS,
        Target::Breakers => BREAKERS,
        Target::Windows => WINDOWS,
        Target::Quota => QUOTA,
        Target::QuotaAudit => QUOTA_AUDIT,
        Target::QuotaApprovals => QUOTA_APPROVALS,
        Target::QuotaAlerts => QUOTA_ALERTS,
        Target::Events => EVENTS,
        Target::Tokens => TOKENS,
        Target::JoinTokens => JOIN_TOKENS,
        Target::Answered => ANSWERED,
    }
}

const JOBS: &str = "\
    INSERT INTO jobs (id, owner, idempotency_key, digest, project, name, state, priority, submitted_us, \
    queued_us, ended_us, status, array_id, array_last) \
    SELECT item.value ->> '$.id', item.value ->> '$.owner', item.value ->> '$.idempotency_key', item.value \
    ->> '$.digest', item.value ->> '$.project', item.value ->> '$.name', item.value ->> '$.state', \
    item.value ->> '$.priority', item.value ->> '$.submitted_us', item.value ->> '$.queued_us', item.value \
    ->> '$.ended_us', item.value ->> '$.status', item.value ->> '$.array_id', item.value ->> '$.array_last' \
    FROM jsonb_each($1) AS item";

const JOB_SPECS: &str = "\
    INSERT INTO job_specs (job_id, spec) \
    SELECT item.value ->> '$.id', item.value ->> '$.spec' \
    FROM jsonb_each($1) AS item";

const MOVED_JOBS: &str = "\
    UPDATE jobs SET state = item.value ->> '$.state', queued_us = item.value ->> '$.queued_us', ended_us = \
    item.value ->> '$.ended_us', status = item.value ->> '$.status' \
    FROM jsonb_each($1) AS item \
    WHERE jobs.id = item.value ->> '$.id' AND jobs.state NOT IN ('completed', 'failed', 'cancelled', \
    'timed_out')";

const ATTEMPTS: &str = "\
    INSERT INTO attempts (job_id, number, project, class, gpu_milli, epoch, state, leased_us, \
    started_us, ended_us, hold, measured, idle_told_us, progress, placement) \
    SELECT item.value ->> '$.job_id', item.value ->> '$.number', item.value ->> '$.project', item.value ->> \
    '$.class', item.value ->> '$.gpu_milli', item.value ->> '$.epoch', item.value ->> '$.state', item.value \
    ->> '$.leased_us', item.value ->> '$.started_us', item.value ->> '$.ended_us', item.value ->> '$.hold', \
    item.value ->> '$.measured', item.value ->> '$.idle_told_us', item.value ->> '$.progress', item.value ->> \
    '$.placement' \
    FROM jsonb_each($1) AS item";

const MOVED_ATTEMPTS: &str = "\
    UPDATE attempts SET state = item.value ->> '$.state', started_us = item.value ->> '$.started_us', \
    ended_us = item.value ->> '$.ended_us', hold = item.value ->> '$.hold', measured = item.value ->> \
    '$.measured', idle_told_us = item.value ->> '$.idle_told_us', progress = item.value ->> '$.progress' \
    FROM jsonb_each($1) AS item \
    WHERE attempts.job_id = item.value ->> '$.job_id' AND attempts.number = item.value ->> '$.number' AND \
    attempts.state <> 'ended'";

const GPUS_GIVEN_BACK: &str = "\
    UPDATE gpu_occupancy SET used_milli = used_milli - (item.value ->> '$.milli') \
    FROM jsonb_each($1) AS item \
    WHERE gpu_occupancy.node = item.value ->> '$.node' AND gpu_occupancy.uuid = item.value ->> '$.uuid'";

const GPUS_TAKEN: &str = "\
    INSERT INTO gpu_occupancy (node, uuid, used_milli) \
    SELECT item.value ->> '$.node', item.value ->> '$.uuid', item.value ->> '$.milli' \
    FROM jsonb_each($1) AS item WHERE true \
    ON CONFLICT (node, uuid) DO UPDATE SET used_milli = gpu_occupancy.used_milli + excluded.used_milli";

const STEPS: &str = "\
    INSERT INTO steps (job_id, attempt, number, kind, name, created_us, spec) \
    SELECT item.value ->> '$.job_id', item.value ->> '$.attempt', item.value ->> '$.number', item.value ->> \
    '$.kind', item.value ->> '$.name', item.value ->> '$.created_us', item.value ->> '$.spec' \
    FROM jsonb_each($1) AS item";

const TASKS: &str = "\
    INSERT INTO tasks (job_id, attempt, step, rank, node, local_rank, state) \
    SELECT item.value ->> '$.job_id', item.value ->> '$.attempt', item.value ->> '$.step', item.value ->> \
    '$.rank', item.value ->> '$.node', item.value ->> '$.local_rank', item.value ->> '$.state' \
    FROM jsonb_each($1) AS item";

const MOVED_TASKS: &str = "\
    UPDATE tasks SET node = item.value ->> '$.node', local_rank = item.value ->> '$.local_rank', state = \
    item.value ->> '$.state' \
    FROM jsonb_each($1) AS item \
    WHERE tasks.job_id = item.value ->> '$.job_id' AND tasks.attempt = item.value ->> '$.attempt' AND \
    tasks.step = item.value ->> '$.step' AND tasks.rank = item.value ->> '$.rank'";

const PASSES: &str = "\
    INSERT INTO passes (number, at_us, epoch, body) \
    SELECT item.value ->> '$.number', item.value ->> '$.at_us', item.value ->> '$.epoch', item.value ->> '$.body' \
    FROM jsonb_each($1) AS item";

const START_TURNS: &str = "\
    INSERT INTO start_turns (job_id, attempt, pass, body) \
    SELECT item.value ->> '$.job_id', item.value ->> '$.attempt', item.value ->> '$.pass', item.value ->> '$.body' \
    FROM jsonb_each($1) AS item";

const LEDGER: &str = "\
    INSERT INTO ledger (seq, at_us, kind, project, class, amount, job_id, attempt, counter, from_us, until_us, \
    account_us, weight_milli) \
    SELECT item.value ->> '$.seq', item.value ->> '$.at_us', item.value ->> '$.kind', item.value ->> \
    '$.project', item.value ->> '$.class', item.value ->> '$.amount', item.value ->> '$.job_id', item.value \
    ->> '$.attempt', item.value ->> '$.counter', item.value ->> '$.from_us', item.value ->> '$.until_us', \
    item.value ->> '$.account_us', item.value ->> '$.weight_milli' \
    FROM jsonb_each($1) AS item";

const NODES: &str = "\
    INSERT INTO nodes (name, registered_us, admin, inventory) \
    SELECT item.value ->> '$.name', item.value ->> '$.registered_us', '\"active\"', item.value ->> \
    '$.inventory' \
    FROM jsonb_each($1) AS item WHERE true \
    ON CONFLICT (name) DO UPDATE SET inventory = excluded.inventory";

const ADMINS: &str = "\
    UPDATE nodes SET admin = item.value ->> '$.admin' \
    FROM jsonb_each($1) AS item \
    WHERE nodes.name = item.value ->> '$.name'";

const HEALTHS: &str = "\
    UPDATE nodes SET health = item.value ->> '$.health' \
    FROM jsonb_each($1) AS item \
    WHERE nodes.name = item.value ->> '$.name'";

const BREAKERS: &str = "\
    INSERT INTO breakers (scope, body) \
    SELECT item.value ->> '$.scope', item.value ->> '$.body' \
    FROM jsonb_each($1) AS item WHERE true \
    ON CONFLICT (scope) DO UPDATE SET body = excluded.body";

const WINDOWS: &str = "\
    INSERT INTO windows (id, state, from_us, until_us, reservation, body) \
    SELECT item.value ->> '$.id', item.value ->> '$.state', item.value ->> '$.from_us', item.value ->> \
    '$.until_us', item.value ->> '$.reservation', item.value ->> '$.body' \
    FROM jsonb_each($1) AS item WHERE true \
    ON CONFLICT (id) DO UPDATE SET state = excluded.state, until_us = excluded.until_us, body = excluded.body";

const QUOTA: &str = "\
    INSERT INTO quota (revision, applied_us, tree) \
    SELECT item.value ->> '$.revision', item.value ->> '$.applied_us', item.value ->> '$.tree' \
    FROM jsonb_each($1) AS item";

const QUOTA_AUDIT: &str = "\
    INSERT INTO quota_audit (seq, revision, at_us, subject, source, body, digest) \
    SELECT item.value ->> '$.seq', item.value ->> '$.revision', item.value ->> '$.at_us', item.value ->> \
    '$.subject', item.value ->> '$.source', item.value ->> '$.body', item.value ->> '$.digest' \
    FROM jsonb_each($1) AS item";

const QUOTA_APPROVALS: &str = "\
    INSERT INTO quota_approvals (plan, approver, base_revision, document, at_us) \
    SELECT item.value ->> '$.plan', item.value ->> '$.approver', item.value ->> '$.base_revision', \
    item.value ->> '$.document', item.value ->> '$.at_us' \
    FROM jsonb_each($1) AS item";

const QUOTA_ALERTS: &str = "\
    INSERT INTO quota_alerts (seq, at_us, node, percent, kind, from_us, period, budget, carried, used) \
    SELECT item.value ->> '$.seq', item.value ->> '$.at_us', item.value ->> '$.node', item.value ->> \
    '$.percent', item.value ->> '$.kind', item.value ->> '$.from_us', item.value ->> '$.period', item.value \
    ->> '$.budget', item.value ->> '$.carried', item.value ->> '$.used' \
    FROM jsonb_each($1) AS item";

const EVENTS: &str = "\
    INSERT INTO events (seq, at_us, kind, job_id, attempt, state, node, text) \
    SELECT item.value ->> '$.seq', item.value ->> '$.at_us', item.value ->> '$.kind', item.value ->> \
    '$.job_id', item.value ->> '$.attempt', item.value ->> '$.state', item.value ->> '$.node', item.value \
    ->> '$.text' \
    FROM jsonb_each($1) AS item";

const TOKENS: &str = "\
    INSERT INTO tokens (id, secret_sha256, subject, role, projects, created_us, expires_us, revoked_us) \
    SELECT item.value ->> '$.id', item.value ->> '$.secret_sha256', item.value ->> '$.subject', item.value \
    ->> '$.role', item.value ->> '$.projects', item.value ->> '$.created_us', item.value ->> \
    '$.expires_us', item.value ->> '$.revoked_us' \
    FROM jsonb_each($1) AS item WHERE true \
    ON CONFLICT (id) DO UPDATE SET secret_sha256 = excluded.secret_sha256, subject = excluded.subject, \
    role = excluded.role, projects = excluded.projects, created_us = excluded.created_us, expires_us = \
    excluded.expires_us, revoked_us = excluded.revoked_us";

const JOIN_TOKENS: &str = "\
    INSERT INTO join_tokens (secret_sha256, node, expires_us, used_us, used_by) \
    SELECT item.value ->> '$.secret_sha256', item.value ->> '$.node', item.value ->> '$.expires_us', \
    item.value ->> '$.used_us', item.value ->> '$.used_by' \
    FROM jsonb_each($1) AS item WHERE true \
    ON CONFLICT (secret_sha256) DO UPDATE SET node = excluded.node, expires_us = excluded.expires_us, \
    used_us = excluded.used_us, used_by = excluded.used_by WHERE join_tokens.used_us IS NULL OR \
    (join_tokens.used_us = excluded.used_us AND join_tokens.used_by = excluded.used_by)";

const ANSWERED: &str = "\
    INSERT INTO answered_requests (owner, idempotency_key, digest, answer, at_us) \
    SELECT item.value ->> '$.owner', item.value ->> '$.idempotency_key', item.value ->> '$.digest', \
    item.value ->> '$.answer', item.value ->> '$.at_us' \
    FROM jsonb_each($1) AS item";

#[cfg(test)]
mod tests {
    use super::*;

    fn view_for(targets: &[Target]) -> &'static str {
        let sheet = |target: &Target| Sheet { target: *target, json: String::new(), rows: 0 };
        let sheets: Vec<Sheet> = targets.iter().map(sheet).collect();
        ROUND_VIEWS[RoundView::for_sheets(&sheets)].name
    }

    #[test]
    fn a_round_is_written_by_the_smallest_view_that_has_all_of_its_sheets() {
        assert_eq!(view_for(&[]), "round_of_submissions");
        assert_eq!(view_for(&[Target::Jobs, Target::Events]), "round_of_submissions");
        assert_eq!(view_for(&[Target::Jobs, Target::Ledger]), "round_of_lives");
        assert_eq!(view_for(&[Target::Jobs, Target::Answered]), "round");
    }

    #[test]
    fn views_have_their_sheets_in_the_order_of_writing_and_the_last_has_all() {
        let place = |target: &Target| Target::ALL.iter().position(|other| other == target);
        for view in &ROUND_VIEWS {
            assert!(view.targets.is_sorted_by_key(place), "{}", view.name);
        }
        assert_eq!(ROUND_VIEWS.last().map(|view| view.targets), Some(&Target::ALL[..]));
    }
}
