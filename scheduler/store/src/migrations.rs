//! The migrations, embedded: one list of numbers, two texts each. Forward only.

use std::borrow::Cow;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use crate::DatabaseKind;

/// A step of the schema on both databases.
struct Step {
    /// Strictly rising.
    number: i64,
    /// Of the files.
    name: &'static str,
    /// For SQLite.
    sqlite: &'static str,
    /// For PostgreSQL.
    postgres: &'static str,
}

/// All steps, oldest first. A released one is never edited: its checksum is in the databases that ran it.
const STEPS: &[Step] = &[
    Step {
        number: 1,
        name: "initial",
        sqlite: include_str!("../../../migrations/sqlite/0001_initial.sql"),
        postgres: include_str!("../../../migrations/postgres/0001_initial.sql"),
    },
    Step {
        number: 2,
        name: "quota_audit",
        sqlite: include_str!("../../../migrations/sqlite/0002_quota_audit.sql"),
        postgres: include_str!("../../../migrations/postgres/0002_quota_audit.sql"),
    },
    Step {
        number: 3,
        name: "budgets",
        sqlite: include_str!("../../../migrations/sqlite/0003_budgets.sql"),
        postgres: include_str!("../../../migrations/postgres/0003_budgets.sql"),
    },
    Step {
        number: 4,
        name: "books",
        sqlite: include_str!("../../../migrations/sqlite/0004_books.sql"),
        postgres: include_str!("../../../migrations/postgres/0004_books.sql"),
    },
    Step {
        number: 5,
        name: "scavengers",
        sqlite: include_str!("../../../migrations/sqlite/0005_scavengers.sql"),
        postgres: include_str!("../../../migrations/postgres/0005_scavengers.sql"),
    },
    Step {
        number: 6,
        name: "arrays",
        sqlite: include_str!("../../../migrations/sqlite/0006_arrays.sql"),
        postgres: include_str!("../../../migrations/postgres/0006_arrays.sql"),
    },
    Step {
        number: 7,
        name: "windows",
        sqlite: include_str!("../../../migrations/sqlite/0007_windows.sql"),
        postgres: include_str!("../../../migrations/postgres/0007_windows.sql"),
    },
    Step {
        number: 8,
        name: "passes",
        sqlite: include_str!("../../../migrations/sqlite/0008_passes.sql"),
        postgres: include_str!("../../../migrations/postgres/0008_passes.sql"),
    },
    Step {
        number: 9,
        name: "reservations",
        sqlite: include_str!("../../../migrations/sqlite/0009_reservations.sql"),
        postgres: include_str!("../../../migrations/postgres/0009_reservations.sql"),
    },
    Step {
        number: 10,
        name: "health",
        sqlite: include_str!("../../../migrations/sqlite/0010_health.sql"),
        postgres: include_str!("../../../migrations/postgres/0010_health.sql"),
    },
    Step {
        number: 11,
        name: "measured",
        sqlite: include_str!("../../../migrations/sqlite/0011_measured.sql"),
        postgres: include_str!("../../../migrations/postgres/0011_measured.sql"),
    },
];

/// Number of the last step.
pub(crate) const NEWEST: i64 = STEPS[STEPS.len() - 1].number;

/// What brings an empty database of `kind` to an earlier form.
pub(crate) fn migrator_until(kind: DatabaseKind, last: i64) -> Migrator {
    let steps = STEPS.iter().filter(|step| step.number <= last);
    Migrator::with_migrations(steps.map(|step| migration(step, kind)).collect())
}

/// What brings a database of `kind` up to date.
pub(crate) fn migrator(kind: DatabaseKind) -> Migrator {
    Migrator::with_migrations(STEPS.iter().map(|step| migration(step, kind)).collect())
}

fn migration(step: &Step, kind: DatabaseKind) -> Migration {
    let text = match kind {
        DatabaseKind::Sqlite => step.sqlite,
        DatabaseKind::Postgres => step.postgres,
    };
    let name = Cow::Borrowed(step.name);
    Migration::new(step.number, name, MigrationType::Simple, text.into_sql_str(), false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn files(folder: &str) -> Vec<String> {
        let path = format!("{}/../../migrations/{folder}", env!("CARGO_MANIFEST_DIR"));
        let entries = std::fs::read_dir(path).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn both_databases_have_the_same_migrations_and_all_are_embedded() {
        let embedded: Vec<String> =
            STEPS.iter().map(|step| format!("{:04}_{}.sql", step.number, step.name)).collect();
        assert_eq!(files("sqlite"), embedded);
        assert_eq!(files("postgres"), embedded);
    }

    #[test]
    fn numbers_rise_by_one() {
        let numbers: Vec<i64> = STEPS.iter().map(|step| step.number).collect();
        assert_eq!(numbers, (1..=i64::try_from(STEPS.len()).unwrap()).collect::<Vec<_>>());
    }
}
