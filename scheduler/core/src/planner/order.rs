//! What decides before resources do: other jobs, and a wait between tries.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::budgets::OVERUSE;
use crate::amount::{GpuMilli, UnixMicros};
use crate::ids::JobId;
use crate::job::{Job, JobState};
use crate::plan::{Blocker, BlockerKind, Unit};
use crate::spec::Dependency;
use crate::world::World;

/// Lists for jobs that wait for one and the same job, as a thousand jobs behind one often do.
#[derive(Debug, Default)]
pub(super) struct DependencyLists {
    known: BTreeMap<(JobId, &'static str), Arc<Vec<Blocker>>>,
}

impl DependencyLists {
    /// Why the job does not compete for resources at all at the moment `now`; `None` if it does.
    pub fn not_yet(
        &mut self,
        world: &World,
        job: &Job,
        now: UnixMicros,
    ) -> Option<Arc<Vec<Blocker>>> {
        match job.status.waits_for.as_slice() {
            [] if job.status.not_before > now => {
                Some(Arc::new(vec![retry_delay(job.status.not_before, now)]))
            }
            [] => None,
            [one] => {
                let list = self.known.entry((one.job, one.kind.word()));
                Some(Arc::clone(list.or_insert_with(|| Arc::new(vec![dependency(world, one)]))))
            }
            many => Some(Arc::new(many.iter().map(|other| dependency(world, other)).collect())),
        }
    }
}

/// What a task of an array waits for that is no job of its own: its array's dependencies and its counterpart.
pub(crate) fn waits_for(world: &World, task: &Job) -> Arc<Vec<Blocker>> {
    let waits_for = task.status.waits_for.iter();
    Arc::new(waits_for.map(|other| dependency(world, other)).collect())
}

fn retry_delay(until: UnixMicros, now: UnixMicros) -> Blocker {
    // Rounded up: a wait that is not over is never shown as nothing.
    let left_ms = until.0.saturating_sub(now.0).saturating_add(999) / 1000;
    Blocker {
        kind: BlockerKind::RetryDelay,
        subject: String::new(),
        needed: u64::try_from(left_ms).unwrap_or(0),
        available: 0,
        limit: 0,
        unit: Unit::Millis,
        note: String::new(),
    }
}

/// The note has the kind and the other job's state. A task of an array is named by its index, however it was named when
/// the job was submitted.
fn dependency(world: &World, other: &Dependency) -> Blocker {
    let state = world.state_of(other.job).map_or("ended", JobState::word);
    let task = world.task_name(other.job).map(|task| task.to_string());
    Blocker {
        kind: BlockerKind::Dependency,
        subject: task.unwrap_or_else(|| other.named()),
        needed: 1,
        available: 0,
        limit: 0,
        unit: Unit::Job,
        note: format!("{} {state}", other.kind.word()),
    }
}

/// Why tasks of an array do not compete while as many as it allows hold resources.
pub(super) fn array_limit(array: JobId, limit: u32, active: u32) -> Arc<Vec<Blocker>> {
    Arc::new(vec![Blocker {
        kind: BlockerKind::ArrayLimit,
        subject: array.to_string(),
        needed: 1,
        available: u64::from(limit.saturating_sub(active)),
        limit: u64::from(limit),
        unit: Unit::Job,
        note: String::new(),
    }])
}

/// What a blocker notes of a job ahead that others have stopped for.
pub(crate) const RECALLED: &str = "recalled";

/// How the order of the queue bears on a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    /// Not at all.
    Free,
    /// It would put off what is planned for others.
    Planned,
    /// It would use up the guarantee of its project that this one counts on, for which others stop.
    BehindOwn(JobId),
    /// It is beyond a budget, and this one, which is not, waits for the same class.
    Later(JobId),
    /// Not at all: what it needs is being freed for it.
    Freeing,
}

/// Since when the job competes for resources.
pub(super) fn competes_since(job: &Job) -> UnixMicros {
    job.status.queued.max(job.status.not_before)
}

/// The blocker of a job that others have been told to stop for.
pub(super) fn freeing(class: String, gpus: GpuMilli) -> Blocker {
    Blocker {
        kind: BlockerKind::Recall,
        subject: class,
        needed: gpus.0,
        available: 0,
        limit: 0,
        unit: Unit::GpuMilli,
        note: String::new(),
    }
}

/// The blocker that names the job of the same project ahead.
pub(super) fn behind_own(job: JobId) -> Blocker {
    Blocker { note: RECALLED.to_owned(), ..behind(job) }
}

/// The blocker of a job beyond a budget that names one which is not.
pub(super) fn later(job: JobId) -> Blocker {
    Blocker { note: OVERUSE.to_owned(), ..behind(job) }
}

/// The blocker that names the job ahead.
pub(super) fn behind(job: JobId) -> Blocker {
    Blocker {
        kind: BlockerKind::Order,
        subject: job.to_string(),
        needed: 0,
        available: 0,
        limit: 0,
        unit: Unit::Job,
        note: String::new(),
    }
}
