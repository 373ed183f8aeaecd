//! The Nodes service.

use std::ops::Bound;
use std::sync::Arc;

use gotgan_core::ids::{GpuClass, NodeName};
use gotgan_core::lifecycle;
use gotgan_core::world::Node;
use gotgan_proto::v1;
use gotgan_proto::v1::nodes_server::Nodes;
use tonic::{Request, Response, Status};

use super::convert::NodeView;
use super::idempotent::{keyed, once};
use super::{
    Services, convert, derate, error, health, maintenance, mig, page, principal, reservation,
};
use crate::clock;

/// Longest reason of a drain or of maintenance, in characters.
pub(super) const REASON_MAX: usize = 256;

/// Answers for nodes.
#[derive(Debug, Clone)]
pub struct NodesService(pub Arc<Services>);

#[tonic::async_trait]
impl Nodes for NodesService {
    async fn list(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let request = request.into_inner();
        let class = class_of(&request.gpu_class)?;
        let asked = request.page.unwrap_or_default();
        let (size, after) = (page::size_of(&asked)?, asked.token);
        let views = self.0.writer.read(move |world| {
            let from =
                if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after.as_str()) };
            let nodes = world.nodes.range::<str, _>((from, Bound::Unbounded));
            let wanted = nodes.filter(|(_, node)| has_class(node, class.as_ref()));
            wanted
                .take(size as usize)
                .filter_map(|(name, _)| convert::node_view(world, name))
                .collect::<Vec<NodeView>>()
        });
        let views = views.await.map_err(|e| error::flow(&e))?;
        let nodes = views.into_iter().map(|view| self.show(view)).collect();
        let (nodes, next_token) = page::fitting(nodes, size, |node| node.name.clone());
        Ok(Response::new(v1::ListNodesResponse { nodes, next_token }))
    }

    async fn get(
        &self,
        request: Request<v1::GetNodeRequest>,
    ) -> Result<Response<v1::Node>, Status> {
        let text = request.into_inner().name;
        let name = NodeName::new(&text).map_err(|bad| error::bad_name("name", &bad))?;
        let policy = Arc::clone(&self.0.policy);
        let view = self.0.writer.read(move |world| {
            let view = convert::node_view(world, &name)?;
            Some(view.compared(world).scored(world, &policy.health, clock::now()))
        });
        let view = view.await.map_err(|e| error::flow(&e))?;
        let view = view.ok_or_else(|| error::no_such_node(&text))?;
        Ok(Response::new(self.show(view)))
    }

    async fn drain(
        &self,
        request: Request<v1::DrainRequest>,
    ) -> Result<Response<v1::NodeActionResponse>, Status> {
        let who = principal(&request)?;
        let request = request.into_inner();
        let name = NodeName::new(&request.name).map_err(|bad| error::bad_name("name", &bad))?;
        check_reason(&request.reason)?;
        let keyed = keyed(&who, &request.idempotency_key, "Drain", &request, "")?;
        let done = once(&self.0, keyed, move |round| {
            let draft = &mut round.draft;
            let changed = lifecycle::drain(draft, &name, &who.subject, &request.reason);
            answer(changed, draft.world.nodes.get(&name), &request.name)
        });
        Ok(Response::new(done.await?))
    }

    async fn resume(
        &self,
        request: Request<v1::ResumeRequest>,
    ) -> Result<Response<v1::NodeActionResponse>, Status> {
        let who = principal(&request)?;
        let request = request.into_inner();
        let name = NodeName::new(&request.name).map_err(|bad| error::bad_name("name", &bad))?;
        let keyed = keyed(&who, &request.idempotency_key, "Resume", &request, "")?;
        let done = once(&self.0, keyed, move |round| {
            let draft = &mut round.draft;
            let changed = lifecycle::resume(draft, &name, &who.subject);
            answer(changed, draft.world.nodes.get(&name), &request.name)
        });
        Ok(Response::new(done.await?))
    }

    async fn verify(
        &self,
        request: Request<v1::VerifyRequest>,
    ) -> Result<Response<v1::VerifyResponse>, Status> {
        let who = principal(&request)?;
        health::verify(&self.0, &who, request.into_inner()).await.map(Response::new)
    }

    async fn cut_gpu(
        &self,
        request: Request<v1::CutGpuRequest>,
    ) -> Result<Response<v1::CutGpuResponse>, Status> {
        let who = principal(&request)?;
        mig::cut(&self.0, &who, request.into_inner()).await.map(Response::new)
    }

    async fn reset_breaker(
        &self,
        request: Request<v1::ResetBreakerRequest>,
    ) -> Result<Response<v1::ResetBreakerResponse>, Status> {
        let who = principal(&request)?;
        health::reset_breaker(&self.0, &who, request.into_inner()).await.map(Response::new)
    }

    async fn history(
        &self,
        request: Request<v1::NodeHistoryRequest>,
    ) -> Result<Response<v1::NodeHistoryResponse>, Status> {
        health::history(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn plan_maintenance(
        &self,
        request: Request<v1::PlanMaintenanceRequest>,
    ) -> Result<Response<v1::PlanMaintenanceResponse>, Status> {
        let who = principal(&request)?;
        maintenance::plan(&self.0, &who, request.into_inner()).await.map(Response::new)
    }

    async fn cancel_maintenance(
        &self,
        request: Request<v1::CancelMaintenanceRequest>,
    ) -> Result<Response<v1::CancelMaintenanceResponse>, Status> {
        let who = principal(&request)?;
        maintenance::cancel(&self.0, &who, request.into_inner()).await.map(Response::new)
    }

    async fn list_maintenance(
        &self,
        _request: Request<v1::ListMaintenanceRequest>,
    ) -> Result<Response<v1::ListMaintenanceResponse>, Status> {
        maintenance::list(&self.0).await.map(Response::new)
    }

    async fn derate(
        &self,
        request: Request<v1::DerateRequest>,
    ) -> Result<Response<v1::DerateResponse>, Status> {
        let who = principal(&request)?;
        derate::derate(&self.0, &who, request.into_inner()).await.map(Response::new)
    }

    async fn create_reservation(
        &self,
        request: Request<v1::CreateReservationRequest>,
    ) -> Result<Response<v1::CreateReservationResponse>, Status> {
        let who = principal(&request)?;
        reservation::create(&self.0, &who, request.into_inner()).await.map(Response::new)
    }

    async fn extend_reservation(
        &self,
        request: Request<v1::ExtendReservationRequest>,
    ) -> Result<Response<v1::ExtendReservationResponse>, Status> {
        let who = principal(&request)?;
        reservation::extend(&self.0, &who, request.into_inner()).await.map(Response::new)
    }

    async fn cancel_reservation(
        &self,
        request: Request<v1::CancelReservationRequest>,
    ) -> Result<Response<v1::CancelReservationResponse>, Status> {
        let who = principal(&request)?;
        reservation::cancel(&self.0, &who, request.into_inner()).await.map(Response::new)
    }

    async fn list_reservations(
        &self,
        request: Request<v1::ListReservationsRequest>,
    ) -> Result<Response<v1::ListReservationsResponse>, Status> {
        reservation::list(&self.0, request.into_inner()).await.map(Response::new)
    }
}

impl NodesService {
    fn show(&self, view: NodeView) -> v1::Node {
        let heard = self.0.telemetry.of(&view.node.registered.node);
        convert::node(view, heard, self.0.policy.health.lemon_score)
    }
}

fn answer(
    changed: Option<bool>,
    node: Option<&Node>,
    name: &str,
) -> Result<v1::NodeActionResponse, Status> {
    match (changed, node) {
        (Some(changed), Some(node)) => {
            Ok(v1::NodeActionResponse { changed, admin: convert::admin(node).into() })
        }
        _ => Err(error::no_such_node(name)),
    }
}

/// Whether people will read why.
pub(super) fn check_reason(reason: &str) -> Result<(), Status> {
    if (1..=REASON_MAX).contains(&reason.chars().count()) {
        return Ok(());
    }
    let message = format!("say why, in 1 to {REASON_MAX} characters");
    Err(error::invalid("reason", "MISSING", message))
}

pub(super) fn class_of(text: &str) -> Result<Option<GpuClass>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    GpuClass::new(text).map(Some).map_err(|bad| error::bad_name("gpu_class", &bad))
}

pub(super) fn has_class(node: &Node, class: Option<&GpuClass>) -> bool {
    class.is_none_or(|class| node.registered.gpus.iter().any(|gpu| gpu.class == *class))
}
