//! A small disk of its own, which can be filled to the last byte.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Room for a database and little more.
const SIZE: &str = "size=192m";
const BALLAST: &str = "ballast";
/// Written at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// A file system in memory. Gone when dropped.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts one at this path; `None` where that is not allowed.
    #[must_use]
    pub fn mount(path: &Path) -> Option<Self> {
        fs::create_dir_all(path).ok()?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(path).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then(|| Self { path: path.into() })
    }

    /// Leaves no room at all.
    pub fn fill(&self) {
        let Ok(mut file) = File::create(self.path.join(BALLAST)) else { return };
        let chunk = vec![0; CHUNK_BYTES];
        // The last call writes what there still is room for.
        while file.write(&chunk).is_ok_and(|written| written > 0) {}
    }

    /// Makes room again.
    pub fn empty(&self) {
        let _ = fs::remove_file(self.path.join(BALLAST));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: somebody may still have a file open.
        let _ = Command::new("umount").arg("-l").arg(&self.path).stderr(Stdio::null()).status();
    }
}
