//! What writes a round: a function of the connection's own, and the statements in it, each of which writes a sheet, whose rows are
//! the objects of one JSON array, on PostgreSQL.
//!
//! With a statement sent for each sheet, the two programs spent more time waking each other than writing, and a server that is
//! far away would answer each of them. The function is temporary, so that it is this program's and no other version's.

use crate::sheets::Target;
use crate::write_op::FENCED;

/// Writes a round: the epoch, then the rows and their number for each of [`Target::ALL`], null for a sheet without rows.
pub(crate) const WRITE_ROUND: &str = "SELECT pg_temp.write_round($1, $2, $3)";

/// Makes the function that writes a round, on a connection. Its own names are such as no column has.
///
/// The lock on the leadership keeps another from taking over between this check and the commit.
pub(crate) fn make_write_round() -> String {
    let sheets = Target::ALL.iter().zip(1..).map(|(target, place)| write_sheet(place, *target));
    format!(
        "CREATE OR REPLACE FUNCTION pg_temp.write_round(round_epoch bigint, round_sheets text[], round_rows bigint[]) \
         RETURNS void LANGUAGE plpgsql AS $write_round$ \
         DECLARE stored_epoch bigint; written_rows bigint; \
         BEGIN \
         SELECT epoch INTO stored_epoch FROM leadership WHERE single = 1 FOR SHARE; \
         IF coalesce(stored_epoch, 0) <> round_epoch THEN \
         RAISE EXCEPTION USING MESSAGE = '{FENCED}' || coalesce(stored_epoch, 0); \
         END IF; \
         {} \
         END $write_round$",
        sheets.collect::<String>()
    )
}

/// One sheet within the function.
fn write_sheet(place: usize, target: Target) -> String {
    let write = statement(target).replace("$1", &format!("round_sheets[{place}]"));
    let refusal = target.refusal();
    format!(
        "IF round_sheets[{place}] IS NOT NULL THEN {write}; GET DIAGNOSTICS written_rows = ROW_COUNT; \
         IF written_rows <> round_rows[{place}] THEN RAISE EXCEPTION USING ERRCODE = 'check_violation', \
         MESSAGE = '{refusal} (' || written_rows || ' of ' || round_rows[{place}] || ')'; END IF; END IF; "
    )
}

/// The statement that writes a sheet for `target`; its one parameter is the sheet.
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
    SELECT item.id, item.owner, item.idempotency_key, item.digest, item.project, item.name, item.state, \
    item.priority, item.submitted_us, item.queued_us, item.ended_us, item.status, item.array_id, \
    item.array_last \
    FROM json_to_recordset($1::json) AS item(id bigint, owner text, idempotency_key text, digest text, \
    project text, name text, state text, priority bigint, submitted_us bigint, queued_us bigint, \
    ended_us bigint, status text, array_id bigint, array_last bigint)";

const JOB_SPECS: &str = "\
    INSERT INTO job_specs (job_id, spec) \
    SELECT item.id, item.spec \
    FROM json_to_recordset($1::json) AS item(id bigint, spec text)";

const MOVED_JOBS: &str = "\
    UPDATE jobs SET state = item.state, queued_us = item.queued_us, ended_us = item.ended_us, status = \
    item.status \
    FROM json_to_recordset($1::json) AS item(id bigint, state text, queued_us bigint, ended_us bigint, \
    status text) \
    WHERE jobs.id = item.id AND jobs.state NOT IN ('completed', 'failed', 'cancelled', 'timed_out')";

const ATTEMPTS: &str = "\
    INSERT INTO attempts (job_id, number, project, class, gpu_milli, epoch, state, leased_us, \
    started_us, ended_us, hold, measured, idle_told_us, progress, placement) \
    SELECT item.job_id, item.number, item.project, item.class, item.gpu_milli, item.epoch, item.state, \
    item.leased_us, item.started_us, item.ended_us, item.hold, item.measured, item.idle_told_us, \
    item.progress, item.placement \
    FROM json_to_recordset($1::json) AS item(job_id bigint, number bigint, project text, class text, \
    gpu_milli bigint, epoch bigint, state text, leased_us bigint, started_us bigint, ended_us bigint, \
    hold bigint, measured text, idle_told_us bigint, progress text, placement text)";

const MOVED_ATTEMPTS: &str = "\
    UPDATE attempts SET state = item.state, started_us = item.started_us, ended_us = item.ended_us, \
    hold = item.hold, measured = item.measured, idle_told_us = item.idle_told_us, progress = item.progress \
    FROM json_to_recordset($1::json) AS item(job_id bigint, number bigint, state text, started_us bigint, \
    ended_us bigint, hold bigint, measured text, idle_told_us bigint, progress text) \
    WHERE attempts.job_id = item.job_id AND attempts.number = item.number AND attempts.state <> 'ended'";

const GPUS_GIVEN_BACK: &str = "\
    UPDATE gpu_occupancy SET used_milli = used_milli - item.milli \
    FROM json_to_recordset($1::json) AS item(node text, uuid text, milli bigint) \
    WHERE gpu_occupancy.node = item.node AND gpu_occupancy.uuid = item.uuid";

const GPUS_TAKEN: &str = "\
    INSERT INTO gpu_occupancy (node, uuid, used_milli) \
    SELECT item.node, item.uuid, item.milli \
    FROM json_to_recordset($1::json) AS item(node text, uuid text, milli bigint) WHERE true \
    ON CONFLICT (node, uuid) DO UPDATE SET used_milli = gpu_occupancy.used_milli + excluded.used_milli";

const STEPS: &str = "\
    INSERT INTO steps (job_id, attempt, number, kind, name, created_us, spec) \
    SELECT item.job_id, item.attempt, item.number, item.kind, item.name, item.created_us, item.spec \
    FROM json_to_recordset($1::json) AS item(job_id bigint, attempt bigint, number bigint, kind text, \
    name text, created_us bigint, spec text)";

const TASKS: &str = "\
    INSERT INTO tasks (job_id, attempt, step, rank, node, local_rank, state) \
    SELECT item.job_id, item.attempt, item.step, item.rank, item.node, item.local_rank, item.state \
    FROM json_to_recordset($1::json) AS item(job_id bigint, attempt bigint, step bigint, rank bigint, \
    node text, local_rank bigint, state text)";

const MOVED_TASKS: &str = "\
    UPDATE tasks SET node = item.node, local_rank = item.local_rank, state = item.state \
    FROM json_to_recordset($1::json) AS item(job_id bigint, attempt bigint, step bigint, rank bigint, \
    node text, local_rank bigint, state text) \
    WHERE tasks.job_id = item.job_id AND tasks.attempt = item.attempt AND tasks.step = item.step AND \
    tasks.rank = item.rank";

const PASSES: &str = "\
    INSERT INTO passes (number, at_us, epoch, body) \
    SELECT item.number, item.at_us, item.epoch, item.body \
    FROM json_to_recordset($1::json) AS item(number bigint, at_us bigint, epoch bigint, body text)";

const START_TURNS: &str = "\
    INSERT INTO start_turns (job_id, attempt, pass, body) \
    SELECT item.job_id, item.attempt, item.pass, item.body \
    FROM json_to_recordset($1::json) AS item(job_id bigint, attempt bigint, pass bigint, body text)";

const LEDGER: &str = "\
    INSERT INTO ledger (seq, at_us, kind, project, class, amount, job_id, attempt, counter, from_us, until_us, \
    account_us, weight_milli) \
    SELECT item.seq, item.at_us, item.kind, item.project, item.class, item.amount, item.job_id, item.attempt, \
    item.counter, item.from_us, item.until_us, item.account_us, item.weight_milli \
    FROM json_to_recordset($1::json) AS item(seq bigint, at_us bigint, kind text, project text, class \
    text, amount bigint, job_id bigint, attempt bigint, counter text, from_us bigint, until_us bigint, \
    account_us bigint, weight_milli bigint)";

const NODES: &str = "\
    INSERT INTO nodes (name, registered_us, admin, inventory) \
    SELECT item.name, item.registered_us, '\"active\"', item.inventory \
    FROM json_to_recordset($1::json) AS item(name text, registered_us bigint, inventory text) WHERE true \
    ON CONFLICT (name) DO UPDATE SET inventory = excluded.inventory";

const ADMINS: &str = "\
    UPDATE nodes SET admin = item.admin \
    FROM json_to_recordset($1::json) AS item(name text, admin text) \
    WHERE nodes.name = item.name";

const HEALTHS: &str = "\
    UPDATE nodes SET health = item.health \
    FROM json_to_recordset($1::json) AS item(name text, health text) \
    WHERE nodes.name = item.name";

const BREAKERS: &str = "\
    INSERT INTO breakers (scope, body) \
    SELECT item.scope, item.body \
    FROM json_to_recordset($1::json) AS item(scope text, body text) WHERE true \
    ON CONFLICT (scope) DO UPDATE SET body = excluded.body";

const WINDOWS: &str = "\
    INSERT INTO windows (id, state, from_us, until_us, reservation, body) \
    SELECT item.id, item.state, item.from_us, item.until_us, item.reservation, item.body \
    FROM json_to_recordset($1::json) AS item(id bigint, state text, from_us bigint, until_us bigint, \
    reservation text, body text) WHERE true \
    ON CONFLICT (id) DO UPDATE SET state = excluded.state, until_us = excluded.until_us, body = excluded.body";

const QUOTA: &str = "\
    INSERT INTO quota (revision, applied_us, tree) \
    SELECT item.revision, item.applied_us, item.tree \
    FROM json_to_recordset($1::json) AS item(revision bigint, applied_us bigint, tree text)";

const QUOTA_AUDIT: &str = "\
    INSERT INTO quota_audit (seq, revision, at_us, subject, source, body, digest) \
    SELECT item.seq, item.revision, item.at_us, item.subject, item.source, item.body, item.digest \
    FROM json_to_recordset($1::json) AS item(seq bigint, revision bigint, at_us bigint, subject text, source \
    text, body text, digest text)";

const QUOTA_APPROVALS: &str = "\
    INSERT INTO quota_approvals (plan, approver, base_revision, document, at_us) \
    SELECT item.plan, item.approver, item.base_revision, item.document, item.at_us \
    FROM json_to_recordset($1::json) AS item(plan text, approver text, base_revision bigint, document text, \
    at_us bigint)";

const QUOTA_ALERTS: &str = "\
    INSERT INTO quota_alerts (seq, at_us, node, percent, kind, from_us, period, budget, carried, used) \
    SELECT item.seq, item.at_us, item.node, item.percent, item.kind, item.from_us, item.period, item.budget, \
    item.carried, item.used \
    FROM json_to_recordset($1::json) AS item(seq bigint, at_us bigint, node text, percent bigint, kind text, \
    from_us bigint, period text, budget text, carried text, used text)";

const EVENTS: &str = "\
    INSERT INTO events (seq, at_us, kind, job_id, attempt, state, node, text) \
    SELECT item.seq, item.at_us, item.kind, item.job_id, item.attempt, item.state, item.node, item.text \
    FROM json_to_recordset($1::json) AS item(seq bigint, at_us bigint, kind text, job_id bigint, attempt \
    bigint, state text, node text, text text)";

const TOKENS: &str = "\
    INSERT INTO tokens (id, secret_sha256, subject, role, projects, created_us, expires_us, revoked_us) \
    SELECT item.id, item.secret_sha256, item.subject, item.role, item.projects, item.created_us, \
    item.expires_us, item.revoked_us \
    FROM json_to_recordset($1::json) AS item(id text, secret_sha256 text, subject text, role text, \
    projects text, created_us bigint, expires_us bigint, revoked_us bigint) WHERE true \
    ON CONFLICT (id) DO UPDATE SET secret_sha256 = excluded.secret_sha256, subject = excluded.subject, \
    role = excluded.role, projects = excluded.projects, created_us = excluded.created_us, expires_us = \
    excluded.expires_us, revoked_us = excluded.revoked_us";

const JOIN_TOKENS: &str = "\
    INSERT INTO join_tokens (secret_sha256, node, expires_us, used_us, used_by) \
    SELECT item.secret_sha256, item.node, item.expires_us, item.used_us, item.used_by \
    FROM json_to_recordset($1::json) AS item(secret_sha256 text, node text, expires_us bigint, used_us \
    bigint, used_by text) WHERE true \
    ON CONFLICT (secret_sha256) DO UPDATE SET node = excluded.node, expires_us = excluded.expires_us, \
    used_us = excluded.used_us, used_by = excluded.used_by WHERE join_tokens.used_us IS NULL OR \
    (join_tokens.used_us = excluded.used_us AND join_tokens.used_by = excluded.used_by)";

const ANSWERED: &str = "\
    INSERT INTO answered_requests (owner, idempotency_key, digest, answer, at_us) \
    SELECT item.owner, item.idempotency_key, item.digest, item.answer, item.at_us \
    FROM json_to_recordset($1::json) AS item(owner text, idempotency_key text, digest text, answer text, \
    at_us bigint)";
