//! Replays of a trace: what would its jobs have waited under another rule?
//!
//! A trace says when jobs were submitted, how many GPUs they wanted and how long they ran. It is replayed with virtual
//! time, either by a named rule over one pool of GPUs ([`play`]), so that known rules are there to compare with, or by
//! the production planner on a machine of nodes ([`production`]). Either leaves a [`Played`], and all figures are taken
//! from that alone.
//!
//! Reading order: [`trace`], [`rule`], [`play`] with [`waiting`], [`promises`] and [`turns`], then [`figures`],
//! [`fairness`] and [`report`].

pub mod bounds;
pub mod estimates;
pub mod fairness;
pub mod figures;
pub mod history;
pub mod html;
pub mod nodes;
pub mod planned;
pub mod play;
pub mod plot;
pub mod production;
pub mod promises;
pub mod report;
pub mod rows;
pub mod rule;
pub mod series;
pub mod shares;
pub mod swf;
pub mod text;
pub mod trace;
pub mod turns;
pub mod waiting;

use std::collections::BTreeMap;

use gotgan_core::amount::UnixMicros;

use estimates::Estimated;

/// When a job ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ran {
    /// Its first moment.
    pub start: UnixMicros,
    /// The moment it was over.
    pub end: UnixMicros,
}

/// What came of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Played {
    /// When each job of the trace ran, in the trace's order; `None` for one that never could.
    pub jobs: Vec<Option<Ran>>,
    /// How often somebody looked whether a job can start.
    pub passes: u64,
    /// By place in the trace, what those jobs were told first for which a start was planned.
    pub told: BTreeMap<usize, Told>,
    /// By place in the trace, between which moments jobs were told that they would start.
    pub estimated: Vec<(usize, Estimated)>,
}

/// A start that was planned for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// When it was told.
    pub at: UnixMicros,
    /// By when it was to start.
    pub by: UnixMicros,
}
