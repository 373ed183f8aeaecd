//! Nodes are reserved by command, for longer, or no more.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::draft::Draft;
use super::window::{WindowRefusal, check_nodes, check_time, tell_nodes, turn_windows};
use crate::amount::UnixMicros;
use crate::change::{Change, EventKind};
use crate::ids::{NodeName, ProjectPath, ReservationName, UserName};
use crate::policy::Policy;
use crate::quota::{Interval, show_moment};
use crate::reservation::{
    Busy, COMMANDED_MAX, ChoiceRefusal, Clash, HOLDERS_MAX, Reserved, Wanted, Withdrawn, choose,
};
use crate::window::{WINDOWS_MAX, Window, WindowId, WindowState};
use crate::world::World;

/// What somebody wants.
#[derive(Debug, Clone)]
pub struct ReservationWish {
    /// What it is to be called.
    pub name: ReservationName,
    /// Nodes of the quota tree that it is for.
    pub holders: BTreeSet<ProjectPath>,
    /// Which nodes.
    pub nodes: NodesWish,
    /// When; a beginning a moment ago is taken as now.
    pub during: Interval,
    /// Why.
    pub reason: String,
    /// Who wants it.
    pub by: UserName,
}

/// Which nodes are wanted.
#[derive(Debug, Clone)]
pub enum NodesWish {
    /// These.
    Named(BTreeSet<NodeName>),
    /// Some that serve.
    Chosen(Wanted),
}

/// Why nodes are not reserved, or a reservation not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReservationRefusal {
    /// The time or the nodes are none.
    #[error(transparent)]
    Window(#[from] WindowRefusal),
    /// No nodes were found.
    #[error(transparent)]
    Choice(#[from] ChoiceRefusal),
    /// Another one has the name.
    #[error("there is a reservation {0} until {until}; choose another name, or cancel that one", until = show_moment(*.1))]
    NameTaken(ReservationName, UnixMicros),
    /// One of the quota files has the name.
    #[error("the quota files have a reservation {0}; choose another name")]
    NameInBook(ReservationName),
    /// It is for nobody, or for too many.
    #[error("is for {0} projects; name 1 to {HOLDERS_MAX}")]
    Holders(usize),
    /// There is no such node of the quota tree.
    #[error("there is no project {0}; see `gotgan quota show`")]
    UnknownHolder(ProjectPath),
    /// A node has something else at that time.
    #[error("node {0} is {1}; choose other nodes or another time")]
    Clash(NodeName, Clash),
    /// There are too many.
    #[error(
        "{COMMANDED_MAX} reservations are planned or hold: cancel one, or reserve more nodes in one"
    )]
    TooMany,
    /// There is no such reservation.
    #[error("no reservation {0} is planned or holds; see `gotgan admin reservation list`")]
    Unknown(ReservationName),
    /// It would not be longer.
    #[error("is until {until} already; give a later end, or cancel it to end it", until = show_moment(*.0))]
    NotLonger(UnixMicros),
}

impl ReservationRefusal {
    /// The field of the request.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            ReservationRefusal::Window(refusal) => refusal.field(),
            ReservationRefusal::Choice(ChoiceRefusal::Classes(_)) => "gpu_class",
            ReservationRefusal::Choice(ChoiceRefusal::TooFew { .. }) => "count",
            ReservationRefusal::NameTaken(..)
            | ReservationRefusal::NameInBook(_)
            | ReservationRefusal::TooMany
            | ReservationRefusal::Unknown(_) => "name",
            ReservationRefusal::Holders(_) | ReservationRefusal::UnknownHolder(_) => "holders",
            ReservationRefusal::Clash(..) => "nodes",
            ReservationRefusal::NotLonger(_) => "until_us",
        }
    }
}

/// The reservation that the wish leads to, which is not made yet.
///
/// # Errors
/// [`ReservationRefusal`].
pub fn prepare_reservation(
    world: &World,
    policy: &Policy,
    wish: ReservationWish,
    now: UnixMicros,
) -> Result<Window, ReservationRefusal> {
    check_name(world, &wish.name)?;
    check_holders(world, &wish.holders)?;
    let during = check_time(now, policy, wish.during)?;
    let busy = Busy::of(world, during, &wish.holders, None);
    let nodes = match wish.nodes {
        NodesWish::Named(nodes) => {
            check_nodes(world, &nodes)?;
            check_free(&busy, &nodes)?;
            nodes
        }
        NodesWish::Chosen(wanted) => choose(world, &wanted, &busy, now)?,
    };
    if world.windows.reservations().count() >= COMMANDED_MAX {
        return Err(ReservationRefusal::TooMany);
    }
    if world.windows.len() >= WINDOWS_MAX {
        return Err(WindowRefusal::TooMany.into());
    }
    Ok(Window {
        id: WindowId(world.sequences.next_window),
        nodes,
        during,
        stop_running: false,
        reserved: Some(Reserved { name: wish.name, holders: wish.holders, cancelled: None }),
        reason: wish.reason,
        for_repair: false,
        by: wish.by,
        made: now,
        state: WindowState::Planned,
    })
}

fn check_name(world: &World, name: &ReservationName) -> Result<(), ReservationRefusal> {
    if world.quota.reservations.contains_key(name) {
        return Err(ReservationRefusal::NameInBook(name.clone()));
    }
    match world.windows.reservation(name).filter(|window| window.state.counts()) {
        Some(other) => Err(ReservationRefusal::NameTaken(name.clone(), other.during.until)),
        None => Ok(()),
    }
}

fn check_holders(world: &World, holders: &BTreeSet<ProjectPath>) -> Result<(), ReservationRefusal> {
    if !(1..=HOLDERS_MAX).contains(&holders.len()) {
        return Err(ReservationRefusal::Holders(holders.len()));
    }
    let unknown = holders.iter().find(|path| !world.quota.nodes.contains_key(*path));
    unknown.map_or(Ok(()), |path| Err(ReservationRefusal::UnknownHolder(path.clone())))
}

fn check_free(busy: &Busy<'_>, nodes: &BTreeSet<NodeName>) -> Result<(), ReservationRefusal> {
    let clash = nodes.iter().find_map(|name| Some((name, busy.on(name)?)));
    clash.map_or(Ok(()), |(name, clash)| Err(ReservationRefusal::Clash(name.clone(), clash)))
}

/// Reserves nodes; from now on nothing of others starts on them that would run into it.
///
/// # Errors
/// [`ReservationRefusal`]; then nothing is changed.
pub fn reserve(
    draft: &mut Draft<'_>,
    wish: ReservationWish,
) -> Result<Arc<Window>, ReservationRefusal> {
    let window = prepare_reservation(draft.world, draft.policy, wish, draft.now)?;
    let window = Arc::new(window);
    draft.push(Change::WindowMoved(Arc::clone(&window)));
    let from = show_moment(window.during.from);
    let text = format!("{}, from {from}: {} (by {})", held(&window), window.reason, window.by);
    tell_nodes(draft, &window, EventKind::ReservationPlanned, text.trim());
    turn_windows(draft);
    Ok(draft.world.windows.get(window.id).cloned().unwrap_or(window))
}

/// For whom the nodes of a reservation are, and until when, in words.
pub(super) fn held(window: &Window) -> String {
    let until = show_moment(window.during.until);
    match &window.reserved {
        Some(reserved) => {
            let holders = reserved.holders_text();
            format!("reserved by {} for {holders} until {until}", reserved.name)
        }
        None => window.describe(),
    }
}

/// Takes a reservation back; one that holds ends.
///
/// # Errors
/// [`ReservationRefusal::Unknown`] if none of that name is planned or holds.
pub fn cancel_reservation(
    draft: &mut Draft<'_>,
    name: &ReservationName,
    by: &UserName,
) -> Result<Arc<Window>, ReservationRefusal> {
    let (window, reserved) = find(draft.world, name)?;
    let cancelled = Some(Withdrawn { at: draft.now, by: by.clone() });
    let reserved = Some(Reserved { cancelled, ..reserved });
    let state = WindowState::Cancelled;
    let window = Arc::new(Window { state, reserved, ..Window::clone(&window) });
    draft.push(Change::WindowMoved(Arc::clone(&window)));
    let text = format!("reservation {name} cancelled by {by}");
    tell_nodes(draft, &window, EventKind::ReservationCancelled, &text);
    Ok(window)
}

/// Lets a reservation hold until a later moment.
///
/// # Errors
/// [`ReservationRefusal`]; then nothing is changed.
pub fn extend_reservation(
    draft: &mut Draft<'_>,
    name: &ReservationName,
    until: UnixMicros,
    by: &UserName,
) -> Result<Arc<Window>, ReservationRefusal> {
    let (window, reserved) = find(draft.world, name)?;
    if until <= window.during.until {
        return Err(ReservationRefusal::NotLonger(window.during.until));
    }
    let during = Interval { until, ..window.during };
    // Its beginning may be long ago; only the length is bounded then.
    let checked = Interval { from: during.from.max(draft.now), until };
    check_time(draft.now, draft.policy, checked)?;
    let added = Interval { from: window.during.until, until };
    let busy = Busy::of(draft.world, added, &reserved.holders, Some(window.id));
    check_free(&busy, &window.nodes)?;
    let window = Arc::new(Window { during, ..Window::clone(&window) });
    draft.push(Change::WindowMoved(Arc::clone(&window)));
    let text = format!("{}, extended by {by}", held(&window));
    tell_nodes(draft, &window, EventKind::ReservationExtended, &text);
    Ok(window)
}

fn find(
    world: &World,
    name: &ReservationName,
) -> Result<(Arc<Window>, Reserved), ReservationRefusal> {
    let unknown = || ReservationRefusal::Unknown(name.clone());
    let window = world.windows.reservation(name).filter(|window| window.state.counts());
    let window = window.cloned().ok_or_else(unknown)?;
    let reserved = window.reserved.clone().ok_or_else(unknown)?;
    Ok((window, reserved))
}
