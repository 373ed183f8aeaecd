//! Both databases have the same migrations: the same numbers with the same names, from 1 without a gap.

use std::collections::BTreeSet;

use super::Finding;
use super::tree::Tree;

const SQLITE: &str = "migrations/sqlite/";
const POSTGRES: &str = "migrations/postgres/";

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
    findings
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
}
