//! The gRPC API: decodes requests, asks the flow or the store, encodes answers.
//!
//! Nothing is decided here. Who may call what at all is settled by the layer in [`crate::auth`] before a handler
//! runs; a handler only narrows what the principal may see.

mod cluster;
pub mod convert;
mod derate;
pub mod error;
mod health;
mod idempotent;
mod jobs;
mod jobs_actions;
mod jobs_streams;
mod maintenance;
mod mig;
mod nodes;
mod order;
mod page;
mod quota;
mod reservation;
mod starts;
mod submit;
mod workers;

use std::sync::Arc;

use gotgan_core::ids::Epoch;
use gotgan_core::policy::Policy;
use gotgan_store::Store;
use tonic::{Request, Status};

use crate::admission::Admission;
use crate::auth::tls::ServerIdentity;
use crate::auth::{Authenticator, Principal};
use crate::config::Timing;
use crate::flow::command::WriterHandle;
use crate::flow::dispatch::Dispatcher;
use crate::flow::estimate::Estimates;
use crate::flow::logs::LogRelay;
use crate::flow::plan::LastPass;
use crate::flow::telemetry::Telemetry;
use crate::metrics::Metrics;

pub use cluster::ClusterService;
pub(crate) use cluster::capacities;
pub use jobs::JobsService;
pub use nodes::NodesService;
pub use quota::QuotaService;
pub use workers::WorkersService;

/// What every service works with.
#[derive(Debug)]
pub struct Services {
    /// Changes go here.
    pub writer: WriterHandle,
    /// Reads go here.
    pub store: Arc<dyn Store>,
    /// What submissions are checked against.
    pub admission: Admission,
    /// Why jobs wait.
    pub last_pass: LastPass,
    /// When those that wait are going to start.
    pub estimates: Estimates,
    /// What nodes last said.
    pub telemetry: Arc<Telemetry>,
    /// The way to workers.
    pub dispatcher: Arc<Dispatcher>,
    /// Output of tasks.
    pub logs: LogRelay,
    /// Who callers are.
    pub authenticator: Authenticator,
    /// Signs workers' certificates; `None` without TLS.
    pub identity: Option<Arc<ServerIdentity>>,
    /// Workers that join wait for each other here.
    pub joins: tokio::sync::Mutex<()>,
    /// Audits of the ledger wait for each other here: each reads all of history.
    pub audits: tokio::sync::Mutex<()>,
    /// Numbers of the site.
    pub policy: Arc<Policy>,
    /// Beats and patience.
    pub timing: Timing,
    /// Leadership in force.
    pub epoch: Epoch,
    /// Where clients reach this scheduler.
    pub address: String,
    /// When it began to lead.
    pub started: gotgan_core::amount::UnixMicros,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// The caller, as the layer resolved it.
pub(crate) fn principal<T>(request: &Request<T>) -> Result<Principal, Status> {
    request
        .extensions()
        .get::<Principal>()
        .cloned()
        .ok_or_else(|| Status::unauthenticated("this call needs a token; see `gotgan config`"))
}
