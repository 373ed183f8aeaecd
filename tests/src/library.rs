//! Libraries that stand in for others in tests. No program depends on them, so they are built where one is wanted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// Builds the library of a package, as `libnvml_double.so`, if that has not been done; where it is.
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn build(package: &'static str, file: &str) -> PathBuf {
    /// By package: cargo is asked once by each process.
    static BUILT: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built.entry(package).or_insert_with(|| by_cargo(package, file)).clone()
}

fn by_cargo(package: &str, file: &str) -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--package", package, "--message-format", "json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "{package} cannot be built");
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let files = messages.flat_map(|message| message["filenames"].as_array().cloned());
    let mut files = files.flatten().filter_map(|file| file.as_str().map(PathBuf::from));
    files.find(|built| built.ends_with(file)).expect("cargo names the library")
}
