//! Where a promise is tried: a database of its own, removed afterwards.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use gotgan_store::memory::Memory;
use gotgan_store::{DatabaseKind, Store, open};
use sqlx::{AssertSqlSafe, Connection, Row};

/// Names the server where databases may be made.
pub const POSTGRES_URL: &str = "GOTGAN_TEST_POSTGRES";
/// Set to 1 where a skipped half would hide a fault.
pub const POSTGRES_REQUIRED: &str = "GOTGAN_TEST_REQUIRE_POSTGRES";

/// A database of a test's own.
pub struct Place {
    pub kind: DatabaseKind,
    pub url: String,
    memory: Option<Memory>,
    _folder: Option<tempfile::TempDir>,
}

impl Place {
    pub async fn open(&self) -> Arc<dyn Store> {
        match &self.memory {
            Some(memory) => memory.store(),
            None => open(&self.url).await.unwrap(),
        }
    }

    /// Runs a statement behind the store's back.
    pub async fn execute(&self, statement: &'static str) -> u64 {
        match self.kind {
            DatabaseKind::Sqlite => {
                let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
                sqlx::query(statement).execute(&mut connection).await.unwrap().rows_affected()
            }
            DatabaseKind::Postgres => {
                let mut connection = sqlx::PgConnection::connect(&self.url).await.unwrap();
                sqlx::query(statement).execute(&mut connection).await.unwrap().rows_affected()
            }
        }
    }

    /// One text a row, behind the store's back.
    pub async fn texts(&self, on_sqlite: &'static str, on_postgres: &'static str) -> Vec<String> {
        match self.kind {
            DatabaseKind::Sqlite => {
                let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
                let rows = sqlx::query(on_sqlite).fetch_all(&mut connection).await.unwrap();
                rows.iter().map(|row| row.get(0)).collect()
            }
            DatabaseKind::Postgres => {
                let mut connection = sqlx::PgConnection::connect(&self.url).await.unwrap();
                let rows = sqlx::query(on_postgres).fetch_all(&mut connection).await.unwrap();
                rows.iter().map(|row| row.get(0)).collect()
            }
        }
    }
}

pub async fn on_sqlite<F, Fut>(promise: F)
where
    F: FnOnce(Arc<Place>) -> Fut,
    Fut: Future<Output = ()>,
{
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("store.db").display());
    let (kind, memory, _folder) = (DatabaseKind::Sqlite, None, Some(folder));
    promise(Arc::new(Place { kind, url, memory, _folder })).await;
}

/// Without a database. There is no way to it behind the store's back.
pub async fn in_memory<F, Fut>(promise: F)
where
    F: FnOnce(Arc<Place>) -> Fut,
    Fut: Future<Output = ()>,
{
    let (kind, url, memory) = (DatabaseKind::Sqlite, String::new(), Some(Memory::new()));
    promise(Arc::new(Place { kind, url, memory, _folder: None })).await;
}

pub async fn on_postgres<F, Fut>(promise: F)
where
    F: FnOnce(Arc<Place>) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let Some((admin, name, place)) = postgres_place().await else {
        return;
    };
    // Apart, so that the database is dropped also when the promise is broken.
    let outcome = tokio::spawn(promise(Arc::new(place))).await;
    let mut connection = sqlx::PgConnection::connect(&admin).await.unwrap();
    let drop = format!("DROP DATABASE {name} WITH (FORCE)");
    sqlx::query(AssertSqlSafe(drop)).execute(&mut connection).await.unwrap();
    if let Err(error) = outcome {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// The admin's URL, the database's name, and the place; `None` where there is no server.
async fn postgres_place() -> Option<(String, String, Place)> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let Ok(admin) = std::env::var(POSTGRES_URL) else {
        eprintln!("skipped: {POSTGRES_URL} not set");
        return None;
    };
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("gotgan_store_{}_{number}", std::process::id());
    let mut connection = sqlx::PgConnection::connect(&admin).await.unwrap();
    // A locale whose order differs from that of bytes, where the server has it by default, must not matter.
    let create = format!("CREATE DATABASE {name}");
    sqlx::query(AssertSqlSafe(create)).execute(&mut connection).await.unwrap();
    let (server, _) = admin.rsplit_once('/').unwrap();
    let url = format!("{server}/{name}");
    Some((admin, name, Place { kind: DatabaseKind::Postgres, url, memory: None, _folder: None }))
}

#[test]
fn postgres_is_there_where_it_is_required() {
    let required = std::env::var(POSTGRES_REQUIRED).is_ok_and(|value| value == "1");
    let there = std::env::var(POSTGRES_URL).is_ok();
    assert!(there || !required, "{POSTGRES_REQUIRED}=1 but {POSTGRES_URL} is not set");
}
