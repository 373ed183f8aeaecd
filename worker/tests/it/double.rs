//! A double of the driver's library in a directory of its own: one machine with invented GPUs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};
use tempfile::TempDir;

/// UUID of an invented GPU.
pub fn uuid(number: u32) -> String {
    format!("GPU-00000000-0000-4000-8000-{number:012}")
}

/// A GPU as the double has it unless told otherwise.
pub fn gpu(number: u32) -> Value {
    json!({ "uuid": uuid(number), "minor_number": number, "serial": format!("165000000000{number}") })
}

/// A machine with so many GPUs.
pub fn gpus(count: u32) -> Value {
    json!({ "gpus": (0..count).map(gpu).collect::<Vec<_>>() })
}

pub struct Double {
    directory: TempDir,
}

impl Double {
    pub fn new(state: &Value) -> Self {
        let double = Self { directory: tempfile::tempdir().unwrap() };
        std::fs::copy(built(), double.path("libnvidia-ml.so.1")).unwrap();
        double.set(state);
        double
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Path of its library.
    pub fn library(&self) -> String {
        self.path("libnvidia-ml.so.1").to_str().unwrap().to_owned()
    }

    /// What it is from now on.
    pub fn set(&self, state: &Value) {
        std::fs::write(self.path("nvml.json.new"), state.to_string()).unwrap();
        std::fs::rename(self.path("nvml.json.new"), self.path("nvml.json")).unwrap();
    }

    /// A file that somebody has begun to write.
    pub fn tear(&self) {
        std::fs::write(self.path("nvml.json"), "{\"gpus\": [{\"uu").unwrap();
    }

    /// How often a function was called, by all processes together.
    pub fn calls(&self, function: &str) -> u64 {
        self.calls_beyond(function, &[])
    }

    /// How often it was called by processes that had counted nothing yet when these files were all.
    pub fn calls_beyond(&self, function: &str, before: &[PathBuf]) -> u64 {
        let count = |path: PathBuf| {
            let calls: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            calls[function].as_u64().unwrap_or(0)
        };
        self.counts().into_iter().filter(|path| !before.contains(path)).map(count).sum()
    }

    /// Files with counts, one for each process.
    pub fn counts(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.directory.path()).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let is_count = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("nvml-calls.") && name.ends_with(".json")
        };
        paths.filter(is_count).collect()
    }
}

/// The library, built once. No program depends on it, so that it is never built with them.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let output = Command::new(env!("CARGO"))
            .args(["build", "--package", "gotgan-nvml-double", "--message-format", "json"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "the double cannot be built");
        let messages = String::from_utf8(output.stdout).unwrap();
        let messages = messages.lines().map(|line| serde_json::from_str(line).unwrap());
        let files = messages.flat_map(|message: Value| {
            let files = message["filenames"].as_array().cloned().unwrap_or_default();
            files.into_iter().filter_map(|file| file.as_str().map(PathBuf::from))
        });
        let is_it = |file: &PathBuf| file.ends_with("libnvml_double.so");
        files.into_iter().find(is_it).expect("cargo names the library")
    })
}
