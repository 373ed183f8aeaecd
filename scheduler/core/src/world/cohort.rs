//! Jobs that wait for the same: of one project, with the same request, time limit and nodes to avoid. The planner
//! cannot tell them apart but by their order, so what it finds for the first that does not start holds for all behind
//! it, and a pass costs what there are cohorts, not what there are jobs.
//!
//! The waiting tasks of an array stand next to each other in this order, so a run of them is one place.
//!
//! Kept with the world, change by change. Jobs that wait for other jobs, and jobs that failed and are tried again later,
//! stand beside the cohorts: they are few, and when their time comes is a matter of the clock. So do arrays that say how
//! many of their tasks may run at once.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::amount::UnixMicros;
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
}

/// Every pending job, by what it waits for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cohorts {
    by_key: BTreeMap<CohortKey, CohortJobs>,
    /// Jobs and arrays that wait for others.
    dependent: BTreeSet<JobId>,
    /// Jobs that may not start before a moment of their own.
    delayed: BTreeSet<JobId>,
    /// Arrays that run only so many of their tasks at once.
    limited: BTreeSet<JobId>,
}

/// Where a pending job stands.
enum Stand {
    Dependent,
    Delayed,
    Cohort,
}

/// Where the waiting tasks of an array stand.
enum ArrayStand {
    Dependent,
    Limited,
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
}

impl Cohorts {
    /// Every cohort with its jobs in their order; the cohorts of a project follow each other.
    pub fn iter(&self) -> impl Iterator<Item = (&CohortKey, &CohortJobs)> {
        self.by_key.iter()
    }

    /// Arrays that run only so many of their tasks at once, and have tasks that wait.
    pub fn limited(&self) -> impl Iterator<Item = JobId> + '_ {
        self.limited.iter().copied()
    }

    /// Jobs and arrays that wait for others.
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
            Stand::Cohort => self.add(CohortKey::of(job), [CohortPlace::of(job)]),
        }
    }

    /// Takes out a job that was entered like this.
    pub(super) fn remove(&mut self, job: &Job) {
        match stand(job) {
            Stand::Dependent => _ = self.dependent.remove(&job.id),
            Stand::Delayed => _ = self.delayed.remove(&job.id),
            Stand::Cohort => self.subtract(&CohortKey::of(job), [CohortPlace::of(job)]),
        }
    }

    /// Enters the tasks of an array that wait.
    pub(super) fn insert_array(&mut self, array: &Job) {
        let Some(waiting) = waiting(array) else { return };
        match stand_of_array(array) {
            ArrayStand::Dependent => _ = self.dependent.insert(array.id),
            ArrayStand::Limited => _ = self.limited.insert(array.id),
            ArrayStand::Cohort => {
                self.add(CohortKey::of(array), CohortPlace::of_tasks(array, waiting));
            }
        }
    }

    /// Takes out the tasks of an array that were entered like this.
    pub(super) fn remove_array(&mut self, array: &Job) {
        let Some(waiting) = waiting(array) else { return };
        match stand_of_array(array) {
            ArrayStand::Dependent => _ = self.dependent.remove(&array.id),
            ArrayStand::Limited => _ = self.limited.remove(&array.id),
            ArrayStand::Cohort => {
                self.subtract(&CohortKey::of(array), CohortPlace::of_tasks(array, waiting));
            }
        }
    }

    fn add(&mut self, key: CohortKey, places: impl IntoIterator<Item = CohortPlace>) {
        let cohort = self.by_key.entry(key).or_default();
        for place in places {
            cohort.jobs += place.jobs();
            cohort.places.insert(place);
        }
    }

    fn subtract(&mut self, key: &CohortKey, places: impl IntoIterator<Item = CohortPlace>) {
        let Some(cohort) = self.by_key.get_mut(key) else { return };
        for place in places {
            if cohort.places.remove(&place) {
                cohort.jobs = cohort.jobs.saturating_sub(place.jobs());
            }
        }
        if cohort.places.is_empty() {
            self.by_key.remove(key);
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

fn stand_of_array(array: &Job) -> ArrayStand {
    let limit = array.spec.array.as_ref().and_then(|array| array.at_once);
    match (array.status.waits_for.as_slice(), limit) {
        ([_, ..], _) => ArrayStand::Dependent,
        ([], Some(_)) => ArrayStand::Limited,
        ([], None) => ArrayStand::Cohort,
    }
}

/// Its tasks that wait and are no jobs of their own, if there are any.
fn waiting(array: &Job) -> Option<&TaskSet> {
    let tasks = array.status.tasks.as_deref()?;
    (!tasks.waiting.is_empty()).then_some(&tasks.waiting)
}
