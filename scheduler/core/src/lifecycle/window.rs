//! Maintenance of nodes is planned, begins, ends and is taken back; reservations by command begin and end.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::draft::Draft;
use super::end::order_stop;
use super::health::keep_deadline;
use super::reservation::held;
use crate::amount::UnixMicros;
use crate::attempt::{Cause, Stop};
use crate::change::{Change, EventKind};
use crate::derate::{self, DerateRefusal, Derating};
use crate::ids::{AttemptId, NodeName, UserName};
use crate::policy::Policy;
use crate::quota::{Interval, duration, show_moment};
use crate::window::{
    WINDOW_AHEAD_MAX_S, WINDOW_LATE_MAX_S, WINDOW_NODES_MAX, WINDOWS_MAX, Window, WindowId,
    WindowState, attempts_on,
};
use crate::world::World;

/// What somebody wants.
#[derive(Debug, Clone)]
pub struct MaintenanceWish {
    /// Of which nodes.
    pub nodes: BTreeSet<NodeName>,
    /// When; a beginning a moment ago is taken as now.
    pub during: Interval,
    /// Whether what still runs at its beginning is stopped.
    pub stop_running: bool,
    /// Why.
    pub reason: String,
    /// Who wants it.
    pub by: UserName,
}

/// Why maintenance is not planned, or not taken back; each says in which field of the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowRefusal {
    /// No node is meant.
    #[error("no node is like that; see `gotgan nodes`")]
    NoNodes,
    /// There is no such node.
    #[error("there is no node {0}; see `gotgan nodes`")]
    UnknownNode(NodeName),
    /// It would be of too many.
    #[error("{0} nodes; one window may have {WINDOW_NODES_MAX}")]
    TooManyNodes(usize),
    /// It would have begun before now.
    #[error("would begin at {}, which is in the past", show_moment(*.0))]
    Past(UnixMicros),
    /// It is too far away.
    #[error("would begin at {}, which is more than a year ahead", show_moment(*.0))]
    TooFar(UnixMicros),
    /// It is too long, or has no length.
    #[error("takes 1s to {}", duration::show(*.0))]
    Length(i64),
    /// There are too many.
    #[error("{WINDOWS_MAX} windows are planned or open: cancel one, or name more nodes in one")]
    TooMany,
    /// The power cannot be brought down so far.
    #[error(transparent)]
    Power(#[from] DerateRefusal),
    /// There is no such window.
    #[error("no window {0} is planned or open; see `gotgan node maintenance --list`")]
    Unknown(WindowId),
}

impl WindowRefusal {
    /// The field of the request.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            WindowRefusal::Power(DerateRefusal::TooLow { .. }) => "to_percent",
            WindowRefusal::Power(DerateRefusal::NoGpus)
            | WindowRefusal::NoNodes
            | WindowRefusal::UnknownNode(_)
            | WindowRefusal::TooManyNodes(_) => "nodes",
            WindowRefusal::Past(_) | WindowRefusal::TooFar(_) => "from_us",
            WindowRefusal::Length(_) => "duration_s",
            WindowRefusal::TooMany | WindowRefusal::Unknown(_) => "id",
        }
    }
}

/// Plans maintenance; from now on nothing starts on its nodes that would run into it.
///
/// # Errors
/// [`WindowRefusal`]; then nothing is changed.
pub fn plan_maintenance(
    draft: &mut Draft<'_>,
    wish: MaintenanceWish,
) -> Result<Arc<Window>, WindowRefusal> {
    check_nodes(draft.world, &wish.nodes)?;
    let during = check_time(draft.now, draft.policy, wish.during)?;
    if draft.world.windows.len() >= WINDOWS_MAX {
        return Err(WindowRefusal::TooMany);
    }
    let window = put(draft, MaintenanceWish { during, ..wish }, false);
    turn_windows(draft);
    Ok(window)
}

fn put(draft: &mut Draft<'_>, wish: MaintenanceWish, for_repair: bool) -> Arc<Window> {
    let window = Arc::new(Window {
        id: WindowId(draft.world.sequences.next_window),
        nodes: wish.nodes,
        during: wish.during,
        stop_running: wish.stop_running,
        reserved: None,
        reason: wish.reason,
        for_repair,
        by: wish.by,
        made: draft.now,
        state: WindowState::Planned,
    });
    draft.push(Change::WindowMoved(Arc::clone(&window)));
    let [from, until] = [window.during.from, window.during.until].map(show_moment);
    let (by, reason) = (&window.by, &window.reason);
    let text = format!("in maintenance from {from} until {until}, planned by {by}: {reason}");
    tell_nodes(draft, &window, EventKind::MaintenancePlanned, &text);
    window
}

/// Plans maintenance so that hardware can be reset; it opens with the next turn of windows.
pub(super) fn put_repair(
    draft: &mut Draft<'_>,
    nodes: BTreeSet<NodeName>,
    during: Interval,
    reason: String,
) {
    let by = UserName::scheduler();
    put(draft, MaintenanceWish { nodes, during, stop_running: false, reason, by }, true);
}

/// Takes maintenance for a repair back, since that is done.
pub(super) fn cancel_repair(draft: &mut Draft<'_>, window: &Window) {
    cancel(draft, window, &UserName::scheduler());
}

/// Less power for a part of the machine, from now on for a time.
#[derive(Debug, Clone)]
pub struct DerateWish {
    /// The part.
    pub nodes: BTreeSet<NodeName>,
    /// To how much of what it may draw, percent.
    pub to_percent: u32,
    /// For how long, seconds.
    pub duration_s: i64,
    /// Why.
    pub reason: String,
    /// Who wants it.
    pub by: UserName,
}

/// Brings the power of a part of the machine down: nodes stand idle as for maintenance, and what runs there stops now, each
/// with its grace, for the site.
///
/// # Errors
/// [`WindowRefusal`]; then nothing is changed.
pub fn derate(
    draft: &mut Draft<'_>,
    wish: DerateWish,
) -> Result<(Derating, Arc<Window>), WindowRefusal> {
    check_nodes(draft.world, &wish.nodes)?;
    let power = &draft.policy.power;
    let choice = derate::choose(draft.world, &wish.nodes, wish.to_percent, power, draft.now)?;
    let during = Interval { from: draft.now, until: draft.now.plus_seconds(wish.duration_s) };
    let reason = format!("power at {} %: {}", wish.to_percent, wish.reason);
    let nodes = choice.idle.clone();
    let maintenance = MaintenanceWish { nodes, during, stop_running: true, reason, by: wish.by };
    let window = plan_maintenance(draft, maintenance)?;
    Ok((choice, window))
}

/// Whether there are such nodes.
pub(super) fn check_nodes(world: &World, nodes: &BTreeSet<NodeName>) -> Result<(), WindowRefusal> {
    let unknown = nodes.iter().find(|name| !world.nodes.contains_key(*name));
    match (unknown, nodes.len()) {
        (Some(name), _) => Err(WindowRefusal::UnknownNode(name.clone())),
        (None, 0) => Err(WindowRefusal::NoNodes),
        (None, count) if count > WINDOW_NODES_MAX => Err(WindowRefusal::TooManyNodes(count)),
        (None, _) => Ok(()),
    }
}

/// The span as it is stored.
pub(super) fn check_time(
    now: UnixMicros,
    policy: &Policy,
    during: Interval,
) -> Result<Interval, WindowRefusal> {
    let longest_s = policy.max_window_s;
    let length_us = during.until.0.saturating_sub(during.from.0);
    if !(1_000_000..=longest_s.saturating_mul(1_000_000)).contains(&length_us) {
        return Err(WindowRefusal::Length(longest_s));
    }
    if during.from < now.plus_seconds(-WINDOW_LATE_MAX_S) || during.until <= now {
        return Err(WindowRefusal::Past(during.from));
    }
    if during.from > now.plus_seconds(WINDOW_AHEAD_MAX_S) {
        return Err(WindowRefusal::TooFar(during.from));
    }
    Ok(Interval { from: during.from.max(now), ..during })
}

/// Takes maintenance back; one that is open ends.
///
/// # Errors
/// [`WindowRefusal::Unknown`] if none of that number is planned or open.
pub fn cancel_maintenance(
    draft: &mut Draft<'_>,
    id: WindowId,
    by: &UserName,
) -> Result<Arc<Window>, WindowRefusal> {
    let window = draft.world.windows.get(id).filter(|window| window.is_maintenance());
    let window = Arc::clone(window.ok_or(WindowRefusal::Unknown(id))?);
    Ok(cancel(draft, &window, by))
}

fn cancel(draft: &mut Draft<'_>, window: &Window, by: &UserName) -> Arc<Window> {
    let state = WindowState::Cancelled;
    let window = Arc::new(Window { state, ..Window::clone(window) });
    draft.push(Change::WindowMoved(Arc::clone(&window)));
    let text = format!("maintenance cancelled by {by}: {}", window.reason);
    tell_nodes(draft, &window, EventKind::MaintenanceCancelled, &text);
    window
}

/// Opens windows whose moment has come, and ends those whose end has.
pub fn turn_windows(draft: &mut Draft<'_>) {
    for window in draft.world.windows.due_by(draft.now) {
        let before = window.state;
        let state = before.at(draft.now, window.during);
        let window = Arc::new(Window { state, ..Window::clone(&window) });
        draft.push(Change::WindowMoved(Arc::clone(&window)));
        match (before, state) {
            (WindowState::Planned, WindowState::Open) => open(draft, &window),
            (WindowState::Open, WindowState::Over) => {
                tell_end(draft, &window, "takes work again: the maintenance is over", "");
            }
            // It passed while no scheduler led.
            (WindowState::Planned, WindowState::Over) => {
                let meanwhile = "; no scheduler was there meanwhile";
                let text = format!("the maintenance is over{meanwhile}");
                tell_end(draft, &window, &text, meanwhile);
            }
            (
                WindowState::Planned
                | WindowState::Open
                | WindowState::Over
                | WindowState::Cancelled,
                _,
            ) => {}
        }
        // What it was for may not be done.
        if window.for_repair && state == WindowState::Over {
            window.nodes.iter().for_each(|node| keep_deadline(draft, node));
        }
    }
}

fn tell_end(draft: &mut Draft<'_>, window: &Window, maintenance: &str, more: &str) {
    match &window.reserved {
        None => tell_nodes(draft, window, EventKind::MaintenanceEnded, maintenance),
        Some(reserved) => {
            let text = format!("reservation {} is over{more}", reserved.name);
            tell_nodes(draft, window, EventKind::ReservationEnded, &text);
        }
    }
}

fn open(draft: &mut Draft<'_>, window: &Window) {
    if window.reserved.is_some() {
        return tell_nodes(draft, window, EventKind::ReservationBegan, &held(window));
    }
    tell_nodes(draft, window, EventKind::MaintenanceBegan, &window.describe());
    if window.stop_running {
        let there = attempts_on(draft.world, window);
        there.into_iter().for_each(|attempt| stop(draft, attempt, window));
    }
}

/// Stopped for the site: what it held is given back, and it is tried again unless its job says not to be.
fn stop(draft: &mut Draft<'_>, id: AttemptId, window: &Window) {
    let Some(job) = draft.world.jobs.get(&id.job) else { return };
    let reason = format!("stopped for maintenance by {}: {}", window.by, window.reason);
    let stop = Stop { cause: Cause::Site, reason, exit: None, grace_s: job.spec.grace_s };
    order_stop(draft, id, stop);
}

/// An event of each of its nodes.
pub(super) fn tell_nodes(draft: &mut Draft<'_>, window: &Window, kind: EventKind, text: &str) {
    for node in &window.nodes {
        draft.tell_node(node, kind, text);
    }
}
