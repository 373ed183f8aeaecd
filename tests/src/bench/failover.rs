//! How soon jobs start again after the leader was killed: with a standby beside it, and when it is alone and started again.
//!
//! On PostgreSQL, with the nodes and the queue of a country. All classes but one are full and a long queue waits for them.
//! The moment a leader is killed, somebody who was told of both schedulers submits a job for the class that is free; what is
//! measured is from the kill to the node that starts that job. It takes a standby to see it or a program to be started, the
//! world to be loaded, a first pass over the queue, nodes of that class to come back, and the person's own tries. At the end
//! every job that was acknowledged must have started once.

use std::time::{Duration, Instant};

use gotgan_proto::v1::{JobSpec, JobState, SubmitManyRequest, SubmitRequest};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::runtime::Builder;

use super::scale::country::{BATCH, request};
use super::scale::{Dose, fill};
use super::{Backend, Mark, Measure, SETTINGS, Setup, machine};
use crate::api::{channel, told};
use crate::cluster::SchedulerProcess;
use crate::jobs::{ALPHA, Shape};
use crate::swarm::fleet::FREE_CLASS;
use crate::swarm::{Fleet, words};
use crate::virtual_worker::session::now_us;
use crate::{Api, Cluster, Swarm, deadline};

/// Seconds from the kill of a leader that has a standby to the next start, for 19 kills in 20.
const FAILOVER_MARK: f64 = 5.0;
/// The same for a scheduler that is alone and is started again at once.
const RESTART_MARK: f64 = 3.0;
/// A start that has not come by then is not coming.
const START_LIMIT: Duration = Duration::from_secs(120);
/// All nodes are back by then.
const BACK_LIMIT: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How long somebody waits who was told to come again.
const TRY_AGAIN: Duration = Duration::from_millis(50);
/// Nodes have opened their lines to a scheduler by then, or opened anew what broke: they look at them as often.
const LINES_OPEN: Duration = Duration::from_secs(25);
/// What the restart before left to do is done by then: all nodes have beaten again, and the database has put its pages in order.
const SETTLED: Duration = Duration::from_secs(10);
/// Jobs acknowledged right before each kill.
const LAST_WORDS: usize = 8;

/// Two schedulers, of which the first leads.
struct Pair {
    cluster: Cluster,
    second: SchedulerProcess,
    swarm: Swarm,
    token: String,
    ca: Option<String>,
    /// Jobs that were acknowledged, all of which run for a moment.
    acknowledged: Vec<u64>,
}

/// Kills the leader again and again. `setup.runs` says how often, of either sort.
///
/// # Panics
/// If something acknowledged is lost or started twice; a missed mark is no reason.
pub async fn measure(setup: &Setup, dose: Dose) -> Vec<Measure> {
    let mut pair = Pair::start(setup, dose).await;
    let mut measures = Vec::new();
    let mut times = Vec::new();
    for run in 1..=setup.runs {
        times.push(pair.fail_over().await);
        say("fail-over", run, &times);
    }
    measures.push(of_most("failover/kill-to-start/p95", FAILOVER_MARK, times));
    let mut times = Vec::new();
    pair.second.kill();
    for run in 1..=setup.runs {
        times.push(pair.restart().await);
        say("restart", run, &times);
    }
    measures.push(of_most("failover/restart-to-start/p95", RESTART_MARK, times));
    pair.check().await;
    measures
}

fn say(what: &str, run: usize, times: &[Duration]) {
    let last = times.last().copied().unwrap_or_default();
    eprintln!("  {what} {run}: {last:.2?}, load {}", machine::load_average());
}

impl Pair {
    async fn start(setup: &Setup, dose: Dose) -> Self {
        let builder = Cluster::builder(Backend::Postgres.database().await).settings(SETTINGS);
        let builder = builder.quota(&fill::tree(false)).directory(&setup.directory);
        let builder = if setup.plaintext { builder.insecure() } else { builder };
        let mut cluster = builder.start().await;
        let second = cluster.add_standby();
        let fleet = Fleet::of(dose.nodes);
        let swarm = Swarm::join(&cluster, &fleet).await;
        eprintln!("  {} nodes have joined", swarm.nodes());
        let token = cluster.scheduler.admin_token();
        let ca = (!setup.plaintext).then(|| cluster.scheduler.ca_pem());
        let pair = Self { cluster, second, swarm, token, ca, acknowledged: Vec::new() };
        pair.fill(&fleet, dose.waiting, setup.seed).await;
        pair
    }

    /// Jobs without end for all classes but one, until so many wait.
    async fn fill(&self, fleet: &Fleet, waiting: usize, seed: u64) {
        let (mut random, api) = (StdRng::seed_from_u64(seed), self.api());
        loop {
            let status = api.status().await.expect("a status");
            let pending = usize::try_from(status.jobs_pending).unwrap_or(0);
            if pending >= waiting && status.jobs_starting == 0 {
                eprintln!("  {} run, {pending} wait", status.jobs_running);
                return;
            }
            let count = (waiting.saturating_sub(pending)).clamp(1, BATCH);
            let specs = (0..count).map(|_| fill::for_full_class(&mut random, fleet));
            let jobs = specs.map(request).collect();
            let answer = api.jobs().submit_many(SubmitManyRequest { jobs }).await;
            answer.unwrap_or_else(|status| panic!("refused: {}", told(&status)));
        }
    }

    /// The API of the one that leads.
    fn api(&self) -> Api {
        let url = self.cluster.scheduler.url();
        Api::new(channel(&url, self.ca.as_deref()), Some(&self.token))
    }

    /// From the kill of the leader to a start by the other, which leads then; the killed one stands by.
    async fn fail_over(&mut self) -> Duration {
        self.wait_until_all_are_back().await;
        // So does a site: a standby that has just been started has no lines yet, and its take-over takes as long as before.
        tokio::time::sleep(LINES_OPEN).await;
        self.say_last_words().await;
        let urls = vec![self.cluster.scheduler.url(), self.second.url()];
        let killed_us = now_us();
        self.cluster.scheduler.kill();
        let took = self.next_start(urls, killed_us).await;
        self.second.wait_until_ready().expect("it leads");
        std::mem::swap(&mut self.cluster.scheduler, &mut self.second);
        self.second.spawn();
        self.second.wait_until_standby();
        took
    }

    /// From the kill of the only scheduler, started again at once, to a start by it.
    async fn restart(&mut self) -> Duration {
        self.wait_until_all_are_back().await;
        tokio::time::sleep(SETTLED).await;
        self.say_last_words().await;
        let urls = vec![self.cluster.scheduler.url()];
        let killed_us = now_us();
        self.cluster.scheduler.kill();
        self.cluster.scheduler.spawn();
        let took = self.next_start(urls, killed_us).await;
        self.cluster.scheduler.wait_until_ready().expect("it leads");
        took
    }

    async fn say_last_words(&mut self) {
        let api = self.api();
        for _ in 0..LAST_WORDS {
            self.acknowledged.push(api.submit(moment()).await);
        }
    }

    /// Has a job submitted by whichever scheduler takes it, and waits until a node starts it.
    async fn next_start(&mut self, urls: Vec<String>, killed_us: i64) -> Duration {
        let began = Instant::now();
        let person = Person { urls, ca: self.ca.clone(), token: self.token.clone() };
        let submitting = tokio::task::spawn_blocking(move || person.submit(request(moment())));
        let (job, acknowledged_us) = submitting.await.expect("somebody takes a job");
        self.acknowledged.push(job);
        while self.swarm.board().of(job).started == 0 {
            assert!(began.elapsed() < START_LIMIT, "job {job} does not start");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let since =
            |at_us: i64| Duration::from_micros(u64::try_from(at_us - killed_us).unwrap_or(0));
        eprint!("  acknowledged after {:.2?};", since(acknowledged_us));
        since(self.swarm.board().of(job).started_us)
    }

    async fn wait_until_all_are_back(&self) {
        let (api, nodes) = (self.api(), self.swarm.nodes() as u64);
        deadline::until_within(BACK_LIMIT, "all nodes to be back", async || {
            let status = api.status().await.map_err(|status| told(&status))?;
            if status.nodes_ready == nodes { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
    }

    /// Nothing acknowledged was lost, and nothing was started twice.
    async fn check(&self) {
        let api = self.api();
        for job in &self.acknowledged {
            let ended = api.wait_for_end(*job).await;
            assert_eq!((ended.state(), ended.attempt), (JobState::Completed, 1), "{ended:?}");
            assert_eq!(self.swarm.board().of(*job).started, 1, "starts of job {job}");
        }
        eprintln!("  {} acknowledged jobs have run once", self.acknowledged.len());
    }
}

/// Somebody with a thread of their own, who has no part in what thousands of nodes on this machine do as they come back.
struct Person {
    urls: Vec<String>,
    ca: Option<String>,
    token: String,
}

impl Person {
    /// Tries each scheduler in turn until one has taken the job; which it is, and when that was.
    fn submit(self, request: SubmitRequest) -> (u64, i64) {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let api = |url: &String| Api::new(channel(url, self.ca.as_deref()), Some(&self.token));
            let (apis, began) = (self.urls.iter().map(api).collect::<Vec<_>>(), Instant::now());
            let mut tries = apis.iter().cycle();
            loop {
                assert!(began.elapsed() < START_LIMIT, "nobody takes a job");
                let Some(api) = tries.next() else { continue };
                match api.jobs().submit(request.clone()).await {
                    Ok(answer) => return (answer.into_inner().job_id, now_us()),
                    Err(_) => tokio::time::sleep(TRY_AGAIN).await,
                }
            }
        })
    }
}

/// A job for the class that is free.
fn moment() -> JobSpec {
    words::runs_for(Duration::from_millis(200)).project(ALPHA).class(FREE_CLASS).gpus(1)
}

/// What all but one in twenty stay within, in seconds.
fn of_most(name: &str, mark: f64, mut times: Vec<Duration>) -> Measure {
    let seconds = |time: &Duration| (time.as_secs_f64() * 1e3).round() / 1e3;
    let runs = times.iter().map(seconds).collect();
    times.sort_unstable();
    let at = |percent: usize| (times.len() * percent).div_ceil(100).saturating_sub(1);
    let time = |percent| times.get(at(percent)).map_or(0.0, seconds);
    Measure {
        name: name.to_owned(),
        unit: "s".to_owned(),
        value: time(95),
        p50: time(50) * 1e3,
        p99: time(99) * 1e3,
        mark: Some(Mark::AtMost(mark)),
        runs,
    }
}
