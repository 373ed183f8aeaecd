//! A fake scheduler, and a daemon that talks to it, as a real process.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gotgan_proto::v1::workers_server::{Workers, WorkersServer};
use gotgan_proto::v1::{
    self, JobSpec, JoinRequest, JoinResponse, LogData, ReadLog, Register, Registered, RenewRequest,
    RenewResponse, Report, ReportAck, RunAttempt, SchedulerMessage, StartTasks, StopAttempt,
    TaskStart, WorkerMessage, job_spec::Work, report::Event, scheduler_message::Message as Order,
    worker_message::Message,
};
use gotgan_worker::shim::tree;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// Nothing here takes this long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const EPOCH: u64 = 5;
pub const HEARTBEAT_MS: u32 = 200;

/// A stream that a worker has opened.
pub struct Peer {
    pub node: String,
    pub register: Register,
    orders: Orders,
    messages: Streaming<WorkerMessage>,
    pub acknowledge: bool,
}

/// The way to a worker.
#[derive(Clone)]
pub struct Orders(mpsc::Sender<Result<SchedulerMessage, Status>>);

impl Orders {
    pub async fn order(&self, order: Order) {
        self.0.send(Ok(SchedulerMessage { message: Some(order) })).await.unwrap();
    }
}

pub struct Service {
    pub peers: mpsc::Sender<Peer>,
    pub authority: Option<Authority>,
    /// Epoch of the leader that it plays.
    pub epoch: Arc<AtomicU64>,
    /// How often it wants heartbeats.
    pub heartbeat_ms: Arc<AtomicU32>,
}

#[tonic::async_trait]
impl Workers for Service {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<SchedulerMessage, Status>> + Send>>;

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let request = request.into_inner();
        let authority = self.authority.as_ref().unwrap();
        let lasts = match request.join_token.as_str() {
            "once" => LONG,
            "brief" => BRIEF,
            _ => return Err(Status::unauthenticated("join token is not valid")),
        };
        let certificate_pem = authority.sign(&request.certificate_request_pem, lasts);
        Ok(Response::new(JoinResponse { certificate_pem, ca_pem: authority.pem.clone() }))
    }

    async fn renew(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<RenewResponse>, Status> {
        assert!(request.peer_certs().is_some_and(|certificates| !certificates.is_empty()));
        let authority = self.authority.as_ref().unwrap();
        let certificate_pem = authority.sign(&request.into_inner().certificate_request_pem, LONG);
        Ok(Response::new(RenewResponse { certificate_pem, ca_pem: authority.pem.clone() }))
    }

    async fn session(
        &self,
        request: Request<Streaming<WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let header = request.metadata().get("x-gotgan-node");
        let node = header.map(|node| node.to_str().unwrap().to_owned()).unwrap_or_default();
        // With certificates a worker must show one.
        let shown = request.peer_certs().is_some_and(|certificates| !certificates.is_empty());
        assert_eq!(shown, self.authority.is_some());
        let mut messages = request.into_inner();
        let first = messages.message().await?.unwrap().message.unwrap();
        let Message::Register(register) = first else { panic!("not registered: {first:?}") };
        let (orders, stream) = mpsc::channel(64);
        let epoch = self.epoch.load(Ordering::Relaxed);
        let heartbeat_ms = self.heartbeat_ms.load(Ordering::Relaxed);
        let welcome = Registered { epoch, heartbeat_ms, return_within_ms: 0 };
        let welcome = SchedulerMessage { message: Some(Order::Registered(welcome)) };
        orders.send(Ok(welcome)).await.unwrap();
        let orders = Orders(orders);
        let peer = Peer { node, register, orders, messages, acknowledge: true };
        let _ = self.peers.send(peer).await;
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// Of a certificate that needs no renewal, and of one that is to be renewed within seconds.
const LONG: Duration = Duration::from_secs(86_400);
const BRIEF: Duration = Duration::from_secs(25);

/// Signs certificates, as a scheduler's authority does.
pub struct Authority {
    pub pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: rcgen::Issuer::new(params, key) }
    }

    /// A server's certificate for the loopback address, and its key.
    pub fn server(&self) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// A certificate that counts since a minute ago.
    fn sign(&self, request_pem: &str, lasts: Duration) -> String {
        let mut request = rcgen::CertificateSigningRequestParams::from_pem(request_pem).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        request.params.not_before = epoch + (now - Duration::from_secs(60));
        request.params.not_after = epoch + (now + lasts);
        request.signed_by(&self.issuer).unwrap().pem()
    }
}

/// The fake scheduler.
pub struct Cluster {
    pub epoch: Arc<AtomicU64>,
    pub heartbeat_ms: Arc<AtomicU32>,
    pub address: String,
    peers: mpsc::Receiver<Peer>,
    pub directory: tempfile::TempDir,
}

impl Cluster {
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    /// One whose state directory is not below `/tmp`, which attempts can then have for their own.
    pub async fn start_outside_tmp() -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Self::start_in(directory).await
    }

    async fn start_in(directory: tempfile::TempDir) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (sender, peers) = mpsc::channel(8);
        let epoch = Arc::new(AtomicU64::new(EPOCH));
        let heartbeat_ms = Arc::new(AtomicU32::new(HEARTBEAT_MS));
        let service = Service {
            peers: sender,
            authority: None,
            epoch: epoch.clone(),
            heartbeat_ms: heartbeat_ms.clone(),
        };
        let service = WorkersServer::new(service);
        // An order that waits for the answer to the one before takes 40 ms.
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let serving =
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
        tokio::spawn(serving);
        Self { epoch, heartbeat_ms, address, peers, directory }
    }

    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub fn output(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts a daemon on this cluster's state directory.
    pub fn daemon(&self) -> Daemon {
        self.daemon_with(&["--simulate", "2xB200"])
    }

    /// Starts a daemon with further arguments.
    pub fn daemon_with(&self, arguments: &[&str]) -> Daemon {
        Daemon { child: self.command(arguments).spawn().unwrap() }
    }

    /// Starts a daemon as this user.
    pub fn daemon_as(&self, user: u32) -> Daemon {
        let mut command = self.command(&["--simulate", "2xB200"]);
        Daemon { child: command.uid(user).gid(user).spawn().unwrap() }
    }

    /// Starts a daemon on a machine that these lines of a shell have changed, for it and its jobs alone.
    pub fn daemon_where(&self, changed: &str) -> Daemon {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg(format!("set -e\n{changed}\nexec \"$@\"")).arg("sh");
        command.arg(env!("CARGO_BIN_EXE_gotgan-worker"));
        self.fill(&mut command, &["--simulate", "2xB200"]);
        Daemon { child: command.spawn().unwrap() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gotgan-worker"));
        self.fill(&mut command, arguments);
        command
    }

    fn fill(&self, command: &mut Command, arguments: &[&str]) {
        command.args(["run", "--insecure", "--node", "n1"]).args(arguments);
        command.args(["--scheduler", &self.address, "--state-dir"]).arg(self.state());
        command.env("GOTGAN_JOIN_TOKEN", "secret");
        command.env("RUST_LOG", "warn").stdin(Stdio::null());
    }

    /// Starts a daemon with settings of a file.
    pub fn daemon_of(&self, settings: &str, arguments: &[&str]) -> Daemon {
        let path = self.output("worker.toml");
        std::fs::write(&path, settings).unwrap();
        let path = path.to_str().unwrap().to_owned();
        self.daemon_with(&[&["--config", &path], arguments].concat())
    }

    /// The next stream a worker opens.
    pub async fn peer(&mut self) -> Peer {
        tokio::time::timeout(PATIENCE, self.peers.recv()).await.unwrap().unwrap()
    }
}

/// A running daemon; killed when dropped. Its shims live on, as they should.
pub struct Daemon {
    child: Child,
}

impl Daemon {
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// What it ends with by itself.
    pub async fn exit_code(&mut self) -> Option<i32> {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(std::time::Instant::now() < deadline, "the daemon does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    pub fn sender(&self) -> Orders {
        self.orders.clone()
    }

    pub async fn order(&self, order: Order) {
        self.orders.order(order).await;
    }

    /// Whether the worker closes the stream instead of sending its heartbeats.
    pub async fn is_left(&mut self) -> bool {
        let next = tokio::time::timeout(PATIENCE, self.messages.next()).await;
        !matches!(next.expect("the worker says nothing"), Some(Ok(_)))
    }

    pub async fn message(&mut self) -> Message {
        let next = tokio::time::timeout(PATIENCE, self.messages.next());
        next.await.expect("the worker says nothing").unwrap().unwrap().message.unwrap()
    }

    /// The next report, acknowledged unless told otherwise.
    pub async fn report(&mut self) -> Report {
        loop {
            if let Message::Report(report) = self.message().await {
                if self.acknowledge {
                    let Report { job_id, attempt, seq, .. } = report;
                    self.order(Order::ReportAck(ReportAck { job_id, attempt, seq })).await;
                }
                return report;
            }
        }
    }

    /// Reports up to and including the first that `wanted` accepts.
    pub async fn reports_until(&mut self, wanted: impl Fn(&Event) -> bool) -> Vec<Report> {
        let collecting = tokio::time::timeout(PATIENCE, self.collect_until(wanted));
        collecting.await.expect("the report never came")
    }

    async fn collect_until(&mut self, wanted: impl Fn(&Event) -> bool) -> Vec<Report> {
        let mut reports: Vec<Report> = Vec::new();
        loop {
            let report = self.report().await;
            // Resent ones count once.
            if reports.iter().any(|known| known.seq == report.seq) {
                continue;
            }
            let found = wanted(report.event.as_ref().unwrap());
            reports.push(report);
            if found {
                return reports;
            }
        }
    }

    pub async fn reports_until_end(&mut self) -> Vec<Report> {
        self.reports_until(|event| matches!(event, Event::Ended(_) | Event::Refused(_))).await
    }

    pub async fn until_started(&mut self) {
        self.reports_until(|event| matches!(event, Event::TaskStarted(_))).await;
    }

    pub async fn read_log(&mut self, read: ReadLog) -> LogData {
        self.order(Order::ReadLog(read)).await;
        loop {
            if let Message::LogData(data) = self.message().await {
                return data;
            }
        }
    }

    pub async fn stop(&self, job_id: u64, cause: v1::Cause, grace_s: u32) {
        let stop = StopAttempt {
            epoch: EPOCH,
            job_id,
            attempt: 1,
            cause: cause.into(),
            reason: "told to".into(),
            grace_s,
        };
        self.order(Order::StopAttempt(stop)).await;
    }
}

/// An order for a script of one node.
pub fn script(job_id: u64, text: &str) -> RunAttempt {
    let text = format!("#!/bin/sh\n{text}\n");
    work(job_id, Work::Script(v1::Script { text, arguments: Vec::new() }), 1)
}

/// An order for a command with this many tasks.
pub fn command(job_id: u64, argv: &[&str], tasks: u32) -> RunAttempt {
    let argv = argv.iter().map(|&word| word.to_owned()).collect();
    work(job_id, Work::Command(v1::Command { argv, layout: 2 }), tasks)
}

fn work(job_id: u64, work: Work, tasks: u32) -> RunAttempt {
    let task = |rank| TaskStart {
        rank,
        local_rank: rank,
        local_world_size: tasks,
        gpu_uuids: vec![format!("GPU-SIM-n1-{rank}")],
        world_size: tasks,
    };
    RunAttempt {
        epoch: EPOCH,
        job_id,
        attempt: 1,
        gang: vec![v1::GangNode { node: "n1".into(), address: "127.0.0.1".into(), gpus: 2 }],
        spec: Some(JobSpec { work: Some(work), ..Default::default() }),
        time_limit_s: 600,
        grace_s: 20,
        master_port: 29500,
        tasks: (0..tasks).map(task).collect(),
        start_now: true,
        ..Default::default()
    }
}

/// An order to start one task of a further step.
pub fn step(job_id: u64, step: u32, argv: &[&str]) -> Order {
    Order::StartTasks(StartTasks {
        epoch: EPOCH,
        job_id,
        attempt: 1,
        step,
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        tasks: vec![TaskStart { local_world_size: 1, world_size: 1, ..Default::default() }],
        world_size: 1,
        ..Default::default()
    })
}

/// The attempt's end: cause, reason, exit.
pub fn end_of(reports: &[Report]) -> (v1::Cause, String, v1::ExitStatus) {
    match &reports.last().unwrap().event {
        Some(Event::Ended(ended)) => (ended.cause(), ended.reason.clone(), ended.exit.unwrap()),
        other => panic!("not ended: {other:?}"),
    }
}

/// How a task ended.
pub fn task_end(reports: &[Report], step: u32, rank: u32) -> v1::TaskEnded {
    let ends = reports.iter().filter_map(|report| match &report.event {
        Some(Event::TaskEnded(ended)) => Some(ended),
        _ => None,
    });
    ends.into_iter().find(|ended| (ended.step, ended.rank) == (step, rank)).unwrap().clone()
}

/// Waits until something is so.
pub async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether the process lives whose own number a file holds. In its namespace: from here it is found by the attempt's mark
/// in its environment.
pub fn lives(pid_file: &Path) -> bool {
    let number = std::fs::read_to_string(pid_file).unwrap();
    let mark = format!("GOTGAN_ATTEMPT_DIR={}/", pid_file.parent().unwrap().display());
    let own = |process: &tree::Process| own_number(process.pid) == Some(number.trim().to_owned());
    let found = tree::processes().unwrap();
    found.iter().any(|process| !process.zombie && has(process.pid, &mark) && own(process))
}

/// What a process calls itself.
fn own_number(pid: i32) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    numbers.split_whitespace().last().map(str::to_owned)
}

fn has(pid: i32, variable: &str) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|it| it.starts_with(variable.as_bytes()))
}

/// Whether a file is there with a whole line in it.
pub fn has_line(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.ends_with('\n'))
}
