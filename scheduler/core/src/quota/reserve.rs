//! A reservation: a part of one cluster is for one node of the quota tree alone, from one moment until another.
//!
//! Before it begins, nothing may start there whose time limit passes its beginning, so the fabric is free then and
//! nobody is stopped for it. A job that began earlier and is longer goes on to its time limit.

use serde::{Deserialize, Serialize};

use super::book::{Lot, QuotaBook};
use super::dated::Interval;
use crate::amount::{GpuMilli, UnixMicros};
use crate::ids::{ClusterName, GpuClass, ProjectPath};

/// Reservations that one book may have, those that are over included: as many as a set of them has bits.
pub const RESERVATIONS_MAX: usize = 128;

/// What is reserved, where, when and for whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReservationTerms {
    /// The node of the quota tree that it is for, with all below it.
    pub holder: ProjectPath,
    /// Class of the GPUs.
    pub class: GpuClass,
    /// How many; whole nodes by name until there are so many.
    pub gpus: GpuMilli,
    /// Where.
    pub fabric: Fabric,
    /// When.
    pub during: Interval,
    /// The document that decided it.
    pub decision: String,
}

/// In which fabric a reservation is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fabric {
    /// A question: which cluster could hold it? Files with it are refused with the answer, so it is never in force.
    Any,
    /// This cluster.
    Cluster(ClusterName),
}

impl Fabric {
    /// The cluster, if one is named.
    #[must_use]
    pub fn cluster(&self) -> Option<&ClusterName> {
        match self {
            Fabric::Any => None,
            Fabric::Cluster(name) => Some(name),
        }
    }
}

impl QuotaBook {
    /// What the cluster has in quota throughout that time: what was accepted, and what is due.
    pub(super) fn in_quota(&self, cluster: &ClusterName, during: Interval) -> GpuMilli {
        let lots: Vec<&Lot> = self.lots.values().filter(|lot| lot.cluster == *cluster).collect();
        let begins = lots.iter().flat_map(|lot| {
            lot.batches.iter().map(|batch| (batch.accepted.unwrap_or(lot.due).min(lot.due), batch))
        });
        // What is there once stays, so the beginning has the least.
        begins.filter(|(at, _)| *at <= during.from).map(|(_, batch)| batch.gpus).sum()
    }
}

impl ReservationTerms {
    /// Whether a job of `project` that starts at `now` and ends at `ends` by its time limit must stay off the nodes.
    /// It may use them if it is gone when the reservation begins, or if it belongs to the holder and is gone when the
    /// reservation is over.
    #[must_use]
    pub fn closes(&self, project: &ProjectPath, now: UnixMicros, ends: UnixMicros) -> bool {
        let gone_before = ends <= self.during.from;
        let held = project.is_within(self.holder.as_str()) && ends <= self.during.until;
        now < self.during.until && !gone_before && !held
    }
}
