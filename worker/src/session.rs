//! The worker's stream to the scheduler: register, heartbeats, reports out; orders in.
//!
//! It holds no state of attempts: whatever a broken stream may have lost is sent again by the next one, because the
//! supervisor begins every stream with all that is not acknowledged.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gotgan_proto::WORKER_MESSAGE_MAX_BYTES;
use gotgan_proto::v1::workers_client::WorkersClient;
use gotgan_proto::v1::{
    GpuReading, Heartbeat, Register, Registered, SchedulerMessage, WorkerMessage,
    scheduler_message::Message as Order, worker_message::Message,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use crate::clock::{at, now_us};
use crate::handle::{Attached, Handle, Input, Running, Stopped};
use crate::health::leftover::is_left;
use crate::inventory::Inventory;
use crate::lines::{CONNECT_TIMEOUT, Lines};
use crate::logs::Logs;
use crate::reader::board::Seen;
use crate::reader::keeper::Reader;
use crate::renewal::Renewal;
use crate::route::{self, Ended, Route};

/// Messages on their way out; the supervisor's own queue is behind it.
const OUTPUT_QUEUE: usize = 256;
/// One that ends sooner was none: two workers of one name would throw each other out without rest.
const GOOD_STREAM: Duration = Duration::from_secs(5);
/// Heartbeats when the scheduler names no interval, and bounds of what it may name.
const HEARTBEAT_DEFAULT_MS: u32 = 5000;
const HEARTBEAT_MIN_MS: u32 = 50;
/// Between two heartbeats that do not wait for their turn.
const EXTRA_GAP: Duration = Duration::from_secs(1);
/// Name of the node where there is no certificate to say it.
const NODE_HEADER: &str = "x-gotgan-node";

/// Where the schedulers are and how to reach them.
#[derive(Clone, Debug)]
pub struct Link {
    /// As in `https://host:port`, tried in turn.
    pub schedulers: Vec<String>,
    /// Certificates; none with `--insecure`.
    pub tls: Option<TlsMaterial>,
    /// Where they lie, and are renewed.
    pub state_directory: PathBuf,
    /// Longest pause between two tries.
    pub backoff_max: Duration,
}

impl Link {
    /// The certificate of this node; none with `--insecure`.
    #[must_use]
    pub fn renewal(&self, node: &str) -> Option<Renewal> {
        let state_directory = self.state_directory.clone();
        self.tls.is_some().then(|| Renewal { node: node.to_owned(), state_directory })
    }
}

/// What proves who is who, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsMaterial {
    /// Authority that signs the schedulers' certificates.
    pub ca_pem: String,
    /// This worker's certificate.
    pub certificate_pem: String,
    /// Its key.
    pub key_pem: String,
}

impl std::fmt::Debug for TlsMaterial {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("TlsMaterial").finish_non_exhaustive()
    }
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// An address that is none.
    #[error("bad scheduler address: {0}")]
    Address(tonic::transport::Error),
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The scheduler ended the stream with an error.
    #[error("scheduler: {}: {}", .0.code(), .0.message())]
    Status(Box<tonic::Status>),
    /// The scheduler did not answer in time.
    #[error("the scheduler does not answer")]
    Silent,
    /// The scheduler closed the stream.
    #[error("the scheduler closed the stream")]
    Closed,
    /// The first answer was something else than `registered`.
    #[error("the scheduler did not register this worker")]
    NotRegistered,
    /// A newer leader was seen: every order of this one would be refused.
    #[error(
        "the scheduler is not the leader: it is of epoch {epoch}, but this node has seen epoch \
         {newest}; a restored or an older database leads to this"
    )]
    OldLeader {
        /// Its epoch.
        epoch: u64,
        /// The newest one seen.
        newest: u64,
    },
    /// The node's name cannot be sent.
    #[error("node name {0:?} cannot be sent")]
    NodeName(String),
    /// The daemon is ending.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl From<tonic::Status> for SessionError {
    fn from(status: tonic::Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// Keeps a stream to some scheduler.
#[derive(Debug)]
pub struct Session {
    /// Where to connect.
    pub link: Link,
    /// What to register and to send with heartbeats.
    pub inventory: Arc<Inventory>,
    /// The supervisor.
    pub handle: Handle,
    /// Answers reads of output.
    pub logs: Arc<Logs>,
    /// Processes on a GPU are leftover ones once no attempt has had it for longer; absent: that is not told.
    pub leftover_after: Option<Duration>,
}

impl Session {
    /// Connects again and again; returns only when the supervisor has ended.
    pub async fn run(&self) -> Stopped {
        let lines = match self.link.tls.clone() {
            Some(read) => Lines::kept_in(self.link.state_directory.clone(), read),
            None => Lines::new(None),
        };
        tokio::select! {
            stopped = self.follow_the_leader(&lines) => stopped,
            () = lines.keep_open(&self.link.schedulers, chance()) => Stopped,
        }
    }

    async fn follow_the_leader(&self, lines: &Lines) -> Stopped {
        let Link { schedulers, backoff_max, .. } = &self.link;
        let mut route = Route::new(&self.inventory.node.node, schedulers, *backoff_max);
        while let Some(address) = route.address().map(str::to_owned) {
            let mut registered = None;
            let ended = match self.stream(lines, &address, &mut registered).await {
                Err(SessionError::Stopped(stopped)) => return stopped,
                Ok(()) => served(registered),
                Err(error) => {
                    let ended = ended(&error, registered);
                    if !matches!(ended, Ended::StandsBy(_)) {
                        lines.give_up(&address);
                    }
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(scheduler = address, error, "no stream to the scheduler");
                    ended
                }
            };
            tokio::time::sleep(route.rest(ended, chance())).await;
        }
        Stopped
    }

    async fn stream(
        &self,
        lines: &Lines,
        address: &str,
        registered: &mut Option<(Instant, Registered)>,
    ) -> Result<(), SessionError> {
        let channel = lines.to(address).await?;
        let attached = self.handle.ask(Input::Attach).await?;
        let Attached { epoch, held, journal_id, reports } = attached;
        let (output, outgoing) = mpsc::channel(OUTPUT_QUEUE);
        // From before they are looked at, so that no change falls between.
        let cuts = self.inventory.cards.changes();
        let inventory = Some(self.inventory.registered());
        let register = Register { inventory, held, epoch, journal_id };
        send(&output, Message::Register(register)).await?;
        let request = self.request(outgoing)?;
        let mut client = WorkersClient::new(channel)
            .max_decoding_message_size(WORKER_MESSAGE_MAX_BYTES)
            .max_encoding_message_size(WORKER_MESSAGE_MAX_BYTES);
        let opening = async {
            let mut orders = client.session(request).await?.into_inner();
            let first = orders.message().await?;
            Ok::<_, SessionError>((orders, first))
        };
        let (orders, first) = tokio::time::timeout(CONNECT_TIMEOUT, opening)
            .await
            .map_err(|_| SessionError::Silent)??;
        let Some(SchedulerMessage { message: Some(Order::Registered(welcome)) }) = first else {
            return Err(SessionError::NotRegistered);
        };
        if welcome.epoch < epoch {
            return Err(SessionError::OldLeader { epoch: welcome.epoch, newest: epoch });
        }
        *registered = Some((Instant::now(), welcome));
        tracing::info!(scheduler = address, epoch = welcome.epoch, "registered");
        self.handle.tell(Input::Order(Order::Registered(welcome))).await?;
        // Reading must not wait for writing, nor the other way round: the peer may do the same.
        tokio::select! {
            () = self.renew_certificate(client) => Err(SessionError::Closed),
            ended = self.read_orders(orders, output.clone()) => ended,
            ended = self.write_messages(welcome, (reports, cuts), output) => ended,
        }
    }

    /// For ever.
    async fn renew_certificate(&self, client: WorkersClient<Channel>) {
        match self.link.renewal(&self.inventory.node.node) {
            Some(certificate) => certificate.keep(client, chance()).await,
            None => std::future::pending().await,
        }
    }

    fn request(
        &self,
        outgoing: mpsc::Receiver<WorkerMessage>,
    ) -> Result<Request<ReceiverStream<WorkerMessage>>, SessionError> {
        let mut request = Request::new(ReceiverStream::new(outgoing));
        if self.link.tls.is_none() {
            let node = &self.inventory.node.node;
            let value = node.parse().map_err(|_| SessionError::NodeName(node.clone()))?;
            request.metadata_mut().insert(NODE_HEADER, value);
        }
        Ok(request)
    }

    async fn read_orders(
        &self,
        mut orders: Streaming<SchedulerMessage>,
        output: mpsc::Sender<WorkerMessage>,
    ) -> Result<(), SessionError> {
        while let Some(SchedulerMessage { message }) = orders.message().await? {
            match message {
                // Never waited for here: who follows output must not hold up orders.
                Some(Order::ReadLog(read)) => {
                    let (logs, output) = (self.logs.clone(), output.clone());
                    tokio::spawn(async move {
                        let mut answer = logs.read(read).await;
                        let data = std::mem::take(&mut answer.data);
                        // The stream has ended: whoever reads asks again on the next one.
                        let _ = send(&output, Message::LogData(data)).await;
                    });
                }
                Some(order) => self.handle.tell(Input::Order(order)).await?,
                None => tracing::warn!("ignored an order this version does not know"),
            }
        }
        Err(SessionError::Closed)
    }

    async fn write_messages(
        &self,
        welcome: Registered,
        (mut reports, mut cuts): (mpsc::Receiver<WorkerMessage>, watch::Receiver<u64>),
        output: mpsc::Sender<WorkerMessage>,
    ) -> Result<(), SessionError> {
        let mut ticks = tokio::time::interval(heartbeat_interval(welcome.heartbeat_ms));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut news = self.inventory.reader().map(Reader::news);
        let mut extra = Extra::default();
        let mut seq = 0;
        loop {
            let due = tokio::select! {
                report = reports.recv() => match report {
                    Some(report) => {
                        output.send(report).await.map_err(|_| SessionError::Closed)?;
                        false
                    }
                    // Another stream took over, or the supervisor has ended.
                    None => return Err(SessionError::Closed),
                },
                // What is registered has changed, so it is registered again, by a new stream.
                Ok(()) = cuts.changed() => return Ok(()),
                () = changed(&mut news) => {
                    extra.wanted(Instant::now());
                    false
                }
                () = at(extra.due) => {
                    extra.sent(Instant::now());
                    true
                }
                _ = ticks.tick() => true,
            };
            if due {
                seq += 1;
                let heartbeat = self.heartbeat(seq).await?;
                send(&output, Message::Heartbeat(heartbeat)).await?;
            }
        }
    }

    async fn heartbeat(&self, seq: u64) -> Result<Heartbeat, SessionError> {
        let Running { attempts, uses, unused, cut_failures, check_outcomes } =
            self.handle.ask(Input::Running).await?;
        let reading = |seen: Seen| {
            let leftover_processes =
                self.leftover_after.is_some_and(|after| is_left(&seen, &unused, after));
            GpuReading { leftover_processes, ..seen.reading }
        };
        let gpus = self.inventory.looks().into_iter().map(reading).collect();
        let (at_us, running) = (now_us(), attempts);
        Ok(Heartbeat { seq, at_us, gpus, running, uses, cut_failures, check_outcomes })
    }
}

/// Heartbeats that do not wait for their turn, one in [`EXTRA_GAP`] at most.
#[derive(Debug, Default)]
struct Extra {
    due: Option<Instant>,
    last: Option<Instant>,
}

impl Extra {
    fn wanted(&mut self, now: Instant) {
        let earliest = self.last.map_or(now, |last| last + EXTRA_GAP);
        self.due = self.due.or(Some(earliest.max(now)));
    }

    fn sent(&mut self, now: Instant) {
        (self.due, self.last) = (None, Some(now));
    }
}

/// Comes back once there is news of GPUs; never where nobody reads them.
async fn changed(news: &mut Option<watch::Receiver<u64>>) {
    let changed = match news {
        Some(receiver) => receiver.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        std::future::pending().await
    }
}

async fn send(output: &mpsc::Sender<WorkerMessage>, message: Message) -> Result<(), SessionError> {
    let message = WorkerMessage { message: Some(message) };
    output.send(message).await.map_err(|_| SessionError::Closed)
}

fn heartbeat_interval(wanted_ms: u32) -> Duration {
    let wanted_ms = if wanted_ms == 0 { HEARTBEAT_DEFAULT_MS } else { wanted_ms };
    Duration::from_millis(u64::from(wanted_ms.max(HEARTBEAT_MIN_MS)))
}

fn ended(error: &SessionError, registered: Option<(Instant, Registered)>) -> Ended {
    let good = registered.is_some_and(|(at, _)| at.elapsed() > GOOD_STREAM);
    match error {
        SessionError::Status(status) if route::is_standby(status) => {
            Ended::StandsBy(route::leader_of(status))
        }
        _ if good => served(registered),
        _ => Ended::Failed,
    }
}

fn served(registered: Option<(Instant, Registered)>) -> Ended {
    Ended::Served { return_within_ms: registered.map_or(0, |(_, told)| told.return_within_ms) }
}

/// Thousands of workers must not come back in step.
fn chance() -> u32 {
    u32::try_from(RandomState::new().hash_one(0u8) % 1_000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_is_sent_at_once_and_more_of_it_a_second_later_in_one_heartbeat() {
        let start = Instant::now();
        let mut extra = Extra::default();
        extra.wanted(start);
        assert_eq!(extra.due, Some(start));
        extra.sent(start);
        assert_eq!(extra.due, None);
        for millis in [100, 200, 900] {
            extra.wanted(start + Duration::from_millis(millis));
            assert_eq!(extra.due, Some(start + EXTRA_GAP));
        }
    }
}
