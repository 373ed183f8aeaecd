//! Statements whose text serves both databases.

/// Columns of [`crate::decode::JobRow`].
macro_rules! job_columns {
    () => {
        "jobs.id, jobs.owner, jobs.idempotency_key, jobs.digest, jobs.submitted_us, jobs.status, job_specs.spec, \
         jobs.array_id"
    };
}

/// Jobs with what they ask for: a task of an array asks what its array does.
macro_rules! jobs_and_specs {
    () => {
        "jobs JOIN job_specs ON job_specs.job_id = coalesce(jobs.array_id, jobs.id)"
    };
}

/// Columns of [`crate::decode::AttemptRow`].
macro_rules! attempt_columns {
    () => {
        "attempts.job_id, attempts.number, attempts.project, attempts.epoch, attempts.state, \
         attempts.leased_us, attempts.started_us, attempts.ended_us, attempts.hold, attempts.progress, \
         attempts.placement, attempts.measured, attempts.idle_told_us"
    };
}

/// Columns of [`crate::decode::StepRow`].
macro_rules! step_columns {
    () => {
        "steps.job_id, steps.attempt, steps.number, steps.kind, steps.created_us, steps.spec"
    };
}

/// Columns of [`crate::decode::TaskRow`].
macro_rules! task_columns {
    () => {
        "tasks.job_id, tasks.attempt, tasks.step, tasks.rank, tasks.node, tasks.local_rank, tasks.state"
    };
}

/// Columns of [`crate::decode::LedgerRow`].
macro_rules! ledger_columns {
    () => {
        "ledger.seq, ledger.at_us, ledger.kind, ledger.project, ledger.class, ledger.amount, \
         ledger.job_id, ledger.attempt, ledger.counter, ledger.from_us, ledger.until_us, ledger.account_us, \
         ledger.weight_milli"
    };
}

/// Columns of [`crate::decode::EventRow`].
macro_rules! event_columns {
    () => {
        "events.seq, events.at_us, events.kind, events.job_id, events.attempt, events.state, events.node, events.text"
    };
}

/// Columns of [`crate::decode::AlertRow`].
macro_rules! alert_columns {
    () => {
        "quota_alerts.seq, quota_alerts.at_us, quota_alerts.node, quota_alerts.percent, quota_alerts.kind, \
         quota_alerts.from_us, quota_alerts.period, quota_alerts.budget, quota_alerts.carried, quota_alerts.used"
    };
}

/// Jobs that have not ended, whose specification is that of the job in this column.
macro_rules! living_jobs {
    ($asks_as:literal, $which:literal, $order:literal) => {
        concat!(
            "SELECT ",
            job_columns!(),
            " FROM jobs JOIN job_specs ON job_specs.job_id = ",
            $asks_as,
            " WHERE ",
            $which,
            " AND jobs.state IN ('held', 'pending', 'starting', 'running') ORDER BY ",
            $order
        )
    };
}

/// Columns of [`crate::decode::AuditRow`].
macro_rules! audit_columns {
    () => {
        "quota_audit.seq, quota_audit.revision, quota_audit.at_us, quota_audit.subject, quota_audit.source, \
         quota_audit.body, quota_audit.digest"
    };
}

pub(crate) use {
    alert_columns, attempt_columns, event_columns, job_columns, jobs_and_specs, ledger_columns,
};

/// Whoever holds it already may take it again at once: a process that was killed need not wait for itself.
/// The youngest first.
pub(crate) const RECENT_SUBMISSIONS: &str = "SELECT owner, idempotency_key, digest, id FROM jobs WHERE array_id IS NULL ORDER BY id DESC LIMIT $1";

pub(crate) const TAKE_LEADERSHIP: &str = "\
    INSERT INTO leadership (single, epoch, holder, address, expires_us) VALUES (1, 1, $1, $2, $3) \
    ON CONFLICT (single) DO UPDATE SET epoch = leadership.epoch + 1, holder = excluded.holder, \
        address = excluded.address, expires_us = excluded.expires_us \
    WHERE leadership.expires_us <= $4 OR leadership.holder = excluded.holder \
        OR (leadership.epoch = $5 AND leadership.expires_us = $6) \
    RETURNING epoch, holder, address, expires_us";

pub(crate) const RENEW_LEADERSHIP: &str = "UPDATE leadership SET expires_us = $1 WHERE epoch = $2";

pub(crate) const RESIGN: &str =
    "UPDATE leadership SET expires_us = $1 WHERE epoch = $2 AND expires_us > $1";

pub(crate) const LEADERSHIP: &str = "SELECT epoch, holder, address, expires_us FROM leadership";

/// A backup that was restored has the numbers of jobs that may have been given out since in a setting.
pub(crate) const SEQUENCES: &str = "\
    SELECT (SELECT coalesce(max(numbers.last), 0) + 1 FROM (SELECT max(id) AS last FROM jobs UNION ALL \
            SELECT max(array_last) AS last FROM jobs WHERE array_last IS NOT NULL UNION ALL \
            SELECT CAST(value AS BIGINT) AS last FROM settings WHERE name = 'jobs_skipped_until') AS numbers), \
        (SELECT coalesce(max(seq), 0) + 1 FROM events), \
        (SELECT coalesce(max(seq), 0) + 1 FROM ledger), \
        (SELECT coalesce(max(id), 0) + 1 FROM windows), \
        (SELECT coalesce(max(number), 0) + 1 FROM passes)";

pub(crate) const START_RECORD: &str = "\
    SELECT passes.number, passes.epoch, passes.body, start_turns.body FROM start_turns \
    JOIN passes ON passes.number = start_turns.pass WHERE start_turns.job_id = $1 AND start_turns.attempt = $2";

pub(crate) const NODES: &str = "SELECT inventory, admin, health FROM nodes ORDER BY name";

pub(crate) const BREAKERS: &str = "SELECT body FROM breakers ORDER BY scope";

/// With the last reservations that are over, for jobs that still ask for them: as many as a world remembers
/// (`gotgan_core::reservation::ENDED_MAX`).
pub(crate) const LIVE_WINDOWS: &str = "\
    SELECT body FROM windows WHERE state IN ('planned', 'open') OR id IN ( \
        SELECT id FROM windows WHERE reservation IS NOT NULL AND state IN ('over', 'cancelled') \
        ORDER BY id DESC LIMIT 1000) \
    ORDER BY id";

pub(crate) const QUOTA: &str = "SELECT tree FROM quota ORDER BY revision DESC LIMIT 1";

/// The book that was in force at a moment.
pub(crate) const QUOTA_AT: &str =
    "SELECT tree FROM quota WHERE applied_us <= $1 ORDER BY revision DESC LIMIT 1";

pub(crate) const LAST_AUDITED: &str =
    concat!("SELECT ", audit_columns!(), " FROM quota_audit ORDER BY seq DESC LIMIT 1");

/// Entries by command about things that no files said anything about since.
pub(crate) const UNFILED: &str = concat!(
    "SELECT ",
    audit_columns!(),
    " FROM quota_audit WHERE source = 'command' AND NOT EXISTS (SELECT 1 FROM quota_audit AS filed ",
    "WHERE filed.subject = quota_audit.subject AND filed.source = 'files' ",
    "AND filed.seq > quota_audit.seq) ORDER BY seq"
);

/// Approvals of plans for the revision in force.
pub(crate) const APPROVALS: &str = "\
    SELECT plan, base_revision, approver, document, at_us FROM quota_approvals \
    WHERE base_revision = (SELECT coalesce(max(revision), 0) FROM quota) ORDER BY at_us, plan, approver";

pub(crate) const AUDITED: &str =
    concat!("SELECT ", audit_columns!(), " FROM quota_audit WHERE seq > $1 ORDER BY seq LIMIT $2");

pub(crate) const AUDITED_SUBJECT: &str = concat!(
    "SELECT ",
    audit_columns!(),
    " FROM quota_audit WHERE subject = $3 AND seq > $1 ORDER BY seq LIMIT $2"
);

/// Jobs that live and are no tasks of arrays. Apart from those, as both tables are in the order of these: a database that
/// has to look for each one's specification takes twice as long.
pub(crate) const LIVE_JOBS: &str = living_jobs!("jobs.id", "jobs.array_id IS NULL", "jobs.id");

pub(crate) const LIVE_ARRAY_TASKS: &str =
    living_jobs!("jobs.array_id", "jobs.array_id IS NOT NULL", "jobs.array_id, jobs.id");

pub(crate) const LIVE_ATTEMPTS: &str = concat!(
    "SELECT ",
    attempt_columns!(),
    " FROM attempts WHERE state <> 'ended' ORDER BY job_id, number"
);

/// What attempts held that have ended since `$1`, and whether it was given back. What comes back from the pool was only
/// charged too far, beyond an end that was told late.
pub(crate) const HELD_SINCE: &str = "\
    SELECT project, class, gpu_milli, leased_us, ended_us, \
        CAST(CASE WHEN EXISTS (SELECT 1 FROM ledger WHERE ledger.job_id = attempts.job_id \
            AND ledger.attempt = attempts.number AND ledger.kind = 'refund' \
            AND ledger.counter <> 'pool') THEN 1 ELSE 0 END AS BIGINT) \
    FROM attempts WHERE ended_us >= $1 AND class IS NOT NULL AND gpu_milli > 0 \
        AND NOT EXISTS (SELECT 1 FROM ledger WHERE ledger.job_id = attempts.job_id \
            AND ledger.attempt = attempts.number AND ledger.weight_milli = 0)";

pub(crate) const LIVE_STEPS: &str = concat!(
    "SELECT ",
    step_columns!(),
    " FROM attempts ",
    "JOIN steps ON steps.job_id = attempts.job_id AND steps.attempt = attempts.number ",
    "WHERE attempts.state <> 'ended' ORDER BY steps.job_id, steps.attempt, steps.number"
);

pub(crate) const LIVE_TASKS: &str = concat!(
    "SELECT ",
    task_columns!(),
    " FROM attempts ",
    "JOIN tasks ON tasks.job_id = attempts.job_id AND tasks.attempt = attempts.number ",
    "WHERE attempts.state <> 'ended' ORDER BY tasks.job_id, tasks.attempt, tasks.step, tasks.rank"
);

pub(crate) const JOB: &str =
    concat!("SELECT ", job_columns!(), " FROM ", jobs_and_specs!(), " WHERE jobs.id = $1");

/// States of jobs with numbers from `$1` to `$2`.
pub(crate) const TASK_STATES: &str = "SELECT id, state FROM jobs WHERE id BETWEEN $1 AND $2";

/// The array among whose numbers `$1` is.
pub(crate) const ARRAY_OVER: &str = concat!(
    "SELECT ",
    job_columns!(),
    " FROM ",
    jobs_and_specs!(),
    " WHERE jobs.array_last >= $1 AND jobs.id < $1 ORDER BY jobs.array_last LIMIT 1"
);

pub(crate) const ATTEMPTS_OF_JOB: &str =
    concat!("SELECT ", attempt_columns!(), " FROM attempts WHERE job_id = $1 ORDER BY number");

pub(crate) const STEPS_OF_JOB: &str =
    concat!("SELECT ", step_columns!(), " FROM steps WHERE job_id = $1 ORDER BY attempt, number");

pub(crate) const TASKS_OF_JOB: &str = concat!(
    "SELECT ",
    task_columns!(),
    " FROM tasks WHERE job_id = $1 ORDER BY attempt, step, rank"
);

/// Sums of one job by attempt: charges, refunds.
pub(crate) const SUMS_OF_JOB: &str = "\
    SELECT attempt, \
        CAST(sum(CASE WHEN kind IN ('charge', 'overuse') THEN amount ELSE 0 END) AS BIGINT), \
        CAST(sum(CASE kind WHEN 'refund' THEN amount ELSE 0 END) AS BIGINT) \
    FROM ledger WHERE job_id = $1 GROUP BY attempt ORDER BY attempt";

/// What was used by project, account and weight; amounts with different weights are summed by the program, in more bits
/// than databases have.
pub(crate) const USED: &str = "\
    SELECT project, account_us, weight_milli, \
        CAST(sum(CASE kind WHEN 'refund' THEN -amount ELSE amount END) AS BIGINT) \
    FROM ledger WHERE kind IN ('charge', 'overuse', 'refund') \
    GROUP BY project, account_us, weight_milli ORDER BY project, account_us, weight_milli";

pub(crate) const COUNT_JOBS: &str = "SELECT state, count(*) FROM jobs GROUP BY state";

pub(crate) const EVENTS: &str =
    concat!("SELECT ", event_columns!(), " FROM events WHERE seq > $1 ORDER BY seq LIMIT $2");

/// The last `$2` of the node `$1`, the newest first.
pub(crate) const EVENTS_OF_NODE: &str =
    concat!("SELECT ", event_columns!(), " FROM events WHERE node = $1 ORDER BY seq DESC LIMIT $2");

/// The first entry in the accounts from `$1` on: those that begin later have none before it.
pub(crate) const FIRST_OF_ACCOUNTS: &str =
    "SELECT seq FROM ledger WHERE account_us >= $1 ORDER BY account_us, seq LIMIT 1";

/// `$1` after, `$2` node, `$3` and `$4` accounts, `$5` limit; along the index of projects.
pub(crate) const STATEMENT_ALONE: &str = concat!(
    "SELECT ",
    ledger_columns!(),
    " FROM ledger WHERE ledger.project = $2 AND ledger.seq > $1 ",
    "AND ledger.account_us >= $3 AND ledger.account_us < $4 ORDER BY ledger.seq LIMIT $5"
);

/// The same with everything below: `/` and `0` are neighbours, and no path has a character between them.
pub(crate) const STATEMENT: &str = concat!(
    "SELECT ",
    ledger_columns!(),
    " FROM ledger WHERE ledger.seq > $1 AND (ledger.project || '' = $2 ",
    "OR (ledger.project || '' > $2 || '/' AND ledger.project || '' < $2 || '0')) ",
    "AND ledger.account_us + 0 >= $3 AND ledger.account_us + 0 < $4 ORDER BY ledger.seq LIMIT $5"
);

/// The last alert of each node and percentage.
pub(crate) const LAST_ALERTS: &str = concat!(
    "SELECT ",
    alert_columns!(),
    " FROM quota_alerts WHERE seq IN (SELECT max(seq) FROM quota_alerts GROUP BY node, percent) ORDER BY seq"
);

pub(crate) const ANSWERED: &str = "\
    SELECT owner, idempotency_key, digest, answer, at_us FROM answered_requests \
    WHERE owner = $1 AND idempotency_key = $2";

pub(crate) const TOKENS: &str = "\
    SELECT id, secret_sha256, subject, role, projects, created_us, expires_us, revoked_us \
    FROM tokens ORDER BY created_us, id";

pub(crate) const JOIN_TOKEN: &str = "\
    SELECT secret_sha256, node, expires_us, used_us, used_by FROM join_tokens WHERE secret_sha256 = $1";

pub(crate) const INSERT_SETTING: &str =
    "INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";

pub(crate) const KEEP_SETTING: &str = "INSERT INTO settings (name, value) VALUES ($1, $2) \
     ON CONFLICT (name) DO UPDATE SET value = excluded.value";

/// Number of the last migration.
pub(crate) const FORM: &str = "SELECT CAST(max(version) AS BIGINT) FROM _sqlx_migrations";

/// After a restore: nobody leads, and the next to lead has an epoch that no worker has seen.
pub(crate) const END_LEADERSHIP: &str =
    "UPDATE leadership SET epoch = epoch + $1, holder = 'nobody, after a restore', expires_us = 0";

/// After a restore: the next job has a number that nobody has seen.
pub(crate) const SKIP_JOBS: &str = "\
    INSERT INTO settings (name, value) \
    SELECT 'jobs_skipped_until', CAST(coalesce(max(numbers.last), 0) + $1 AS TEXT) FROM ( \
        SELECT max(id) AS last FROM jobs UNION ALL SELECT max(array_last) AS last FROM jobs UNION ALL \
        SELECT CAST(value AS BIGINT) AS last FROM settings WHERE name = 'jobs_skipped_until') AS numbers \
    WHERE true ON CONFLICT (name) DO UPDATE SET value = excluded.value";

/// What every GPU is given to.
pub(crate) const OCCUPIED: &str =
    "SELECT node, uuid, used_milli FROM gpu_occupancy ORDER BY node, uuid";

/// Every book there was.
pub(crate) const ALL_QUOTA: &str = "SELECT tree FROM quota ORDER BY revision";

pub(crate) const SETTING: &str = "SELECT value FROM settings WHERE name = $1";

/// The next attempts after a job and number, for going through all of them in pieces.
pub(crate) const ATTEMPTS_AFTER: &str = concat!(
    "SELECT ",
    attempt_columns!(),
    " FROM attempts WHERE (job_id, number) > ($1, $2) ",
    "ORDER BY job_id, number LIMIT $3"
);

/// Ledger lines of the jobs from one to another.
pub(crate) const LEDGER_OF_JOBS: &str = concat!(
    "SELECT ",
    ledger_columns!(),
    " FROM ledger WHERE job_id BETWEEN $1 AND $2 ORDER BY job_id, seq"
);

/// Ledger lines that belong to no attempt.
pub(crate) const LEDGER_ORPHANS: &str = concat!(
    "SELECT ",
    ledger_columns!(),
    " FROM ledger WHERE NOT EXISTS (SELECT 1 FROM attempts ",
    "WHERE attempts.job_id = ledger.job_id AND attempts.number = ledger.attempt) ORDER BY seq LIMIT $1"
);
