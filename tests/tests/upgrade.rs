//! A worker that is killed, ended and replaced by another release again and again harms none of its jobs; nor does a cluster
//! whose programs are replaced one by one while it is used.
//!
//! `GOTGAN_TEST_KILLS` asks for more deaths than a few, and each for two jobs. `GOTGAN_TEST_PREVIOUS` names a directory with
//! the programs of the release before: then the worker goes back and forth between the two, and the cluster goes from that
//! one to this. Without it both are this one.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gotgan_proto::v1::{Job, JobState, LogStream, LogsRequest, NodeLiveness};
use gotgan_tests::api::{Api, channel};
use gotgan_tests::cluster::SchedulerProcess;
use gotgan_tests::jobs::{Shape, shell};
use gotgan_tests::{Cluster, Database, audit, deadline, programs};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;

on_each_database! {
    jobs_are_not_harmed_by_deaths_and_upgrades_of_their_worker,
}

const NODE: &str = "node-a";
/// Jobs that run at once with the few deaths of the short test.
const JOBS_MIN: usize = 24;
/// A daemon is killed at any moment of its first so many milliseconds, or later.
const YOUTH_MS: Range<u64> = 0..400;

/// One of two schedulers takes a job by then.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);

/// How often the worker dies.
fn deaths() -> usize {
    let asked = std::env::var("GOTGAN_TEST_KILLS").ok();
    asked.map_or(20, |text| text.parse().expect("GOTGAN_TEST_KILLS is a number"))
}

async fn jobs_are_not_harmed_by_deaths_and_upgrades_of_their_worker(database: Database) {
    let seed = rand::random();
    let (deaths, at_once) = (deaths(), JOBS_MIN.max(deaths() * 2));
    eprintln!("seed {seed}, {deaths} deaths, {at_once} jobs at once");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(database).await;
    // Two jobs a GPU.
    cluster.add_worker(NODE, &format!("{}xB200", at_once / 2)).await;
    let mut installed = Installed::new(&cluster);
    cluster.worker(NODE).install(&installed.fresh());
    let endless = Endless::submit(&cluster, at_once + 2 * deaths).await;
    for death in 0..deaths {
        // Every second time with all places taken; else in the middle of what it does after a start.
        match death % 2 {
            0 => all_places_taken(&cluster, at_once).await,
            _ => tokio::time::sleep(Duration::from_millis(random.random_range(YOUTH_MS))).await,
        }
        match random.random_bool(0.5) {
            true => cluster.worker(NODE).kill(),
            false => cluster.worker(NODE).terminate(),
        }
        // These two end while nobody looks, or as soon as somebody does.
        endless.end(2 * death..2 * death + 2);
        if random.random_bool(0.5) {
            cluster.worker(NODE).install(&installed.fresh());
        }
        cluster.worker(NODE).restart();
    }
    endless.end(2 * deaths..endless.jobs.len());
    for (number, job) in endless.jobs.iter().enumerate() {
        check(&cluster, number, &cluster.api.wait_for_end(*job).await).await;
    }
    audit::ledger(&cluster.api).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_upgrade_of_a_cluster_that_is_used_harms_no_job() {
    let Some(database) = Database::postgres().await else { return };
    let own = programs::directory();
    let previous = previous().unwrap_or_else(|| own.clone());
    let mut cluster = Cluster::builder(database).programs(&previous).start().await;
    let mut second = cluster.add_standby();
    for node in ["node-a", "node-b"] {
        cluster.add_worker(node, "8xB200").await;
        replace_worker(&mut cluster, node, &previous).await;
    }
    let endless = Endless::submit(&cluster, JOBS_MIN).await;
    all_places_taken(&cluster, JOBS_MIN).await;
    let apis = [cluster.api.clone(), api_of(&cluster, &second)];
    let use_of_it = Use::begin(apis.to_vec());

    // Who stands by first: it brings the tables up to date under a leader of the release before.
    assert!(second.terminate().success(), "{}", second.output());
    second.install(&own);
    second.spawn();
    second.wait_until_standby();
    use_of_it.goes_on("beside a standby of the next release").await;
    assert!(cluster.scheduler.terminate().success(), "{}", cluster.scheduler.output());
    second.wait_until_ready().expect("it takes over");
    cluster.api = apis[1].clone();
    cluster.scheduler.install(&own);
    cluster.scheduler.spawn();
    cluster.scheduler.wait_until_standby();
    use_of_it.goes_on("with workers of the release before").await;
    for node in ["node-a", "node-b"] {
        replace_worker(&mut cluster, node, &own).await;
    }
    use_of_it.goes_on("with all of the next release").await;

    endless.end(0..endless.jobs.len());
    for (number, job) in endless.jobs.iter().enumerate() {
        check(&cluster, number, &cluster.api.wait_for_end(*job).await).await;
    }
    let submitted = use_of_it.end().await;
    for job in &submitted {
        let ended = cluster.api.wait_for_end(*job).await;
        assert_eq!((ended.state(), ended.attempts.len()), (JobState::Completed, 1), "{ended:?}");
    }
    assert_eq!(cluster.api.all_jobs().await.len(), JOBS_MIN + submitted.len());
    audit::ledger(&cluster.api).await;
}

/// Programs of the release before, where there are some.
fn previous() -> Option<PathBuf> {
    std::env::var_os("GOTGAN_TEST_PREVIOUS").map(PathBuf::from)
}

fn api_of(cluster: &Cluster, scheduler: &SchedulerProcess) -> Api {
    let line = channel(&scheduler.url(), Some(&cluster.scheduler.ca_pem()));
    Api::new(line, Some(&cluster.scheduler.admin_token()))
}

async fn replace_worker(cluster: &mut Cluster, node: &str, programs: &Path) {
    cluster.worker(node).terminate();
    cluster.worker(node).install(programs);
    cluster.worker(node).restart();
    cluster.api.wait_for_node(node, NodeLiveness::Ready).await;
}

/// With the same key until somebody has taken it.
async fn submit_to_any(apis: &[Api]) -> u64 {
    let request = Api::request(shell("exit 0"));
    let began = Instant::now();
    for api in apis.iter().cycle() {
        if let Ok(answer) = api.jobs().submit(request.clone()).await {
            return answer.into_inner().job_id;
        }
        assert!(began.elapsed() < TAKEN_WITHIN, "nobody takes a job");
        tokio::task::yield_now().await;
    }
    unreachable!("there are schedulers")
}

/// Somebody who submits one short job after the other by whichever scheduler takes it, with the same key until one has.
struct Use {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    task: JoinHandle<Vec<u64>>,
}

impl Use {
    fn begin(apis: Vec<Api>) -> Self {
        let (stop, acknowledged) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        let task = tokio::spawn(async move {
            let mut jobs = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                jobs.push(submit_to_any(&apis).await);
                counted.store(jobs.len(), Ordering::Relaxed);
            }
            jobs
        });
        Self { stop, acknowledged, task }
    }

    async fn goes_on(&self, when: &str) {
        let before = self.acknowledged.load(Ordering::Relaxed);
        deadline::until(&format!("more to be submitted {when}"), async || {
            let more = self.acknowledged.load(Ordering::Relaxed) - before;
            if more > 3 { Ok(()) } else { Err(format!("{more} more")) }
        })
        .await;
    }

    async fn end(self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

async fn all_places_taken(cluster: &Cluster, wanted: usize) {
    deadline::until("all places to be taken", async || {
        let status = cluster.api.status().await.map_err(|status| status.to_string())?;
        if status.jobs_running == wanted as u64 {
            return Ok(());
        }
        Err(format!("{} jobs run", status.jobs_running))
    })
    .await;
}

/// Jobs that print on until they are told to end, each in a way of its own.
struct Endless {
    jobs: Vec<u64>,
    signs: PathBuf,
}

impl Endless {
    async fn submit(cluster: &Cluster, count: usize) -> Self {
        let signs = cluster.scratch("signs");
        let mut jobs = Vec::new();
        for number in 0..count {
            let line = prints_until(&signs.join(number.to_string()), number);
            jobs.push(cluster.api.submit(shell(&line).half_a_gpu()).await);
        }
        Self { jobs, signs }
    }

    fn end(&self, numbers: Range<usize>) {
        for number in numbers {
            std::fs::write(self.signs.join(number.to_string()), "").unwrap();
        }
    }
}

fn prints_until(sign: &Path, number: usize) -> String {
    let end = match ending(number) {
        (code, 0) => format!("exit {code}"),
        (_, signal) => format!("kill -{signal} $$"),
    };
    format!(
        "i=0; while [ ! -e {} ]; do echo out $i; echo err $i >&2; i=$((i+1)); sleep 0.3; done; \
         echo last $i; echo last $i >&2; {end}",
        sign.display()
    )
}

/// Exit code and signal of a job.
fn ending(number: usize) -> (i32, i32) {
    match number % 5 {
        0 => (0, 9),
        1 => (0, 0),
        _ => (i32::try_from(number % 200).unwrap(), 0),
    }
}

async fn check(cluster: &Cluster, number: usize, job: &Job) {
    let exit = job.exit.unwrap_or_default();
    assert_eq!((exit.code, exit.signal), ending(number), "{job:?}");
    let wanted = if ending(number) == (0, 0) { JobState::Completed } else { JobState::Failed };
    assert_eq!((job.state(), job.attempts.len()), (wanted, 1), "{job:?}");
    for (stream, word) in [(LogStream::Stdout, "out"), (LogStream::Stderr, "err")] {
        let request =
            LogsRequest { job_id: job.job_id, stream: stream.into(), ..Default::default() };
        // Its worker may have been started a moment ago.
        let text = deadline::until("its output", async || {
            let read = cluster.api.read_log(request).await;
            let (bytes, _) = read.map_err(|status| status.to_string())?;
            String::from_utf8(bytes).map_err(|error| error.to_string())
        })
        .await;
        check_output(word, &text);
    }
}

/// Every line in its place, and none after the last.
fn check_output(word: &str, text: &str) {
    let printed = text.lines().count().checked_sub(1).expect("it has printed its last line");
    let mut wanted: String = (0..printed).map(|line| format!("{word} {line}\n")).collect();
    wanted.push_str(&format!("last {printed}\n"));
    assert_eq!(text, wanted);
}

/// Places that programs are installed in, one after the other: what was there before is removed, as by a package.
struct Installed {
    directory: PathBuf,
    releases: Vec<PathBuf>,
    count: usize,
}

impl Installed {
    fn new(cluster: &Cluster) -> Self {
        let own = programs::directory();
        let releases = previous().into_iter().chain([own]).collect();
        Self { directory: cluster.scratch("installed"), releases, count: 0 }
    }

    /// The next release, where none was before.
    fn fresh(&mut self) -> PathBuf {
        let release = &self.releases[self.count % self.releases.len()];
        let _ = std::fs::remove_dir_all(self.directory.join(self.count.to_string()));
        self.count += 1;
        let place = self.directory.join(self.count.to_string());
        std::fs::create_dir(&place).unwrap();
        for name in ["gotgan-worker", "gotgan-shim"] {
            let (from, to) = (release.join(name), place.join(name));
            // A copy where they lie on another disk.
            std::fs::hard_link(&from, &to)
                .or_else(|_| std::fs::copy(&from, &to).map(drop))
                .unwrap();
        }
        place
    }
}
