//! What another quota book would do to the jobs there are: the same pass of the planner, once with the book in force
//! and once with the other.
//!
//! It is what the very next pass would decide. What jobs that are not there yet, and dates that have not come, will
//! lead to is not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::amount::{GpuMilli, UnixMicros};
use crate::change::Change;
use crate::fabric::{self, ReservationSet};
use crate::ids::{AttemptId, GpuClass, JobId, NodeName, ProjectPath, ReservationName};
use crate::plan::Decision;
use crate::planner;
use crate::policy::Policy;
use crate::quota::QuotaBook;
use crate::quota::audit::edits;
use crate::world::World;

/// What would differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forecast {
    /// Attempts that would be stopped for others, and would not be otherwise.
    pub stopped: BTreeMap<AttemptId, ProjectPath>,
    /// Jobs that would start at once, and would not otherwise, by project.
    pub starts_gained: BTreeMap<ProjectPath, u64>,
    /// Jobs that would start at once otherwise, and would not, by project.
    pub starts_lost: BTreeMap<ProjectPath, u64>,
    /// Nodes of the tree that hold more than their limit would be; what runs there goes on, nothing more starts.
    pub above_limit: Vec<AboveLimit>,
    /// Attempts that may still run on nodes of a reservation when it begins. They go on; it has their nodes later.
    pub overstay: Vec<Overstay>,
}

/// An attempt that may run into a reservation which is not for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overstay {
    /// Which reservation.
    pub reservation: ReservationName,
    /// Which attempt.
    pub attempt: AttemptId,
    /// Whose.
    pub project: ProjectPath,
    /// When its time limit is over.
    pub ends: UnixMicros,
}

/// A node of the tree that holds more than its limit would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AboveLimit {
    /// Which.
    pub path: ProjectPath,
    /// Of which class.
    pub class: GpuClass,
    /// What it holds.
    pub held: GpuMilli,
    /// What the limit would be.
    pub limit: GpuMilli,
}

/// What the planner would decide.
struct Outcome {
    starts: BTreeSet<JobId>,
    stopped: BTreeSet<AttemptId>,
}

/// What `book` would do at `now`.
#[must_use]
pub fn forecast(world: &World, policy: &Policy, book: &QuotaBook, now: UnixMicros) -> Forecast {
    // Asked again and again by whoever watches for drift; what differs in nothing needs no two passes.
    if edits(&world.book, book).is_empty() {
        let (above_limit, overstay) = (above_limit(world), overstay(world));
        return Forecast { above_limit, overstay, ..Forecast::default() };
    }
    let mut other = world.clone();
    let mut book = book.clone();
    book.keep_moves(&world.book);
    other.apply(&Change::QuotaApplied { book: Arc::new(book), at: now });
    let (present, planned) = (outcome(world, policy, now), outcome(&other, policy, now));
    let stopped = planned.stopped.difference(&present.stopped);
    let stopped = stopped.filter_map(|id| Some((*id, world.attempts.get(id)?.project.clone())));
    Forecast {
        stopped: stopped.collect(),
        starts_gained: count(world, planned.starts.difference(&present.starts)),
        starts_lost: count(world, present.starts.difference(&planned.starts)),
        above_limit: above_limit(&other),
        overstay: overstay(&other),
    }
}

fn outcome(world: &World, policy: &Policy, now: UnixMicros) -> Outcome {
    let mut outcome = Outcome { starts: BTreeSet::new(), stopped: BTreeSet::new() };
    for decision in planner::plan(world, policy, now).decisions {
        match decision {
            Decision::Start { job, .. } => outcome.starts.insert(job),
            Decision::Preempt { attempt, .. } => outcome.stopped.insert(attempt),
        };
    }
    outcome
}

fn count<'a>(world: &World, jobs: impl Iterator<Item = &'a JobId>) -> BTreeMap<ProjectPath, u64> {
    let mut counts = BTreeMap::new();
    for job in jobs.filter_map(|id| world.job(*id)) {
        *counts.entry(job.spec.project.clone()).or_default() += 1;
    }
    counts
}

fn above_limit(world: &World) -> Vec<AboveLimit> {
    let nodes = world.quota.nodes.iter();
    let limits = nodes.flat_map(|(path, node)| {
        node.limits.iter().map(move |(class, limit)| (path, class, *limit))
    });
    let above = limits.filter_map(|(path, class, limit)| {
        let held = world.usage.held(path.as_str(), class);
        let (path, class) = (path.clone(), class.clone());
        (held > limit).then_some(AboveLimit { path, class, held, limit })
    });
    above.collect()
}

fn overstay(world: &World) -> Vec<Overstay> {
    if world.quota.reservations.is_empty() {
        return Vec::new();
    }
    let reserved = fabric::reserved(world, &fabric::standby(world));
    let mut found = Vec::new();
    for (place, (name, terms)) in world.quota.reservations.iter().enumerate() {
        let mut own = ReservationSet::EMPTY;
        own.insert(place);
        let there = |node: &NodeName| reserved.get(node).is_some_and(|set| set.meets(own));
        for attempt in world.attempts.values() {
            let ends = world
                .jobs
                .get(&attempt.id.job)
                .map_or(attempt.leased, |job| attempt.leased.plus_seconds(job.spec.time_limit_s));
            let on_it = attempt.placement.nodes.iter().any(|given| there(&given.node));
            if on_it && terms.closes(&attempt.project, attempt.leased, ends) {
                let (reservation, project) = (name.clone(), attempt.project.clone());
                found.push(Overstay { reservation, attempt: attempt.id, project, ends });
            }
        }
    }
    found
}
