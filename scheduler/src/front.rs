//! What answers on the listening socket, from the start of the program to its end: while another leads it says so, while this
//! one is about to lead it lets calls wait, and then it hands them to the services. Connections stay the same all along, so
//! that thousands of workers that have one to a standby need no new handshake when it takes over.
//!
//! As long as another leads it says so to balancers, which send it nothing then, and to everybody else where to go; but who
//! takes an answer that may be stale gets what the [`standby`](crate::standby) answers.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use gotgan_proto::v1::jobs_server::JobsServer;
use gotgan_store::Leadership;
use http::{Request, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::{Layer, Service, ServiceExt};

use crate::answers::Answers;
use crate::api::{JobsService, error};
use crate::connections::{self, Door};
use crate::standby::Aside;

/// Streams one connection may have open at once; a client that wants more opens another.
const STREAMS_PER_CONNECTION: u32 = 1_024;

/// A peer that is gone without a word is asked this often, and given up after this long without an answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a call waits for one that is about to lead; a worker gives up after ten seconds, and loading the state
/// of a country takes one or two.
const WAIT_LIMIT: Duration = Duration::from_secs(8);

/// Calls that are answered whoever leads.
const OWN_CALLS: &str = "/grpc.health.v1.Health/";

/// What calls meet.
#[derive(Clone)]
enum Stage {
    /// Nobody leads yet, or this one is about to.
    Coming,
    StandingBy(Arc<Leadership>, Aside),
    Leading(Answers),
}

/// The server of this process.
pub struct Front {
    stage: watch::Sender<Stage>,
    reporter: HealthReporter,
    /// Open once there is something to say.
    door: Door,
    closing: CancellationToken,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Front").finish_non_exhaustive()
    }
}

impl Front {
    /// Connections are accepted, and wait until it stands by or leads.
    ///
    /// `tls` is what handshakes are done with at the moment.
    pub async fn open(listener: TcpListener, tls: Option<watch::Receiver<TlsAcceptor>>) -> Self {
        let server = Server::builder()
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT));
        let (reporter, health) = tonic_health::server::health_reporter();
        let (stage, seen) = watch::channel(Stage::Coming);
        let closing = CancellationToken::new();
        let door = Door::default();
        let incoming = connections::lines(listener, tls, door.clone());
        let serving = server
            .layer(SwitchLayer { stage: seen })
            .add_routes(Routes::new(health))
            .serve_with_incoming_shutdown(incoming, closing.clone().cancelled_owned());
        let front = Self { stage, reporter, door, closing, serving: tokio::spawn(serving) };
        front.report(ServingStatus::NotServing).await;
        front
    }

    async fn report(&self, status: ServingStatus) {
        self.reporter.set_service_status("", status).await;
        let jobs = JobsServer::<JobsService>::NAME;
        self.reporter.set_service_status(jobs, status).await;
    }

    /// Another leads: calls are sent there, but for those that may be answered aside.
    pub fn stand_by(&self, leader: Leadership, aside: Aside) {
        self.stage.send_replace(Stage::StandingBy(Arc::new(leader), aside));
        self.door.open();
    }

    /// This one is about to lead: calls wait.
    pub fn coming(&self) {
        self.stage.send_replace(Stage::Coming);
    }

    /// This one leads: what waited and what comes is answered. Who watches the health since before learns of it.
    pub async fn lead(&self, answers: Answers) {
        self.stage.send_replace(Stage::Leading(answers));
        self.door.open();
        self.report(ServingStatus::Serving).await;
    }

    /// Comes back only if the server ends by itself, which it should not.
    pub async fn broken(&mut self) -> anyhow::Error {
        match (&mut self.serving).await {
            Ok(Ok(())) => anyhow::anyhow!("the server ended by itself"),
            Ok(Err(error)) => anyhow::Error::new(error).context("the server ended"),
            Err(error) => anyhow::Error::new(error).context("the server broke"),
        }
    }

    /// Accepts no more, and lets calls that are being answered come to their end, for so long.
    pub async fn close(mut self, grace: Duration) {
        self.closing.cancel();
        // A stream of events or output that somebody follows may outlast this; nothing depends on it.
        let _ = tokio::time::timeout(grace, &mut self.serving).await;
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

/// Puts a [`Switch`] in front of the health service.
#[derive(Clone)]
struct SwitchLayer {
    stage: watch::Receiver<Stage>,
}

impl<S> Layer<S> for SwitchLayer {
    type Service = Switch<S>;

    fn layer(&self, health: S) -> Switch<S> {
        Switch { stage: self.stage.clone(), health }
    }
}

/// Answers each call as the stage is when it comes.
#[derive(Clone)]
struct Switch<S> {
    stage: watch::Receiver<Stage>,
    health: S,
}

impl<S> Service<Request<Body>> for Switch<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // What is handed on to is asked once it is known.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (mut stage, health) = (self.stage.clone(), self.health.clone());
        let is_own = request.uri().path().starts_with(OWN_CALLS);
        Box::pin(async move {
            if is_own && !matches!(&*stage.borrow(), Stage::Leading(_)) {
                return health.oneshot(request).await;
            }
            let settled = stage.wait_for(|stage| !matches!(stage, Stage::Coming));
            let settled = tokio::time::timeout(WAIT_LIMIT, settled).await;
            match settled.ok().and_then(Result::ok).map(|stage| stage.clone()) {
                Some(Stage::Leading(answers)) => answers.oneshot(request).await,
                Some(Stage::StandingBy(leader, aside)) => {
                    let answer = aside.answer(request).await;
                    Ok(answer.unwrap_or_else(|| error::led_by_another(Some(&leader)).into_http()))
                }
                Some(Stage::Coming) | None => Ok(error::led_by_another(None).into_http()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use gotgan_core::amount::UnixMicros;
    use gotgan_core::ids::Epoch;
    use tokio::net::TcpStream;
    use tonic::transport::{Channel, Endpoint};
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    use super::*;
    use crate::config::Config;
    use crate::metrics::Metrics;
    use crate::standby::Reads;

    /// Stands for all services: it knows one name, which no standby does.
    async fn answers() -> Answers {
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_service_status("of-a-leader", ServingStatus::Serving).await;
        Answers::new(Routes::new(health))
    }

    /// With how many connections came, which are passed on to it.
    async fn opened() -> (Front, HealthClient<Channel>, Arc<AtomicU32>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let front = Front::open(listener, None).await;
        let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", door.local_addr().unwrap());
        let connections = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = door.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let mut far = TcpStream::connect(address).await.unwrap();
                tokio::spawn(async move {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        let channel = Endpoint::from_shared(url).unwrap().connect_lazy();
        (front, HealthClient::new(channel), connections)
    }

    fn leader() -> Leadership {
        let (holder, address) = ("one".to_owned(), "https://one:1".to_owned());
        Leadership { epoch: Epoch(1), holder, address, expires: UnixMicros(0) }
    }

    /// Of a store in which nothing is.
    async fn aside(place: &tempfile::TempDir) -> Aside {
        let url = format!("sqlite://{}", place.path().join("gotgan.db").display());
        let store = gotgan_store::open(&url).await.unwrap();
        Reads { store: &store, config: &Config::default(), metrics: &Metrics::new() }.aside()
    }

    /// No health check: that one is answered by everybody.
    async fn call(channel: &mut HealthClient<Channel>, service: &str) -> Result<(), tonic::Code> {
        let asked = HealthCheckRequest { service: service.to_owned() };
        channel.check(asked).await.map(drop).map_err(|status| status.code())
    }

    #[tokio::test]
    async fn a_connection_to_a_standby_is_one_to_the_leader_once_it_leads() {
        let (front, mut client, connections) = opened().await;
        let place = tempfile::tempdir().unwrap();
        front.stand_by(leader(), aside(&place).await);
        assert_eq!(call(&mut client, "").await, Ok(()), "a standby says how it is");
        assert_eq!(call(&mut client, "of-a-leader").await, Err(tonic::Code::NotFound));
        front.coming();
        front.lead(answers().await).await;
        assert_eq!(call(&mut client, "of-a-leader").await, Ok(()));
        assert_eq!(connections.load(Ordering::Relaxed), 1);
        drop(client);
        front.close(Duration::from_secs(10)).await;
    }

    /// Calls of a service that only a leader has.
    async fn refused(switch: Switch<Answers>) -> Option<String> {
        let request = Request::builder().uri("/gotgan.v1.Jobs/Submit").body(Body::empty());
        let answer = switch.oneshot(request.unwrap()).await.unwrap();
        let status = tonic::Status::from_header_map(answer.headers())?;
        (status.code() == tonic::Code::Unavailable).then(|| status.message().to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_sent_to_the_leader_and_waits_where_one_is_about_to_lead() {
        let place = tempfile::tempdir().unwrap();
        let standing_by = Stage::StandingBy(Arc::new(leader()), aside(&place).await);
        let (sender, stage) = watch::channel(standing_by);
        let switch = Switch { stage, health: answers().await };
        let said = refused(switch.clone()).await.unwrap();
        assert_eq!(said, "this scheduler stands by; https://one:1 leads");
        sender.send_replace(Stage::Coming);
        let said = refused(switch.clone()).await.unwrap();
        assert_eq!(said, "this scheduler stands by and knows of no leader yet", "for a while");
        let waiting = tokio::spawn(refused(switch));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        sender.send_replace(Stage::Leading(answers().await));
        assert_eq!(waiting.await.unwrap(), None, "it was handed on");
    }
}
