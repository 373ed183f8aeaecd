//! Finds the directory of PostgreSQL's server programs: on the PATH, or where distributions hide them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::install;

/// Where each version has a directory of its own, and what is below it.
const VERSIONED: [(&str, &str); 2] = [("/usr/lib/postgresql", "bin"), ("/usr", "bin")];

/// The programs; installs them if they are missing and this is allowed.
pub fn or_install() -> Result<PathBuf> {
    if let Some(found) = programs() {
        return Ok(found);
    }
    install::run()?;
    programs().context("PostgreSQL was installed, but initdb and postgres are nowhere to be found")
}

fn programs() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(versioned()).find(|directory| has_programs(directory))
}

fn has_programs(directory: &Path) -> bool {
    ["initdb", "postgres"].iter().all(|program| directory.join(program).is_file())
}

/// Newest version first.
fn versioned() -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for (root, below) in VERSIONED {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            if let Some(version) = version_of(&entry.file_name().to_string_lossy()) {
                found.push((version, entry.path().join(below)));
            }
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

/// Of a directory named `15` or `pgsql-15`.
fn version_of(name: &str) -> Option<u32> {
    name.strip_prefix("pgsql-").unwrap_or(name).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_both_kinds_of_directory_names() {
        assert_eq!(version_of("15"), Some(15));
        assert_eq!(version_of("pgsql-16"), Some(16));
        assert_eq!(version_of("lib"), None);
    }

    #[test]
    fn a_directory_counts_only_with_both_programs() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("initdb"), "").unwrap();
        assert!(!has_programs(directory.path()));
        fs::write(directory.path().join("postgres"), "").unwrap();
        assert!(has_programs(directory.path()));
    }
}
