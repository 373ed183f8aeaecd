//! Judges a history by what must always hold. It knows the API's words and what really ran, and nothing of how a
//! scheduler is made.
//!
//! The numbers are those of the promises in `docs/torment.md`. Whatever is in doubt is taken for good: nobody can say
//! what a node did that could not be reached, when a request was done that was not answered, nor when something was that a
//! clock tells of that was wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;

use gotgan_proto::v1::{Attempt, Cause, Job, JobState};

use super::history::{Answer, History};
use super::quota::LIMITED;
use crate::api::is_terminal;
use crate::virtual_worker::Run;

/// Thousandths of a GPU that there are to hold.
const WHOLE_GPU_MILLI: i64 = 1000;
/// What a node may need to end what it was told to end: grace, its own haste, a message.
const END_WITHIN_US: i64 = 8_000_000;
/// From the decision to stop an attempt to its end: its grace of a second, and as much again.
const STOPS_WITHIN_US: i64 = 2_000_000;
/// A decision may arrive this much later than it was made.
const DECIDED_BEFORE_US: i64 = 8_000_000;

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which promise was broken, from 1; 0: a program has said so itself.
    pub promise: u8,
    /// How.
    pub text: String,
    /// Jobs that it is about.
    pub jobs: Vec<u64>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "promise {}: {}", self.promise, self.text)
    }
}

fn violation(promise: u8, jobs: &[u64], text: String) -> Violation {
    Violation { promise, text, jobs: jobs.to_vec() }
}

/// Everything that is wrong.
#[must_use]
pub fn judge(history: &History) -> Vec<Violation> {
    let told = |promise: u8, texts: &[String]| {
        texts.iter().map(|text| violation(promise, &[], text.clone())).collect::<Vec<_>>()
    };
    let mut found = told(0, &history.said);
    found.extend(gpus_given_twice(&history.runs));
    found.extend(lost_gpus(history));
    found.extend(limits_passed(history));
    found.extend(lost_or_doubled_jobs(history));
    found.extend(wrong_starts(history));
    found.extend(broken_gangs(history));
    found.extend(outlived_attempts(history));
    found.extend(revived_jobs(history));
    found.extend(told(8, &history.books));
    found.extend(history.promise.and_then(|it| Some(violation(9, &[it.job_id], it.broken()?))));
    found.extend(wrong_preemptions(history));
    found.extend(told(11, &history.replayed));
    let stuck = |(job, text): &(u64, String)| violation(12, &[*job], text.clone());
    found.extend(history.stuck.iter().map(stuck));
    found
}

/// 1. No GPU is in two living attempts beyond what there is of it.
fn gpus_given_twice(runs: &[Run]) -> Vec<Violation> {
    let mut changes: BTreeMap<&str, Vec<(i64, i64, u64)>> = BTreeMap::new();
    for run in runs {
        for (uuid, milli) in &run.gpus {
            let milli = i64::from(*milli);
            let list = changes.entry(uuid.as_str()).or_default();
            list.push((run.from_us, milli, run.job_id));
            list.push((run.until_us.unwrap_or(i64::MAX), -milli, run.job_id));
        }
    }
    let mut found = Vec::new();
    for (uuid, mut list) in changes {
        // What ends at a moment makes room for what begins at it.
        list.sort_unstable();
        let (mut in_use, mut holders) = (0, Vec::new());
        for (at_us, change, job) in list {
            in_use += change;
            if change > 0 {
                holders.push(job);
            } else {
                holders.retain(|holder| *holder != job);
            }
            if change > 0 && in_use > WHOLE_GPU_MILLI {
                let text = format!("{uuid} had {in_use} thousandths in use at {at_us}");
                found.push(violation(1, &holders, text));
            }
        }
    }
    found
}

/// 2. Free, allocated and down GPUs are all that there are.
fn lost_gpus(history: &History) -> Vec<Violation> {
    let counts = history.counts.iter();
    let wrong = counts.filter(|count| count.free + count.allocated + count.down != count.capacity);
    wrong.map(|count| violation(2, &[], format!("GPUs do not add up: {count:?}"))).collect()
}

/// 3. What runs never passes a limit that holds. What a node still runs that was given up counts no longer.
fn limits_passed(history: &History) -> Vec<Violation> {
    let of_project = projects(&history.jobs);
    let attempts = attempts(&history.jobs);
    let is_given_up = |run: &Run, at_us: i64| {
        let attempt = attempts.get(&(run.job_id, run.attempt));
        attempt.is_some_and(|attempt| {
            let is_over = attempt.ended_us > 0 && attempt.ended_us <= at_us;
            is_over || history.has_doubtful_times(attempt)
        })
    };
    let is_limited = |run: &&Run| of_project.get(&run.job_id) == Some(&LIMITED) && run.starts > 0;
    let runs: Vec<&Run> = history.runs.iter().filter(is_limited).collect();
    let mut found = Vec::new();
    for begun in &runs {
        let at_us = begun.from_us;
        let now = runs.iter().filter(|run| {
            let is_there = run.until_us.is_none_or(|until_us| until_us > at_us);
            run.from_us <= at_us && is_there && !is_given_up(run, at_us)
        });
        let used: u64 = now.map(|run| milli(run)).sum();
        let most = highest_limit(history, at_us);
        if used > most {
            let text = format!("{LIMITED} ran {used} thousandths at {at_us}, limit {most}");
            found.push(violation(3, &[begun.job_id], text));
        }
    }
    found
}

/// The highest limit by which a start at this moment may have been decided.
fn highest_limit(history: &History, at_us: i64) -> u64 {
    let sent = history.limits.iter().filter(|limit| limit.sent_us <= at_us);
    let replaced = |old_us: i64| {
        let mut later = history.limits.iter().filter(|limit| limit.sent_us > old_us);
        later.any(|limit| limit.answered_us.saturating_add(DECIDED_BEFORE_US) < at_us)
    };
    sent.filter(|limit| !replaced(limit.answered_us))
        .map(|limit| limit.gpu_milli)
        .max()
        .unwrap_or(0)
}

fn milli(run: &Run) -> u64 {
    run.gpus.iter().map(|(_, milli)| u64::from(*milli)).sum()
}

fn projects(jobs: &[Job]) -> BTreeMap<u64, &str> {
    jobs.iter().map(|job| (job.job_id, project(job))).collect()
}

fn project(job: &Job) -> &str {
    job.spec.as_ref().map_or("", |spec| spec.project.as_str())
}

/// 4. What was acknowledged is there, once for its key; and nothing that nobody asked for.
fn lost_or_doubled_jobs(history: &History) -> Vec<Violation> {
    let mut stored: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for job in &history.jobs {
        let root = if job.array_job_id > 0 { job.array_job_id } else { job.job_id };
        let name = job.spec.as_ref().map_or("", |spec| spec.name.as_str());
        stored.entry(name).or_default().insert(root);
    }
    let mut found = Vec::new();
    for submit in &history.submits {
        let there = stored.remove(submit.key.as_str()).unwrap_or_default();
        let there: Vec<u64> = there.into_iter().collect();
        let as_told = match &submit.answer {
            Answer::Done(job_id) => there == [*job_id],
            Answer::Refused(_) => there.is_empty(),
            Answer::None => there.len() <= 1,
        };
        if !as_told {
            let text =
                format!("{} was answered {:?}; stored: {there:?}", submit.key, submit.answer);
            found.push(violation(4, &there, text));
        }
        if submit.again.iter().any(|again| Answer::Done(*again) != submit.answer) {
            let text = format!("{} once more was answered otherwise: {submit:?}", submit.key);
            found.push(violation(4, &there, text));
        }
    }
    for (name, jobs) in stored {
        let jobs: Vec<u64> = jobs.into_iter().collect();
        found.push(violation(4, &jobs, format!("nobody has submitted {name:?}")));
    }
    found
}

/// 5. At most one start for an attempt on a node; attempts only increase; what runs was told to run.
fn wrong_starts(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut starts: BTreeMap<(u64, u32, &str), u32> = BTreeMap::new();
    for run in &history.runs {
        *starts.entry((run.job_id, run.attempt, &run.node)).or_default() += run.starts;
    }
    for ((job, attempt, node), count) in starts {
        if count > 1 {
            let text = format!("attempt {job}.{attempt} was started {count} times on {node}");
            found.push(violation(5, &[job], text));
        }
    }
    let attempts = attempts(&history.jobs);
    for run in history.runs.iter().filter(|run| run.starts > 0) {
        let (job, number, node) = (run.job_id, run.attempt, &run.node);
        let Some(attempt) = attempts.get(&(job, number)) else {
            let text = format!("attempt {job}.{number} ran on {node} and is unknown");
            found.push(violation(5, &[job], text));
            continue;
        };
        let given = attempt.allocation.iter().find(|part| part.node == *node);
        let given = given.into_iter().flat_map(|part| &part.gpus);
        let given: BTreeMap<&str, u32> = given.map(|gpu| (gpu.uuid.as_str(), gpu.milli)).collect();
        let had: BTreeMap<&str, u32> =
            run.gpus.iter().map(|(uuid, milli)| (uuid.as_str(), *milli)).collect();
        if given != had {
            let text =
                format!("attempt {job}.{number} had {had:?} on {node}, and was given {given:?}");
            found.push(violation(5, &[job], text));
        }
    }
    for job in &history.jobs {
        let numbers: Vec<u32> = job.attempts.iter().map(|attempt| attempt.number).collect();
        if numbers.iter().zip(1..).any(|(number, wanted)| *number != wanted) {
            let text = format!("attempts of job {} are numbered {numbers:?}", job.job_id);
            found.push(violation(5, &[job.job_id], text));
        }
    }
    for (job, looks) in &history.looks {
        if !looks.is_sorted_by_key(|look| look.attempt) {
            found.push(violation(5, &[*job], format!("job {job} went back: {looks:?}")));
        }
    }
    found
}

fn attempts(jobs: &[Job]) -> BTreeMap<(u64, u32), &Attempt> {
    let mut all = BTreeMap::new();
    for job in jobs {
        all.extend(job.attempts.iter().map(|attempt| ((job.job_id, attempt.number), attempt)));
    }
    all
}

/// 6. A gang that has done its work has done it on every one of its nodes.
fn broken_gangs(history: &History) -> Vec<Violation> {
    let ran: BTreeSet<(u64, u32, &str)> = history
        .runs
        .iter()
        .filter(|run| run.starts > 0)
        .map(|run| (run.job_id, run.attempt, run.node.as_str()))
        .collect();
    let done = history.jobs.iter().filter(|job| job.state() == JobState::Completed);
    let last = done.filter_map(|job| Some((job.job_id, job.attempts.last()?)));
    let missing = last.filter_map(|(job, attempt)| {
        let mut nodes = attempt.allocation.iter().map(|part| part.node.as_str());
        nodes.find(|node| !ran.contains(&(job, attempt.number, *node))).map(|node| {
            violation(6, &[job], format!("job {job} has completed and never ran on {node}"))
        })
    });
    missing.collect()
}

/// 6 and 7. Once an attempt has ended, nothing of it runs on, but on a node that cannot be told.
fn outlived_attempts(history: &History) -> Vec<Violation> {
    let attempts = attempts(&history.jobs);
    let mut found = Vec::new();
    for run in &history.runs {
        let Some(attempt) = attempts.get(&(run.job_id, run.attempt)) else { continue };
        let until_us = run.until_us.unwrap_or(i64::MAX);
        if history.has_doubtful_times(attempt) {
            continue;
        }
        let told_us = reachable_from(history, &run.node, attempt.ended_us);
        if attempt.ended_us > 0 && until_us > told_us.saturating_add(END_WITHIN_US) {
            let (job, number, ended_us) = (run.job_id, run.attempt, attempt.ended_us);
            let text = format!(
                "attempt {job}.{number} ended at {ended_us} and ran on {} until {until_us}",
                run.node
            );
            found.push(violation(7, &[job], text));
        }
    }
    found
}

/// The first moment, not before this one, at which a node could be told something for good.
fn reachable_from(history: &History, node: &str, at_us: i64) -> i64 {
    let mut moment = at_us;
    // In the order of their beginnings; one may lead into the next.
    for (from_us, until_us) in history.apart.get(node).into_iter().flatten() {
        if *from_us <= moment + END_WITHIN_US && moment < *until_us {
            moment = *until_us;
        }
    }
    moment
}

/// 7. A job that has ended never changes.
fn revived_jobs(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    let last: BTreeMap<u64, (JobState, u32)> =
        history.jobs.iter().map(|job| (job.job_id, (job.state(), job.attempt))).collect();
    for (job, looks) in &history.looks {
        let Some(ended) = looks.iter().position(|look| is_terminal(look.state)) else { continue };
        let end = (looks[ended].state, looks[ended].attempt);
        let changed = ended + 1 < looks.len() || last.get(job).is_some_and(|last| *last != end);
        if changed {
            let text = format!("job {job} had ended and changed: {looks:?}, {:?}", last.get(job));
            found.push(violation(7, &[*job], text));
        }
    }
    found
}

/// 10. Nobody is stopped for another who had no more than its guarantee.
fn wrong_preemptions(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    let guaranteed: u64 = history.guarantees.values().sum();
    for job in &history.jobs {
        let project = project(job);
        let guarantee = history.guarantees.get(project).copied().unwrap_or(0);
        for attempt in job.attempts.iter().filter(|it| it.cause() == Cause::Preempted) {
            let moments = attempt.ended_us - STOPS_WITHIN_US..=attempt.ended_us;
            // A node that could not be told was told nobody knows when.
            let mut nodes = attempt.allocation.iter().map(|part| part.node.as_str());
            let was_apart = nodes.any(|node| was_apart(history, node, &moments));
            if was_apart || history.has_doubtful_times(attempt) {
                continue;
            }
            // Where there is less than was promised in all, guarantees shrink.
            let is_short = history.counts.iter().any(|count| {
                moments.contains(&count.asked_us) && count.capacity - count.down < guaranteed
            });
            let most = most_held(&history.jobs, project, *moments.start(), attempt.ended_us);
            if !is_short && most <= guarantee {
                let text = format!(
                    "attempt {}.{} was preempted while {project} had {most} of {guarantee}",
                    job.job_id, attempt.number
                );
                found.push(violation(10, &[job.job_id], text));
            }
        }
    }
    found
}

fn was_apart(history: &History, node: &str, moments: &RangeInclusive<i64>) -> bool {
    let mut spans = history.apart.get(node).into_iter().flatten();
    spans.any(|(from_us, until_us)| from_us <= moments.end() && moments.start() <= until_us)
}

/// The most that attempts of a project held at once between two moments, by their own times.
fn most_held(jobs: &[Job], project: &str, from_us: i64, until_us: i64) -> u64 {
    let of_project = |job: &&Job| self::project(job) == project;
    let held: Vec<(i64, i64, u64)> = jobs
        .iter()
        .filter(of_project)
        .flat_map(|job| &job.attempts)
        .map(|attempt| (attempt.leased_us, attempt.ended_us, allocated(attempt)))
        .filter(|(begun, ended, _)| *begun <= until_us && *ended >= from_us)
        .collect();
    let moments = held.iter().map(|(begun, _, _)| (*begun).max(from_us));
    let at = |moment: i64| {
        let now = held.iter().filter(|(begun, ended, _)| *begun <= moment && moment < *ended);
        now.map(|(_, _, milli)| *milli).sum()
    };
    moments.map(at).max().unwrap_or(0)
}

fn allocated(attempt: &Attempt) -> u64 {
    let gpus = attempt.allocation.iter().flat_map(|part| &part.gpus);
    gpus.map(|gpu| u64::from(gpu.milli)).sum()
}

#[cfg(test)]
mod tests;
