//! Statements in the words of SQLite. Lists come as JSON arrays in one parameter.

use crate::sql::{
    alert_columns, attempt_columns, event_columns, job_columns, jobs_and_specs, ledger_columns,
};

pub(crate) use super::writes_sql::{ROUND_VIEWS, RoundView};
pub(crate) use crate::sql::*;

pub(crate) const BEGIN_WRITE: &str = "BEGIN IMMEDIATE";
/// All statements of a read see one state of the database: WAL gives a snapshot from the first one on.
pub(crate) const BEGIN_READ: &str = "BEGIN DEFERRED";

/// `BEGIN IMMEDIATE` has locked out every other writer already.
pub(crate) const EPOCH: &str = "SELECT epoch FROM leadership WHERE single = 1";

/// `BEGIN IMMEDIATE` has waited for every other writer already.
pub(crate) const SETTLE: &str = EPOCH;

/// Name and type of each column of table `$1`.
pub(crate) const COLUMNS: &str = "SELECT name, type FROM pragma_table_info($1) ORDER BY cid";

/// Every row of a table as an array of JSON.
pub(crate) fn export_rows(table: &str, columns: &[String]) -> String {
    format!("SELECT json_array({}) FROM {table}", columns.join(", "))
}

/// Writes rows, an array of arrays of JSON in `$1`; the columns with their types and where in a row they stand.
pub(crate) fn import_rows(table: &str, columns: &[(usize, &(String, String))]) -> String {
    let names: Vec<&str> = columns.iter().map(|(_, (name, _))| name.as_str()).collect();
    let values: Vec<String> = columns
        .iter()
        .map(|(place, _)| format!("json_extract(item.value, '$[{place}]')"))
        .collect();
    let (names, values) = (names.join(", "), values.join(", "));
    format!("INSERT INTO {table} ({names}) SELECT {values} FROM json_each($1) AS item")
}

pub(crate) const SUBMISSIONS: &str = "\
    SELECT jobs.owner, jobs.idempotency_key, jobs.digest, jobs.id FROM json_each($1) AS item \
    JOIN jobs ON jobs.owner = item.value ->> '$[0]' AND jobs.idempotency_key = item.value ->> '$[1]' \
    ORDER BY jobs.id";

pub(crate) const JOB_STATES: &str =
    "SELECT id, state FROM jobs WHERE id IN (SELECT value FROM json_each($1))";

/// Ids of the jobs of one of the paths in `$3` and below: `/` and `0` are neighbours, and no path has a
/// character between them.
macro_rules! jobs_within {
    () => {
        "(SELECT listed.id FROM json_each($3) AS path JOIN jobs AS listed INDEXED BY jobs_by_project \
            ON listed.project = path.value \
          UNION ALL SELECT listed.id FROM json_each($3) AS path JOIN jobs AS listed INDEXED BY jobs_by_project \
            ON listed.project > path.value || '/' AND listed.project < path.value || '0')"
    };
}

/// Jobs of a listing; `$driver` is the condition whose index it should run along, the others are filters.
macro_rules! select_jobs {
    ($driver:expr) => {
        concat!(
            "SELECT ", job_columns!(), " FROM ", jobs_and_specs!(), " WHERE ", $driver,
            " AND jobs.id < $1 ",
            "AND ($2 IS NULL OR +jobs.state IN (SELECT value FROM json_each($2))) ",
            "AND ($3 IS NULL OR EXISTS (SELECT 1 FROM json_each($3) AS path WHERE +jobs.project = path.value ",
            "OR (+jobs.project > path.value || '/' AND +jobs.project < path.value || '0'))) ",
            "AND ($4 IS NULL OR +jobs.project = $4 ",
            "OR (+jobs.project > $4 || '/' AND +jobs.project < $4 || '0')) ",
            "AND ($5 IS NULL OR +jobs.owner = $5) ",
            "AND ($6 IS NULL OR jobs.name = $6) ",
            "AND ($7 IS NULL OR jobs.id IN (SELECT value FROM json_each($7))) ",
            "AND ($9 IS NULL OR +jobs.array_id IS NULL) AND ($10 IS NULL OR +jobs.array_id = $10) "
        )
    };
}

/// One listing along one index.
macro_rules! list_jobs {
    ($driver:expr) => {
        concat!(select_jobs!($driver), "ORDER BY jobs.id DESC LIMIT $8")
    };
}

pub(crate) const LIST_ALL: &str = list_jobs!("true");
/// What people submitted, however many tasks of arrays there are between.
pub(crate) const LIST_SUBMITTED: &str = list_jobs!("jobs.array_id IS NULL");
pub(crate) const LIST_BY_ARRAY: &str = list_jobs!("jobs.array_id = $10");
pub(crate) const LIST_BY_ID: &str = list_jobs!("jobs.id IN (SELECT value FROM json_each($7))");
pub(crate) const LIST_BY_OWNER: &str = list_jobs!("jobs.owner = $5");
/// Each state's jobs come out of the index in the order wanted and are merged, so a page reads no more than it shows,
/// however many jobs wait. An element that the list does not have is null and finds nothing; only four states live.
pub(crate) const LIST_BY_STATE: &str = concat!(
    select_jobs!("jobs.state = $2 ->> '$[0]'"),
    "UNION ALL ",
    select_jobs!("jobs.state = $2 ->> '$[1]'"),
    "UNION ALL ",
    select_jobs!("jobs.state = $2 ->> '$[2]'"),
    "UNION ALL ",
    select_jobs!("jobs.state = $2 ->> '$[3]'"),
    "ORDER BY 1 DESC LIMIT $8"
);
pub(crate) const LIST_WITHIN: &str = list_jobs!(concat!("jobs.id IN ", jobs_within!()));

pub(crate) const LATEST_ATTEMPTS: &str = concat!(
    "SELECT ",
    attempt_columns!(),
    " FROM json_each($1) AS item JOIN attempts ON attempts.job_id = item.value ",
    "WHERE attempts.number = (SELECT max(number) FROM attempts AS later WHERE later.job_id = item.value)"
);

pub(crate) const PAID: &str = "\
    SELECT job_id, CAST(sum(CASE WHEN kind IN ('charge', 'overuse') THEN amount WHEN kind = 'refund' THEN -amount ELSE 0 END) AS BIGINT) \
    FROM ledger WHERE job_id IN (SELECT value FROM json_each($1)) GROUP BY job_id";

pub(crate) const EVENTS_OF_JOBS: &str = concat!(
    "SELECT ",
    event_columns!(),
    " FROM events WHERE seq > $1 ",
    "AND job_id IN (SELECT value FROM json_each($3)) ORDER BY seq LIMIT $2"
);

/// `$1` after, `$2` paths, `$3` job, `$4` limit.
pub(crate) const LEDGER: &str = concat!(
    "SELECT ",
    ledger_columns!(),
    " FROM ledger WHERE ledger.seq > $1 ",
    "AND ($2 IS NULL OR EXISTS (SELECT 1 FROM json_each($2) AS path WHERE +ledger.project = path.value ",
    "OR (+ledger.project > path.value || '/' AND +ledger.project < path.value || '0'))) ",
    "AND ($3 IS NULL OR +ledger.job_id = $3) ORDER BY ledger.seq LIMIT $4"
);

pub(crate) const LEDGER_OF_JOB: &str = concat!(
    "SELECT ",
    ledger_columns!(),
    " FROM ledger WHERE ledger.job_id = $3 AND ledger.seq > $1 ",
    "AND ($2 IS NULL OR EXISTS (SELECT 1 FROM json_each($2) AS path WHERE +ledger.project = path.value ",
    "OR (+ledger.project > path.value || '/' AND +ledger.project < path.value || '0'))) ",
    "ORDER BY ledger.seq LIMIT $4"
);

pub(crate) const LEDGER_WITHIN: &str = concat!(
    "SELECT ",
    ledger_columns!(),
    " FROM ledger WHERE ledger.seq IN ",
    "(SELECT listed.seq FROM json_each($2) AS path JOIN ledger AS listed INDEXED BY ledger_by_project ",
    "ON listed.project = path.value UNION ALL ",
    "SELECT listed.seq FROM json_each($2) AS path JOIN ledger AS listed INDEXED BY ledger_by_project ",
    "ON listed.project > path.value || '/' AND listed.project < path.value || '0') ",
    "AND ledger.seq > $1 AND $3 IS NULL ORDER BY ledger.seq LIMIT $4"
);

/// `$1` after, `$2` paths, `$3` limit.
pub(crate) const ALERTS: &str = concat!(
    "SELECT ",
    alert_columns!(),
    " FROM quota_alerts WHERE $2 IS NULL AND quota_alerts.seq > $1 ORDER BY quota_alerts.seq LIMIT $3"
);

pub(crate) const ALERTS_WITHIN: &str = concat!(
    "SELECT ",
    alert_columns!(),
    " FROM quota_alerts WHERE quota_alerts.seq IN ",
    "(SELECT listed.seq FROM json_each($2) AS path JOIN quota_alerts AS listed INDEXED BY quota_alerts_by_node ",
    "ON listed.node = path.value UNION ALL ",
    "SELECT listed.seq FROM json_each($2) AS path JOIN quota_alerts AS listed INDEXED BY quota_alerts_by_node ",
    "ON listed.node > path.value || '/' AND listed.node < path.value || '0') ",
    "AND quota_alerts.seq > $1 ORDER BY quota_alerts.seq LIMIT $3"
);

macro_rules! balances {
    ($where:literal) => {
        concat!(
            "SELECT project, class, ",
            "CAST(sum(CASE WHEN kind IN ('charge', 'overuse') THEN amount ELSE 0 END) AS BIGINT), ",
            "CAST(sum(CASE kind WHEN 'overuse' THEN amount ELSE 0 END) AS BIGINT), ",
            "CAST(sum(CASE kind WHEN 'refund' THEN amount ELSE 0 END) AS BIGINT), ",
            "CAST(sum(CASE kind WHEN 'hold' THEN amount WHEN 'release' THEN -amount ELSE 0 END) AS BIGINT) ",
            "FROM ledger WHERE ", $where, " GROUP BY project, class ORDER BY project, class"
        )
    };
}

/// `$1` is null.
pub(crate) const BALANCES: &str = balances!("$1 IS NULL");
pub(crate) const BALANCES_WITHIN: &str =
    balances!("(project = $1 OR (project > $1 || '/' AND project < $1 || '0'))");
