//! How many jobs come first.

use std::sync::Arc;

use crate::array::{self, TaskSet};
use crate::ids::GpuClass;
use crate::job::Job;
use crate::world::{QueueKey, World};

/// Jobs that come first where this one wants to go; walks the queue, so it is for one question, not for a listing.
pub(super) fn jobs_ahead(world: &World, job: &Job) -> u64 {
    let wanted = wanted_class(job);
    let alike =
        |other: &Job| other.spec.project == job.spec.project && wanted_class(other) == wanted;
    let queue = world.queue.range(..QueueKey::of(job));
    let ahead = queue.filter_map(|key| world.jobs.get(&key.job)).filter(|other| alike(other));
    ahead.map(|_| 1).sum::<u64>() + tasks_ahead(world, job, alike)
}

/// Whether it wants GPUs, and of which class if it says so.
fn wanted_class(job: &Job) -> (bool, Option<&GpuClass>) {
    let gpus = &job.spec.per_node.gpus;
    (!gpus.amount().is_zero(), gpus.class())
}

/// Tasks of arrays that are no jobs of their own and come first, of arrays like the job.
fn tasks_ahead(world: &World, job: &Job, alike: impl Fn(&Job) -> bool) -> u64 {
    let before = QueueKey::of(job);
    let ahead = |array: &Job| {
        let tasks = array.status.tasks.as_deref()?;
        let key = QueueKey::of(array);
        let waiting = if array.last_id() < job.id || job.array != Some(array.id) {
            if key < before { tasks.waiting.len() } else { 0 }
        } else {
            tasks.waiting.meet(&TaskSet::all(array::place_of(array.id, job.id)?)).len()
        };
        Some(u64::from(waiting))
    };
    world.arrays.values().map(Arc::as_ref).filter(|array| alike(array)).filter_map(ahead).sum()
}
