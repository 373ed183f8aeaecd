//! Acknowledged durable submissions a second: one and eight clients, one by one and in batches.
//!
//! Jobs queue behind a machine that is full, as they do in life, so the planner is at work beside the submissions.

use std::time::{Duration, Instant};

use gotgan_proto::v1::JobState;

use super::load::{Load, connection, submit};
use super::report::Unit;
use super::{Backend, Mark, Measure, Sample, Setup};
use crate::jobs::Shape;
use crate::jobs::command;
use crate::virtual_worker::Script;
use crate::{Cluster, VirtualWorker};

/// What single submissions of eight clients on SQLite are to reach, a second.
const MARK: f64 = 8_000.0;
/// Tasks of the array that is submitted again and again.
const ARRAY_TASKS: u32 = 100_000;
/// In what time such an array is to be acknowledged, milliseconds.
const ARRAY_MARK: f64 = 20.0;
/// Arrays a run: each adds its tasks to those that wait.
const ARRAYS: usize = 20;
/// GPUs of the one node, and the most that a job asks for.
const GPUS: u32 = 8;
/// Calls before the clock starts: connections are made and pages are warm.
const WARM_UP: usize = 20;

/// What a client does in a loop.
#[derive(Debug, Clone, Copy)]
struct Case {
    clients: usize,
    batch: usize,
    /// Only checked: what the calls alone cost on this machine, which no store can undercut.
    dry: bool,
}

/// In the order measured. The dry ones stand beside the figure that they limit.
const CASES: [Case; 6] = [
    Case { clients: 1, batch: 1, dry: false },
    Case { clients: 8, batch: 1, dry: false },
    Case { clients: 8, batch: 1, dry: true },
    Case { clients: 64, batch: 1, dry: false },
    Case { clients: 1, batch: 100, dry: false },
    Case { clients: 8, batch: 100, dry: false },
];

impl Case {
    fn name(self) -> String {
        let Self { clients, batch, dry } = self;
        format!("clients={clients}/batch={batch}{}", if dry { "/not-stored" } else { "" })
    }

    fn mark(self, backend: Backend) -> Option<Mark> {
        let is_mark = matches!(self, Self { clients: 8, batch: 1, dry: false });
        (is_mark && backend == Backend::Sqlite).then_some(Mark::AtLeast(MARK))
    }
}

/// Measures every case on one database.
pub async fn measure(setup: &Setup, backend: Backend) -> Vec<Measure> {
    let mut measures = Vec::new();
    for case in CASES {
        let name = format!("submit/{}/{}", backend.word(), case.name());
        if !name.contains(&setup.only) {
            continue;
        }
        let mut samples = Vec::new();
        for run in 0..setup.runs {
            let sample = one_run(setup, backend, case).await;
            eprintln!("{name} run {}: {sample}", run + 1);
            samples.push(sample);
        }
        measures.push(Measure::of(&name, "jobs/s", case.mark(backend), samples));
    }
    let name = format!("submit/{}/array/{ARRAY_TASKS}", backend.word());
    if name.contains(&setup.only) {
        let times = arrays(setup, backend).await;
        measures.push(Measure::of_times(
            &name,
            Unit::Milliseconds,
            Mark::AtMost(ARRAY_MARK),
            times,
        ));
    }
    measures
}

/// How long one array after the other took until it was acknowledged.
async fn arrays(setup: &Setup, backend: Backend) -> Vec<Duration> {
    let cluster = setup.cluster(backend).await;
    let _node = full_node(&cluster).await;
    let mut times = Vec::new();
    for _ in 0..ARRAYS {
        let mut spec = command(&["/bin/true"]).gpus(GPUS);
        spec.array = format!("0-{}", ARRAY_TASKS - 1);
        let sent = Instant::now();
        cluster.api.submit(spec).await;
        times.push(sent.elapsed());
    }
    check_stored(&cluster, ARRAYS * ARRAY_TASKS as usize).await;
    times
}

async fn one_run(setup: &Setup, backend: Backend, case: Case) -> Sample {
    let Case { clients, batch, dry } = case;
    let cluster = setup.cluster(backend).await;
    let _node = full_node(&cluster).await;
    let mut tasks = Vec::new();
    let begin = std::sync::Arc::new(tokio::sync::Barrier::new(clients));
    for number in 0..clients {
        let mut jobs = connection(&cluster).jobs();
        let load = Load::new(setup.seed, number, GPUS, setup.held);
        let mut load = if dry { load.dry() } else { load };
        let (begin, duration) = (begin.clone(), setup.duration);
        tasks.push(tokio::spawn(async move {
            for _ in 0..WARM_UP {
                submit(&mut jobs, &mut load, batch).await;
            }
            begin.wait().await;
            let begun = Instant::now();
            let mut latencies = Vec::new();
            while begun.elapsed() < duration {
                let sent = Instant::now();
                submit(&mut jobs, &mut load, batch).await;
                latencies.push(sent.elapsed());
            }
            (latencies, begun.elapsed())
        }));
    }
    let mut all = Vec::new();
    let mut longest = Duration::ZERO;
    for task in tasks {
        let (latencies, elapsed) = task.await.expect("a client that submits");
        all.extend(latencies);
        longest = longest.max(elapsed);
    }
    let jobs = all.len() * batch;
    let stored = if dry { 0 } else { jobs + clients * WARM_UP * batch };
    check_stored(&cluster, stored).await;
    Sample::new(jobs, longest, all)
}

/// A node on which nothing is free.
async fn full_node(cluster: &Cluster) -> VirtualWorker {
    let node = cluster.add_virtual("full", "b200", GPUS, Script::forever()).await;
    let job = cluster.api.submit(command(&["/bin/true"]).gpus(GPUS)).await;
    cluster.api.wait_for_state(job, JobState::Running).await;
    node
}

/// What was acknowledged is there; a benchmark of something else would be easy to win.
async fn check_stored(cluster: &Cluster, expected: usize) {
    let status = cluster.api.status().await.expect("a status");
    let stored = status.jobs_pending + status.jobs_held;
    assert_eq!(stored, expected as u64, "acknowledged jobs that are stored");
}
