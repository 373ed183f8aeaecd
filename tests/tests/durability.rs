//! What was acknowledged is kept: over kills of the scheduler, its graceful end, and its restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gotgan_proto::v1::{self, ExitStatus, JobSpec, JobState, SubmitRequest};
use gotgan_tests::api::channel;
use gotgan_tests::deadline::{self, within};
use gotgan_tests::jobs::{Shape, command, shell};
use gotgan_tests::virtual_worker::{Play, Script, VirtualWorker};
use gotgan_tests::{Api, Cluster, Database, audit};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tonic::{Code, Status};

const CLIENTS: usize = 8;
const JOBS_PER_CLIENT: usize = 63;
const KILLS: usize = 3;
/// Names the seed of a run that is to be repeated.
const SEED_VARIABLE: &str = "GOTGAN_TEST_SEED";
/// A call that takes longer is given up and sent again.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

on_each_database! {
    acknowledged_jobs_survive_kills_of_the_scheduler_and_run_once,
    a_scheduler_that_is_stopped_and_started_finds_its_jobs_running,
    a_scheduler_that_was_suspended_goes_on,
}

async fn acknowledged_jobs_survive_kills_of_the_scheduler_and_run_once(database: Database) {
    let seed = seed();
    eprintln!("seed {seed} (repeat with {SEED_VARIABLE}={seed})");
    let mut cluster = Cluster::start(database).await;
    let nodes = four_nodes(&cluster, seed).await;
    let (acknowledged, mut count) = watch::channel(0);
    let acknowledged = Arc::new(acknowledged);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let client = Client::new(&cluster, number, seed, Arc::clone(&acknowledged));
            tokio::spawn(client.submit_all())
        })
        .collect();
    let mut random = StdRng::seed_from_u64(seed);
    for kill in 0..KILLS {
        let share = CLIENTS * JOBS_PER_CLIENT / KILLS;
        let moment = kill * share + random.random_range(0..share);
        within("submissions to go on", count.wait_for(|count| *count >= moment)).await.unwrap();
        tokio::time::sleep(Duration::from_micros(random.random_range(0..5_000))).await;
        cluster.scheduler.kill();
        eprintln!("killed at {} acknowledged (aimed at {moment})", *count.borrow());
        cluster.scheduler.start();
    }
    let mut known = BTreeMap::new();
    for client in clients {
        known.extend(within("a client to be done", client).await.expect("a client that submits"));
    }
    check_each_is_there_once(&cluster.api, &known).await;
    cluster.api.wait_until_idle().await;
    check_each_has_run(&cluster.api, &known).await;
    let runs: Vec<_> = nodes.iter().flat_map(VirtualWorker::runs).collect();
    audit::runs(&runs);
    let sums = audit::ledger(&cluster.api).await;
    assert!(sums.charged > 0, "some of the jobs must have lasted over a second's turn");
}

async fn check_each_is_there_once(api: &Api, known: &BTreeMap<String, u64>) {
    let ids: BTreeSet<u64> = known.values().copied().collect();
    assert_eq!(ids.len(), CLIENTS * JOBS_PER_CLIENT, "each key has a job of its own");
    let stored: Vec<u64> = api.all_jobs().await.iter().map(|job| job.job_id).collect();
    assert_eq!(stored.len(), ids.len(), "nothing but what was acknowledged, and each once");
    assert_eq!(stored.into_iter().collect::<BTreeSet<u64>>(), ids);
}

async fn check_each_has_run(api: &Api, known: &BTreeMap<String, u64>) {
    let jobs: BTreeMap<u64, v1::Job> =
        api.all_jobs().await.into_iter().map(|job| (job.job_id, job)).collect();
    for (key, id) in known {
        let job = &jobs[id];
        assert_eq!(job.state(), JobState::Completed, "job {id} of {key}: {}", job.detail);
        assert_eq!(job.spec.as_ref().unwrap().comment, *key, "the body that came with the key");
    }
}

async fn four_nodes(cluster: &Cluster, seed: u64) -> Vec<VirtualWorker> {
    // Different for each job, and the same again for the same seed.
    let script = Script::by(move |order| {
        let mut random = StdRng::seed_from_u64(seed ^ order.job_id);
        Play::Run(Duration::from_millis(random.random_range(0..250)), ExitStatus::default())
    });
    let mut nodes = Vec::new();
    for number in 0..4 {
        let name = format!("v{number}");
        nodes.push(cluster.add_virtual(&name, "b200", 8, script.clone()).await);
    }
    nodes
}

fn seed() -> u64 {
    match std::env::var(SEED_VARIABLE) {
        Ok(text) => text.parse().expect("a seed is a number"),
        Err(_) => rand::random(),
    }
}

/// Somebody who submits again with the same key until there is an answer.
struct Client {
    api: Api,
    number: usize,
    random: StdRng,
    acknowledged: Arc<watch::Sender<usize>>,
}

impl Client {
    fn new(
        cluster: &Cluster,
        number: usize,
        seed: u64,
        acknowledged: Arc<watch::Sender<usize>>,
    ) -> Self {
        let scheduler = &cluster.scheduler;
        let channel = channel(&scheduler.url(), Some(&scheduler.ca_pem()));
        let api = Api::new(channel, Some(&scheduler.admin_token()));
        let random = StdRng::seed_from_u64(seed.wrapping_add(number as u64 + 1));
        Self { api, number, random, acknowledged }
    }

    async fn submit_all(mut self) -> BTreeMap<String, u64> {
        let mut known = BTreeMap::new();
        for count in 0..JOBS_PER_CLIENT {
            let key = format!("client-{}-{count}", self.number);
            let mut spec = command(&["/bin/true"]).gpus(1);
            spec.comment.clone_from(&key);
            let id = self.submit(&key, &spec).await.job_id;
            self.acknowledged.send_modify(|count| *count += 1);
            if self.random.random_ratio(1, 10) {
                let again = self.submit(&key, &spec).await;
                assert!(again.repeated && again.job_id == id, "{again:?} is not job {id} again");
            }
            known.insert(key, id);
        }
        known
    }

    async fn submit(&self, key: &str, spec: &JobSpec) -> v1::SubmitResponse {
        let begun = Instant::now();
        loop {
            let request = SubmitRequest {
                idempotency_key: key.to_owned(),
                spec: Some(spec.clone()),
                dry_run: false,
            };
            let mut jobs = self.api.jobs();
            match tokio::time::timeout(CALL_LIMIT, jobs.submit(request)).await {
                Ok(Ok(answer)) => return answer.into_inner(),
                Ok(Err(status)) => check_lost_connection(&status),
                Err(_) => {}
            }
            assert!(begun.elapsed() < deadline::LIMIT, "no answer to {key}");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

/// What a client may see of a scheduler that is killed; any other refusal is a fault.
fn check_lost_connection(status: &Status) {
    let lost = [Code::Unavailable, Code::Unknown, Code::Cancelled, Code::Internal];
    assert!(lost.contains(&status.code()), "refused: {status:?}");
}

async fn a_scheduler_that_is_stopped_and_started_finds_its_jobs_running(database: Database) {
    let mut cluster = Cluster::start(database).await;
    cluster.add_worker("node-a", "2xB200").await;
    let go = cluster.scratch("signs").join("go");
    let line =
        format!("echo begun; while [ ! -e {} ]; do sleep 0.02; done; echo over", go.display());
    let running = cluster.api.submit(shell(&line).gpus(1)).await;
    let held = cluster.api.submit(command(&["/bin/true"]).held()).await;
    cluster.api.wait_for_state(running, JobState::Running).await;

    let status = cluster.scheduler.terminate();
    assert!(status.success(), "a graceful end is a success, not {status}");
    std::fs::write(go, "").unwrap();
    cluster.scheduler.start();

    let job = cluster.api.wait_for_end(running).await;
    assert_eq!((job.state(), job.attempts.len()), (JobState::Completed, 1), "{job:?}");
    assert_eq!(cluster.api.output(running, 0, 0).await, "begun\nover\n");
    assert_eq!(cluster.api.job(held).await.state(), JobState::Held);
    cluster.api.jobs().release(Api::action(held, "")).await.unwrap();
    cluster.api.wait_for_state(held, JobState::Completed).await;
    audit::ledger(&cluster.api).await;
}

async fn a_scheduler_that_was_suspended_goes_on(database: Database) {
    let mut cluster = Cluster::start(database).await;
    cluster.add_worker("node-a", "1xB200").await;
    cluster.scheduler.pause();
    let api = cluster.api.clone();
    let submission = tokio::spawn(async move { api.submit(command(&["/bin/true"]).gpus(1)).await });
    cluster.scheduler.resume();
    let job = within("the answer", submission).await.unwrap();
    let job = cluster.api.wait_for_end(job).await;
    assert_eq!((job.state(), job.attempts.len()), (JobState::Completed, 1), "{job:?}");
}
