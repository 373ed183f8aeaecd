//! Both databases have the same migrations: the same numbers with the same names, from 1 without a gap. And those of
//! PostgreSQL only add: they run while a scheduler of the release before leads, which goes on writing what it knows.

use std::collections::BTreeSet;

use super::Finding;
use super::tree::{Tree, TreeFile};

const SQLITE: &str = "migrations/sqlite/";
const POSTGRES: &str = "migrations/postgres/";

/// Those before were never released.
const ADDS_ONLY_FROM: usize = 12;

/// What would break a program that does not know of it.
const NOT_ADDED: [&str; 7] = [
    "drop ",
    "rename ",
    "alter column",
    "set not null",
    "add constraint",
    "truncate ",
    "delete from",
];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let (sqlite, postgres) = (names(tree, SQLITE), names(tree, POSTGRES));
    let mut findings = Vec::new();
    for (from, others, to) in [(&sqlite, &postgres, POSTGRES), (&postgres, &sqlite, SQLITE)] {
        for name in from.difference(others) {
            findings.push(Finding::new(
                format!("{to}{name}"),
                0,
                "missing: the other database has it",
            ));
        }
    }
    findings.extend(misnumbered(&sqlite, SQLITE));
    findings.extend(tree.with_extension("sql").flat_map(breaking));
    findings
}

/// Statements that do more than to add.
fn breaking(file: &TreeFile) -> Vec<Finding> {
    let Some(name) = file.path.strip_prefix(POSTGRES) else { return Vec::new() };
    let number = name.split('_').next().and_then(|number| number.parse::<usize>().ok());
    if number.is_some_and(|number| number < ADDS_ONLY_FROM) {
        return Vec::new();
    }
    let lines = file.text.lines().zip(1..);
    let lines = lines.map(|(line, at)| (line.split("--").next().unwrap_or("").to_lowercase(), at));
    let breaks = |line: &str| {
        let adds_column = line.contains("add column");
        let must_be_given = line.contains("not null") && !line.contains("default");
        NOT_ADDED.iter().any(|word| line.contains(word)) || (adds_column && must_be_given)
    };
    let found = lines.filter(|(line, _)| breaks(line));
    found
        .map(|(_, at)| {
            Finding::new(
                &file.path,
                at,
                "the release before must be able to go on beside it: add only",
            )
        })
        .collect()
}

fn names<'a>(tree: &'a Tree, directory: &str) -> BTreeSet<&'a str> {
    let files = tree.with_extension("sql");
    files.filter_map(|file| file.path.strip_prefix(directory)).collect()
}

/// Sorted by name, the n-th file begins with the number n.
fn misnumbered(names: &BTreeSet<&str>, directory: &str) -> Vec<Finding> {
    let wrong = |(at, name): (usize, &&str)| {
        let number = name.split(|c: char| !c.is_ascii_digit()).next();
        let text = format!("number {} expected here", at + 1);
        (number.and_then(|number| number.parse().ok()) != Some(at + 1))
            .then(|| Finding::new(format!("{directory}{name}"), 0, text))
    };
    names.iter().enumerate().filter_map(wrong).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree::tree_of;

    fn paths(files: &[&str]) -> Vec<String> {
        let files: Vec<(&str, &str)> = files.iter().map(|path| (*path, "")).collect();
        let findings = check(&tree_of(&files));
        findings.into_iter().map(|finding| finding.path.display().to_string()).collect()
    }

    #[test]
    fn equal_lists_pass() {
        let both = ["migrations/sqlite/0001_jobs.sql", "migrations/postgres/0001_jobs.sql"];
        assert!(paths(&both).is_empty());
    }

    #[test]
    fn a_migration_of_one_database_alone_is_found() {
        assert_eq!(
            paths(&["migrations/postgres/0001_jobs.sql"]),
            ["migrations/sqlite/0001_jobs.sql"]
        );
    }

    #[test]
    fn a_gap_in_the_numbers_is_found() {
        let both = ["migrations/sqlite/0002_jobs.sql", "migrations/postgres/0002_jobs.sql"];
        assert_eq!(paths(&both), ["migrations/sqlite/0002_jobs.sql"]);
    }

    #[test]
    fn a_migration_that_a_program_of_the_release_before_would_not_survive_is_found() {
        let fine = "ALTER TABLE jobs ADD COLUMN a TEXT; -- DROP TABLE jobs\n\
                    ALTER TABLE jobs ADD COLUMN b BIGINT NOT NULL DEFAULT 0;\n\
                    CREATE TABLE lemons (node TEXT NOT NULL);";
        let broken =
            "ALTER TABLE jobs DROP COLUMN a;\nALTER TABLE jobs ADD COLUMN c TEXT NOT NULL;";
        let lines = |number: usize, text: &str| {
            let name = format!("{POSTGRES}{number:04}_jobs.sql");
            tree_of(&[(&name, text)]).files.iter().flat_map(breaking).count()
        };
        assert_eq!((lines(12, fine), lines(12, broken), lines(11, broken)), (0, 2, 0));
    }
}
