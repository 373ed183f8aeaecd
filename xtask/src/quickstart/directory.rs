//! The directory of one quickstart: fresh, locked against a second run, and never one that held
//! something else.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Present in directories that a quickstart made and may empty.
const MARKER: &str = ".quickstart";
/// Runs at the same time; more is a mistake.
const MOST_AT_ONCE: u32 = 16;

#[derive(Debug)]
pub struct Directory {
    pub path: PathBuf,
    // The lock lasts as long as the file is open.
    _lock: File,
}

impl Directory {
    /// The named directory, or the first below the workspace that no other run uses.
    pub fn prepare(root: &Path, named: Option<&Path>) -> Result<Self> {
        let standard = root.join(".gotgan").join("quickstart");
        let candidates: Vec<PathBuf> = match named {
            Some(path) => vec![std::path::absolute(path)?],
            None => (1..=MOST_AT_ONCE).map(|number| numbered(&standard, number)).collect(),
        };
        for path in &candidates {
            if let Some(lock) = lock(path)? {
                empty(path)?;
                return Ok(Self { path: path.clone(), _lock: lock });
            }
        }
        bail!("another quickstart is running in {}", candidates[0].display())
    }

    pub fn create(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        Ok(path)
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 1 { path.to_path_buf() } else { path.with_extension(number.to_string()) }
}

/// None where another run holds it.
fn lock(path: &Path) -> Result<Option<File>> {
    fs::create_dir_all(path).with_context(|| format!("{} cannot be made", path.display()))?;
    let marker = path.join(MARKER);
    if !marker.exists() && fs::read_dir(path)?.next().is_some() {
        bail!("{} holds something else; name a new or empty directory", path.display());
    }
    let file = File::create(&marker).with_context(|| format!("{}", marker.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).context("the directory cannot be locked"),
    }
}

fn empty(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name() == MARKER {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_an_earlier_run_left_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let first = Directory::prepare(root.path(), None).unwrap();
        fs::write(first.path.join("old"), "x").unwrap();
        first.create("tree/below").unwrap();
        let path = first.path.clone();
        drop(first);
        let second = Directory::prepare(root.path(), None).unwrap();
        assert_eq!(second.path, path);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
    }

    #[test]
    fn two_runs_at_once_have_directories_of_their_own() {
        let root = tempfile::tempdir().unwrap();
        let first = Directory::prepare(root.path(), None).unwrap();
        let second = Directory::prepare(root.path(), None).unwrap();
        assert_ne!(first.path, second.path);
        assert!(Directory::prepare(root.path(), Some(&first.path)).is_err());
    }

    #[test]
    fn a_directory_with_something_else_in_it_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("thesis.tex"), "years of work").unwrap();
        assert!(Directory::prepare(root.path(), Some(root.path())).is_err());
        assert!(root.path().join("thesis.tex").exists());
    }
}
