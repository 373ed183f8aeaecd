//! Both databases have the same tables.

use std::sync::Arc;

use gotgan_store::{DatabaseKind, StoreError, open};

use crate::harness::Place;

/// Every column of every table with its type and whether it may be null, in one form for both databases.
const ON_SQLITE: &str = "\
    SELECT m.name || '.' || c.name || ' ' || CASE c.type WHEN 'INTEGER' THEN 'bigint' ELSE lower(c.type) END || \
        CASE c.\"notnull\" WHEN 1 THEN ' not null' ELSE '' END \
    FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS c \
    WHERE m.type = 'table' AND m.name NOT LIKE '\\_sqlx%' ESCAPE '\\' AND m.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
const ON_POSTGRES: &str = "\
    SELECT table_name || '.' || column_name || ' ' || data_type || \
        CASE is_nullable WHEN 'NO' THEN ' not null' ELSE '' END \
    FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> '_sqlx_migrations'";

const INDEXES_ON_SQLITE: &str =
    "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name";
const INDEXES_ON_POSTGRES: &str = "\
    SELECT indexname FROM pg_indexes WHERE schemaname = 'public' AND indexname NOT LIKE '%\\_key' \
        AND indexname NOT LIKE '%\\_pkey' ORDER BY indexname COLLATE \"C\"";

/// The columns as the migrations say; the same list for both, so the backends cannot drift apart.
const COLUMNS: &str = include_str!("columns.txt");

pub async fn an_empty_database_has_its_tables_after_opening(place: Arc<Place>) {
    place.open().await;
    place.open().await;
    let mut columns = place.texts(ON_SQLITE, ON_POSTGRES).await;
    columns.sort();
    let expected: Vec<&str> = COLUMNS.lines().collect();
    assert_eq!(columns, expected, "columns.txt should be:\n{}", columns.join("\n"));
    let indexes = place.texts(INDEXES_ON_SQLITE, INDEXES_ON_POSTGRES).await;
    assert_eq!(indexes, INDEXES);
    let journal = match place.kind {
        DatabaseKind::Sqlite => place.texts("PRAGMA journal_mode", "").await,
        DatabaseKind::Postgres => place.texts("", "SHOW fsync").await,
    };
    assert!(["wal", "on"].contains(&journal[0].as_str()), "{journal:?}");
}

const INDEXES: [&str; 19] = [
    "attempts_alive",
    "attempts_by_end",
    "events_by_job",
    "events_of_node",
    "jobs_by_array",
    "jobs_by_array_last",
    "jobs_by_owner",
    "jobs_by_project",
    "jobs_by_state",
    "jobs_submitted",
    "ledger_by_account",
    "ledger_by_job",
    "ledger_by_project",
    "quota_alerts_by_node",
    "quota_approvals_by_revision",
    "quota_audit_by_source",
    "quota_audit_by_subject",
    "windows_reserved",
    "windows_that_count",
];

#[tokio::test]
async fn a_url_of_no_known_database_is_refused_without_its_password() {
    for url in ["mysql://me:secret@host/db", "sqlite://", "sqlite:x", "", "/var/lib/x.db"] {
        let refused = open(url).await.unwrap_err();
        assert!(matches!(refused, StoreError::Unsupported(_)), "{url}: {refused:?}");
        assert!(!refused.to_string().contains("secret"), "{refused}");
    }
}

#[tokio::test]
async fn a_path_is_taken_as_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a store%20?mode=ro 곳간.db");
    open(&format!("sqlite://{}", path.display())).await.unwrap();
    assert!(path.exists());
}
