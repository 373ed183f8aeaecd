//! Reservations by command: nodes that are for some projects alone, with all below them, from one moment until another.
//!
//! They are windows ([`crate::window`]) that keep off others only, by time limits, and stop nobody. Those of quota files
//! are a part of a cluster and come of the quota book ([`crate::quota::reserve`]).

mod choose;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::amount::UnixMicros;
use crate::explain;
use crate::ids::{ProjectPath, ReservationName, UserName};
use crate::plan::{Blocker, BlockerKind, Unit};
use crate::quota::show_moment;
use crate::spec::JobSpec;
use crate::window::{Window, WindowState};
use crate::world::Windows;

pub use choose::{Busy, ChoiceRefusal, Clash, Wanted, choose};

/// Reservations by command that are planned or hold at a time: with those of the quota book as many as a
/// [`crate::fabric::ReservationSet`] has places.
pub const COMMANDED_MAX: usize = 128;

/// Projects that one may be for.
pub const HOLDERS_MAX: usize = 64;

/// How many that are over are remembered, to tell jobs that still ask for them.
pub const ENDED_MAX: usize = 1_000;

/// For whom nodes are reserved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved {
    /// What it is called; no other one that is planned or holds has the name.
    pub name: ReservationName,
    /// Nodes of the quota tree that it is for, each with all below it.
    pub holders: BTreeSet<ProjectPath>,
    /// Who took it back, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<Withdrawn>,
}

/// Who took something back, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// When.
    pub at: UnixMicros,
    /// Who.
    pub by: UserName,
}

impl Reserved {
    /// Whether it is for jobs of the project.
    #[must_use]
    pub fn is_for(&self, project: &ProjectPath) -> bool {
        self.holders.iter().any(|holder| project.is_within(holder.as_str()))
    }

    /// The holders with commas between them.
    #[must_use]
    pub fn holders_text(&self) -> String {
        self.holders.iter().map(ProjectPath::as_str).collect::<Vec<_>>().join(",")
    }
}

impl Window {
    /// Whether its nodes are reserved and a job like that, started at `now`, must stay off them. It may be there if it is
    /// gone when the reservation begins, grace included, or if it is for the job's project and the time limit is over by
    /// its end.
    #[must_use]
    pub fn shuts_out(&self, spec: &JobSpec, now: UnixMicros) -> bool {
        let Some(reserved) = &self.reserved else { return false };
        let gone_before = now.plus_seconds(spec.longest_s()) <= self.during.from;
        let in_time = now.plus_seconds(spec.time_limit_s) <= self.during.until;
        let held = in_time && reserved.is_for(&spec.project);
        now < self.during.until && !gone_before && !held
    }
}

/// Why a job cannot have nodes of the reservation that it asks for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unmet {
    /// There is none of that name, or it was over long ago.
    Unknown,
    /// It is for others.
    NotFor(String),
    /// It was taken back.
    Cancelled(Withdrawn),
    /// It was over then.
    Over(UnixMicros),
    /// It has so many nodes, which are too few.
    TooFew(usize),
    /// It is over at that moment, before the time limit would be; so many seconds would do.
    TooLong(UnixMicros, i64),
    /// It begins then.
    Begins(UnixMicros),
}

/// Whether the job asks for a reservation that it cannot have nodes of now, and why; `None` if it asks for none, or for one
/// that holds and is for it.
#[must_use]
pub fn unmet(windows: &Windows, spec: &JobSpec, now: UnixMicros) -> Option<Unmet> {
    let name = spec.constraints.reservation.as_ref()?;
    let Some(window) = windows.reservation(name) else { return Some(Unmet::Unknown) };
    let reserved = window.reserved.as_ref()?;
    let during = window.during;
    if let Some(withdrawn) = &reserved.cancelled {
        return Some(Unmet::Cancelled(withdrawn.clone()));
    }
    if now >= during.until || window.state == WindowState::Over {
        return Some(Unmet::Over(during.until));
    }
    if !reserved.is_for(&spec.project) {
        return Some(Unmet::NotFor(reserved.holders_text()));
    }
    if spec.nodes as usize > window.nodes.len() {
        return Some(Unmet::TooFew(window.nodes.len()));
    }
    let left_s = during.until.0.saturating_sub(now.max(during.from).0) / 1_000_000;
    if spec.time_limit_s > left_s {
        return Some(Unmet::TooLong(during.until, left_s));
    }
    (now < during.from).then_some(Unmet::Begins(during.from))
}

impl Unmet {
    /// Whether it is only a matter of time.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            Unmet::Begins(_) => true,
            Unmet::Unknown
            | Unmet::NotFor(_)
            | Unmet::Cancelled(_)
            | Unmet::Over(_)
            | Unmet::TooFew(_)
            | Unmet::TooLong(..) => false,
        }
    }

    /// As a reason for waiting, of a job that asks for the reservation of that name. The note has a word and what belongs
    /// to it.
    #[must_use]
    pub fn blocker(&self, name: &ReservationName, nodes: u32) -> Blocker {
        let (limit, note) = match self {
            Unmet::Unknown => (0, "unknown".to_owned()),
            Unmet::NotFor(holders) => (0, format!("others {holders}")),
            Unmet::Cancelled(Withdrawn { at, by }) => {
                (0, format!("cancelled {} {by}", show_moment(*at)))
            }
            Unmet::Over(at) => (0, format!("over {}", show_moment(*at))),
            Unmet::TooFew(nodes) => (*nodes, "few".to_owned()),
            Unmet::TooLong(at, left_s) => (0, format!("long {} {left_s}", show_moment(*at))),
            Unmet::Begins(at) => (0, format!("begins {}", show_moment(*at))),
        };
        Blocker {
            kind: BlockerKind::AskedReservation,
            subject: name.to_string(),
            needed: nodes.into(),
            available: 0,
            limit: limit as u64,
            unit: Unit::Nodes,
            note,
        }
    }

    /// The same in words, with what would put it right.
    #[must_use]
    pub fn describe(&self, name: &ReservationName, nodes: u32) -> String {
        let blocker = self.blocker(name, nodes);
        let (text, hint) = (explain::sentence(&blocker), explain::hint(&blocker));
        if hint.is_empty() { text } else { format!("{text}; {hint}") }
    }
}

/// The blocker of a job that asks for a reservation which it cannot have nodes of now.
pub(crate) fn unmet_blocker(
    windows: &Windows,
    spec: &JobSpec,
    now: UnixMicros,
) -> Option<Arc<Vec<Blocker>>> {
    let name = spec.constraints.reservation.as_ref()?;
    let unmet = unmet(windows, spec, now)?;
    Some(Arc::new(vec![unmet.blocker(name, spec.nodes)]))
}
