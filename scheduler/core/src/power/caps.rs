//! Which nodes can cap their GPUs, as their workers found when they started.

use serde::{Deserialize, Serialize};

use crate::ids::GpuClass;
use crate::node::{Gpu, Inventory};

/// Whether a node's worker can cap GPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Caps {
    /// The site does not want it there.
    Off,
    /// It cannot be done there: why, in words.
    Unable(String),
    /// It was tried, and the driver takes limits.
    Able,
}

/// Between which a cap of a GPU may be, watts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapRange {
    /// The least.
    pub min_watts: u32,
    /// The most.
    pub max_watts: u32,
}

impl CapRange {
    /// The range from the lower least to the higher most.
    #[must_use]
    pub fn with(self, other: CapRange) -> CapRange {
        CapRange {
            min_watts: self.min_watts.min(other.min_watts),
            max_watts: self.max_watts.max(other.max_watts),
        }
    }
}

impl Inventory {
    /// The lowest cap that all of its GPUs take, watts; `None` if they cannot be capped.
    #[must_use]
    pub fn cap_floor_watts(&self) -> Option<u32> {
        if self.caps != Some(Caps::Able) {
            return None;
        }
        let floors = self.gpus.iter().map(|gpu| gpu.cap_range.map(|range| range.min_watts));
        floors.reduce(|floor, next| Some(floor?.max(next?))).flatten()
    }

    /// Whether every GPU of the class there can be kept below so many watts. A worker that tells nothing cannot.
    #[must_use]
    pub fn takes_cap(&self, class: &GpuClass, watts: u32) -> bool {
        let takes = |gpu: &Gpu| gpu.cap_range.is_some_and(|range| range.min_watts <= watts);
        self.caps == Some(Caps::Able)
            && self.gpus.iter().filter(|gpu| gpu.class == *class).all(takes)
    }
}
