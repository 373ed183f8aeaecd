//! A double of the GPU driver's library in a directory of its own, for workers that read real GPUs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Puts the library and what it is to tell into a directory; gives the library's path. It is built where that has not
/// been done: no program depends on it.
///
/// # Panics
/// If it cannot be built or written.
#[must_use]
pub fn place(directory: &Path, state: &Value) -> PathBuf {
    std::fs::create_dir_all(directory).expect("a directory can be made");
    let library = directory.join("libnvidia-ml.so.1");
    std::fs::copy(build(), &library).expect("the double can be copied");
    std::fs::write(directory.join("nvml.json"), state.to_string()).expect("a file can be written");
    library
}

fn build() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--package", "gotgan-nvml-double", "--message-format", "json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "the double cannot be built");
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let files = messages.flat_map(|message| message["filenames"].as_array().cloned());
    let files = files.flatten().filter_map(|file| file.as_str().map(PathBuf::from));
    files
        .into_iter()
        .find(|file| file.ends_with("libnvml_double.so"))
        .expect("cargo names the library")
}
