//! Whole lives of jobs a second: submitted, planned, run, reported, accounted.
//!
//! With virtual workers it is the scheduler's side alone; with one real worker every job is a process under a shim.

use std::time::{Duration, Instant};

use gotgan_proto::v1::{self, JobState, PageRequest};

use super::load::{Load, connection, submit};
use super::{Backend, Mark, Measure, Sample, Setup};
use crate::virtual_worker::Script;
use crate::{Api, Cluster, audit, deadline};

/// What real processes on one worker are to reach on SQLite, a second.
const MARK: f64 = 500.0;
/// What one worker is to reach, a second.
const WORKER_MARK: f64 = 1_000.0;
/// Jobs on their way at most: enough that nobody waits for work, few enough that queues stay short.
const IN_FLIGHT: u64 = 1_000;
/// Jobs a call.
const BATCH: usize = 100;
/// Between two looks at how many are on their way.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Virtual nodes, and GPUs on each.
const NODES: u32 = 16;
const GPUS: u32 = 8;
/// Jobs whose times are looked at, the newest first.
const TIMES_MAX: usize = 5_000;

/// What runs the jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runner {
    Virtual,
    Real,
}

impl Runner {
    fn word(self) -> &'static str {
        match self {
            Self::Virtual => "virtual",
            Self::Real => "process",
        }
    }
}

/// Measures both runners on one database.
pub async fn measure(setup: &Setup, backend: Backend) -> Vec<Measure> {
    let mut measures = Vec::new();
    for runner in [Runner::Virtual, Runner::Real] {
        let name = format!("lifecycle/{}/{}", backend.word(), runner.word());
        if !name.contains(&setup.only) {
            continue;
        }
        let mut samples = Vec::new();
        for run in 0..setup.runs {
            let (sample, _) = one_run(setup, backend, runner).await;
            eprintln!("{name} run {}: {sample}", run + 1);
            samples.push(sample);
        }
        let is_mark = backend == Backend::Sqlite && runner == Runner::Real;
        measures.push(Measure::of(
            &name,
            "jobs/s",
            is_mark.then_some(Mark::AtLeast(MARK)),
            samples,
        ));
    }
    measures
}

/// Real processes on one worker, on SQLite, under another name and with the mark of a worker.
///
/// Nothing is removed between runs: ext4 without a journal gives away no inode that was freed in the last minutes, and
/// looks at every one of them for each new file.
pub async fn on_one_worker(setup: &Setup, name: &str) -> Measure {
    let (mut samples, mut kept) = (Vec::new(), Vec::new());
    for _ in 0..setup.runs {
        let (sample, cluster) = one_run(setup, Backend::Sqlite, Runner::Real).await;
        samples.push(sample);
        kept.push(cluster);
    }
    Measure::of(name, "jobs/s", Some(Mark::AtLeast(WORKER_MARK)), samples)
}

async fn one_run(setup: &Setup, backend: Backend, runner: Runner) -> (Sample, Cluster) {
    let mut cluster = setup.cluster(backend).await;
    let mut nodes = Vec::new();
    match runner {
        Runner::Virtual => {
            for number in 0..NODES {
                let script = Script::succeed_after(Duration::ZERO);
                nodes.push(cluster.add_virtual(&format!("v{number}"), "b200", GPUS, script).await);
            }
        }
        Runner::Real => {
            cluster.add_worker("node-a", "").await;
        }
    }
    let gpus_max = u32::from(runner == Runner::Virtual);
    let load = Load::new(setup.seed, 0, gpus_max, false);
    let (jobs, elapsed) = drive(&cluster, load, setup.duration).await;
    check(&cluster.api, jobs).await;
    let sample = Sample::new(jobs, elapsed, times(&cluster.api).await);
    (sample, cluster)
}

/// Keeps jobs on their way for a while, then waits until the last has ended.
async fn drive(cluster: &Cluster, mut load: Load, duration: Duration) -> (usize, Duration) {
    let api = connection(cluster);
    let mut client = api.jobs();
    let begun = Instant::now();
    let mut jobs = 0;
    while begun.elapsed() < duration {
        if on_their_way(&api).await + BATCH as u64 > IN_FLIGHT {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        submit(&mut client, &mut load, BATCH).await;
        jobs += BATCH;
    }
    deadline::until("the last job to end", async || match on_their_way(&api).await {
        0 => Ok(()),
        more => Err(format!("{more} jobs")),
    })
    .await;
    (jobs, begun.elapsed())
}

async fn on_their_way(api: &Api) -> u64 {
    let status = api.status().await.expect("a status");
    status.jobs_pending + status.jobs_starting + status.jobs_running
}

async fn check(api: &Api, expected: usize) {
    let found = page(api, String::new(), 1).await;
    assert_eq!(found.0.first().map(|job| job.job_id), Some(expected as u64), "every job is there");
    let balance = api.quota().balance(v1::BalanceRequest::default()).await.expect("a balance");
    assert!(balance.into_inner().balanced, "the ledger is not balanced");
    // The whole of it where that is quick.
    if expected < 1_000 {
        audit::ledger(api).await;
    }
}

/// From submission to end, of the newest jobs.
pub(super) async fn times(api: &Api) -> Vec<Duration> {
    let (mut times, mut token) = (Vec::new(), String::new());
    loop {
        let (jobs, next) = page(api, token, 1_000).await;
        for job in jobs {
            assert_eq!(job.state(), JobState::Completed, "job {}: {}", job.job_id, job.detail);
            let micros = u64::try_from(job.ended_us - job.submitted_us).unwrap_or_default();
            times.push(Duration::from_micros(micros));
        }
        token = next;
        if token.is_empty() || times.len() >= TIMES_MAX {
            return times;
        }
    }
}

async fn page(api: &Api, token: String, size: u32) -> (Vec<v1::Job>, String) {
    let page = Some(PageRequest { size, token });
    let answer = api.jobs().list(v1::ListJobsRequest { page, ..Default::default() }).await;
    let answer = answer.expect("a listing").into_inner();
    (answer.jobs, answer.next_token)
}
