//! The driver of a worker's GPUs, which can lose one and find it again: a double of its library.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::plan::GPUS;
use crate::nvml_double;

/// Of a worker with such a driver: it looks often, and at nothing else of this machine.
pub const WORKER_SETTINGS: &str = "\
reading_interval_ms = 100
reading_timeout_ms = 2000

[health]
kernel_log = false
";

/// A driver that knows the GPUs of a node.
#[derive(Debug)]
pub struct Driver {
    directory: PathBuf,
    library: PathBuf,
    state: Value,
}

impl Driver {
    /// In a directory of its own.
    #[must_use]
    pub fn place(directory: PathBuf, node: &str) -> Self {
        let gpu = |number: usize| {
            json!({
                "uuid": format!("GPU-{node}-{number}"), "name": "NVIDIA B200 (nvml-double)",
                "pci_bus_id": format!("00000000:0{number}:00.0"), "minor_number": number,
            })
        };
        let gpus: Vec<Value> = (0..GPUS).map(gpu).collect();
        let state = json!({ "gpus": gpus });
        let library = nvml_double::place(&directory, &state);
        Self { directory, library, state }
    }

    /// Its library.
    #[must_use]
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// This one has fallen off the bus.
    pub fn lose(&self, gpu: usize) {
        let mut state = self.state.clone();
        state["gpus"][gpu]["lost"] = json!(true);
        nvml_double::tell(&self.directory, &state);
    }

    /// All are there.
    pub fn find(&self) {
        nvml_double::tell(&self.directory, &self.state);
    }
}
