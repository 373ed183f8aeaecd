//! The part of the Nodes service that brings the power of a part of the machine down.

use std::collections::BTreeSet;

use gotgan_core::amount::UnixMicros;
use gotgan_core::attempt::Attempt;
use gotgan_core::derate::{self, Derating};
use gotgan_core::ids::{AttemptId, NodeName};
use gotgan_core::lifecycle::{self, DerateWish, WindowRefusal};
use gotgan_core::world::World;
use gotgan_proto::v1;
use tonic::Status;

use super::idempotent::{keyed, once};
use super::maintenance::{STAYING_MAX, Selector, refused, show};
use super::nodes::check_reason;
use super::{Services, error};
use crate::auth::Principal;
use crate::clock;

/// Brings it down, once for each key, or only says what that would mean.
pub(super) async fn derate(
    services: &Services,
    who: &Principal,
    request: v1::DerateRequest,
) -> Result<v1::DerateResponse, Status> {
    check_reason(&request.reason)?;
    if !(1..=99).contains(&request.to_percent) {
        return Err(error::invalid("to_percent", "OUT_OF_RANGE", "must be 1 to 99"));
    }
    let selector = Selector::of(&request.nodes, request.labels.clone(), &request.gpu_class)?;
    if request.dry_run {
        return look(services, selector, request.to_percent).await;
    }
    let keyed = keyed(who, &request.idempotency_key, "Derate", &request, "")?;
    let by = who.subject.clone();
    let done = once(services, keyed, move |round| {
        let draft = &mut round.draft;
        let v1::DerateRequest { to_percent, duration_s, reason, .. } = request;
        let nodes = selector.find(draft.world);
        let wish = DerateWish { nodes, to_percent, duration_s, reason, by };
        let (choice, window) = lifecycle::derate(draft, wish).map_err(|e| refused(&e))?;
        let answer = answer(draft.world, &choice, draft.now);
        Ok(v1::DerateResponse { maintenance: Some(show(&window, 0)), ..answer })
    });
    done.await
}

async fn look(
    services: &Services,
    selector: Selector,
    to_percent: u32,
) -> Result<v1::DerateResponse, Status> {
    let terms = services.policy.power.clone();
    let found = services.writer.read(move |world| {
        let (part, now) = (selector.find(world), clock::now());
        let unknown = part.iter().find(|name| !world.nodes.contains_key(*name));
        match unknown {
            Some(name) => Err(WindowRefusal::UnknownNode(name.clone())),
            None => derate::choose(world, &part, to_percent, &terms, now)
                .map(|choice| answer(world, &choice, now))
                .map_err(WindowRefusal::from),
        }
    });
    found.await.map_err(|e| error::flow(&e))?.map_err(|e| refused(&e))
}

fn answer(world: &World, choice: &Derating, now: UnixMicros) -> v1::DerateResponse {
    let listed = choice.stopped.iter().take(STAYING_MAX);
    v1::DerateResponse {
        maintenance: None,
        idle_nodes: choice.idle.iter().map(ToString::to_string).collect(),
        stopped: listed.filter_map(|id| stopped(world, *id, &choice.idle, now)).collect(),
        stopped_count: u32::try_from(choice.stopped.len()).unwrap_or(u32::MAX),
        full_watts: choice.full_watts,
        watts: choice.watts,
        gpus: choice.gpus,
        gpus_idle: choice.gpus_idle,
    }
}

/// An attempt that is over when its grace is.
fn stopped(
    world: &World,
    id: AttemptId,
    idle: &BTreeSet<NodeName>,
    now: UnixMicros,
) -> Option<v1::StayingAttempt> {
    let (attempt, job) = (world.attempts.get(&id)?, world.jobs.get(&id.job)?);
    Some(v1::StayingAttempt {
        job_id: id.job.0,
        attempt: id.to_string(),
        owner: job.owner.to_string(),
        project: attempt.project.to_string(),
        ends_us: now.plus_seconds(i64::from(job.spec.grace_s)).0,
        nodes: nodes_among(attempt, idle),
    })
}

fn nodes_among(attempt: &Attempt, idle: &BTreeSet<NodeName>) -> u32 {
    let held = attempt.placement.nodes.iter().filter(|held| idle.contains(&held.node));
    u32::try_from(held.count()).unwrap_or(u32::MAX)
}
