//! Our own history as a trace: what `gotgan jobs --all --json` prints.
//!
//! A job that has started and ended ran from the start of its last attempt to its end, and is taken as submitted when
//! it was; its time limit is what it asked for, its project the tenant. Times are cut down to whole seconds.

use std::io::Read;
use std::path::Path;

use gotgan_core::amount::UnixMicros;
use serde::Deserialize;

use super::bounds::{Counted, GPUS_MAX, SECONDS_MAX, counted};
use super::trace::{Raw, TraceError};

/// The parts that are needed of `gotgan.jobs/1`; there are more.
#[derive(Debug, Deserialize)]
struct Jobs {
    jobs: Vec<Job>,
}

#[derive(Debug, Deserialize)]
struct Job {
    job_id: u64,
    project: String,
    resources: Resources,
    time_limit_s: i64,
    submitted_us: Option<i64>,
    started_us: Option<i64>,
    ended_us: Option<i64>,
}

/// What was asked for: so many GPUs in all, or on each node.
#[derive(Debug, Deserialize)]
struct Resources {
    nodes: u32,
    gpus_per_node: u32,
    gpus_total: u32,
}

impl Resources {
    /// Whole GPUs in all; a part of one does not count.
    fn gpus(&self) -> u32 {
        let by_nodes = self.nodes.max(1).saturating_mul(self.gpus_per_node);
        self.gpus_total.saturating_add(by_nodes)
    }
}

/// Jobs left out.
#[derive(Debug, Default)]
struct Skipped {
    unfinished: u64,
    no_gpus: u64,
    unlikely: u64,
}

/// Reads the jobs of a text, and counts those left out; `path` is for errors.
///
/// # Errors
/// [`TraceError`]
pub(super) fn read(path: &Path, text: impl Read) -> Result<(Vec<Raw>, Vec<Counted>), TraceError> {
    let not_jobs = |source| TraceError::NotJobs { path: path.display().to_string(), source };
    let Jobs { jobs } = serde_json::from_reader(text).map_err(not_jobs)?;
    let mut skipped = Skipped::default();
    let jobs = jobs.into_iter().filter_map(|job| raw(job, &mut skipped)).collect();
    let Skipped { unfinished, no_gpus, unlikely } = skipped;
    let skipped = counted(&[
        (unfinished, "jobs that did not run to an end"),
        (no_gpus, "jobs without a whole GPU"),
        (unlikely, "jobs with times that cannot be"),
    ]);
    Ok((jobs, skipped))
}

fn raw(job: Job, skipped: &mut Skipped) -> Option<Raw> {
    let (Some(submitted), Some(started), Some(ended)) =
        (job.submitted_us, job.started_us, job.ended_us)
    else {
        skipped.unfinished += 1;
        return None;
    };
    let gpus = job.resources.gpus();
    if gpus == 0 || gpus > GPUS_MAX {
        skipped.no_gpus += 1;
        return None;
    }
    let [submit_s, from, until] =
        [submitted, started, ended].map(|at| UnixMicros(at).whole_seconds());
    // A job that ended within the second it started in ran as well.
    let duration_s = until.saturating_sub(from).max(1);
    if !(0..=SECONDS_MAX).contains(&submit_s) || until < from || duration_s > SECONDS_MAX {
        skipped.unlikely += 1;
        return None;
    }
    let asked_s = Some(job.time_limit_s).filter(|limit| *limit > 0);
    Some(Raw { id: job.job_id, submit_s, duration_s, asked_s, gpus, tenant: job.project })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_to_an_end_is_a_job_of_the_trace() {
        let job = |id: u64, gpus: u32, started: &str| {
            format!(
                r#"{{"job_id":{id},"name":"a","project":"public/nup",
                "resources":{{"nodes":2,"gpus_per_node":{gpus},"gpus_total":0,"gpu_share_milli":250}},
                "time_limit_s":600,"submitted_us":1000000,"started_us":{started},"ended_us":65500000}}"#
            )
        };
        let jobs = [job(7, 8, "5900000"), job(6, 8, "null"), job(5, 0, "5000000")].join(",");
        let text = format!(r#"{{"schema":"gotgan.jobs/1","jobs":[{jobs}],"next_page":null}}"#);
        let (jobs, skipped) = read(Path::new("jobs.json"), text.as_bytes()).unwrap();
        let Raw { id, submit_s, duration_s, asked_s, gpus, tenant } = &jobs[0];
        assert_eq!((*id, *submit_s, *duration_s, *asked_s, *gpus), (7, 1, 60, Some(600), 16));
        assert_eq!((tenant.as_str(), jobs.len()), ("public/nup", 1));
        let skipped: Vec<String> = skipped.iter().map(ToString::to_string).collect();
        assert_eq!(skipped, ["1 jobs that did not run to an end", "1 jobs without a whole GPU"]);
    }
}
