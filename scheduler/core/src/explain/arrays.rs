//! Arrays in words: why their tasks wait.

use std::sync::Arc;

use super::{Explanation, explain as explain_job, plain};
use crate::amount::UnixMicros;
use crate::array::{self, ArrayTasks};
use crate::job::Job;
use crate::plan::{Blocker, Report};
use crate::planner::order;
use crate::world::World;

/// How an array stands, and why the first of its tasks waits that does.
pub(super) fn explain(
    world: &World,
    array: &Job,
    last: Option<&Report>,
    planned: Option<UnixMicros>,
) -> Explanation {
    let tasks = array.status.tasks.as_deref().cloned().unwrap_or_default();
    let summary = format!("array of {}", tasks.summary());
    let first = tasks.ready().first().or(tasks.waiting.first()).or(tasks.held.first());
    let first = first.map(|place| array::task_id(array.id, place));
    match first.and_then(|task| explain_job(world, task, last, planned)) {
        Some(of_task) => Explanation {
            state: array.status.state,
            summary: format!("{summary}; the next {}", of_task.summary),
            ..of_task
        },
        None => plain(array, summary),
    }
}

/// What the report says of a job. Of a task of an array that is no job of its own it often says nothing itself: then
/// what it says of all of the array counts, or of the first task that waits.
pub(super) fn found(world: &World, report: &Report, job: &Job) -> Option<Arc<Vec<Blocker>>> {
    let Some(array) = job.array.and_then(|id| world.arrays.get(&id)) else {
        return report.of(job);
    };
    let tasks = array.status.tasks.as_deref()?;
    let place = array::place_of(array.id, job.id).filter(|place| tasks.waiting.contains(*place));
    let Some(place) = place else { return report.of(job) };
    if tasks.counterpart(place).is_some() {
        return Some(order::waits_for(world, job));
    }
    of_tasks(report, array, tasks, (job, place))
}

/// What it says of a task that competes and is no job of its own.
fn of_tasks(
    report: &Report,
    array: &Job,
    tasks: &ArrayTasks,
    (job, place): (&Job, u32),
) -> Option<Arc<Vec<Blocker>>> {
    let ready = tasks.ready();
    let of_array = report.jobs.get(&array.id);
    let may_start = job.array_limit().map(|(_, limit)| limit.saturating_sub(tasks.active()));
    if may_start.is_some_and(|more| ready.rank(place) >= more) && of_array.is_some() {
        return of_array.cloned();
    }
    let first = ready.first().map(|first| array::task_id(array.id, first));
    let of_first = || first.and_then(|first| report.jobs.get(&first));
    report.of(job).or_else(|| of_first().or(of_array).cloned())
}

/// The limit is how many tasks may run at once.
pub(super) fn limit(blocker: &Blocker) -> String {
    let Blocker { subject, limit, .. } = blocker;
    let tasks = if *limit == 1 { "task runs" } else { "tasks run" };
    format!(
        "waits until fewer than {limit} {tasks} of array {subject}, which allows no more at once"
    )
}
