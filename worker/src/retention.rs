//! Removes the output of attempts that are over: after a time, or sooner when it takes too much room.
//!
//! Directories of attempts in the journal are never touched, however old.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::held::AttemptKey;

/// Unit of a file's blocks, whatever the file system's own is.
const BLOCK_BYTES: u64 = 512;

/// How long and how much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Kept this long after the last change.
    pub keep: Duration,
    /// Oldest go first when all together take more than this.
    pub budget_bytes: u64,
}

struct Kept {
    path: PathBuf,
    changed: SystemTime,
    bytes: u64,
}

/// Removes what is due and returns how many directories that were. `held` are the attempts to leave alone.
pub fn sweep(
    attempts: &Path,
    held: &BTreeSet<AttemptKey>,
    retention: Retention,
    now: SystemTime,
) -> usize {
    let mut kept = over(attempts, held);
    kept.sort_by_key(|directory| directory.changed);
    let mut total_bytes: u64 = kept.iter().map(|directory| directory.bytes).sum();
    let mut removed = 0;
    for directory in kept {
        let age = now.duration_since(directory.changed).unwrap_or_default();
        if age < retention.keep && total_bytes <= retention.budget_bytes {
            break;
        }
        total_bytes = total_bytes.saturating_sub(directory.bytes);
        match fs::remove_dir_all(&directory.path) {
            Ok(()) => removed += 1,
            Err(error) => {
                tracing::warn!(path = %directory.path.display(), %error, "cannot remove old output");
            }
        }
    }
    removed
}

fn over(attempts: &Path, held: &BTreeSet<AttemptKey>) -> Vec<Kept> {
    let Ok(entries) = fs::read_dir(attempts) else {
        return Vec::new();
    };
    let directories = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let key = AttemptKey::from_directory_name(entry.file_name().to_str()?)?;
        (!held.contains(&key)).then(|| measure(entry.path()))
    });
    directories.collect()
}

/// Symbolic links count as themselves: what they point to belongs to a user.
fn measure(path: PathBuf) -> Kept {
    let mut changed = SystemTime::UNIX_EPOCH;
    let mut bytes = 0;
    let mut open = vec![path.clone()];
    while let Some(next) = open.pop() {
        let Ok(meta) = fs::symlink_metadata(&next) else {
            continue;
        };
        // What it takes on the disk: a file with holes may take much less than its length.
        bytes += meta.blocks() * BLOCK_BYTES;
        changed = changed.max(meta.modified().unwrap_or(SystemTime::UNIX_EPOCH));
        if meta.is_dir() {
            let entries = fs::read_dir(&next).into_iter().flatten();
            open.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
        }
    }
    Kept { path, changed, bytes }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn with_attempts(names: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for name in names {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::write(directory.path().join(name).join("out"), vec![0; 1000]).unwrap();
        }
        directory
    }

    #[test]
    fn output_is_kept_until_it_is_old_and_what_is_held_longer() {
        let directory = with_attempts(&["1.1", "2.1", "notes"]);
        let held = BTreeSet::from([AttemptKey::new(2, 1)]);
        let retention = Retention { keep: DAY, budget_bytes: u64::MAX };
        let now = SystemTime::now();
        assert_eq!(sweep(directory.path(), &held, retention, now), 0);
        assert_eq!(sweep(directory.path(), &held, retention, now + DAY * 2), 1);
        assert!(directory.path().join("2.1").exists());
        assert!(directory.path().join("notes").exists());
    }

    #[test]
    fn output_over_the_budget_goes_before_its_time() {
        let directory = with_attempts(&["1.1", "2.1"]);
        let retention = Retention { keep: DAY, budget_bytes: 0 };
        assert_eq!(sweep(directory.path(), &BTreeSet::new(), retention, SystemTime::now()), 2);
    }
}
