//! Windows: nodes that take no jobs from one moment until another, for maintenance, or only those of some projects, where
//! they are reserved by command ([`crate::reservation`]).
//!
//! Until a window opens, only that starts on its nodes which is over by then, grace included; while it is open, nothing
//! does, or what it is for; when it is over, they take jobs again by themselves. What was there before it was planned goes
//! on, unless it was said that it is to be stopped.
//!
//! ```text
//!   planned ──► open ──► over
//!      └─────────┴─────► cancelled
//! ```

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::amount::UnixMicros;
use crate::attempt::Attempt;
use crate::ids::{AttemptId, NodeName, ProjectPath, UserName};
use crate::quota::{Interval, show_moment};
use crate::reservation::Reserved;
use crate::world::World;

/// Windows that are planned or open at a time: each is looked at with every change of one.
pub const WINDOWS_MAX: usize = 1_000;

/// Nodes of one window; more than any site has.
pub const WINDOW_NODES_MAX: usize = 20_000;

/// The furthest moment at which one may begin, seconds from now: a year.
pub const WINDOW_AHEAD_MAX_S: i64 = 366 * 86_400;

/// How far in the past the beginning may lie, seconds: the clocks of two machines, and the time to press a key.
pub const WINDOW_LATE_MAX_S: i64 = 60;

/// Number of a window; given in the order in which they are planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WindowId(pub u64);

impl fmt::Display for WindowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Its number.
    pub id: WindowId,
    /// Which nodes.
    pub nodes: BTreeSet<NodeName>,
    /// When.
    pub during: Interval,
    /// Whether what still runs when it opens is stopped then.
    pub stop_running: bool,
    /// For whom its nodes are meanwhile; `None`: for nobody, since they are in maintenance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Reserved>,
    /// Why.
    pub reason: String,
    /// Whether it is there so that hardware can be reset, and goes by itself once that is done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub for_repair: bool,
    /// Who planned it.
    pub by: UserName,
    /// When it was planned.
    pub made: UnixMicros,
    /// How it stands.
    pub state: WindowState,
}

/// How a window stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowState {
    /// Its beginning is to come.
    Planned,
    /// Its nodes take no jobs, or only those of its holders.
    Open,
    /// Its end has come.
    Over,
    /// Somebody took it back.
    Cancelled,
}

impl WindowState {
    /// The word in listings and in the store.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            WindowState::Planned => "planned",
            WindowState::Open => "open",
            WindowState::Over => "over",
            WindowState::Cancelled => "cancelled",
        }
    }

    /// Whether it still keeps jobs off.
    #[must_use]
    pub fn counts(self) -> bool {
        match self {
            WindowState::Planned | WindowState::Open => true,
            WindowState::Over | WindowState::Cancelled => false,
        }
    }

    /// The state at a moment, of one that is not cancelled. It never goes back, whatever the clock does.
    #[must_use]
    pub fn at(self, now: UnixMicros, during: Interval) -> Self {
        match self {
            WindowState::Planned | WindowState::Open if now >= during.until => WindowState::Over,
            WindowState::Planned if now >= during.from => WindowState::Open,
            WindowState::Planned
            | WindowState::Open
            | WindowState::Over
            | WindowState::Cancelled => self,
        }
    }
}

impl Window {
    /// Whether its nodes take no jobs at all.
    #[must_use]
    pub fn is_maintenance(&self) -> bool {
        self.reserved.is_none()
    }

    /// The moment at which its state changes next; `None` if it is over.
    #[must_use]
    pub fn next_turn(&self) -> Option<UnixMicros> {
        match self.state {
            WindowState::Planned => Some(self.during.from),
            WindowState::Open => Some(self.during.until),
            WindowState::Over | WindowState::Cancelled => None,
        }
    }

    /// Until when and why, in words for a person.
    #[must_use]
    pub fn describe(&self) -> String {
        let until = show_moment(self.during.until);
        format!("in maintenance until {until}: {} (by {})", self.reason, self.by)
    }
}

/// An attempt that may still be there when a window begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staying {
    /// Which.
    pub attempt: AttemptId,
    /// Who submitted its job.
    pub owner: UserName,
    /// Who pays.
    pub project: ProjectPath,
    /// When it is over at the latest: its time limit and its grace.
    pub ends: UnixMicros,
    /// On how many of the window's nodes it is.
    pub nodes: u32,
}

/// What may still run on the window's nodes when it begins, in the order of jobs, as far as time limits tell.
#[must_use]
pub fn staying(world: &World, window: &Window, now: UnixMicros) -> Vec<Staying> {
    let stays = |id| staying_one(world, world.attempts.get(&id)?, window, now);
    attempts_on(world, window).into_iter().filter_map(stays).collect()
}

/// Attempts that are on any of the window's nodes now.
pub(crate) fn attempts_on(world: &World, window: &Window) -> BTreeSet<AttemptId> {
    let nodes = window.nodes.iter().filter_map(|name| world.nodes.get(name));
    nodes.flat_map(|node| &node.attempts).copied().collect()
}

fn staying_one(
    world: &World,
    attempt: &Attempt,
    window: &Window,
    now: UnixMicros,
) -> Option<Staying> {
    let job = world.jobs.get(&attempt.id.job)?;
    let ends = ends_of(world, attempt, now)?;
    let held = &attempt.placement.nodes;
    let nodes = held.iter().filter(|held| window.nodes.contains(&held.node)).count();
    (ends > window.during.from).then(|| Staying {
        attempt: attempt.id,
        owner: job.owner.clone(),
        project: attempt.project.clone(),
        ends,
        nodes: u32::try_from(nodes).unwrap_or(u32::MAX),
    })
}

/// When an attempt is over at the latest: its time limit and its grace.
pub(crate) fn ends_of(world: &World, attempt: &Attempt, now: UnixMicros) -> Option<UnixMicros> {
    let job = world.jobs.get(&attempt.id.job)?;
    let began = attempt.started.unwrap_or(now.max(attempt.leased));
    Some(began.plus_seconds(job.spec.longest_s()))
}
