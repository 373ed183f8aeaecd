//! Plays the scheduler to one real worker, without a store and without TLS.

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::time::{Duration, Instant};

use gotgan_proto::v1::scheduler_message::Message as Order;
use gotgan_proto::v1::worker_message::Message as Said;
use gotgan_proto::v1::workers_server::{Workers, WorkersServer};
use gotgan_proto::v1::{self, SchedulerMessage, WorkerMessage, report::Event};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::cluster::NODE_VARIABLE;
use crate::process::{self, Process};
use crate::{deadline, programs};

const NODE: &str = "n1";
const EPOCH: u64 = 1;
/// Orders that may wait for the worker.
const ORDERS: usize = 4_096;

/// A stream that the worker has opened.
#[derive(Debug)]
struct Opened {
    orders: mpsc::Sender<Result<SchedulerMessage, Status>>,
    said: Streaming<WorkerMessage>,
}

/// What the worker has said.
#[derive(Debug)]
pub enum Heard {
    /// Output that was asked for.
    Log(v1::LogData),
    /// A heartbeat.
    Beat,
    /// Anything else; reports are acknowledged already.
    Else,
}

/// One worker, and the scheduler that it knows.
#[derive(Debug)]
pub struct Desk {
    worker: Process,
    stream: Opened,
    started: BTreeSet<u64>,
    ended: BTreeSet<u64>,
    directory: tempfile::TempDir,
}

impl Desk {
    /// Starts both, with the worker's state below `directory`.
    pub async fn open(directory: &Path, heartbeat_ms: u32) -> Self {
        let directory = super::place(directory);
        let (streams, mut opened) = mpsc::channel(1);
        let address = serve(Front { streams, heartbeat_ms }).await;
        let mut command = Command::new(programs::path("gotgan-worker"));
        command.args(["run", "--insecure", "--node", NODE, "--simulate", "8xB200"]);
        command.args(["--address", "127.0.0.1", "--scheduler", &address]);
        command.arg("--state-dir").arg(directory.path().join("state")).env("RUST_LOG", "warn");
        // Shims are forked and have their daemon's environment: by this they are known as its own.
        command.env(NODE_VARIABLE, directory.path());
        let log = directory.path().join("worker.log");
        let worker = Process::spawn("gotgan-worker", &mut command, &log);
        let stream = deadline::within("the worker's stream", opened.recv()).await;
        let stream = stream.expect("the server lives as long as this program");
        Self { worker, stream, started: BTreeSet::new(), ended: BTreeSet::new(), directory }
    }

    /// Where files may be left, visible to the jobs.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Process id of the worker.
    pub fn worker_id(&self) -> u32 {
        self.worker.id()
    }

    /// Process ids of the shims.
    pub fn shims(&self) -> Vec<u32> {
        let found = process::strays(self.directory.path()).into_iter();
        found.filter(|id| process::name(*id) == "gotgan-shim").collect()
    }

    /// Orders a job of one task to start at once.
    pub async fn run(&mut self, job_id: u64, argv: &[&str]) {
        let argv = argv.iter().map(|&word| word.to_owned()).collect();
        let command = v1::Command { argv, layout: v1::TaskLayout::PerNode.into() };
        let task = v1::TaskStart { local_world_size: 1, world_size: 1, ..Default::default() };
        let spec =
            v1::JobSpec { work: Some(v1::job_spec::Work::Command(command)), ..Default::default() };
        let gang = v1::GangNode { node: NODE.into(), address: "127.0.0.1".into(), gpus: 0 };
        self.order(Order::RunAttempt(v1::RunAttempt {
            epoch: EPOCH,
            job_id,
            attempt: 1,
            gang: vec![gang],
            spec: Some(spec),
            cpu_milli: 10,
            memory_mib: 64,
            time_limit_s: 3_600,
            grace_s: 5,
            master_port: 29_500,
            tasks: vec![task],
            start_now: true,
            ..Default::default()
        }))
        .await;
    }

    /// Asks for output.
    pub async fn order_read(&mut self, read: v1::ReadLog) {
        self.order(Order::ReadLog(read)).await;
    }

    async fn order(&mut self, order: Order) {
        let message = SchedulerMessage { message: Some(order) };
        self.stream.orders.send(Ok(message)).await.expect("the worker listens");
    }

    /// Waits for the next thing that the worker says.
    pub async fn hear(&mut self) -> Heard {
        let next = deadline::within("the worker to say something", self.stream.said.next()).await;
        match next.expect("the worker lives").expect("a message").message {
            Some(Said::LogData(data)) => Heard::Log(data),
            Some(Said::Heartbeat(_)) => Heard::Beat,
            Some(Said::Report(report)) => {
                self.take(report).await;
                Heard::Else
            }
            Some(Said::Finding(_) | Said::Register(_)) | None => Heard::Else,
        }
    }

    /// Acknowledges a report; of an attempt that has ended nothing is to be kept.
    async fn take(&mut self, report: v1::Report) {
        let v1::Report { job_id, attempt, seq, .. } = report;
        self.order(Order::ReportAck(v1::ReportAck { job_id, attempt, seq })).await;
        match report.event {
            Some(Event::TaskStarted(_)) => drop(self.started.insert(job_id)),
            Some(Event::Ended(ended)) => {
                assert_eq!(ended.exit.map(|exit| exit.code), Some(0), "job {job_id}: {ended:?}");
                self.ended.insert(job_id);
            }
            Some(Event::Refused(refused)) => panic!("job {job_id}: {refused:?}"),
            Some(
                Event::Accepted(_) | Event::Started(_) | Event::TaskEnded(_) | Event::Unfit(_),
            ) => {}
            None => {}
        }
    }

    /// Listens until this job has ended.
    pub async fn until_ended(&mut self, job_id: u64) {
        while !self.ended.contains(&job_id) {
            self.hear().await;
        }
    }

    /// Listens until so many jobs run.
    pub async fn until_started(&mut self, count: u64) {
        while (self.started.len() as u64) < count {
            self.hear().await;
        }
    }

    /// Listens for some time.
    pub async fn listen_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            // Nothing said in time is as good as something.
            let _ = tokio::time::timeout(left, self.hear()).await;
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.worker.kill();
        process::kill_strays(self.directory.path());
        process::remove_cgroups(self.directory.path());
    }
}

async fn serve(front: Front) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = format!("http://{}", listener.local_addr().expect("it is bound"));
    // An order that waits for the answer to the one before takes 40 ms, which nothing here is to measure.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serving = tonic::transport::Server::builder()
        .add_service(WorkersServer::new(front))
        .serve_with_incoming(incoming);
    tokio::spawn(serving);
    address
}

/// What the worker connects to.
#[derive(Debug)]
struct Front {
    streams: mpsc::Sender<Opened>,
    heartbeat_ms: u32,
}

#[tonic::async_trait]
impl Workers for Front {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<SchedulerMessage, Status>> + Send>>;

    async fn join(
        &self,
        _: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        Err(Status::unimplemented("nobody joins here"))
    }

    async fn renew(
        &self,
        _: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        Err(Status::unimplemented("there are no certificates here"))
    }

    async fn session(
        &self,
        request: Request<Streaming<WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (orders, waiting) = mpsc::channel(ORDERS);
        let heartbeat_ms = self.heartbeat_ms;
        let hello = v1::Registered { epoch: EPOCH, heartbeat_ms, return_within_ms: 0 };
        let hello = SchedulerMessage { message: Some(Order::Registered(hello)) };
        // Just made, so it has room.
        let _ = orders.try_send(Ok(hello));
        let opened = Opened { orders, said: request.into_inner() };
        // A second stream means that the first has broken; then nobody listens any more.
        let _ = self.streams.send(opened).await;
        Ok(Response::new(Box::pin(ReceiverStream::new(waiting))))
    }
}
