//! Calls of the API as bytes on the wire, taken by the services themselves: decoded, judged, carried out by the real writer on
//! a small world, up to where the store begins.

mod store;
pub(crate) mod world;

use std::cell::RefCell;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use gotgan_core::estimate::estimator::Learnt;
use gotgan_core::ids::{NodeName, ProjectPath, UserName};
use gotgan_core::lifecycle;
use gotgan_core::policy::Policy;
use gotgan_core::world::World;
use gotgan_proto::v1::cluster_server::ClusterServer;
use gotgan_proto::v1::jobs_server::JobsServer;
use gotgan_proto::v1::nodes_server::NodesServer;
use gotgan_proto::v1::quota_server::QuotaServer;
use gotgan_proto::v1::workers_server::WorkersServer;
use gotgan_scheduler::api::{
    ClusterService, JobsService, NodesService, QuotaService, Services, WorkersService,
};
use gotgan_scheduler::assembly::{Assembly, Ground};
use gotgan_scheduler::auth::{Authenticator, Principal, PrincipalKind, Role};
use gotgan_scheduler::clock;
use gotgan_scheduler::config::Timing;
use gotgan_scheduler::flow::round::RecentKeys;
use gotgan_scheduler::metrics::Metrics;
use tokio::runtime::Runtime;
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tower::ServiceExt;

use store::Shelf;

/// Every call of the API but the worker's stream, which has a door of its own. A test holds it against the protocol. New ones
/// go to the end: the place in the list is the first byte of a seed.
pub const CALLS: [&str; 51] = [
    "Cluster/Status",
    "Cluster/WhoAmI",
    "Cluster/CreateToken",
    "Cluster/ListTokens",
    "Cluster/RevokeToken",
    "Cluster/CreateJoinToken",
    "Jobs/Submit",
    "Jobs/SubmitMany",
    "Jobs/Get",
    "Jobs/List",
    "Jobs/Watch",
    "Jobs/Logs",
    "Jobs/Cancel",
    "Jobs/Hold",
    "Jobs/Release",
    "Jobs/Requeue",
    "Jobs/Explain",
    "Jobs/ExplainOrder",
    "Jobs/StartStep",
    "Nodes/List",
    "Nodes/Get",
    "Nodes/Drain",
    "Nodes/Resume",
    "Nodes/Verify",
    "Nodes/CutGpu",
    "Nodes/ResetBreaker",
    "Nodes/History",
    "Nodes/PlanMaintenance",
    "Nodes/CancelMaintenance",
    "Nodes/ListMaintenance",
    "Nodes/Derate",
    "Nodes/CreateReservation",
    "Nodes/ExtendReservation",
    "Nodes/CancelReservation",
    "Nodes/ListReservations",
    "Quota/Apply",
    "Quota/Plan",
    "Quota/Approve",
    "Quota/AcceptBatch",
    "Quota/Audit",
    "Quota/Get",
    "Quota/Explain",
    "Quota/Ledger",
    "Quota/Statement",
    "Quota/Transfer",
    "Quota/Adjust",
    "Quota/Void",
    "Quota/Alerts",
    "Quota/Balance",
    "Workers/Join",
    "Workers/Renew",
];

/// A stream that goes on for as long as its caller listens.
const FOLLOWED: [&str; 2] = ["Jobs/Watch", "Jobs/Logs"];
/// What clients take of an answer's head; what is longer breaks the connection instead of being read.
const HEAD_MAX_BYTES: usize = 16 << 10;
/// More than any answer here.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// The first byte says which call it is, the second who calls, the rest is its message. A refusal has a reason, names a field
/// where one is to blame, fits into the head of an answer, and leaves nothing behind.
pub(crate) fn take(bytes: &[u8]) {
    ask(bytes, judge);
}

/// Why such a request is refused; `None` if it is not, or is none.
#[must_use]
pub fn refusal(bytes: &[u8]) -> Option<String> {
    let mut refusal = None;
    ask(bytes, |_, answered, _| refusal = answered.err().map(|status| status.message().to_owned()));
    refusal
}

fn ask(bytes: &[u8], heard: impl FnOnce(&str, Result<(), Status>, u64)) {
    let [call, caller, message @ ..] = bytes else { return };
    let call = CALLS[usize::from(*call) % CALLS.len()];
    let role = Role::ALL[usize::from(*caller) % Role::ALL.len()];
    on_stage(|stage| {
        stage.begin();
        let answered = stage.call(call, who(role), &[message]);
        heard(call, answered, stage.written());
    });
}

/// Somebody of that role: a member of one project, or a node.
pub(crate) fn who(role: Role) -> Principal {
    let kind = match role {
        Role::Worker => PrincipalKind::Node(NodeName::new("n1").expect("a name")),
        _ => PrincipalKind::Token { id: "0123456789ab".to_owned() },
    };
    let subject = UserName::new(if role == Role::Worker { "n1" } else { "lee" });
    let projects = match role {
        Role::Member => vec![ProjectPath::new("public/lab").expect("a path")],
        _ => Vec::new(),
    };
    Principal { subject: subject.expect("a name"), role, projects, expires: None, kind }
}

fn judge(call: &str, answered: Result<(), Status>, written: u64) {
    let Err(status) = answered else { return };
    let (code, message) = (status.code(), status.message());
    // The transport's own word for what is no message of that kind.
    if code == Code::Internal && message.contains("decode") {
        return assert_eq!(written, 0);
    }
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.as_str()).unwrap_or_default();
    let broken = ["NOT_COMMITTED", "STORE_FAILED", "STOPPING", "NOT_LEADER"].contains(&reason);
    assert!(
        !broken
            && !matches!(code, Code::Internal | Code::Unknown | Code::DataLoss | Code::Cancelled),
        "{call}: {code:?} {reason} {message}"
    );
    assert!(!message.is_empty() && written == 0, "{call}: {written} rounds written, {message}");
    if code == Code::InvalidArgument {
        let bad = details.bad_request().map(|bad| bad.field_violations.as_slice());
        let bad = bad.unwrap_or_default();
        assert!(!bad.is_empty() && !reason.is_empty(), "{call}: no field, {message}");
        for one in bad {
            assert!(!one.field.is_empty() && !one.description.is_empty(), "{call}: {one:?}");
        }
    }
    let head = message.len() + status.details().len().div_ceil(3) * 4;
    assert!(head <= HEAD_MAX_BYTES, "{call}: a refusal of {head} bytes");
}

/// The services with all that they need, on one thread.
pub(crate) struct Stage {
    runtime: Runtime,
    services: Arc<Services>,
    routes: Routes,
    shelf: Arc<Shelf>,
    base: Arc<World>,
    before: u64,
}

/// Lets `act` act on this thread's stage, which is built once.
pub(crate) fn on_stage(act: impl FnOnce(&mut Stage)) {
    thread_local! {
        static STAGE: RefCell<Option<Stage>> = const { RefCell::new(None) };
    }
    STAGE.with_borrow_mut(|stage| act(stage.get_or_insert_with(Stage::new)));
}

impl Stage {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a runtime");
        let policy = Arc::new(Policy::default());
        let base = world::world(&policy, clock::now());
        let shelf = Arc::new(Shelf::of(base.clone()));
        let services = runtime.block_on(async { services(&policy, &shelf, base.clone()) });
        let routes = routes(&services);
        Stage { runtime, services, routes, shelf, base: Arc::new(base), before: 0 }
    }

    /// Puts everything back to where it began.
    pub(crate) fn begin(&mut self) {
        let base = Arc::clone(&self.base);
        let put_back = self.services.writer.write(move |round| {
            *round.draft.world = (*base).clone();
            *round.recent = RecentKeys::default();
            // What time itself brings is not to be the next round's.
            lifecycle::turn_quota(&mut round.draft);
            lifecycle::turn_windows(&mut round.draft);
            lifecycle::settle_due(&mut round.draft);
            lifecycle::end_overdue(&mut round.draft);
            lifecycle::tell_alerts(&mut round.draft);
        });
        self.runtime.block_on(put_back).expect("the writer is there");
        self.before = self.shelf.written();
    }

    /// Rounds that wrote something since it began.
    pub(crate) fn written(&self) -> u64 {
        self.shelf.written() - self.before
    }

    /// What the world looks like now.
    pub(crate) fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&World) -> T + Send + 'static,
    ) -> T {
        self.runtime.block_on(self.services.writer.read(look)).expect("the writer is there")
    }

    /// One call with these messages, to the end of its answer unless that is a stream that is followed.
    pub(crate) fn call(
        &self,
        call: &str,
        who: Principal,
        messages: &[&[u8]],
    ) -> Result<(), Status> {
        let mut wire = Vec::new();
        for message in messages {
            wire.push(0);
            wire.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
            wire.extend(*message);
        }
        let mut request = http::Request::post(format!("/gotgan.v1.{call}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Body::from(wire))
            .expect("a request");
        request.extensions_mut().insert(who);
        let routes = self.routes.clone();
        self.runtime.block_on(async move {
            let response = routes.oneshot(request).await.expect("infallible");
            if let Some(status) = Status::from_header_map(response.headers()) {
                return if status.code() == Code::Ok { Ok(()) } else { Err(status) };
            }
            if FOLLOWED.contains(&call) {
                return Ok(());
            }
            let body = to_bytes(Body::new(response.into_body()), ANSWER_MAX_BYTES).await;
            body.map(drop).map_err(|error| Status::unknown(error.to_string()))
        })
    }
}

fn routes(services: &Arc<Services>) -> Routes {
    Routes::new(JobsServer::new(JobsService(Arc::clone(services))))
        .add_service(NodesServer::new(NodesService(Arc::clone(services))))
        .add_service(QuotaServer::new(QuotaService(Arc::clone(services))))
        .add_service(ClusterServer::new(ClusterService(Arc::clone(services))))
        .add_service(WorkersServer::new(WorkersService::new(Arc::clone(services))))
        .prepare()
}

/// As a leader has them, but without a planner: nothing starts by itself.
fn services(policy: &Arc<Policy>, shelf: &Arc<Shelf>, world: World) -> Arc<Services> {
    let ground = Ground {
        store: Arc::clone(shelf) as _,
        epoch: world::EPOCH,
        policy: Arc::clone(policy),
        timing: Timing::default(),
        authenticator: Authenticator::new("secret".to_owned()),
        identity: None,
        address: "http://localhost:7440".to_owned(),
        metrics: Metrics::new(),
    };
    let Assembly { services, writer, .. } = ground.around(world, Learnt::default());
    tokio::spawn(writer.run());
    services
}
