//! Whether what is stored agrees with itself. Pure: rows in, differences out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gotgan_core::attempt::Attempt;
use gotgan_core::digest::Digest;
use gotgan_core::ids::{AttemptId, JobId};
use gotgan_core::job::{Job, JobState};
use gotgan_core::quota::QuotaBook;
use gotgan_core::quota::audit::{AuditEntry, Replay};

use crate::Verification;

/// A GPU and how many thousandths of it are given to attempts, as the database's own guard has it.
pub(crate) type Occupied = (String, String, i64);

/// Compares what living attempts hold with what is written down of every GPU, and attempts with their jobs.
pub(crate) fn leases(
    found: &mut Verification,
    jobs: &[Arc<Job>],
    attempts: &[Attempt],
    occupied: &[Occupied],
) {
    found.live_attempts = attempts.len() as u64;
    compare_gpus(found, attempts, occupied);
    compare_jobs(found, jobs, attempts);
}

fn compare_gpus(found: &mut Verification, attempts: &[Attempt], occupied: &[Occupied]) {
    let mut held: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for allocation in attempts.iter().flat_map(|attempt| &attempt.placement.nodes) {
        for gpu in &allocation.gpus {
            let place = (allocation.node.as_str(), gpu.uuid.as_str());
            *held.entry(place).or_default() += i64::try_from(gpu.milli.0).unwrap_or(i64::MAX);
        }
    }
    found.gpus = held.len() as u64;
    let mut kept: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for (node, uuid, milli) in occupied.iter().filter(|(_, _, milli)| *milli != 0) {
        kept.insert((node, uuid), *milli);
    }
    let places: BTreeSet<_> = held.keys().chain(kept.keys()).copied().collect();
    for place in places {
        let (is, should) =
            (kept.get(&place).copied().unwrap_or(0), held.get(&place).copied().unwrap_or(0));
        let (node, uuid) = place;
        if should > 1000 {
            found.differ(format!(
                "leases: GPU {uuid} of {node} is given out {should} thousandths of it"
            ));
        }
        if is != should {
            found.differ(format!(
                "leases: GPU {uuid} of {node} is entered as given out by {is} thousandths, and attempts hold {should}"
            ));
        }
    }
}

fn compare_jobs(found: &mut Verification, jobs: &[Arc<Job>], attempts: &[Attempt]) {
    let live: BTreeMap<JobId, &Job> = jobs.iter().map(|job| (job.id, job.as_ref())).collect();
    let holding: BTreeSet<AttemptId> = attempts.iter().map(|attempt| attempt.id).collect();
    for id in &holding {
        match live.get(&id.job) {
            None => found.differ(format!("leases: attempt {id} holds GPUs and its job has ended")),
            Some(job) if job.status.attempt != id.number => found.differ(format!(
                "leases: attempt {id} lives, and its job is in attempt {}",
                job.status.attempt
            )),
            Some(_) => {}
        }
    }
    for job in jobs {
        let id = AttemptId { job: job.id, number: job.status.attempt };
        let runs = matches!(job.status.state, JobState::Starting | JobState::Running);
        if runs && !holding.contains(&id) {
            let state = job.status.state.word();
            found.differ(format!("leases: job {} is {state} and has no living attempt", job.id));
        }
    }
}

/// The audit chain, entry by entry, and the books that follow from it.
#[derive(Default)]
pub(crate) struct Chain {
    replay: Replay,
    /// Of the book after each revision.
    books: BTreeMap<u64, Digest>,
    revision: u64,
    /// It cannot be followed any further.
    broken: bool,
}

impl Chain {
    /// Takes the next entries.
    pub(crate) fn take(&mut self, found: &mut Verification, entries: &[AuditEntry]) {
        for entry in entries {
            if self.broken {
                return;
            }
            if self.revision != entry.revision {
                self.close(found);
            }
            if let Err(fault) = self.replay.take(entry) {
                self.break_off(found, &fault.to_string());
            }
            self.revision = entry.revision;
            found.audit_entries += 1;
        }
    }

    /// All entries were taken.
    pub(crate) fn finish(&mut self, found: &mut Verification) {
        if self.broken {
            return;
        }
        if let Err(fault) = self.replay.finish() {
            self.break_off(found, &fault.to_string());
        }
        self.close(found);
    }

    fn close(&mut self, found: &mut Verification) {
        if self.broken || self.revision == 0 {
            return;
        }
        match self.replay.book() {
            Ok(book) => drop(self.books.insert(self.revision, book.digest())),
            Err(fault) => self.break_off(found, &fault.to_string()),
        }
    }

    fn break_off(&mut self, found: &mut Verification, why: &str) {
        self.broken = true;
        found.differ(format!("audit chain: {why}"));
    }

    /// Compares a stored book with the one that follows from the chain.
    pub(crate) fn compare(&self, found: &mut Verification, stored: QuotaBook) {
        found.revisions += 1;
        // A revision without entries changed nothing; those before the first entry are older than the chain.
        let Some((revision, digest)) = self.books.range(..=stored.revision).next_back() else {
            return;
        };
        let shown = stored.revision;
        let same = QuotaBook { revision: *revision, ..stored };
        if same.digest() != *digest {
            let text = format!("quota: revision {shown} is not what follows from the audit chain");
            found.differ(text);
        }
    }
}
