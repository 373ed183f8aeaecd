//! The plan: what one planning pass decided, and why everything else waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::amount::UnixMicros;
use crate::attempt::Placement;
use crate::crowded::Crowded;
use crate::ids::{AttemptId, JobId, NodeName};
use crate::job::Job;
use crate::planned::PlannedStarts;
use crate::planner::Shares;
use crate::precedence::PassTurns;
use crate::world::CohortKey;

/// The result of one pass over a world.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a plan does nothing until it is committed"]
pub struct Plan {
    /// Version of the world it was made from.
    pub base: u64,
    /// When.
    pub planned: UnixMicros,
    /// What to do, in this order.
    pub decisions: Vec<Decision>,
    /// Why each job that was looked at and not started waits.
    pub report: Report,
    /// By what order jobs start; `None` if none does.
    pub turns: Option<PassTurns>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Give the job these resources and start it.
    Start {
        /// Which job.
        job: JobId,
        /// Where.
        placement: Arc<Placement>,
    },
    /// Stop an attempt that borrows, so that a job within its guarantee can start.
    Preempt {
        /// Which attempt.
        attempt: AttemptId,
        /// For whom.
        for_job: JobId,
        /// Where that one then has room.
        nodes: Arc<BTreeSet<NodeName>>,
    },
}

/// Why jobs wait. Jobs blocked alike share one list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Blockers of jobs that are told apart, worst first.
    pub jobs: BTreeMap<JobId, Arc<Vec<Blocker>>>,
    /// Blockers of all other jobs of a cohort that was looked at, where they are not the usual ones.
    pub cohorts: CohortLists,
    /// Jobs looked at.
    pub considered: usize,
    /// Jobs left for the next pass because this one had decided enough.
    pub deferred: usize,
    /// How jobs stand towards guarantees and shares.
    pub shares: Arc<Shares>,
    /// Starts that are planned for some of those that wait.
    pub planned: Arc<PlannedStarts>,
    /// What found no room, with the usual reasons.
    pub crowded: Crowded,
}

/// Why the jobs of each cohort wait.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CohortLists {
    /// In the order of their keys.
    ordered: Vec<(CohortKey, Arc<Vec<Blocker>>)>,
    apart: BTreeMap<CohortKey, Arc<Vec<Blocker>>>,
}

impl CohortLists {
    /// Lists in the order of their keys, and beside them those that stand in no order yet.
    pub(crate) fn of(
        ordered: Vec<(CohortKey, Arc<Vec<Blocker>>)>,
        apart: BTreeMap<CohortKey, Arc<Vec<Blocker>>>,
    ) -> Self {
        CohortLists { ordered, apart }
    }

    /// Why the jobs of that cohort wait; `None` if the pass did not look at it.
    #[must_use]
    pub fn get(&self, key: &CohortKey) -> Option<&Arc<Vec<Blocker>>> {
        let found = self.ordered.binary_search_by(|(other, _)| other.cmp(key));
        let found = found.ok().map(|at| &self.ordered[at].1);
        found.or_else(|| self.apart.get(key))
    }

    /// Every list.
    pub fn values(&self) -> impl Iterator<Item = &Arc<Vec<Blocker>>> {
        self.ordered.iter().map(|(_, list)| list).chain(self.apart.values())
    }

    /// Of how many cohorts something is said.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ordered.len() + self.apart.len()
    }

    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Report {
    /// Why a pending job waits; `None` if the pass did not look at one like it.
    #[must_use]
    pub fn of(&self, job: &Job) -> Option<Arc<Vec<Blocker>>> {
        let own = self.jobs.get(&job.id).or_else(|| self.cohorts.get(&CohortKey::of(job)));
        own.cloned().or_else(|| self.usual(job))
    }

    /// Why a job waits of which nothing is said itself, since nothing but room keeps it from starting.
    fn usual(&self, job: &Job) -> Option<Arc<Vec<Blocker>>> {
        let spec = &job.spec;
        let usual = self.crowded.usual(spec).filter(|_| job.status.avoid.is_empty())?;
        let behind = usual.behind.map(|behind| behind.blocker(spec.time_limit_s));
        let more: Vec<Blocker> = behind.into_iter().chain(self.shares.standing(spec)).collect();
        if more.is_empty() {
            return Some(Arc::clone(&usual.capacity));
        }
        Some(Arc::new(ranked(usual.capacity.iter().cloned().chain(more).collect())))
    }

    /// Whether a job that has come since only joins the queue: nothing was freed, and one like it waits already or it asks
    /// for what found no room.
    #[must_use]
    pub fn joins_queue(&self, job: &Job) -> bool {
        self.of(job).is_some() || self.crowded.has_no_room_for(&job.spec)
    }

    /// Every list there is.
    pub fn lists(&self) -> impl Iterator<Item = &Arc<Vec<Blocker>>> {
        self.jobs.values().chain(self.cohorts.values()).chain(self.crowded.lists())
    }
}

/// Worst first.
pub(crate) fn ranked(mut blockers: Vec<Blocker>) -> Vec<Blocker> {
    // Stable: limits of nearer nodes stay before those further up.
    blockers.sort_by_key(|blocker| blocker.kind);
    blockers
}

/// The first so many names or words, and the rest by their number.
pub(crate) fn spelled<W: AsRef<str>>(
    words: impl ExactSizeIterator<Item = W>,
    named_max: usize,
) -> String {
    let more = words.len().saturating_sub(named_max);
    let mut text = String::new();
    for (place, word) in words.take(named_max).enumerate() {
        text.push_str(if place == 0 { "" } else { ", " });
        text.push_str(word.as_ref());
    }
    if more == 0 { text } else { format!("{text} and {more} more") }
}

/// One reason why a job waits, with its numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocker {
    /// What kind of reason.
    pub kind: BlockerKind,
    /// What blocks: a quota path, a node, a job id, a class.
    pub subject: String,
    /// What the job needs.
    pub needed: u64,
    /// What is there now.
    pub available: u64,
    /// The limit or the capacity.
    pub limit: u64,
    /// Of the three numbers.
    pub unit: Unit,
    /// More to tell: who drained a node and why, which state another job is in.
    pub note: String,
}

/// What kind of reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockerKind {
    /// Held by its user or an operator.
    Held,
    /// Waits for another job.
    Dependency,
    /// It asks for a reservation that it cannot have nodes of now: the subject is the reservation; the note has why, and
    /// what belongs to that.
    AskedReservation,
    /// The project's own limit.
    ProjectLimit,
    /// The limit of a node above the project.
    ParentLimit,
    /// The budget of the project or of a node above it has not enough left.
    Budget,
    /// Another term of the project or of a node above it, which the note names: how much it may borrow, or how large,
    /// how long or how many its jobs may be.
    Term,
    /// No node there is could ever satisfy it.
    Constraints,
    /// Nodes that would fit are drained, suspect, lost or unknown.
    NodesUnavailable,
    /// Nodes that would fit are reserved for others: the subject is the reservation, the limit how many of them it
    /// takes; the note has for whom, from when and until when, and the longest time limit with which it could start
    /// before, in seconds (0: none; `-` once it has begun).
    Reservation,
    /// Nodes that would fit go into maintenance before it would be over: the subject is the window of the one that
    /// decides, the limit how many nodes; the note has the longest time limit with which it could start now, in seconds
    /// (0: none), from when and until when, and why.
    Maintenance,
    /// It is within its project's guarantee, and what it needs is being freed.
    Recall,
    /// It is within its project's guarantee, of which others have borrowed: the subject is the one furthest above its
    /// share, the limit what that one holds beyond its own guarantee.
    Lent,
    /// What is free is kept by nodes for their own guarantees: the subject is the one that keeps most, the limit what
    /// all keep.
    Kept,
    /// Too little is free.
    Capacity,
    /// There is room, but too little power is left below a limit: the subject is what the limit is of, as in `hall h1`. The
    /// note says whether it is planned for others.
    Power,
    /// As many tasks of its array hold resources as may at once: the subject is the array.
    ArrayLimit,
    /// Jobs ahead come first. Where a start is planned for one of them on nodes that would serve, the note says by when,
    /// and the numbers are milliseconds: how long this job may take, and how long it could if it were to start now.
    Order,
    /// It failed a moment ago and waits before its next try.
    RetryDelay,
    /// Not a reason of its own: it must start before the subject to end by its deadline, which the note has.
    Deadline,
    /// Not a reason of its own: it is elastic. What is needed is the fewest nodes that it starts with, the limit the most.
    Elastic,
    /// Not a reason of its own but its place among the others: whether it is within its project's guarantee, which is
    /// the limit here, or borrows, or is beyond a budget and starts last.
    Tier,
    /// Not a reason of its own either: others beside the subject, a node of the quota tree at or above its project,
    /// used less for their shares and go first. The limit is its part of the shares there, what is available its part
    /// of the use; the note counts the others.
    FairShare,
    /// Not a reason of its own either: the start that is planned for it. The subject is the moment, the limit how many
    /// nodes are kept for it; the note names the first of them.
    Planned,
}

/// Unit of a blocker's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Thousandths of GPUs.
    GpuMilli,
    /// Instances of GPUs that are cut, of the profile in the note.
    Instances,
    /// Thousandths of CPUs.
    CpuMilli,
    /// Memory.
    MemoryMib,
    /// Thousandths of normalised GPU-hours.
    NghMilli,
    /// Nodes.
    Nodes,
    /// A job.
    Job,
    /// Milliseconds.
    Millis,
    /// Thousandths of a whole.
    PerMille,
    /// Power.
    Watts,
    /// No numbers.
    None,
}
