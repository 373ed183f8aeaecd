//! What one who asks for too much costs everybody else: how long others wait for the acknowledgement of a submission, and by
//! how much heartbeats are late, while a single caller does its worst.
//!
//! The one who measures has a project, a thread and connections of its own: who floods fills its own project's queue to its limit. Everybody shares the machine, so a part of what is measured is
//! that those who do harm need processors as well; the calm before says what there is without them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gotgan_proto::v1::worker_message::Message;
use gotgan_proto::v1::{self, ListJobsRequest, ListNodesRequest, PageRequest, WatchJobsRequest};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;

use super::load::{Load, connection, submit};
use super::report::Unit;
use super::{Backend, Mark, Measure, Setup};
use crate::api::Api;
use crate::jobs::{ALPHA, BETA};
use crate::swarm::Fleet;
use crate::virtual_worker::Link;
use crate::virtual_worker::session::now_us;
use crate::{Cluster, Swarm};

/// Nodes that beat meanwhile.
const NODES: usize = 200;
/// Between two heartbeats.
const BEAT_MS: u32 = 1_000;
const SETTINGS: &str = "[timing]\nheartbeat_ms = 1000\n";
/// Jobs that wait, for listings to have something to list.
const WAITING: usize = 5_000;
/// Calls at once of one who floods.
const FLOOD: usize = 500;
/// Who watch, and streams of each.
const WATCHERS: usize = 10;
const STREAMS: usize = 1_000;
/// Streams over one connection, below what a server allows.
const STREAMS_A_LINE: usize = 100;
/// The node that lies.
const LIAR: &str = "liar";
/// Reports that one node makes up, a second.
const LIES_PER_S: u64 = 1_000;
/// Between two submissions of the one who measures.
const EVERY: Duration = Duration::from_millis(20);
/// Others wait no longer for an acknowledgement, all but one in a hundred.
const SUBMIT_MARK: Mark = Mark::AtMost(100.0);
/// No heartbeat is later.
const BEAT_MARK: Mark = Mark::AtMost(1_000.0);

/// Who does harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Nobody,
    Submits,
    Lists,
    Watches,
    NeverReads,
    Lies,
}

impl Harm {
    const ALL: [Self; 6] =
        [Self::Nobody, Self::Submits, Self::Lists, Self::Watches, Self::NeverReads, Self::Lies];

    fn word(self) -> &'static str {
        match self {
            Self::Nobody => "calm",
            Self::Submits => "floods-submits",
            Self::Lists => "floods-listings",
            Self::Watches => "ten-thousand-watchers",
            Self::NeverReads => "never-reads",
            Self::Lies => "worker-lies",
        }
    }
}

/// Measures each harm on SQLite.
pub async fn measure(setup: &Setup) -> Vec<Measure> {
    let mut measures = Vec::new();
    for harm in Harm::ALL {
        let prefix = format!("overload/{}", harm.word());
        if prefix.contains(&setup.only) {
            measures.extend(under(setup, harm, &prefix).await);
        }
    }
    measures
}

async fn under(setup: &Setup, harm: Harm, prefix: &str) -> [Measure; 2] {
    let builder = Cluster::builder(Backend::Sqlite.database().await).settings(SETTINGS);
    let cluster = builder.directory(&setup.directory).start().await;
    let _swarm = Swarm::join(&cluster, &Fleet::of(NODES)).await;
    let mut waiting = Load::new(setup.seed, 1, 0, true);
    let api = connection(&cluster);
    for _ in 0..WAITING / 500 {
        submit(&mut api.jobs(), &mut waiting, 500).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let doing = harm_of(&cluster, harm, setup.seed, &stop).await;
    let other = other(&cluster).await;
    let (duration, seed) = (setup.duration, setup.seed);
    let measured = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(bystander(other, duration, seed))
    });
    let measured = tokio::task::spawn_blocking(|| measured.join()).await;
    stop.store(true, Ordering::Relaxed);
    let done = doing.done.load(Ordering::Relaxed);
    let (refused, second) = (doing.refused.load(Ordering::Relaxed), setup.duration.as_secs_f64());
    eprintln!("  {prefix}: {:.0} a second, {refused} refused", done as f64 / second);
    let (times, late) = measured.expect("it ends").expect("it does not panic");
    [
        Measure::of_slowest(
            &format!("{prefix}/submit-of-others"),
            Unit::Milliseconds,
            SUBMIT_MARK,
            times,
        ),
        Measure::of_values(
            &format!("{prefix}/beat-late"),
            "ms",
            Some(BEAT_MARK),
            &[late.as_secs_f64() * 1e3],
        ),
    ]
}

/// Somebody else, whose connection opens when it is first used.
async fn other(cluster: &Cluster) -> Addresses {
    let made = cluster.api.create_token("other", v1::Role::Admin, &[], 0).await;
    Addresses { url: cluster.scheduler.url(), ca: cluster.scheduler.ca_pem(), token: made.token }
}

struct Addresses {
    url: String,
    ca: String,
    token: String,
}

impl Addresses {
    fn api(&self) -> Api {
        Api::new(crate::api::channel(&self.url, Some(&self.ca)), Some(&self.token))
    }
}

/// Submits one job after the other and looks how old heartbeats are.
async fn bystander(
    addresses: Addresses,
    duration: Duration,
    seed: u64,
) -> (Vec<Duration>, Duration) {
    let (submitting, looking) = (addresses.api(), addresses.api());
    let mut load = Load::new(seed, 2, 0, true).of(ALPHA);
    let mut jobs = submitting.jobs();
    submit(&mut jobs, &mut load, 1).await;
    let (begun, mut times, mut latest) = (Instant::now(), Vec::new(), Duration::ZERO);
    while begun.elapsed() < duration {
        let asked = Instant::now();
        submit(&mut jobs, &mut load, 1).await;
        times.push(asked.elapsed());
        if times.len() % 25 == 0 {
            latest = latest.max(latest_beat(&looking).await);
        }
        tokio::time::sleep(EVERY).await;
    }
    (times, latest)
}

/// By how much the latest of all nodes' heartbeats is overdue.
async fn latest_beat(api: &Api) -> Duration {
    let page = Some(PageRequest { size: 1000, ..Default::default() });
    let answer = api.nodes().list(ListNodesRequest { page, ..Default::default() }).await;
    let nodes = answer.expect("nodes can be listed").into_inner().nodes;
    let now = now_us();
    // One that only lies does not beat.
    let honest = nodes.iter().filter(|node| node.name != LIAR);
    let ages = honest.map(|node| now - node.last_heartbeat_us - i64::from(BEAT_MS) * 1_000);
    Duration::from_micros(ages.max().and_then(|age| u64::try_from(age).ok()).unwrap_or(0))
}

/// What is being done, until it is dropped.
#[derive(Debug, Default)]
struct Doing {
    done: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    tasks: JoinSet<()>,
}

async fn harm_of(cluster: &Cluster, harm: Harm, seed: u64, stop: &Arc<AtomicBool>) -> Doing {
    let mut doing = Doing::default();
    match harm {
        Harm::Nobody => {}
        Harm::Submits | Harm::Lists => flood(cluster, harm, seed, stop, &mut doing),
        Harm::Watches => watch(cluster, true, &mut doing).await,
        Harm::NeverReads => watch(cluster, false, &mut doing).await,
        Harm::Lies => lie(cluster, stop, &mut doing).await,
    }
    doing
}

fn flood(cluster: &Cluster, harm: Harm, seed: u64, stop: &Arc<AtomicBool>, doing: &mut Doing) {
    let mut api = connection(cluster);
    for client in 0..FLOOD {
        if client % STREAMS_A_LINE == 0 {
            api = connection(cluster);
        }
        let (api, stop) = (api.clone(), Arc::clone(stop));
        let (done, refused) = (Arc::clone(&doing.done), Arc::clone(&doing.refused));
        let mut load = Load::new(seed, 10 + client, 0, true).of(BETA);
        doing.tasks.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let asked = match harm {
                    Harm::Submits => api.jobs().submit(load.one()).await.map(drop),
                    _ => list(&api).await,
                };
                let count = if asked.is_ok() { &done } else { &refused };
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

async fn list(api: &Api) -> Result<(), tonic::Status> {
    let page = Some(PageRequest { size: 1000, ..Default::default() });
    let request = ListJobsRequest { page: page.clone(), ..Default::default() };
    api.jobs().list(request).await?;
    api.nodes().list(ListNodesRequest { page, ..Default::default() }).await?;
    api.status().await.map(drop)
}

/// Many watch one job each; or one has watches of everything and reads none of them.
async fn watch(cluster: &Cluster, reads: bool, doing: &mut Doing) {
    let people = if reads { WATCHERS } else { 1 };
    for person in 0..people {
        let name = format!("watcher-{person}");
        let made = cluster.api.create_token(&name, v1::Role::Operator, &[], 0).await;
        for line in 0..STREAMS / STREAMS_A_LINE {
            let api = connection(cluster).with_token(&made.token);
            for stream in 0..STREAMS_A_LINE {
                let job = (line * STREAMS_A_LINE + stream) as u64 + 1;
                let job_ids = if reads { vec![job] } else { Vec::new() };
                let request = WatchJobsRequest { job_ids, after_seq: 0 };
                let answer = api.jobs().watch(request).await;
                let mut events = answer.expect("a watch is accepted").into_inner();
                let done = Arc::clone(&doing.done);
                doing.tasks.spawn(async move {
                    if !reads {
                        std::future::pending::<()>().await;
                    }
                    while let Some(Ok(_)) = events.next().await {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        }
    }
}

/// A node that reports what never was, as fast as it is read.
async fn lie(cluster: &Cluster, stop: &Arc<AtomicBool>, doing: &mut Doing) {
    let link: Link = cluster.link(LIAR).await;
    let (done, stop) = (Arc::clone(&doing.done), Arc::clone(stop));
    doing.tasks.spawn(async move {
        let mut client = link.connect().await.expect("a connection");
        let (said, saying) = tokio::sync::mpsc::channel(16);
        let register = v1::Register {
            inventory: Some(crate::virtual_worker::inventory(LIAR, "b200", 8)),
            ..Default::default()
        };
        let wrap = |message| v1::WorkerMessage { message: Some(message) };
        let _ = said.send(wrap(Message::Register(register))).await;
        let request = link.request(tokio_stream::wrappers::ReceiverStream::new(saying));
        let mut heard = client.session(request).await.expect("a stream").into_inner();
        tokio::spawn(async move { while let Some(Ok(_)) = heard.next().await {} });
        let mut every = tokio::time::interval(Duration::from_micros(1_000_000 / LIES_PER_S));
        for seq in 1.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            every.tick().await;
            let event = Some(v1::report::Event::Started(v1::AttemptStarted {}));
            let job_id = seq % WAITING as u64 + 1;
            let report = v1::Report { job_id, attempt: 1, seq, at_us: now_us(), event };
            if said.send(wrap(Message::Report(report))).await.is_err() {
                return;
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
    });
}
