//! The Workers service: joining, and one stream a worker.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::Stream;
use gotgan_core::health::{Damped, GpuLook};
use gotgan_core::ids::{AttemptId, GpuUuid, NodeName};
use gotgan_core::lifecycle::{self, Folded, MemberEvent, Report};
use gotgan_core::muster;
use gotgan_core::node::Liveness;
use gotgan_core::nvlink;
use gotgan_proto::v1;
use gotgan_proto::v1::scheduler_message::Message as Order;
use gotgan_proto::v1::worker_message::Message as Said;
use gotgan_proto::v1::workers_server::Workers;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Services, convert, error, principal};
use crate::auth::join_token_hash;
use crate::auth::tls::TlsError;
use crate::clock;
use crate::flow::command::FlowError;
use crate::flow::dispatch::{OUTBOX_MAX, OrderSender};
use crate::flow::quarantine::Origin;
use crate::flow::round::RoundDraft;
use crate::flow::telemetry::Beat;

/// Longest name of a worker's journal, bytes.
const JOURNAL_ID_MAX: usize = 64;

/// Answers for workers.
#[derive(Debug, Clone)]
pub struct WorkersService {
    services: Arc<Services>,
    sessions: Arc<AtomicU64>,
}

impl WorkersService {
    /// A service whose sessions count from 1.
    #[must_use]
    pub fn new(services: Arc<Services>) -> Self {
        WorkersService { services, sessions: Arc::new(AtomicU64::new(1)) }
    }
}

#[tonic::async_trait]
impl Workers for WorkersService {
    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        let request = request.into_inner();
        let node = NodeName::new(&request.node).map_err(|bad| error::bad_name("node", &bad))?;
        // Signed first: a request that cannot be signed must not use the token up.
        let (certificate_pem, ca_pem) = self.sign(&request.certificate_request_pem, &node)?;
        self.use_join_token(&request.join_token, &node).await?;
        tracing::info!(%node, "a worker joined");
        Ok(Response::new(v1::JoinResponse { certificate_pem, ca_pem }))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        let node = node_that_calls(&request)?;
        let request_pem = request.into_inner().certificate_request_pem;
        let (certificate_pem, ca_pem) = self.sign(&request_pem, &node)?;
        self.require_ready(node.clone()).await?;
        tracing::info!(%node, "a worker's certificate was renewed");
        Ok(Response::new(v1::RenewResponse { certificate_pem, ca_pem }))
    }

    type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::SchedulerMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let node = node_that_calls(&request)?;
        let (session, orders) = self.open(node, request.into_inner()).await?;
        tokio::spawn(session);
        Ok(Response::new(Box::pin(ReceiverStream::new(orders).map(|order| Ok(*order)))))
    }
}

fn node_that_calls<T>(request: &Request<T>) -> Result<NodeName, Status> {
    let node = principal(request)?.node().cloned();
    node.ok_or_else(|| Status::permission_denied("this call needs the certificate of a node"))
}

/// What a worker is told on its stream.
pub type Orders = mpsc::Receiver<Box<v1::SchedulerMessage>>;

impl WorkersService {
    /// Registers a node by the first message of its stream. What listens to the others is for the caller to run; what the
    /// worker is told comes beside.
    ///
    /// # Errors
    /// A status that tells the worker why it was not taken in.
    pub async fn open<S>(
        &self,
        node: NodeName,
        mut said: S,
    ) -> Result<(impl Future<Output = ()> + use<S>, Orders), Status>
    where
        S: Stream<Item = Result<v1::WorkerMessage, Status>> + Unpin,
    {
        let register = match said.next().await {
            Some(Ok(v1::WorkerMessage { message: Some(Said::Register(register)) })) => register,
            Some(Err(status)) => return Err(status),
            Some(Ok(_)) | None => {
                let message = "the first message of a stream must be register";
                return Err(error::invalid("message", "NOT_REGISTERED", message));
            }
        };
        let number = self.sessions.fetch_add(1, Ordering::Relaxed);
        let (outbox, orders) = mpsc::channel(OUTBOX_MAX);
        let services = Arc::clone(&self.services);
        let damped = Damped::default();
        let answers = Answers::default();
        let session = Session { services, node, number, looked: None, damped, answers };
        session.register(register, outbox).await?;
        Ok((session.run(said), orders))
    }

    /// A certificate for the node and the key of its request, and the authority's own.
    fn sign(&self, request_pem: &str, node: &NodeName) -> Result<(String, String), Status> {
        let identity = self.services.identity.as_ref().ok_or_else(|| {
            let message = "this scheduler runs without TLS; workers need no certificate";
            error::status(Code::FailedPrecondition, "NO_TLS", message)
        })?;
        match identity.sign_worker(request_pem, node, clock::now()) {
            Ok(certificate_pem) => Ok((certificate_pem, identity.ca_pem().to_owned())),
            Err(bad @ TlsError::CannotSign) => {
                Err(error::status(Code::FailedPrecondition, "NO_CA_KEY", bad.to_string()))
            }
            Err(bad) => {
                Err(error::invalid("certificate_request_pem", "MALFORMED", bad.to_string()))
            }
        }
    }

    /// Whoever has a node's key and certificate, as of a disk that was thrown away, has no other for as long as nobody sees
    /// that node in the cluster.
    async fn require_ready(&self, node: NodeName) -> Result<(), Status> {
        let name = node.clone();
        let ready = self.services.writer.read(move |world| {
            world.nodes.get(&name).is_some_and(|node| node.liveness == Liveness::Ready)
        });
        if ready.await.map_err(|e| error::flow(&e))? {
            return Ok(());
        }
        let message =
            format!("node {node} is not registered; a certificate is renewed while its worker is");
        Err(error::status(Code::FailedPrecondition, "NODE_NOT_READY", message))
    }

    /// Uses a join token up for `node`, once.
    async fn use_join_token(&self, token: &str, node: &NodeName) -> Result<(), Status> {
        let hash = join_token_hash(token);
        let refuse = |reason, message: &str| {
            Err(error::status(Code::Unauthenticated, reason, message.to_owned()))
        };
        // One join at a time: between reading the token and writing its use, no other join may read it.
        let _turn = self.services.joins.lock().await;
        let found = self.services.store.join_token(&hash).await.map_err(|e| error::store(&e))?;
        let Some(mut record) = found else {
            return refuse(
                "JOIN_TOKEN_UNKNOWN",
                "the join token is not known; make one with `gotgan admin join-token`",
            );
        };
        if record.used.is_some() {
            return refuse(
                "JOIN_TOKEN_USED",
                "the join token was used before; make a new one with `gotgan admin join-token`",
            );
        }
        let now = clock::now();
        if record.expires <= now {
            return refuse(
                "JOIN_TOKEN_EXPIRED",
                "the join token has expired; make a new one with `gotgan admin join-token`",
            );
        }
        if record.node.as_ref().is_some_and(|only| only != node) {
            return refuse("JOIN_TOKEN_OTHER_NODE", "the join token is for another node name");
        }
        record.used = Some((now, node.clone()));
        let name = node.clone();
        let used = self.services.writer.write(move |round| {
            let known = round.draft.world.nodes.get(&name);
            let ready = known.is_some_and(|node| node.liveness == Liveness::Ready);
            // A name that is known may be taken again, by a machine that was set up anew, only with a token made
            // for this very name.
            if ready || (known.is_some() && record.node.is_none()) {
                let message = format!(
                    "node name {name} is in use; choose another, or join again with a token made for this name \
                     (`gotgan admin join-token --node {name}`) once the node is disconnected"
                );
                return Err(error::status(Code::AlreadyExists, "NODE_NAME_IN_USE", message));
            }
            round.join_tokens.push(record);
            Ok(())
        });
        used.await.map_err(|e| error::flow(&e))?
    }
}

/// One worker's stream.
#[derive(Debug)]
struct Session {
    services: Arc<Services>,
    node: NodeName,
    number: u64,
    /// What its last beat told of its GPUs, so that the writer is only asked about what is new.
    looked: Option<Vec<GpuLook>>,
    /// Slow-downs that were seen a moment ago.
    damped: Damped,
    /// What its last beat told of orders for its hardware.
    answers: Answers,
}

/// What became of orders for a node's hardware, told with each beat.
#[derive(Debug, Clone, Default, PartialEq)]
struct Answers {
    cuts: Vec<v1::CutFailure>,
    checks: Vec<v1::CheckOutcome>,
}

impl Session {
    /// Takes the inventory in and tells the worker what it must be told.
    async fn register(&self, register: v1::Register, outbox: OrderSender) -> Result<(), Status> {
        let inventory = register.inventory.unwrap_or_default();
        if inventory.node != self.node.as_str() {
            let message =
                format!("the certificate is for node {}, not {}", self.node, inventory.node);
            return Err(error::status(Code::PermissionDenied, "OTHER_NODE", message));
        }
        if register.epoch > self.services.epoch.0 {
            let message = format!(
                "the worker has seen epoch {}, this scheduler leads epoch {}; was its database restored?",
                register.epoch, self.services.epoch
            );
            return Err(error::status(Code::FailedPrecondition, "NEWER_LEADER_SEEN", message));
        }
        if register.journal_id.len() > JOURNAL_ID_MAX {
            let message = format!("is longer than {JOURNAL_ID_MAX} bytes");
            return Err(error::invalid("register.journal_id", "TOO_LONG", message));
        }
        let mut inventory = convert::inventory_from(inventory, &self.node)
            .map_err(|bad| error::bad_name("register.inventory", &bad))?;
        inventory.journal_id = register.journal_id;
        let held = convert::held_attempts(&register.held);
        let services = Arc::clone(&self.services);
        let (node, number) = (self.node.clone(), self.number);
        let registered = v1::Registered {
            epoch: services.epoch.0,
            heartbeat_ms: services.timing.heartbeat_ms,
            return_within_ms: muster::return_within_ms(services.dispatcher.known_nodes()),
        };
        let hello = v1::SchedulerMessage { message: Some(Order::Registered(registered)) };
        // Just made, so it has room.
        let _ = outbox.try_send(Box::new(hello));
        services.telemetry.heard(&node, clock::now(), None);
        let known = held.clone();
        let write = self.services.writer.hear(self.origin(None), move |round| {
            let world = &*round.draft.world;
            let before = world.nodes.get(&inventory.node);
            let is_new = before.is_none_or(|node| *node.registered != inventory);
            // Told once, and not again whenever a worker comes back with what it had.
            let doubt = is_new.then(|| nvlink::disagreement(world, &inventory)).flatten();
            lifecycle::register(&mut round.draft, inventory, &known);
            doubt
        });
        if let Some(doubt) = write.await.map_err(|e| error::flow(&e))? {
            tracing::warn!(node = %self.node, %doubt, "NVLink domains do not go together");
        }
        // Orders follow from what is durable, so they are derived after the commit.
        let caught_up = self.services.writer.read(move |world| {
            // Given up between the two: what it runs must be asked once more.
            let counts = world.nodes.get(&node).is_some_and(|known| match known.liveness {
                Liveness::Ready | Liveness::Suspect => true,
                Liveness::Unknown | Liveness::Lost => false,
            });
            if counts {
                services.dispatcher.attach(&node, number, outbox);
                services.dispatcher.catch_up(world, services.epoch, &node, &held);
            }
            counts
        });
        if caught_up.await.map_err(|e| error::flow(&e))? {
            return Ok(());
        }
        Err(Status::unavailable("the node was given up while it registered; it must do so again"))
    }

    /// What it says, about an attempt or about its node.
    fn origin(&self, attempt: Option<AttemptId>) -> Origin {
        Origin::Worker { node: self.node.clone(), attempt }
    }

    /// Listens until the stream ends, breaks, or a newer one of the node takes over.
    async fn run(
        mut self,
        mut said: impl Stream<Item = Result<v1::WorkerMessage, Status>> + Unpin,
    ) {
        tracing::info!(node = %self.node, "worker connected");
        let why = loop {
            match said.next().await {
                Some(Ok(message)) => {
                    if !self.services.dispatcher.is_present(&self.node, self.number) {
                        break "replaced or too slow".to_owned();
                    }
                    if let Err(why) = self.hear(message).await {
                        break why;
                    }
                }
                Some(Err(status)) => break status.message().to_owned(),
                None => break "closed by the worker".to_owned(),
            }
        };
        tracing::info!(node = %self.node, why, "worker disconnected");
        self.services.dispatcher.detach(&self.node, self.number);
        // Unless a newer stream of the node is there already, nobody is heard now.
        let services = Arc::clone(&self.services);
        let node = self.node.clone();
        let missed = self.services.writer.write(move |round| {
            if !services.dispatcher.is_connected(&node) {
                lifecycle::miss(&mut round.draft, &node);
            }
        });
        // While the scheduler stops there is nobody left to tell.
        let _ = missed.await;
    }

    async fn hear(&mut self, message: v1::WorkerMessage) -> Result<(), String> {
        match message.message {
            Some(Said::Heartbeat(beat)) => {
                let looks = convert::looks(&beat.gpus);
                let answers = Answers { cuts: beat.cut_failures, checks: beat.check_outcomes };
                let beat = Beat { uses: convert::uses(&beat.uses), readings: beat.gpus };
                self.services.telemetry.heard(&self.node, clock::now(), Some(beat));
                self.take_answers(answers).await?;
                self.look(looks).await
            }
            Some(Said::Report(report)) => self.report(report).await,
            Some(Said::LogData(data)) => {
                self.services.logs.answered(&self.node, data);
                Ok(())
            }
            Some(Said::Finding(finding)) => self.find(finding).await,
            Some(Said::Register(_)) => Err("registered twice on one stream".to_owned()),
            // From a newer worker; nothing to do.
            None => Ok(()),
        }
    }

    /// Takes in why GPUs could not be cut and how checks ended, unless the last beat told the same.
    async fn take_answers(&mut self, answers: Answers) -> Result<(), String> {
        if self.answers == answers {
            return Ok(());
        }
        let (node, told) = (self.node.clone(), answers.clone());
        let write = move |round: &mut RoundDraft<'_>| {
            for failure in told.cuts {
                let Ok(gpu) = GpuUuid::new(&failure.gpu_uuid) else { continue };
                let (planned, why) = (failure.planned_us, failure.reason.as_str());
                lifecycle::cut_failed(&mut round.draft, &node, &gpu, planned, why);
            }
            for (check, outcome) in told.checks.into_iter().filter_map(convert::check_outcome) {
                lifecycle::checked(&mut round.draft, &node, &check, &outcome);
            }
        };
        match self.services.writer.hear(self.origin(None), write).await {
            Ok(()) => self.answers = answers,
            // It is told again with the next beat.
            Err(FlowError::NotCommitted) => {}
            Err(ended @ (FlowError::NotLeader | FlowError::Stopping)) => {
                return Err(ended.to_string());
            }
        }
        Ok(())
    }

    /// Takes in what lasts on the GPUs, unless the last beat told the same.
    async fn look(&mut self, looks: Vec<GpuLook>) -> Result<(), String> {
        let for_s = self.services.policy.health.slowdown_s;
        let looks = self.damped.damp(looks, clock::now(), for_s);
        if self.looked.as_ref() == Some(&looks) {
            return Ok(());
        }
        let (node, seen) = (self.node.clone(), looks.clone());
        let write =
            move |round: &mut RoundDraft<'_>| lifecycle::look(&mut round.draft, &node, &seen);
        match self.services.writer.hear(self.origin(None), write).await {
            Ok(()) => self.looked = Some(looks),
            // It is told again with the next beat, for it still lasts then or is no news.
            Err(FlowError::NotCommitted) => {}
            Err(ended @ (FlowError::NotLeader | FlowError::Stopping)) => {
                return Err(ended.to_string());
            }
        }
        Ok(())
    }

    /// Takes a finding in and acknowledges it once it is durable, without waiting for that here.
    async fn find(&self, finding: v1::Finding) -> Result<(), String> {
        let ack = v1::FindingAck { journal_id: finding.journal_id.clone(), seq: finding.seq };
        // One that this scheduler does not understand would be sent for ever.
        let Some(finding) = convert::finding(finding, &self.node) else {
            tracing::warn!(node = %self.node, seq = ack.seq, "a finding that cannot be understood");
            acknowledge_finding(&self.services, &self.node, ack);
            return Ok(());
        };
        let (services, node) = (Arc::clone(&self.services), self.node.clone());
        let sent = self.services.writer.hear_then(
            self.origin(None),
            move |round| lifecycle::find(&mut round.draft, &finding),
            move |outcome| {
                if outcome.is_ok() {
                    acknowledge_finding(&services, &node, ack);
                }
            },
        );
        sent.await.map_err(|error| error.to_string())
    }

    /// Folds a report in and acknowledges it once it is durable, without waiting for that here.
    async fn report(&self, report: v1::Report) -> Result<(), String> {
        let number = (report.job_id, report.attempt, report.seq);
        let Some((report, measured)) = convert::report_from(report, &self.node) else {
            return Err(format!("report {number:?} carries no known event"));
        };
        let services = Arc::clone(&self.services);
        let sent = self.services.writer.hear_then(
            self.origin(Some(report.attempt)),
            move |round| (lifecycle::fold_measured(&mut round.draft, &report, measured), report),
            move |outcome| {
                if let Ok((folded, report)) = outcome {
                    answer(&services, folded, &report);
                }
            },
        );
        sent.await.map_err(|error| error.to_string())
    }
}

/// What a worker hears of its report. A report that was not committed is not answered; it will be sent again.
fn answer(services: &Services, folded: Folded, report: &Report) {
    match folded {
        Folded::New | Folded::Repeated => acknowledge(services, report),
        Folded::Gap => {
            tracing::warn!(node = %report.node, attempt = %report.attempt, seq = report.seq,
                "a report is missing before this one; waiting for the worker to send it again");
        }
        Folded::Settled => {
            acknowledge(services, report);
            let over =
                matches!(report.event, MemberEvent::Ended { .. } | MemberEvent::Refused { .. });
            if over {
                forget(services, &report.node, report.attempt);
            }
        }
    }
}

fn acknowledge(services: &Services, report: &Report) {
    let ack = v1::ReportAck {
        job_id: report.attempt.job.0,
        attempt: report.attempt.number,
        seq: report.seq,
    };
    // If the stream is gone, the worker sends the report again on the next.
    services
        .dispatcher
        .send(&report.node, v1::SchedulerMessage { message: Some(Order::ReportAck(ack)) });
}

fn acknowledge_finding(services: &Services, node: &NodeName, ack: v1::FindingAck) {
    // If the stream is gone, the worker sends the finding again on the next.
    services.dispatcher.send(node, v1::SchedulerMessage { message: Some(Order::FindingAck(ack)) });
}

fn forget(services: &Services, node: &NodeName, attempt: AttemptId) {
    let forget = v1::ForgetAttempt {
        epoch: services.epoch.0,
        job_id: attempt.job.0,
        attempt: attempt.number,
    };
    let message = v1::SchedulerMessage { message: Some(Order::ForgetAttempt(forget)) };
    services.dispatcher.send(node, message);
}
