//! What a scheduler answers while another leads: no call but who leads, to balancers that it is not the one to serve,
//! and to everybody else where to go. It knows nothing of jobs, so nothing it says can be stale but that.

use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use futures::future::{Either, Ready, ready};
use gotgan_proto::v1::jobs_server::JobsServer;
use gotgan_store::Leadership;
use http::{Request, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tower::{Layer, Service};

use crate::api::{JobsService, error};
use crate::auth::tls::ServerIdentity;

/// Calls that a standby answers itself.
const OWN_CALLS: &str = "/grpc.health.v1.Health/";

/// How long calls that are being answered may take to end once this one leads; refusals take no time.
const END_LIMIT: Duration = Duration::from_millis(200);

/// Who leads, as far as a standby has read; shared with what answers.
pub type Leader = watch::Receiver<Option<Leadership>>;

/// A standby that answers.
#[derive(Debug)]
pub struct Standby {
    stop: CancellationToken,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Standby {
    /// Answers on a second handle of the listener: what connects while this one is about to lead waits in the queue of the
    /// first.
    ///
    /// # Errors
    /// If the system gives no second handle, or the certificate cannot be used.
    pub async fn start(
        listener: &StdListener,
        identity: Option<&Arc<ServerIdentity>>,
        leader: Leader,
    ) -> anyhow::Result<Self> {
        let second = listener.try_clone().context("cannot share the listening socket")?;
        let second = TcpListener::from_std(second).context("cannot share the listening socket")?;
        let mut server = Server::builder();
        if let Some(identity) = identity {
            server = server.tls_config(identity.server_tls_config()).context("cannot use TLS")?;
        }
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_not_serving::<JobsServer<JobsService>>().await;
        reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        let stop = CancellationToken::new();
        let serving = server
            .layer(RefuseLayer { leader })
            .add_routes(Routes::new(health))
            .serve_with_incoming_shutdown(
                TcpIncoming::from(second).with_nodelay(Some(true)),
                stop.clone().cancelled_owned(),
            );
        Ok(Self { stop, serving: tokio::spawn(serving) })
    }

    /// Accepts no more and hangs up on everybody: they come again, to one that leads.
    pub async fn end(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(END_LIMIT, &mut self.serving).await.is_err() {
            self.serving.abort();
        }
    }
}

/// Puts a [`Refuse`] in front of the health service.
#[derive(Debug, Clone)]
struct RefuseLayer {
    leader: Leader,
}

impl<S> Layer<S> for RefuseLayer {
    type Service = Refuse<S>;

    fn layer(&self, inner: S) -> Refuse<S> {
        Refuse { leader: self.leader.clone(), inner }
    }
}

/// Refuses every call but those a standby answers itself.
#[derive(Debug, Clone)]
struct Refuse<S> {
    leader: Leader,
    inner: S,
}

impl<S, Body, Answer> Service<Request<Body>> for Refuse<S>
where
    S: Service<Request<Body>, Response = Response<Answer>>,
    Answer: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<Ready<Result<S::Response, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path().starts_with(OWN_CALLS) {
            return Either::Right(self.inner.call(request));
        }
        let refusal = error::led_by_another(self.leader.borrow().as_ref());
        Either::Left(ready(Ok(refusal.into_http())))
    }
}
