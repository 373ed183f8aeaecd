//! Statements in the words of PostgreSQL. Lists come as JSON arrays in one parameter.

use crate::sql::{
    alert_columns, attempt_columns, event_columns, job_columns, jobs_and_specs, ledger_columns,
};

pub(crate) use super::writes_sql::{WRITE_ROUND, make_write_round};
pub(crate) use crate::sql::*;

pub(crate) const BEGIN_WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
/// All statements of a read see one state of the database.
pub(crate) const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// The lock keeps another from taking over between this check and the commit.
pub(crate) const EPOCH: &str = "SELECT epoch FROM leadership WHERE single = 1 FOR SHARE";

/// Whoever commits a round holds the row for share from its first statement on, and sends the commit only after that.
pub(crate) const SETTLE: &str = "SELECT epoch FROM leadership WHERE single = 1 FOR UPDATE";

/// Name and type of each column of table `$1`.
pub(crate) const COLUMNS: &str = "\
    SELECT column_name::text, data_type::text FROM information_schema.columns \
    WHERE table_schema = current_schema() AND table_name = $1 ORDER BY ordinal_position";

/// Every row of a table as an array of JSON.
pub(crate) fn export_rows(table: &str, columns: &[String]) -> String {
    format!("SELECT json_build_array({})::text FROM {table}", columns.join(", "))
}

/// Writes rows, an array of arrays of JSON in `$1`; the columns with their types and where in a row they stand.
pub(crate) fn import_rows(table: &str, columns: &[(usize, &(String, String))]) -> String {
    let names: Vec<&str> = columns.iter().map(|(_, (name, _))| name.as_str()).collect();
    let values: Vec<String> = columns
        .iter()
        .map(|(place, (_, kind))| format!("(item.value ->> {place})::{kind}"))
        .collect();
    let (names, values) = (names.join(", "), values.join(", "));
    format!(
        "INSERT INTO {table} ({names}) SELECT {values} FROM json_array_elements($1::json) AS item"
    )
}

pub(crate) const SUBMISSIONS: &str = "\
    SELECT jobs.owner, jobs.idempotency_key, jobs.digest, jobs.id FROM json_array_elements($1::json) AS item \
    JOIN jobs ON jobs.owner = item.value ->> 0 AND jobs.idempotency_key = item.value ->> 1 ORDER BY jobs.id";

pub(crate) const JOB_STATES: &str = "\
    SELECT id, state FROM jobs WHERE id IN (SELECT value::bigint FROM json_array_elements_text($1::json))";

/// A filter by paths: `/` and `0` are neighbours, and no path has a character between them.
macro_rules! within {
    ($column:literal, $list:literal) => {
        concat!(
            "(",
            $list,
            "::text IS NULL OR EXISTS (SELECT 1 FROM json_array_elements_text(",
            $list,
            "::json) AS path WHERE ",
            $column,
            " = path.value OR (",
            $column,
            " > path.value || '/' AND ",
            $column,
            " < path.value || '0')))"
        )
    };
}

/// One statement for every listing: it is planned anew each time, with the values, so that conditions that are
/// not set vanish and the rest chooses its index.
const LIST: &str = concat!(
    "SELECT ",
    job_columns!(),
    " FROM ",
    jobs_and_specs!(),
    " WHERE jobs.id < $1 ",
    "AND ($2::text IS NULL OR jobs.state = ANY (ARRAY(SELECT json_array_elements_text($2::json)))) ",
    "AND ",
    within!("jobs.project", "$3"),
    " ",
    "AND ($4::text IS NULL OR jobs.project = $4 OR (jobs.project > $4 || '/' AND jobs.project < $4 || '0')) ",
    "AND ($5::text IS NULL OR jobs.owner = $5) ",
    "AND ($6::text IS NULL OR jobs.name = $6) ",
    "AND ($7::text IS NULL OR jobs.id = ANY (ARRAY(SELECT json_array_elements_text($7::json)::bigint))) ",
    "AND ($9::bigint IS NULL OR jobs.array_id IS NULL) AND ($10::bigint IS NULL OR jobs.array_id = $10) ",
    "ORDER BY jobs.id DESC LIMIT $8"
);

pub(crate) const LIST_ALL: &str = LIST;
pub(crate) const LIST_SUBMITTED: &str = LIST;
pub(crate) const LIST_BY_ARRAY: &str = LIST;
pub(crate) const LIST_BY_ID: &str = LIST;
pub(crate) const LIST_BY_OWNER: &str = LIST;
pub(crate) const LIST_BY_STATE: &str = LIST;
pub(crate) const LIST_WITHIN: &str = LIST;

pub(crate) const LATEST_ATTEMPTS: &str = concat!(
    "SELECT DISTINCT ON (attempts.job_id) ",
    attempt_columns!(),
    " FROM attempts ",
    "WHERE attempts.job_id IN (SELECT value::bigint FROM json_array_elements_text($1::json)) ",
    "ORDER BY attempts.job_id, attempts.number DESC"
);

pub(crate) const PAID: &str = "\
    SELECT job_id, CAST(sum(CASE WHEN kind IN ('charge', 'overuse') THEN amount WHEN kind = 'refund' THEN -amount ELSE 0 END) AS BIGINT) \
    FROM ledger WHERE job_id IN (SELECT value::bigint FROM json_array_elements_text($1::json)) GROUP BY job_id";

pub(crate) const EVENTS_OF_JOBS: &str = concat!(
    "SELECT ",
    event_columns!(),
    " FROM events WHERE seq > $1 ",
    "AND job_id IN (SELECT value::bigint FROM json_array_elements_text($3::json)) ORDER BY seq LIMIT $2"
);

/// `$1` after, `$2` paths, `$3` job, `$4` limit.
pub(crate) const LEDGER: &str = concat!(
    "SELECT ",
    ledger_columns!(),
    " FROM ledger WHERE ledger.seq > $1 AND ",
    within!("ledger.project", "$2"),
    " ",
    "AND ($3::bigint IS NULL OR ledger.job_id = $3) ORDER BY ledger.seq LIMIT $4"
);

pub(crate) const LEDGER_OF_JOB: &str = LEDGER;
pub(crate) const LEDGER_WITHIN: &str = LEDGER;

/// `$1` after, `$2` paths, `$3` limit.
pub(crate) const ALERTS: &str = concat!(
    "SELECT ",
    alert_columns!(),
    " FROM quota_alerts WHERE quota_alerts.seq > $1 AND ",
    within!("quota_alerts.node", "$2"),
    " ORDER BY quota_alerts.seq LIMIT $3"
);

pub(crate) const ALERTS_WITHIN: &str = ALERTS;

pub(crate) const BALANCES: &str = "\
    SELECT project, class, \
        CAST(sum(CASE WHEN kind IN ('charge', 'overuse') THEN amount ELSE 0 END) AS BIGINT), \
        CAST(sum(CASE kind WHEN 'overuse' THEN amount ELSE 0 END) AS BIGINT), \
        CAST(sum(CASE kind WHEN 'refund' THEN amount ELSE 0 END) AS BIGINT), \
        CAST(sum(CASE kind WHEN 'hold' THEN amount WHEN 'release' THEN -amount ELSE 0 END) AS BIGINT) \
    FROM ledger \
    WHERE $1::text IS NULL OR project = $1 OR (project > $1 || '/' AND project < $1 || '0') \
    GROUP BY project, class ORDER BY project, class";

pub(crate) const BALANCES_WITHIN: &str = BALANCES;
