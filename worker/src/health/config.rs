//! Section `[health]` of the worker's settings.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// The end of an attempt is not to be held back for longer.
pub const SETTLE_MAX_MS: u64 = 10_000;

/// Whether processes that are left on GPUs are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leftovers {
    /// They are.
    #[default]
    Tell,
    /// They are not: people use GPUs behind the scheduler's back here, and may.
    Ignore,
}

/// What is told of the hardware, and when.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// The end of an attempt that failed waits so long for what the driver says of its GPUs; 0: it does not.
    pub settle_ms: u64,
    /// A GPU that no attempt has had for longer, and that has processes, has leftover ones.
    pub leftover_after_ms: u64,
    /// Whether that is told.
    pub leftover_processes: Leftovers,
    /// The kernel's log is read for errors of the driver.
    pub kernel_log: bool,
    /// Where it is.
    pub kernel_log_path: PathBuf,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            settle_ms: 500,
            leftover_after_ms: 30_000,
            leftover_processes: Leftovers::default(),
            kernel_log: true,
            kernel_log_path: "/dev/kmsg".into(),
        }
    }
}

impl HealthConfig {
    /// See [`Self::settle_ms`].
    pub fn settle(&self) -> Duration {
        Duration::from_millis(self.settle_ms)
    }

    /// After how long processes are leftover ones; `None` if that is not told.
    pub fn leftover_after(&self) -> Option<Duration> {
        match self.leftover_processes {
            Leftovers::Tell => Some(Duration::from_millis(self.leftover_after_ms)),
            Leftovers::Ignore => None,
        }
    }
}
