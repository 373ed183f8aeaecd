//! When a job that waits is going to start: a range, and how many of ten such ranges held.
//!
//! ```text
//!   queue, nodes, limits ──► look ahead ──► likely moment ──┐
//!   how long such jobs ran ──────┘                          ├──► range ──► told ──► did it hold?
//!   how late jobs were, compared with their likely moment ──┘                           │
//!              └────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The look ahead ([`crate::planner::foresee`]) knows nothing of jobs that come later and go first, of jobs that fail,
//! of nodes that are lost. So its moment is never told. What is told is learnt from it: of such jobs the actual wait was
//! so many times the likely one, and the range is chosen so that eight of ten would have been in it
//! ([`calibration`]). If fewer were, it grows until they are.

pub mod calibration;
pub mod estimator;
pub mod lengths;
mod octaves;
pub mod outcome;
pub mod sample;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::amount::UnixMicros;
use crate::ids::JobId;

/// A look ahead.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Foresight {
    /// When it was made.
    pub at: UnixMicros,
    /// What it says of each job that competes and can start.
    pub jobs: BTreeMap<JobId, Foreseen>,
}

/// What a look ahead says of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreseen {
    /// Since when it waits.
    pub queued: UnixMicros,
    /// When it starts if nobody comes after it and all runs as such jobs run.
    pub likely: UnixMicros,
    /// The same if all runs as long as it may.
    pub latest: Option<UnixMicros>,
    /// How much it takes.
    pub size: Size,
    /// How it stands among those that wait.
    pub standing: Standing,
    /// By when a start is planned for it.
    pub by: Option<UnixMicros>,
}

/// How much of the machine a job takes; jobs that are told apart when it is learnt how late they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Size {
    /// No GPUs.
    NoGpus,
    /// Up to a quarter of the GPUs of a node.
    Part,
    /// Up to half of them.
    Half,
    /// More than that.
    Node,
    /// Several nodes.
    Gang,
}

/// How a job stands among those that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// A start is planned for it.
    Planned,
    /// Its project has not used more than its share, or nobody beside it waits.
    First,
    /// Others that come later may go first, since its project used more than its share.
    Behind,
}

/// Between which moments a job is going to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartRange {
    /// Not before this moment.
    pub from: UnixMicros,
    /// And not after this one.
    pub until: UnixMicros,
    /// How many of the last such ranges held.
    pub held: Held,
}

/// How many of the last ranges held for jobs of like size and standing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Of how many it is known.
    pub of: u32,
    /// In how many of them the job started.
    pub inside: u32,
}

impl StartRange {
    /// Whether a start at that moment is in it, to the second.
    #[must_use]
    pub fn has(&self, start: UnixMicros) -> bool {
        self.from.whole_seconds() <= start.whole_seconds() && start <= self.until
    }
}
