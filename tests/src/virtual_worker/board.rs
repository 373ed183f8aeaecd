//! What many virtual nodes did, counted together: when jobs reached them, what runs, what has ended.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the nodes of a swarm note what they do.
#[derive(Debug, Default)]
pub struct Board(Mutex<Notes>);

#[derive(Debug, Default)]
struct Notes {
    jobs: BTreeMap<u64, Times>,
    sums: Sums,
}

/// When a job reached its nodes; times in Unix microseconds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Nodes that were told to run it.
    pub told: u32,
    /// When the last of them was.
    pub told_us: i64,
    /// Nodes on which it started.
    pub started: u32,
    /// When it did on the last of them.
    pub started_us: i64,
}

/// Sums over all nodes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sums {
    /// GPUs of attempts that run, shares counted as whole ones.
    pub gpus_running: usize,
    /// Attempts that have ended, once for each of their nodes.
    pub ended: u64,
}

impl Board {
    /// When this job reached its nodes; nothing if none has heard of it.
    #[must_use]
    pub fn of(&self, job: u64) -> Times {
        self.lock().jobs.get(&job).copied().unwrap_or_default()
    }

    /// What runs and what has ended.
    #[must_use]
    pub fn sums(&self) -> Sums {
        self.lock().sums
    }

    pub(super) fn told(&self, job: u64, at_us: i64) {
        let mut notes = self.lock();
        let times = notes.jobs.entry(job).or_default();
        times.told += 1;
        times.told_us = times.told_us.max(at_us);
    }

    pub(super) fn started(&self, job: u64, gpus: usize, at_us: i64) {
        let mut notes = self.lock();
        let times = notes.jobs.entry(job).or_default();
        times.started += 1;
        times.started_us = times.started_us.max(at_us);
        notes.sums.gpus_running += gpus;
    }

    /// An attempt has ended on a node; `gpus` are those on which it ran.
    pub(super) fn ended(&self, gpus: usize) {
        let mut notes = self.lock();
        notes.sums.gpus_running = notes.sums.gpus_running.saturating_sub(gpus);
        notes.sums.ended += 1;
    }

    /// A panic elsewhere does not make the counts wrong.
    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
