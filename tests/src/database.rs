//! The database of a test's own: a file of SQLite, or a fresh database in a PostgreSQL server that the environment
//! names.

use std::env;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

/// URL of a PostgreSQL server in which tests may make databases.
pub const SERVER_VARIABLE: &str = "GOTGAN_TEST_POSTGRES";

/// Where a scheduler keeps its truth. A database made in a server is removed when dropped.
#[derive(Debug)]
pub enum Database {
    /// A file in the scheduler's own directory.
    Sqlite,
    /// A database of its own.
    Postgres(PostgresDatabase),
}

/// A database made for one test.
#[derive(Debug)]
pub struct PostgresDatabase {
    server: String,
    name: String,
}

impl Database {
    /// A fresh database in the server of [`SERVER_VARIABLE`]; none, said loudly, without one.
    pub async fn postgres() -> Option<Self> {
        let Ok(server) = env::var(SERVER_VARIABLE) else {
            eprintln!(
                "SKIPPED: this scenario on PostgreSQL, because {SERVER_VARIABLE} is not set;"
            );
            eprintln!("SKIPPED: `cargo xtask test` starts a server and sets it");
            return None;
        };
        Some(Self::Postgres(PostgresDatabase::create(server).await))
    }

    /// URL for `--database`; none where the default does.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        match self {
            Self::Sqlite => None,
            Self::Postgres(database) => Some(with_database(&database.server, &database.name)),
        }
    }

    /// What the scheduler calls it in its status.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }
}

impl PostgresDatabase {
    async fn create(server: String) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("gotgan_test_{}_{count}", std::process::id());
        execute(&server, &format!("DROP DATABASE IF EXISTS {name}")).await;
        execute(&server, &format!("CREATE DATABASE {name}")).await;
        Self { server, name }
    }
}

impl Drop for PostgresDatabase {
    fn drop(&mut self) {
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let server = self.server.clone();
        // Dropping happens within a runtime, which must not be blocked on; so on a thread with its own.
        let dropper = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(execute(&server, &statement));
        });
        if dropper.join().is_err() {
            eprintln!("the database {} could not be removed", self.name);
        }
    }
}

async fn execute(server: &str, statement: &str) {
    let mut connection = PgConnection::connect(server)
        .await
        .unwrap_or_else(|error| panic!("PostgreSQL of {SERVER_VARIABLE}: {error}"));
    // Made of our own words and numbers alone.
    let done = connection.execute(AssertSqlSafe(statement.to_owned())).await;
    done.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// The URL of another database of the same server.
fn with_database(server: &str, name: &str) -> String {
    let (base, query) = match server.split_once('?') {
        Some((base, query)) => (base, format!("?{query}")),
        None => (server, String::new()),
    };
    let (scheme, rest) = base.split_once("://").unwrap_or(("postgres", base));
    let host = rest.split('/').next().unwrap_or(rest);
    format!("{scheme}://{host}/{name}{query}")
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn only_the_name_of_the_database_changes() {
        assert_eq!(with_database("postgres://u@h:1/postgres", "x"), "postgres://u@h:1/x");
        assert_eq!(with_database("postgres://u@h:1", "x"), "postgres://u@h:1/x");
        assert_eq!(
            with_database("postgres://u@h/p?sslmode=disable", "x"),
            "postgres://u@h/x?sslmode=disable"
        );
    }
}
