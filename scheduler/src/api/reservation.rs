//! The part of the Nodes service that is about reservations by command.

use std::collections::BTreeSet;
use std::sync::Arc;

use gotgan_core::amount::UnixMicros;
use gotgan_core::ids::{NodeName, ProjectPath, ReservationName};
use gotgan_core::lifecycle::{self, NodesWish, ReservationRefusal, ReservationWish, WindowRefusal};
use gotgan_core::quota::Interval;
use gotgan_core::reservation::{ChoiceRefusal, Wanted};
use gotgan_core::topology::Level;
use gotgan_core::window::{Staying, WINDOW_NODES_MAX, Window, WindowState, staying};
use gotgan_core::world::World;
use gotgan_proto::v1;
use tonic::{Code, Status};

use super::idempotent::{keyed, once};
use super::maintenance::{STAYING_MAX, show_staying};
use super::nodes::{REASON_MAX, class_of};
use super::{Services, error};
use crate::auth::Principal;

/// When it is to hold, as the request says.
#[derive(Debug, Clone, Copy)]
struct Span {
    from_us: i64,
    duration_s: i64,
    until_us: i64,
}

impl Span {
    fn of(request: &v1::CreateReservationRequest) -> Result<Self, Status> {
        let v1::CreateReservationRequest { from_us, duration_s, until_us, .. } = *request;
        check_end(duration_s, until_us)?;
        Ok(Span { from_us, duration_s, until_us })
    }

    fn at(self, now: UnixMicros) -> Interval {
        let from = if self.from_us == 0 { now } else { UnixMicros(self.from_us) };
        let until = match self.until_us {
            0 => from.plus_seconds(self.duration_s),
            until_us => UnixMicros(until_us),
        };
        Interval { from, until }
    }
}

/// Whether the end is said, and said once.
fn check_end(duration_s: i64, until_us: i64) -> Result<(), Status> {
    match (duration_s, until_us) {
        (0, 0) => Err(error::invalid("duration_s", "MISSING", "say how long, or until when")),
        (0, _) | (_, 0) => Ok(()),
        (_, _) => {
            let message = "is given beside duration_s; keep one";
            Err(error::invalid("until_us", "CONFLICT", message))
        }
    }
}

fn name_of(text: &str) -> Result<ReservationName, Status> {
    ReservationName::new(text).map_err(|bad| error::bad_name("name", &bad))
}

fn holders_of(texts: &[String]) -> Result<BTreeSet<ProjectPath>, Status> {
    let paths = texts.iter().enumerate().map(|(index, text)| {
        let field = format!("holders[{index}]");
        ProjectPath::new(text).map_err(|bad| error::bad_name(&field, &bad))
    });
    paths.collect()
}

fn nodes_of(request: &v1::CreateReservationRequest) -> Result<NodesWish, Status> {
    if request.nodes.is_empty() != (request.count > 0) {
        let message = "name nodes, or say how many; one of the two";
        return Err(error::invalid("nodes", "CONFLICT", message));
    }
    let (class, block) = (class_of(&request.gpu_class)?, block_of(&request.block)?);
    if request.count > 0 {
        if request.count as usize > WINDOW_NODES_MAX {
            let message = format!("is {}; give 1 to {WINDOW_NODES_MAX}", request.count);
            return Err(error::invalid("count", "OUT_OF_RANGE", message));
        }
        return Ok(NodesWish::Chosen(Wanted { count: request.count, class, block }));
    }
    if class.is_some() || block.is_some() {
        let message =
            "a class and a block are for nodes that are chosen; say how many, or leave them out";
        return Err(error::invalid("nodes", "CONFLICT", message));
    }
    let names = request.nodes.iter().enumerate().map(|(index, name)| {
        let field = format!("nodes[{index}]");
        NodeName::new(name).map_err(|bad| error::bad_name(&field, &bad))
    });
    names.collect::<Result<_, _>>().map(NodesWish::Named)
}

/// A block as people write it: `rack=r12`.
fn block_of(text: &str) -> Result<Option<(Level, String)>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let block = text.split_once('=').filter(|(_, name)| !name.is_empty());
    let block = block.and_then(|(word, name)| Some((Level::of_word(word)?, name.to_owned())));
    let levels = || Level::ALL.map(Level::word).join(", ");
    let message =
        || format!("write a level and the name of a block, as in rack=r12; levels: {}", levels());
    block.map(Some).ok_or_else(|| error::invalid("block", "MALFORMED", message()))
}

fn check_reason(reason: &str) -> Result<(), Status> {
    if reason.chars().count() <= REASON_MAX {
        return Ok(());
    }
    let message = format!("at most {REASON_MAX} characters");
    Err(error::invalid("reason", "TOO_LONG", message))
}

/// Reserves nodes, once for each key; or says what would come of it.
pub(super) async fn create(
    services: &Services,
    who: &Principal,
    request: v1::CreateReservationRequest,
) -> Result<v1::CreateReservationResponse, Status> {
    check_reason(&request.reason)?;
    let (span, name) = (Span::of(&request)?, name_of(&request.name)?);
    let (holders, nodes) = (holders_of(&request.holders)?, nodes_of(&request)?);
    let keyed = keyed(who, &request.idempotency_key, "CreateReservation", &request, "")?;
    let (by, dry_run, reason) = (who.subject.clone(), request.dry_run, request.reason);
    let wish =
        move |now| ReservationWish { name, holders, nodes, during: span.at(now), reason, by };
    if dry_run {
        return rehearse(services, wish).await;
    }
    let done = once(services, keyed, move |round| {
        let draft = &mut round.draft;
        let wish = wish(draft.now);
        let window = lifecycle::reserve(draft, wish).map_err(|e| refused(&e))?;
        Ok(created(draft.world, &window, draft.now))
    });
    done.await
}

async fn rehearse(
    services: &Services,
    wish: impl FnOnce(UnixMicros) -> ReservationWish + Send + 'static,
) -> Result<v1::CreateReservationResponse, Status> {
    let context = services.admission.context(&services.writer).await;
    let policy = Arc::clone(&context.map_err(|e| error::flow(&e))?.policy);
    let found = services.writer.read(move |world| {
        let now = crate::clock::now();
        let window = lifecycle::prepare_reservation(world, &policy, wish(now), now);
        window.map(|window| created(world, &window, now)).map_err(|e| refused(&e))
    });
    found.await.map_err(|e| error::flow(&e))?
}

fn created(world: &World, window: &Window, now: UnixMicros) -> v1::CreateReservationResponse {
    let staying: Vec<Staying> = staying(world, window, now);
    v1::CreateReservationResponse {
        reservation: show(window, staying.len()),
        staying: staying.iter().take(STAYING_MAX).map(show_staying).collect(),
    }
}

/// Lets one hold longer, once for each key.
pub(super) async fn extend(
    services: &Services,
    who: &Principal,
    request: v1::ExtendReservationRequest,
) -> Result<v1::ExtendReservationResponse, Status> {
    let name = name_of(&request.name)?;
    check_end(request.duration_s, request.until_us)?;
    let keyed = keyed(who, &request.idempotency_key, "ExtendReservation", &request, "")?;
    let by = who.subject.clone();
    let done = once(services, keyed, move |round| {
        let draft = &mut round.draft;
        let present = draft.world.windows.reservation(&name).map(|window| window.during.until);
        let until = match (request.until_us, present) {
            (0, Some(present)) => present.plus_seconds(request.duration_s),
            (until_us, _) => UnixMicros(until_us),
        };
        let window = lifecycle::extend_reservation(draft, &name, until, &by);
        let window = window.map_err(|e| refused(&e))?;
        let still = still(draft.world, &window, draft.now);
        Ok(v1::ExtendReservationResponse { reservation: show(&window, still) })
    });
    done.await
}

/// Takes one back, once for each key.
pub(super) async fn cancel(
    services: &Services,
    who: &Principal,
    request: v1::CancelReservationRequest,
) -> Result<v1::CancelReservationResponse, Status> {
    let name = name_of(&request.name)?;
    let keyed = keyed(who, &request.idempotency_key, "CancelReservation", &request, "")?;
    let by = who.subject.clone();
    let done = once(services, keyed, move |round| {
        let draft = &mut round.draft;
        let before = draft.world.windows.reservation(&name).and_then(|window| show(window, 0));
        lifecycle::cancel_reservation(draft, &name, &by).map_err(|e| refused(&e))?;
        Ok(v1::CancelReservationResponse { reservation: before })
    });
    done.await
}

/// What is planned or holds, or the one of a name.
pub(super) async fn list(
    services: &Services,
    request: v1::ListReservationsRequest,
) -> Result<v1::ListReservationsResponse, Status> {
    let name = match request.name.as_str() {
        "" => None,
        text => Some(name_of(text)?),
    };
    let found = services.writer.read(move |world| {
        let now = crate::clock::now();
        let windows = &world.windows;
        let found: Vec<&Arc<Window>> = match &name {
            Some(name) => match windows.reservation(name) {
                Some(window) => vec![window],
                None => return Err(refused(&ReservationRefusal::Unknown(name.clone()))),
            },
            None => {
                let ended = windows.ended().filter(|_| request.ended);
                windows.reservations().map(|(window, _)| window).chain(ended).collect()
            }
        };
        let shown = found.into_iter().filter_map(|window| show(window, still(world, window, now)));
        let mut shown: Vec<v1::Reservation> = shown.collect();
        shown.sort_by(|one, other| (one.from_us, &one.name).cmp(&(other.from_us, &other.name)));
        Ok(shown)
    });
    let reservations = found.await.map_err(|e| error::flow(&e))??;
    Ok(v1::ListReservationsResponse { reservations })
}

/// Attempts that may still be there at the beginning; of one that holds, those of others.
fn still(world: &World, window: &Window, now: UnixMicros) -> usize {
    let own = |staying: &Staying| {
        window.reserved.as_ref().is_some_and(|reserved| reserved.is_for(&staying.project))
    };
    let found = staying(world, window, now);
    match window.state {
        WindowState::Planned => found.len(),
        WindowState::Open => found.iter().filter(|staying| !own(staying)).count(),
        WindowState::Over | WindowState::Cancelled => 0,
    }
}

/// A reservation as the API's; `None` of maintenance.
fn show(window: &Window, staying: usize) -> Option<v1::Reservation> {
    let reserved = window.reserved.as_ref()?;
    let cancelled = reserved.cancelled.as_ref();
    Some(v1::Reservation {
        name: reserved.name.to_string(),
        state: state(window.state).into(),
        holders: reserved.holders.iter().map(ToString::to_string).collect(),
        nodes: window.nodes.iter().map(ToString::to_string).collect(),
        from_us: window.during.from.0,
        until_us: window.during.until.0,
        reason: window.reason.clone(),
        by: window.by.to_string(),
        created_us: window.made.0,
        staying: u32::try_from(staying).unwrap_or(u32::MAX),
        cancelled_by: cancelled.map(|it| it.by.to_string()).unwrap_or_default(),
        cancelled_us: cancelled.map_or(0, |it| it.at.0),
    })
}

/// The same for a listing of one of its nodes.
#[must_use]
pub(super) fn show_on(window: &Window, node: &NodeName) -> Option<v1::Reservation> {
    let shown = show(window, 0)?;
    Some(v1::Reservation { nodes: vec![node.to_string()], ..shown })
}

fn state(state: WindowState) -> v1::ReservationState {
    match state {
        WindowState::Planned => v1::ReservationState::Planned,
        WindowState::Open => v1::ReservationState::Holds,
        WindowState::Over => v1::ReservationState::Over,
        WindowState::Cancelled => v1::ReservationState::Cancelled,
    }
}

fn refused(refusal: &ReservationRefusal) -> Status {
    let (field, message) = (refusal.field(), refusal.to_string());
    match refusal {
        ReservationRefusal::Window(WindowRefusal::UnknownNode(node)) => {
            error::no_such_node(node.as_str())
        }
        ReservationRefusal::Unknown(_) => {
            error::status(Code::NotFound, "UNKNOWN_RESERVATION", message)
        }
        ReservationRefusal::TooMany | ReservationRefusal::Window(WindowRefusal::TooMany) => {
            error::status(Code::ResourceExhausted, "TOO_MANY_WINDOWS", message)
        }
        ReservationRefusal::NameTaken(..) | ReservationRefusal::NameInBook(_) => {
            error::status(Code::AlreadyExists, "RESERVATION_NAME_IN_USE", message)
        }
        ReservationRefusal::Clash(..)
        | ReservationRefusal::Choice(ChoiceRefusal::TooFew { .. }) => {
            error::status(Code::FailedPrecondition, "NODES_TAKEN", message)
        }
        ReservationRefusal::UnknownHolder(_) => error::invalid(field, "UNKNOWN_PROJECT", message),
        ReservationRefusal::Choice(ChoiceRefusal::Classes(_)) => {
            error::invalid(field, "MISSING", message)
        }
        ReservationRefusal::Window(_)
        | ReservationRefusal::Holders(_)
        | ReservationRefusal::NotLonger(_) => error::invalid(field, "OUT_OF_RANGE", message),
    }
}
