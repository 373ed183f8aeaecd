//! What answers calls: the services, behind all that a call passes first.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::Context as _;
use gotgan_proto::v1::cluster_server::ClusterServer;
use gotgan_proto::v1::jobs_server::JobsServer;
use gotgan_proto::v1::nodes_server::NodesServer;
use gotgan_proto::v1::quota_server::QuotaServer;
use gotgan_proto::v1::workers_server::WorkersServer;
use gotgan_proto::{FILE_DESCRIPTOR_SET, MESSAGE_MAX_BYTES, WORKER_MESSAGE_MAX_BYTES};
use http::{Request, Response};
use tonic::body::Body;
use tonic::service::Routes;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt};

use crate::api::{
    ClusterService, JobsService, NodesService, QuotaService, Services, WorkersService,
};
use crate::auth::AuthLayer;
use crate::clock;
use crate::limits::{Limits, LimitsLayer};
use crate::metrics::RpcMetricsLayer;

/// Everything that calls are answered with.
pub type Answers = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// What a call passes first.
#[derive(Debug, Clone, Copy)]
pub struct Gate {
    /// How much of the server one caller may have.
    pub limits: Limits,
    /// Whether callers are believed what node they are: there is no TLS.
    pub insecure: bool,
}

impl Gate {
    fn before(self, services: &Services, routes: Routes) -> Answers {
        let auth = AuthLayer::new(services.authenticator.clone(), clock::now);
        let auth = if self.insecure { auth.insecure() } else { auth };
        let answers = ServiceBuilder::new()
            .layer(RpcMetricsLayer::new(Arc::clone(&services.metrics)))
            .layer(auth)
            .layer(LimitsLayer::new(self.limits))
            .service(routes);
        Answers::new(ServiceExt::<Request<Body>>::map_response(answers, |answer| {
            answer.map(Body::new)
        }))
    }
}

/// All calls.
///
/// # Errors
/// If the API cannot be described.
pub async fn of_leader(services: Arc<Services>, gate: Gate) -> anyhow::Result<Answers> {
    let (health_reporter, health) = tonic_health::server::health_reporter();
    health_reporter.set_serving::<JobsServer<JobsService>>().await;
    health_reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .context("cannot describe the API")?;
    let cluster = ClusterServer::new(ClusterService(Arc::clone(&services)))
        .max_decoding_message_size(MESSAGE_MAX_BYTES);
    let workers = WorkersServer::new(WorkersService::new(Arc::clone(&services)))
        .max_decoding_message_size(WORKER_MESSAGE_MAX_BYTES)
        .max_encoding_message_size(WORKER_MESSAGE_MAX_BYTES);
    let routes = readable(&services)
        .add_service(health)
        .add_service(reflection)
        .add_service(cluster)
        .add_service(workers);
    Ok(gate.before(&services, routes))
}

/// The calls that a standby answers are among these; which of them it does, others see to.
#[must_use]
pub fn of_standby(services: &Arc<Services>, gate: Gate) -> Answers {
    gate.before(services, readable(services))
}

/// The services of which some calls only read.
fn readable(services: &Arc<Services>) -> Routes {
    let jobs = JobsServer::new(JobsService(Arc::clone(services)))
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES);
    let nodes = NodesServer::new(NodesService(Arc::clone(services)))
        .max_decoding_message_size(MESSAGE_MAX_BYTES);
    let quota = QuotaServer::new(QuotaService(Arc::clone(services)))
        .max_decoding_message_size(MESSAGE_MAX_BYTES);
    Routes::new(jobs).add_service(nodes).add_service(quota)
}
