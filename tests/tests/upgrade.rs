//! A worker that is killed, ended and replaced by another release again and again harms none of its jobs.
//!
//! `GOTGAN_TEST_KILLS` asks for more deaths than a few, and each for two jobs. `GOTGAN_TEST_PREVIOUS` names a directory with
//! the programs of another release: then the worker goes back and forth between the two.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gotgan_proto::v1::{Job, JobState, LogStream, LogsRequest};
use gotgan_tests::jobs::{Shape, shell};
use gotgan_tests::{Cluster, Database, audit, deadline, programs};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

on_each_database! {
    jobs_are_not_harmed_by_deaths_and_upgrades_of_their_worker,
}

const NODE: &str = "node-a";
/// Jobs that run at once with the few deaths of the short test.
const JOBS_MIN: usize = 24;
/// A daemon is killed at any moment of its first so many milliseconds, or later.
const YOUTH_MS: Range<u64> = 0..400;

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
        let previous = std::env::var_os("GOTGAN_TEST_PREVIOUS").map(PathBuf::from);
        let releases = previous.into_iter().chain([own]).collect();
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
