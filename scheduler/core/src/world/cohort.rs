//! Jobs that wait for the same: of one project, with the same request, time limit, grace and nodes to avoid. The planner
//! cannot tell them apart but by their order, so what it finds for the first that does not start holds for all behind
//! it, and a pass costs what there are cohorts, not what there are jobs.
//!
//! The waiting tasks of an array stand next to each other in this order, so a run of them is one place.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use crate::amount::{GpuMilli, UnixMicros};
use crate::array::{self, TaskSet};
use crate::ids::{JobId, NodeName, ProjectPath};
use crate::job::Job;
use crate::spec::{Constraints, JobSpec, NodeRequest};

/// What the jobs of a cohort have in common. Compared by that alone, whatever else their specifications say.
#[derive(Debug, Clone)]
pub struct CohortKey {
    /// The specification of one of them.
    spec: Arc<JobSpec>,
    /// Nodes they lost an attempt on.
    avoid: BTreeSet<NodeName>,
}

/// Place of a waiting job in its cohort, or of a run of tasks of an array; the smallest is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CohortPlace {
    /// Those that others have stopped for go first.
    pub promised: Reverse<bool>,
    /// Higher first.
    pub priority: Reverse<i32>,
    /// Earlier first.
    pub queued: UnixMicros,
    /// Lower first, so that the order is total. The first of a run.
    pub job: JobId,
    /// The last of a run; the job itself if it is none.
    pub last: JobId,
}

/// The jobs of a cohort.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CohortJobs {
    places: BTreeSet<CohortPlace>,
    jobs: usize,
    /// The first of the places: a pass asks every cohort for it.
    first: Option<CohortPlace>,
    /// When the job was queued that waits longest, whatever its priority.
    oldest: UnixMicros,
}

/// What the jobs of a cohort ask for, beside their kind: copied out of the specification, since a pass looks at it for
/// every cohort, and a hundred thousand specifications lie all over memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// Nodes of one job.
    pub nodes: u32,
    /// GPUs of one job, all nodes together.
    pub gpus: GpuMilli,
    /// Time limit, seconds.
    pub limit_s: i64,
    /// Whether they are scavengers.
    pub scavenger: bool,
    /// Whether each may be kept from starting by terms of its own.
    pub has_own_terms: bool,
    /// Whether they ask for a reservation.
    pub asks_reservation: bool,
}

impl Wish {
    /// What jobs of that specification ask for.
    #[must_use]
    pub fn of(spec: &JobSpec) -> Self {
        Wish {
            nodes: spec.nodes,
            gpus: spec.total_gpus(),
            limit_s: spec.time_limit_s,
            scavenger: spec.scavenger,
            has_own_terms: spec.has_own_terms(),
            asks_reservation: spec.constraints.reservation.is_some(),
        }
    }
}

impl CohortKey {
    /// That of a job, wherever it stands.
    #[must_use]
    pub fn of(job: &Job) -> Self {
        CohortKey { spec: Arc::clone(&job.spec), avoid: job.status.avoid.clone() }
    }

    /// A specification that says all they have in common.
    #[must_use]
    pub fn spec(&self) -> &JobSpec {
        &self.spec
    }

    /// Nodes they lost an attempt on.
    #[must_use]
    pub fn avoid(&self) -> &BTreeSet<NodeName> {
        &self.avoid
    }

    fn parts(&self) -> Parts<'_> {
        let spec = &self.spec;
        Parts {
            project: &spec.project,
            scavenger: spec.scavenger,
            nodes: (spec.nodes, spec.most_nodes()),
            per_node: &spec.per_node,
            time_limit_s: spec.time_limit_s,
            grace_s: spec.grace_s,
            constraints: &spec.constraints,
            avoid: &self.avoid,
            has_own_terms: spec.has_own_terms(),
        }
    }
}

/// Everything that decides where and in whose name a job may start.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Parts<'a> {
    project: &'a ProjectPath,
    scavenger: bool,
    /// Least and most.
    nodes: (u32, u32),
    per_node: &'a NodeRequest,
    time_limit_s: i64,
    grace_s: u32,
    constraints: &'a Constraints,
    avoid: &'a BTreeSet<NodeName>,
    /// What they are is a matter of each job; that there are some keeps the others apart.
    has_own_terms: bool,
}

impl PartialEq for CohortKey {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for CohortKey {}

impl PartialOrd for CohortKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for CohortKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl CohortPlace {
    /// Where the job stands.
    #[must_use]
    pub fn of(job: &Job) -> Self {
        CohortPlace {
            promised: Reverse(!job.status.promised.is_empty()),
            priority: Reverse(job.spec.priority),
            queued: job.status.queued,
            job: job.id,
            last: job.id,
        }
    }

    /// Where tasks of an array stand that are no jobs of their own.
    pub fn of_tasks<'a>(array: &'a Job, tasks: &'a TaskSet) -> impl Iterator<Item = Self> + 'a {
        let place = CohortPlace { promised: Reverse(false), ..CohortPlace::of(array) };
        tasks.ranges().map(move |(first, last)| CohortPlace {
            job: array::task_id(array.id, first),
            last: array::task_id(array.id, last),
            ..place
        })
    }

    /// How many jobs stand there.
    #[must_use]
    pub fn jobs(&self) -> usize {
        usize::try_from(self.last.0.saturating_sub(self.job.0)).unwrap_or(usize::MAX - 1) + 1
    }
}

impl CohortJobs {
    /// Places of them all, in their order.
    #[must_use]
    pub fn places(&self) -> &BTreeSet<CohortPlace> {
        &self.places
    }

    /// How many jobs they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.jobs
    }

    /// Whether there are none, which the world keeps no cohort for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs == 0
    }

    /// The first place.
    #[must_use]
    pub fn first(&self) -> Option<CohortPlace> {
        self.first
    }

    /// When the job was queued that waits longest, whatever its priority; 0 if there is none.
    #[must_use]
    pub fn oldest(&self) -> UnixMicros {
        self.oldest
    }

    pub(super) fn add(&mut self, places: impl IntoIterator<Item = CohortPlace>) {
        for place in places {
            self.jobs += place.jobs();
            self.places.insert(place);
        }
        self.look_again();
    }

    pub(super) fn subtract(&mut self, places: impl IntoIterator<Item = CohortPlace>) {
        for place in places {
            if self.places.remove(&place) {
                self.jobs = self.jobs.saturating_sub(place.jobs());
            }
        }
        self.look_again();
    }

    fn look_again(&mut self) {
        self.first = self.places.first().copied();
        self.oldest = self.oldest_place().unwrap_or_default();
    }

    /// Of those of one priority the first is the oldest, so only the first of each is looked at.
    fn oldest_place(&self) -> Option<UnixMicros> {
        let mut first = self.first?;
        let mut oldest = first.queued;
        loop {
            let last_alike = CohortPlace {
                queued: UnixMicros(i64::MAX),
                job: JobId(u64::MAX),
                last: JobId(u64::MAX),
                ..first
            };
            let behind = (Bound::Excluded(last_alike), Bound::Unbounded);
            let Some(next) = self.places.range(behind).next() else { return Some(oldest) };
            (first, oldest) = (*next, oldest.min(next.queued));
        }
    }
}
