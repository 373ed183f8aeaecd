//! Where the programs under test are. They are built beside the tests, never by them.

use std::env;
use std::path::{Path, PathBuf};

/// Names the directory of the programs; set by `cargo xtask`.
const DIRECTORY_VARIABLE: &str = "GOTGAN_TEST_PROGRAMS";

/// Path of a program of this workspace, for instance `gotgan-scheduler`.
///
/// # Panics
/// If it has not been built.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    path_in(&directory(), name)
}

/// The same in a directory.
///
/// # Panics
/// If it is not there.
#[must_use]
pub fn path_in(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    assert!(
        path.is_file(),
        "{} is not built: run `cargo build --workspace --bins`{}, or `cargo xtask test`, which does",
        path.display(),
        if path.iter().any(|part| part == "release") { " --release" } else { "" },
    );
    path
}

/// The directory of the programs: the one named by the environment, else that of this program's profile.
#[must_use]
pub fn directory() -> PathBuf {
    if let Some(directory) = env::var_os(DIRECTORY_VARIABLE) {
        return directory.into();
    }
    let own = env::current_exe().expect("a program knows its path");
    let directory = own.parent().unwrap_or(Path::new("."));
    // Test programs lie one level deeper, in `deps`.
    match directory.file_name() {
        Some(name) if name == "deps" => directory.parent().unwrap_or(directory).to_path_buf(),
        _ => directory.to_path_buf(),
    }
}

/// The checkout these tests were built from.
#[must_use]
pub fn checkout() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}
