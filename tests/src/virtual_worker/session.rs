//! The stream of a virtual worker: registers, beats, sends what the journal has to say, does what it is told.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gotgan_proto::v1::scheduler_message::Message as Order;
use gotgan_proto::v1::worker_message::Message;
use gotgan_proto::v1::workers_client::WorkersClient;
use gotgan_proto::v1::{Heartbeat, LogData, Registered, Report, SchedulerMessage, WorkerMessage};
use gotgan_worker::lines::Lines;
use gotgan_worker::route::{Ended, Route, is_standby, leader_of};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::journal::Journal;
use super::link::{Link, client};
use super::{lock, readings};

/// Messages handed to the transport; what waits behind it waits in [`Outbox`].
const OUTPUT_QUEUE: usize = 64;
/// Pause before a broken stream is opened again.
const BACKOFF: Duration = Duration::from_millis(50);
/// Longest pause of one that was told of several schedulers.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Reports that were not acknowledged for that long are sent again.
const RESEND_AFTER: Duration = Duration::from_secs(5);
/// When the scheduler names no interval.
const HEARTBEAT_DEFAULT_MS: u32 = 5000;

/// Keeps a stream until the task is aborted.
pub async fn run(link: Link, journal: Arc<Mutex<Journal>>) {
    let addresses = link.addresses();
    if addresses.len() > 1 {
        return follow_the_leader(link, &addresses, &journal).await;
    }
    loop {
        // Why a stream broke does not matter: what it lost is sent again by the next one.
        if let Ok(client) = link.connect().await {
            let _ = stream(client, &link, &journal, &mut None).await;
        }
        tokio::time::sleep(BACKOFF).await;
    }
}

/// Goes from scheduler to scheduler as the real worker does, by its own rule.
async fn follow_the_leader(link: Link, addresses: &[String], journal: &Mutex<Journal>) {
    let lines = link.lines();
    tokio::select! {
        () = go_round(&link, &lines, addresses, journal) => {}
        () = lines.keep_open(addresses, chance()) => {}
    }
}

async fn go_round(link: &Link, lines: &Lines, addresses: &[String], journal: &Mutex<Journal>) {
    let mut route = Route::new(link.node(), addresses, BACKOFF_MAX);
    while let Some(address) = route.address().map(str::to_owned) {
        let mut registered = None;
        let streamed = match lines.to(&address).await {
            Ok(channel) => stream(client(channel), link, journal, &mut registered).await,
            Err(_) => Err(Broken(None)),
        };
        let ended = match (streamed, registered) {
            (Err(Broken(Some(status))), _) if is_standby(&status) => {
                Ended::StandsBy(leader_of(&status))
            }
            (_, Some(Registered { return_within_ms, .. })) => Ended::Served { return_within_ms },
            (_, None) => Ended::Failed,
        };
        if !matches!(ended, Ended::StandsBy(_)) {
            lines.give_up(&address);
        }
        tokio::time::sleep(route.rest(ended, chance())).await;
    }
}

fn chance() -> u32 {
    rand::random_range(0..1_000)
}

/// With what the scheduler refused, if it was that.
#[derive(Debug)]
struct Broken(Option<Box<tonic::Status>>);

/// Messages not yet handed to the transport. As long as the journal's attempts at most, so it needs no limit.
type Outbox = VecDeque<WorkerMessage>;

async fn stream(
    mut client: WorkersClient<Channel>,
    link: &Link,
    journal: &Mutex<Journal>,
    registered: &mut Option<Registered>,
) -> Result<(), Broken> {
    let (output, outgoing) = mpsc::channel(OUTPUT_QUEUE);
    let register = lock(journal).register();
    output.send(message(Message::Register(register))).await.map_err(|_| Broken(None))?;
    let request = link.request(ReceiverStream::new(outgoing));
    let refused = |status| Broken(Some(Box::new(status)));
    let mut orders = client.session(request).await.map_err(refused)?.into_inner();
    let first = orders.message().await.map_err(refused)?;
    let Some(Order::Registered(welcome)) = first.and_then(|first| first.message) else {
        return Err(Broken(None));
    };
    *registered = Some(welcome);
    let heartbeat_ms = match welcome.heartbeat_ms {
        0 => HEARTBEAT_DEFAULT_MS,
        named => named,
    };
    let mut outbox = Outbox::new();
    {
        let mut journal = lock(journal);
        journal.obey(Order::Registered(welcome), Instant::now(), now_us());
        outbox.extend(journal.unacked().into_iter().map(|report| message(Message::Report(report))));
    }
    speak(journal, orders, output, outbox, Duration::from_millis(heartbeat_ms.into())).await
}

async fn speak(
    journal: &Mutex<Journal>,
    mut orders: Streaming<SchedulerMessage>,
    output: mpsc::Sender<WorkerMessage>,
    mut outbox: Outbox,
    beat_every: Duration,
) -> Result<(), Broken> {
    let first_beat = Instant::now() + share(lock(journal).inventory().node.as_str(), beat_every);
    let mut beats = tokio::time::interval_at(first_beat.into(), beat_every);
    let mut resend = tokio::time::interval_at(first_beat.into(), RESEND_AFTER);
    let mut seq = 0;
    loop {
        let next_end = lock(journal).next_end();
        let due = next_end.unwrap_or_else(Instant::now);
        tokio::select! {
            permit = output.reserve(), if !outbox.is_empty() => {
                let permit = permit.map_err(|_| Broken(None))?;
                if let Some(message) = outbox.pop_front() {
                    permit.send(message);
                }
            }
            order = orders.message() => {
                let Ok(Some(order)) = order else { return Err(Broken(None)) };
                obey(journal, order, &mut outbox);
            }
            () = tokio::time::sleep_until(due.into()), if next_end.is_some() => {
                let reports = lock(journal).end_due(Instant::now(), now_us());
                outbox.extend(reports.into_iter().map(|report| message(Message::Report(report))));
            }
            _ = beats.tick() => {
                seq += 1;
                outbox.push_back(message(Message::Heartbeat(beat(&lock(journal), seq))));
            }
            _ = resend.tick() => outbox.extend(overdue(journal)),
        }
    }
}

/// A part of the interval that the name decides: nodes that come all at once do not beat all at once.
fn share(node: &str, interval: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    node.hash(&mut hasher);
    let thousandths = u32::try_from(hasher.finish() % 1_000).unwrap_or_default();
    interval * thousandths / 1_000
}

fn beat(journal: &Journal, seq: u64) -> Heartbeat {
    let gpus = readings(&journal.inventory().gpus, seq);
    Heartbeat { seq, at_us: now_us(), gpus, running: journal.running(), ..Heartbeat::default() }
}

fn obey(journal: &Mutex<Journal>, order: SchedulerMessage, outbox: &mut Outbox) {
    let Some(order) = order.message else { return };
    if let Order::ReadLog(read) = &order {
        let error = "a virtual worker keeps no output".to_owned();
        let data = LogData { request: read.request, error, end: true, ..Default::default() };
        outbox.push_back(message(Message::LogData(data)));
        return;
    }
    let reports = lock(journal).obey(order, Instant::now(), now_us());
    outbox.extend(reports.into_iter().map(|report| message(Message::Report(report))));
}

fn overdue(journal: &Mutex<Journal>) -> Vec<WorkerMessage> {
    let oldest_us = now_us() - i64::try_from(RESEND_AFTER.as_micros()).unwrap_or(i64::MAX);
    let is_overdue = |report: &Report| report.at_us < oldest_us;
    let reports = lock(journal).unacked().into_iter().filter(is_overdue);
    reports.map(|report| message(Message::Report(report))).collect()
}

fn message(message: Message) -> WorkerMessage {
    WorkerMessage { message: Some(message) }
}

pub(crate) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
