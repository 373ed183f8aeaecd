//! A double of the GPU driver's library in a directory of its own, for workers that read real GPUs.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::library;

/// What the library tells, beside it.
const STATE: &str = "nvml.json";

/// Puts the library and what it is to tell into a directory; gives the library's path. It is built where that has not
/// been done: no program depends on it.
///
/// # Panics
/// If it cannot be built or written.
#[must_use]
pub fn place(directory: &Path, state: &Value) -> PathBuf {
    std::fs::create_dir_all(directory).expect("a directory can be made");
    let path = directory.join("libnvidia-ml.so.1");
    let built = library::build("gotgan-nvml-double", "libnvml_double.so");
    std::fs::copy(built, &path).expect("the double can be copied");
    std::fs::write(directory.join(STATE), state.to_string()).expect("a file can be written");
    path
}

/// What a library that was placed tells from now on. Whoever reads at the moment sees the one or the other, whole.
///
/// # Panics
/// If it cannot be written.
pub fn tell(directory: &Path, state: &Value) {
    let fresh = directory.join("new");
    std::fs::write(&fresh, state.to_string()).expect("a file can be written");
    std::fs::rename(&fresh, directory.join(STATE)).expect("a file can be renamed");
}
