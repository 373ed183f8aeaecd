//! Jobs by their number, with tasks of arrays that are no jobs of their own yet. Such a task is looked at as the job it
//! would be; that job is made when it is asked for and lives as long as the pass.

use std::cell::{Cell, OnceCell};
use std::sync::Arc;

use crate::ids::JobId;
use crate::job::Job;
use crate::world::World;

/// Jobs of the world, and tasks that were made jobs for the pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Jobs<'w> {
    /// The world.
    pub world: &'w World,
    made: &'w MadeJobs,
}

/// Blocks of a [`MadeJobs`], each twice as large as the one before: more than there are job numbers.
const BLOCKS: usize = 64;

/// Jobs that were made for the pass. It only grows, and nothing in it ever moves.
#[derive(Debug)]
pub(super) struct MadeJobs {
    blocks: [OnceCell<Box<[OnceCell<Job>]>>; BLOCKS],
    count: Cell<usize>,
}

impl Default for MadeJobs {
    fn default() -> Self {
        MadeJobs { blocks: [const { OnceCell::new() }; BLOCKS], count: Cell::new(0) }
    }
}

impl MadeJobs {
    /// Keeps a job.
    fn keep(&self, job: Job) -> Option<&Job> {
        let number = self.count.get() + 1;
        self.count.set(number);
        let block = number.ilog2();
        let size = 1_usize << block;
        let empty = || (0..size).map(|_| OnceCell::new()).collect();
        let jobs = self.blocks.get(block as usize)?.get_or_init(empty);
        Some(jobs.get(number - size)?.get_or_init(|| job))
    }
}

impl<'w> Jobs<'w> {
    /// Jobs of the world, with room for what is made.
    pub fn new(world: &'w World, made: &'w MadeJobs) -> Self {
        Jobs { world, made }
    }

    /// The job of that number, or the task of an array that waits.
    pub fn get(self, id: JobId) -> Option<&'w Job> {
        let made = || self.made.keep(self.world.array_over(id)?.folded_task(id)?);
        self.world.jobs.get(&id).map(Arc::as_ref).or_else(made)
    }
}
