//! Jobs that wait for the same: of one project, with the same request, time limit and nodes to avoid. The planner
//! cannot tell them apart but by their order, so what it finds for the first that does not start holds for all behind
//! it, and a pass costs what there are cohorts, not what there are jobs.
//!
//! Kept with the world, change by change. Jobs that wait for other jobs, and jobs that failed and are tried again later,
//! stand beside the cohorts: they are few, and when their time comes is a matter of the clock.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::amount::UnixMicros;
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

/// Place of a waiting job in its cohort; the smallest is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CohortPlace {
    /// Those that others have stopped for go first.
    pub promised: Reverse<bool>,
    /// Higher first.
    pub priority: Reverse<i32>,
    /// Earlier first.
    pub queued: UnixMicros,
    /// Lower first, so that the order is total.
    pub job: JobId,
}

/// Every pending job, by what it waits for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cohorts {
    by_key: BTreeMap<CohortKey, BTreeSet<CohortPlace>>,
    /// Jobs that wait for others.
    dependent: BTreeSet<JobId>,
    /// Jobs that may not start before a moment of their own.
    delayed: BTreeSet<JobId>,
}

/// Where a pending job stands.
enum Stand {
    Dependent,
    Delayed,
    Cohort,
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
            nodes: spec.nodes,
            per_node: &spec.per_node,
            time_limit_s: spec.time_limit_s,
            constraints: &spec.constraints,
            avoid: &self.avoid,
        }
    }
}

/// Everything that decides where and in whose name a job may start.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Parts<'a> {
    project: &'a ProjectPath,
    scavenger: bool,
    nodes: u32,
    per_node: &'a NodeRequest,
    time_limit_s: i64,
    constraints: &'a Constraints,
    avoid: &'a BTreeSet<NodeName>,
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
        }
    }
}

impl Cohorts {
    /// Every cohort with its jobs in their order; the cohorts of a project follow each other.
    pub fn iter(&self) -> impl Iterator<Item = (&CohortKey, &BTreeSet<CohortPlace>)> {
        self.by_key.iter()
    }

    /// Jobs that wait for others.
    pub fn dependent(&self) -> impl Iterator<Item = JobId> + '_ {
        self.dependent.iter().copied()
    }

    /// Jobs that may not start before a moment of their own, which may have come.
    pub fn delayed(&self) -> impl Iterator<Item = JobId> + '_ {
        self.delayed.iter().copied()
    }

    /// Enters a job that is pending.
    pub(super) fn insert(&mut self, job: &Job) {
        match stand(job) {
            Stand::Dependent => _ = self.dependent.insert(job.id),
            Stand::Delayed => _ = self.delayed.insert(job.id),
            Stand::Cohort => {
                let cohort = self.by_key.entry(CohortKey::of(job)).or_default();
                cohort.insert(CohortPlace::of(job));
            }
        }
    }

    /// Takes out a job that was entered like this.
    pub(super) fn remove(&mut self, job: &Job) {
        match stand(job) {
            Stand::Dependent => _ = self.dependent.remove(&job.id),
            Stand::Delayed => _ = self.delayed.remove(&job.id),
            Stand::Cohort => {
                let key = CohortKey::of(job);
                let Some(cohort) = self.by_key.get_mut(&key) else { return };
                cohort.remove(&CohortPlace::of(job));
                if cohort.is_empty() {
                    self.by_key.remove(&key);
                }
            }
        }
    }
}

fn stand(job: &Job) -> Stand {
    if !job.status.waits_for.is_empty() {
        Stand::Dependent
    } else if job.status.not_before > job.status.queued {
        Stand::Delayed
    } else {
        Stand::Cohort
    }
}
