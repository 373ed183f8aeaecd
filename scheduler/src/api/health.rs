//! Health of nodes: bringing hardware back, resetting breakers, what happened to a node.

use gotgan_core::change::Event;
use gotgan_core::ids::{GpuUuid, NodeName};
use gotgan_core::lifecycle::{self, HealthRefusal, Place};
use gotgan_proto::v1;
use tonic::{Code, Status};

use super::idempotent::{keyed, once};
use super::{Services, error};
use crate::auth::Principal;

/// Events of a node when no number is asked for, and the most.
const HISTORY_DEFAULT: u32 = 20;
const HISTORY_MAX: u32 = 1_000;

pub(super) async fn verify(
    services: &Services,
    who: &Principal,
    request: v1::VerifyRequest,
) -> Result<v1::VerifyResponse, Status> {
    let node = NodeName::new(&request.name).map_err(|bad| error::bad_name("name", &bad))?;
    let gpu = match request.gpu_uuid.as_str() {
        "" => None,
        uuid => Some(GpuUuid::new(uuid).map_err(|bad| error::bad_name("gpu_uuid", &bad))?),
    };
    let place = Place { node, gpu };
    let keyed = keyed(who, &request.idempotency_key, "Verify", &request, "")?;
    let by = who.subject.clone();
    once(services, keyed, move |round| {
        let changed = lifecycle::verify(&mut round.draft, &place, &by);
        changed.map(|changed| v1::VerifyResponse { changed }).map_err(|refusal| refused(&refusal))
    })
    .await
}

pub(super) async fn reset_breaker(
    services: &Services,
    who: &Principal,
    request: v1::ResetBreakerRequest,
) -> Result<v1::ResetBreakerResponse, Status> {
    let keyed = keyed(who, &request.idempotency_key, "ResetBreaker", &request, "")?;
    let (by, scope) = (who.subject.clone(), request.scope);
    once(services, keyed, move |round| {
        let reset = lifecycle::reset_breaker(&mut round.draft, &scope, &by);
        reset.map(|()| v1::ResetBreakerResponse {}).map_err(|refusal| refused(&refusal))
    })
    .await
}

pub(super) async fn history(
    services: &Services,
    request: v1::NodeHistoryRequest,
) -> Result<v1::NodeHistoryResponse, Status> {
    let node = NodeName::new(&request.name).map_err(|bad| error::bad_name("name", &bad))?;
    let size = match request.size {
        0 => HISTORY_DEFAULT,
        size if size <= HISTORY_MAX => size,
        _ => {
            let message = format!("at most {HISTORY_MAX} events are shown");
            return Err(error::invalid("size", "OUT_OF_RANGE", message));
        }
    };
    let known = node.clone();
    let known = services.writer.read(move |world| world.nodes.contains_key(&known));
    if !known.await.map_err(|e| error::flow(&e))? {
        return Err(error::no_such_node(&request.name));
    }
    let events = services.store.events_of_node(&node, size).await.map_err(|e| error::store(&e))?;
    Ok(v1::NodeHistoryResponse { events: events.into_iter().map(event).collect() })
}

fn event(event: Event) -> v1::NodeEvent {
    let kind = event.kind.word().to_owned();
    v1::NodeEvent { seq: event.seq, at_us: event.at.0, kind, text: event.text }
}

fn refused(refusal: &HealthRefusal) -> Status {
    match refusal {
        HealthRefusal::UnknownNode(node) => error::no_such_node(node.as_str()),
        HealthRefusal::UnknownGpu(..) => {
            error::invalid("gpu_uuid", "UNKNOWN_GPU", refusal.to_string())
        }
        HealthRefusal::NotBroken(_) => {
            error::status(Code::FailedPrecondition, "BREAKER_HOLDS", refusal.to_string())
        }
    }
}
