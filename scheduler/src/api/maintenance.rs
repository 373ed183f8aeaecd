//! The part of the Nodes service that is about maintenance.

use std::collections::{BTreeMap, BTreeSet};

use gotgan_core::amount::UnixMicros;
use gotgan_core::ids::{GpuClass, NodeName};
use gotgan_core::lifecycle::{self, MaintenanceWish, WindowRefusal};
use gotgan_core::quota::Interval;
use gotgan_core::window::{Staying, Window, WindowId, WindowState, staying};
use gotgan_core::world::{Node, World};
use gotgan_proto::v1;
use tonic::{Code, Status};

use super::idempotent::{keyed, once};
use super::nodes::{check_reason, class_of, has_class};
use super::{Services, error};
use crate::auth::Principal;

/// Attempts listed in an answer; a window of thousands of nodes may have more.
pub(super) const STAYING_MAX: usize = 1_000;

/// Which nodes are meant.
pub(super) enum Selector {
    Names(BTreeSet<NodeName>),
    Like { labels: BTreeMap<String, String>, class: Option<GpuClass> },
}

impl Selector {
    /// By their names, or by labels and class.
    pub(super) fn of(
        nodes: &[String],
        labels: impl IntoIterator<Item = (String, String)>,
        class: &str,
    ) -> Result<Self, Status> {
        let class = class_of(class)?;
        let labels: BTreeMap<String, String> = labels.into_iter().collect();
        let is_like = class.is_some() || !labels.is_empty();
        if nodes.is_empty() != is_like {
            let message = "name nodes, or say by labels and class which; one of the two";
            return Err(error::invalid("nodes", "CONFLICT", message));
        }
        if is_like {
            return Ok(Selector::Like { labels, class });
        }
        let names = nodes.iter().enumerate().map(|(index, name)| {
            let field = format!("nodes[{index}]");
            NodeName::new(name).map_err(|bad| error::bad_name(&field, &bad))
        });
        names.collect::<Result<_, _>>().map(Selector::Names)
    }

    /// Those there are now.
    pub(super) fn find(&self, world: &World) -> BTreeSet<NodeName> {
        match self {
            Selector::Names(names) => names.clone(),
            Selector::Like { labels, class } => {
                let carries = |node: &Node| {
                    let own = &node.inventory.labels;
                    labels.iter().all(|(key, value)| own.get(key) == Some(value))
                };
                let nodes = world.nodes.iter();
                let like =
                    nodes.filter(|(_, node)| carries(node) && has_class(node, class.as_ref()));
                like.map(|(name, _)| name.clone()).collect()
            }
        }
    }
}

/// Plans maintenance, once for each key.
pub(super) async fn plan(
    services: &Services,
    who: &Principal,
    request: v1::PlanMaintenanceRequest,
) -> Result<v1::PlanMaintenanceResponse, Status> {
    check_reason(&request.reason)?;
    let selector = Selector::of(&request.nodes, request.labels.clone(), &request.gpu_class)?;
    let keyed = keyed(who, &request.idempotency_key, "PlanMaintenance", &request, "")?;
    let by = who.subject.clone();
    let done = once(services, keyed, move |round| {
        let draft = &mut round.draft;
        let from = if request.from_us == 0 { draft.now } else { UnixMicros(request.from_us) };
        let during = Interval { from, until: from.plus_seconds(request.duration_s) };
        let (stop_running, reason) = (request.stop_running, request.reason);
        let nodes = selector.find(draft.world);
        let wish = MaintenanceWish { nodes, during, stop_running, reason, by };
        let window = lifecycle::plan_maintenance(draft, wish).map_err(|e| refused(&e))?;
        let staying = staying(draft.world, &window, draft.now);
        Ok(v1::PlanMaintenanceResponse {
            maintenance: Some(show(&window, staying.len())),
            staying: staying.iter().take(STAYING_MAX).map(show_staying).collect(),
        })
    });
    done.await
}

/// Takes maintenance back, once for each key.
pub(super) async fn cancel(
    services: &Services,
    who: &Principal,
    request: v1::CancelMaintenanceRequest,
) -> Result<v1::CancelMaintenanceResponse, Status> {
    let keyed = keyed(who, &request.idempotency_key, "CancelMaintenance", &request, "")?;
    let by = who.subject.clone();
    let done = once(services, keyed, move |round| {
        let draft = &mut round.draft;
        let id = WindowId(request.id);
        let before = draft.world.windows.get(id).map(|window| show(window, 0));
        lifecycle::cancel_maintenance(draft, id, &by).map_err(|e| refused(&e))?;
        Ok(v1::CancelMaintenanceResponse { maintenance: before })
    });
    done.await
}

/// What is planned or under way.
pub(super) async fn list(services: &Services) -> Result<v1::ListMaintenanceResponse, Status> {
    let found = services.writer.read(|world| {
        let now = crate::clock::now();
        let windows = world.windows.iter().filter(|window| window.is_maintenance());
        let mut shown: Vec<_> =
            windows.map(|window| show(window, staying(world, window, now).len())).collect();
        shown.sort_by_key(|window| (window.from_us, window.id));
        shown
    });
    let maintenance = found.await.map_err(|e| error::flow(&e))?;
    Ok(v1::ListMaintenanceResponse { maintenance })
}

/// A window as the API's.
pub(super) fn show(window: &Window, staying: usize) -> v1::Maintenance {
    v1::Maintenance {
        id: window.id.0,
        state: state(window.state).into(),
        nodes: window.nodes.iter().map(ToString::to_string).collect(),
        from_us: window.during.from.0,
        until_us: window.during.until.0,
        reason: window.reason.clone(),
        by: window.by.to_string(),
        stop_running: window.stop_running,
        created_us: window.made.0,
        staying: u32::try_from(staying).unwrap_or(u32::MAX),
    }
}

/// The same for a listing of one of its nodes.
#[must_use]
pub(super) fn show_on(window: &Window, node: &NodeName) -> v1::Maintenance {
    v1::Maintenance { nodes: vec![node.to_string()], ..show(window, 0) }
}

fn state(state: WindowState) -> v1::MaintenanceState {
    match state {
        WindowState::Planned => v1::MaintenanceState::Planned,
        WindowState::Open => v1::MaintenanceState::Open,
        WindowState::Over | WindowState::Cancelled => v1::MaintenanceState::Unspecified,
    }
}

pub(super) fn show_staying(staying: &Staying) -> v1::StayingAttempt {
    v1::StayingAttempt {
        job_id: staying.attempt.job.0,
        attempt: staying.attempt.to_string(),
        owner: staying.owner.to_string(),
        project: staying.project.to_string(),
        ends_us: staying.ends.0,
        nodes: staying.nodes,
    }
}

pub(super) fn refused(refusal: &WindowRefusal) -> Status {
    let message = refusal.to_string();
    match refusal {
        WindowRefusal::UnknownNode(node) => error::no_such_node(node.as_str()),
        WindowRefusal::Unknown(_) => error::status(Code::NotFound, "UNKNOWN_MAINTENANCE", message),
        WindowRefusal::TooMany => {
            error::status(Code::ResourceExhausted, "TOO_MANY_WINDOWS", message)
        }
        WindowRefusal::NoNodes => error::invalid(refusal.field(), "UNKNOWN_NODE", message),
        WindowRefusal::Power(_)
        | WindowRefusal::Past(_)
        | WindowRefusal::TooManyNodes(_)
        | WindowRefusal::TooFar(_)
        | WindowRefusal::Length(_) => error::invalid(refusal.field(), "OUT_OF_RANGE", message),
    }
}
