//! Faults that a program under test meets in the C library: a wall clock that is wrong, a disk that is slow to sync. The
//! library in `tests/libc-faults` brings them about; here it is told what to do.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::library;

/// Names the file that says what is wrong, to the library.
const FILE_VARIABLE: &str = "GOTGAN_TEST_LIBC_FAULTS";
/// Loads a library before all others.
const PRELOAD_VARIABLE: &str = "LD_PRELOAD";
/// Where in the file each number begins.
const CLOCK: u64 = 0;
const SYNC: u64 = 8;
const BYTES: usize = 16;

/// Puts the library into a directory, built where that has not been done.
///
/// # Panics
/// If it cannot be built or written.
#[must_use]
pub fn place(directory: &Path) -> PathBuf {
    let path = directory.join("libc_faults.so");
    let built = library::build("gotgan-libc-faults", "liblibc_faults.so");
    fs::copy(built, &path).expect("the library can be copied");
    path
}

/// What is wrong for the programs that were started with its variables.
#[derive(Debug)]
pub struct LibcFaults {
    path: PathBuf,
    file: File,
}

impl LibcFaults {
    /// Nothing is wrong yet. The file is made if it is not there.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path);
        let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // A program that has it mapped must never find it shorter.
        file.write_all_at(&[0; BYTES], 0).expect("a file can be written");
        // Whoever a program runs as.
        fs::set_permissions(path, Permissions::from_mode(0o644)).expect("it is ours");
        Self { path: path.to_owned(), file }
    }

    /// What a program must have in its environment to meet them, with the library at this path.
    #[must_use]
    pub fn variables(&self, library: &Path) -> Vec<(String, String)> {
        let (library, file) = (library.display().to_string(), self.path.display().to_string());
        vec![(PRELOAD_VARIABLE.to_owned(), library), (FILE_VARIABLE.to_owned(), file)]
    }

    /// The wall clock is off by so much, milliseconds, from now on; 0: it is right.
    pub fn step_clock(&self, by_ms: i64) {
        self.set(CLOCK, by_ms.saturating_mul(1_000_000));
    }

    /// Each sync takes so much longer from now on.
    pub fn slow_syncs(&self, by: Duration) {
        self.set(SYNC, i64::try_from(by.as_nanos()).unwrap_or(i64::MAX));
    }

    fn set(&self, place: u64, number: i64) {
        self.file.write_all_at(&number.to_ne_bytes(), place).expect("a file can be written");
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Instant, SystemTime, UNIX_EPOCH};

    use super::*;

    fn output(faults: &LibcFaults, library: &Path, argv: &[&str]) -> String {
        let mut command = Command::new(argv[0]);
        command.args(&argv[1..]).envs(faults.variables(library));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// How far a program's clock is ahead of this one's, seconds.
    fn ahead_s(faults: &LibcFaults, library: &Path) -> i64 {
        let told = output(faults, library, &["date", "+%s"]);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        told.trim().parse::<i64>().unwrap() - i64::try_from(now).unwrap()
    }

    #[test]
    fn a_program_sees_the_clock_that_it_is_told_and_syncs_as_slowly() {
        let directory = tempfile::tempdir().unwrap();
        let library = place(directory.path());
        let faults = LibcFaults::at(&directory.path().join("faults"));
        assert!((-5..=0).contains(&ahead_s(&faults, &library)), "nothing is wrong at first");
        for by_s in [3_600, -3_600] {
            faults.step_clock(by_s * 1_000 + 500);
            let ahead_s = ahead_s(&faults, &library);
            assert!((by_s - 60..=by_s + 1).contains(&ahead_s), "{ahead_s}, not {by_s}");
        }
        faults.step_clock(0);
        let slow = Duration::from_millis(300);
        faults.slow_syncs(slow);
        let file = directory.path().join("synced");
        let to = format!("of={}", file.display());
        let begun = Instant::now();
        output(
            &faults,
            &library,
            &["dd", "if=/dev/zero", &to, "count=1", "conv=fsync", "status=none"],
        );
        assert!(begun.elapsed() >= slow);
    }
}
