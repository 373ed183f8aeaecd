//! Hardware comes back: when what took it out is over, when something was done about it, or when a person says so. It
//! takes work again only after it has been well for a while.

use super::super::draft::Draft;
use super::sign::{self, Sign};
use super::take_out::stand;
use super::{blame, change, name_of, put};
use crate::change::{Change, EventKind};
use crate::health::{Breaker, Condition, NodeHealth, Repair, Signal, Standing, State, breaker};
use crate::ids::{GpuUuid, NodeName, UserName};
use crate::node::Liveness;
use crate::world::World;

/// A GPU of a node, or the node as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which node.
    pub node: NodeName,
    /// Which GPU; `None`: the node.
    pub gpu: Option<GpuUuid>,
}

/// Why hardware cannot be brought back by hand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HealthRefusal {
    /// There is no such node.
    #[error("there is no node {0}; see `gotgan nodes`")]
    UnknownNode(NodeName),
    /// There is no such GPU on it.
    #[error("node {0} has no GPU {1}; see `gotgan node {0}`")]
    UnknownGpu(NodeName, String),
    /// There is no such breaker, or it holds.
    #[error("no breaker of {0:?} is broken; `gotgan cluster` shows those that are")]
    NotBroken(String),
}

/// How a repair by the site's own program went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repaired {
    /// It was done.
    Done,
    /// It was not, and why.
    Failed(String),
}

/// Something that lasted on a GPU is over.
pub(super) fn is_over(draft: &mut Draft<'_>, node: &NodeName, gpu: &GpuUuid, condition: Condition) {
    let signal = Signal::Condition(condition);
    let mut is_sound = false;
    for place in [Some(gpu), None] {
        let Some(standing) = standing(draft, node, place) else { continue };
        let known = draft.world.nodes.get(node);
        let elsewhere = place.is_none() && known.is_some_and(|node| node.health.has(condition));
        if standing.signal != Some(signal) || elsewhere {
            continue;
        }
        match standing.state {
            State::Suspect { .. } => {
                sound(draft, node, place, "it is over");
                is_sound |= place.is_some();
            }
            State::Out { .. } if place.is_some() && stays_out(draft, node, gpu) => {}
            State::Out { .. } => begin_verifying(draft, node, place, "it is over"),
            State::Ok | State::Verifying => {}
        }
    }
    if is_sound {
        again(draft, node, gpu);
    }
}

/// Whether something else that lasts keeps the GPU out: it is out for that from now on.
fn stays_out(draft: &mut Draft<'_>, node: &NodeName, gpu: &GpuUuid) -> bool {
    let Some((condition, response)) = sign::worst(draft, node, gpu) else { return false };
    let Some(repair) = response.takes_out() else { return false };
    let reason = format!("{}: {}", name_of(draft, node, Some(gpu)), condition.text());
    stand(draft, &Sign::lasting(node, gpu, condition), State::Out { repair }, &reason);
    true
}

/// What else lasts on the GPU, and was told when it began, calls for what it calls for.
fn again(draft: &mut Draft<'_>, node: &NodeName, gpu: &GpuUuid) {
    let Some(known) = draft.world.nodes.get(node) else { return };
    if !known.health.gpu(gpu).takes_work() {
        return;
    }
    let conditions = known.health.gpus.get(gpu).map(|gpu| gpu.conditions.clone());
    for condition in conditions.unwrap_or_default().into_keys() {
        let sign = Sign::lasting(node, gpu, condition);
        let (response, reason) = sign::judge(draft, &sign);
        sign::respond(draft, &sign, response, &reason);
    }
}

pub(super) fn standing(
    draft: &Draft<'_>,
    node: &NodeName,
    gpu: Option<&GpuUuid>,
) -> Option<Standing> {
    draft.world.nodes.get(node)?.health.standing(gpu).cloned()
}

fn state(draft: &Draft<'_>, node: &NodeName, gpu: Option<&GpuUuid>) -> State {
    draft.world.nodes.get(node).map_or(State::Ok, |node| node.health.state(gpu))
}

/// The node and its GPUs about which there is something to say.
fn places(draft: &Draft<'_>, node: &NodeName) -> Vec<Option<GpuUuid>> {
    let known = draft.world.nodes.get(node).into_iter();
    known.flat_map(|node| node.health.places()).map(Option::<&GpuUuid>::cloned).collect()
}

/// The node was rebooted: whatever a reset or a reboot was to do is done.
pub(super) fn rebooted(draft: &mut Draft<'_>, node: &NodeName) {
    for place in places(draft, node) {
        let state = state(draft, node, place.as_ref());
        match state {
            State::Out { repair: Repair::Reset | Repair::Reboot } => {
                begin_verifying(draft, node, place.as_ref(), "the node was rebooted");
            }
            State::Suspect { repair: Some(_), .. } => {
                sound(draft, node, place.as_ref(), "the node was rebooted");
            }
            State::Ok | State::Suspect { .. } | State::Out { .. } | State::Verifying => {}
        }
    }
}

/// GPUs that had been missing are there again.
pub(super) fn all_there(draft: &mut Draft<'_>, node: &NodeName) {
    let standing = standing(draft, node, None).unwrap_or_default();
    if standing.signal == Some(Signal::MissingGpus) && standing.is_out() {
        begin_verifying(draft, node, None, "all GPUs are there again");
    }
}

fn begin_verifying(draft: &mut Draft<'_>, node: &NodeName, gpu: Option<&GpuUuid>, why: &str) {
    let Some(before) = standing(draft, node, gpu) else { return };
    let (state, since) = (State::Verifying, draft.now);
    put(draft, node, gpu, Standing { state, since, ..before });
    let name = name_of(draft, node, gpu);
    draft.tell_node(node, EventKind::HardwareVerifying, format!("{name} is verified: {why}"));
}

fn sound(draft: &mut Draft<'_>, node: &NodeName, gpu: Option<&GpuUuid>, why: &str) {
    let since = draft.now;
    put(draft, node, gpu, Standing { since, ..Standing::default() });
    let name = name_of(draft, node, gpu);
    draft.tell_node(node, EventKind::HardwareOk, format!("{name} is sound: {why}"));
}

/// Brings back what has been well for long enough, and takes out again what has not.
pub fn settle_verified(draft: &mut Draft<'_>) {
    let verify_s = draft.policy.health.verify_s;
    let ready = |liveness| liveness == Liveness::Ready;
    let due: Vec<(NodeName, Option<GpuUuid>)> = draft
        .world
        .nodes
        .iter()
        .filter(|(_, node)| ready(node.liveness) && node.health.is_verifying())
        .flat_map(|(name, _)| places(draft, name).into_iter().map(|place| (name.clone(), place)))
        .filter(|(name, place)| {
            let standing = standing(draft, name, place.as_ref()).unwrap_or_default();
            let for_ms = draft.now.millis_since(standing.since);
            standing.state == State::Verifying
                && for_ms >= verify_s.saturating_mul(1000)
                && !(standing.is_unchecked() && is_to_be_checked(draft, name))
        })
        .collect();
    for (node, place) in due {
        let lasts = place.as_ref().and_then(|gpu| Some((gpu, sign::worst(draft, &node, gpu)?)));
        match lasts {
            Some((gpu, (condition, response))) => {
                let sign = Sign::lasting(&node, gpu, condition);
                let name = name_of(draft, &node, Some(gpu));
                let reason = format!("{name}: {} still", condition.text());
                sign::respond(draft, &sign, response, &reason);
            }
            None => sound(draft, &node, place.as_ref(), &format!("well for {verify_s} s")),
        }
    }
}

/// Whether a node's hardware comes back only after the site's own check.
fn is_to_be_checked(draft: &Draft<'_>, node: &NodeName) -> bool {
    draft.world.nodes.get(node).is_some_and(|node| node.registered.checks_hardware)
}

/// A person says that hardware may come back: what is out is verified, what is watched is sound. Returns whether that
/// changed anything.
///
/// # Errors
/// [`HealthRefusal`].
pub fn verify(draft: &mut Draft<'_>, place: &Place, by: &UserName) -> Result<bool, HealthRefusal> {
    let Place { node, gpu } = place;
    let known = draft.world.nodes.get(node);
    let known = known.ok_or_else(|| HealthRefusal::UnknownNode(node.clone()))?;
    if let Some(gpu) = gpu.as_ref().filter(|gpu| !super::has(&known.registered, gpu)) {
        return Err(HealthRefusal::UnknownGpu(node.clone(), gpu.to_string()));
    }
    let places = match gpu {
        Some(gpu) => vec![Some(gpu.clone())],
        None => places(draft, node),
    };
    let mut changed = false;
    for place in places {
        let state = state(draft, node, place.as_ref());
        let why = format!("by {by}");
        match state {
            State::Out { .. } => begin_verifying(draft, node, place.as_ref(), &why),
            State::Suspect { .. } => sound(draft, node, place.as_ref(), &why),
            State::Ok | State::Verifying => continue,
        }
        changed = true;
    }
    change(draft, node, |health| {
        if gpu.is_none() {
            health.missing.clear();
            health.marks.clear();
        }
        let of = |uuid: &GpuUuid| gpu.as_ref().is_none_or(|gpu| gpu == uuid);
        let gpus = health.gpus.iter_mut().filter(|(uuid, _)| of(uuid));
        gpus.for_each(|(_, gpu)| gpu.complaints.clear());
    });
    Ok(changed)
}

/// Hardware on which nothing runs and that waits for what a program can do: a GPU for a reset, a node for that or a
/// reboot.
#[must_use]
pub fn due_repairs(world: &World) -> Vec<Place> {
    let waits = world.nodes.iter().filter(|(_, node)| *node.health != NodeHealth::default());
    let places = waits.flat_map(|(name, node)| {
        node.health.places().map(|gpu| Place { node: name.clone(), gpu: gpu.cloned() })
    });
    places.filter(|place| due_repair(world, place).is_some()).collect()
}

/// What is to be done about hardware by a program; `None` if nothing, or if something runs on it.
fn due_repair(world: &World, place: &Place) -> Option<Repair> {
    let known = world.nodes.get(&place.node)?;
    let repair = match known.health.state(place.gpu.as_ref()) {
        State::Out { repair } => repair,
        State::Suspect { repair: Some(repair), held_back: false } => repair,
        State::Ok | State::Suspect { .. } | State::Verifying => return None,
    };
    let by_program = match repair {
        Repair::Reset => true,
        // The node is rebooted, not one of its GPUs.
        Repair::Reboot => place.gpu.is_none(),
        Repair::Service => false,
    };
    let idle = blame::attempts_on(world, known, place.gpu.as_ref()).is_empty();
    (by_program && idle).then_some(repair)
}

/// The site's own program begins a repair: a GPU that was only watched takes no work from now on. Returns what is to be
/// done; `None` if there is nothing to do, or something runs there.
pub fn begin_repair(draft: &mut Draft<'_>, place: &Place) -> Option<Repair> {
    let repair = due_repair(draft.world, place)?;
    let Place { node, gpu } = place;
    let standing = standing(draft, node, gpu.as_ref())?;
    match standing.state {
        State::Ok | State::Out { .. } | State::Verifying => Some(repair),
        State::Suspect { .. } => {
            let text = format!("out for {}: idle, {}", repair.word(), standing.reason);
            let (state, since) = (State::Out { repair }, draft.now);
            put(draft, node, gpu.as_ref(), Standing { state, since, ..standing });
            draft.tell_node(node, EventKind::HardwareOut, text);
            Some(repair)
        }
    }
}

/// The site's own program has repaired something, or has not.
pub fn repaired(draft: &mut Draft<'_>, place: &Place, outcome: &Repaired) {
    let Place { node, gpu } = place;
    let standing = standing(draft, node, gpu.as_ref()).unwrap_or_default();
    if !standing.is_out() {
        return;
    }
    match outcome {
        Repaired::Done => {
            begin_verifying(draft, node, gpu.as_ref(), "it was repaired");
            if gpu.is_none() {
                rebooted(draft, node);
            }
        }
        Repaired::Failed(why) => {
            let reason = format!("{}; the repair failed: {why}", standing.reason);
            needs_a_person(draft, node, gpu.as_ref(), Standing { reason, ..standing });
        }
    }
}

/// Hardware is out, or stays out, until a person has looked at it; why is said by the `standing`.
pub(super) fn needs_a_person(
    draft: &mut Draft<'_>,
    node: &NodeName,
    gpu: Option<&GpuUuid>,
    standing: Standing,
) {
    let told = format!("out for service: {}", standing.reason);
    let (state, since) = (State::Out { repair: Repair::Service }, draft.now);
    put(draft, node, gpu, Standing { state, since, ..standing });
    draft.tell_node(node, EventKind::HardwareOut, told);
}

/// A person resets the breaker of a hall. What it held back is judged anew by what still lasts.
///
/// # Errors
/// [`HealthRefusal::NotBroken`].
pub fn reset_breaker(
    draft: &mut Draft<'_>,
    scope: &str,
    by: &UserName,
) -> Result<(), HealthRefusal> {
    let broken = draft.world.breakers.get(scope).filter(|breaker| breaker.broken.is_some());
    let broken = broken.ok_or_else(|| HealthRefusal::NotBroken(scope.to_owned()))?;
    let reset = Breaker { broken: None, ..Breaker::clone(broken) };
    draft.push(Change::BreakerMoved(reset.into()));
    let nodes = breaker::nodes_of(draft.world, scope);
    let nodes: Vec<NodeName> = nodes.map(|(name, _)| name.clone()).collect();
    if let Some(first) = nodes.first() {
        let text = format!("the breaker of {scope} was reset by {by}");
        draft.tell_node(first, EventKind::BreakerReset, text);
    }
    for node in nodes {
        release_held_back(draft, &node);
    }
    Ok(())
}

fn release_held_back(draft: &mut Draft<'_>, node: &NodeName) {
    for place in places(draft, node) {
        let state = state(draft, node, place.as_ref());
        if matches!(state, State::Suspect { held_back: true, .. }) {
            sound(draft, node, place.as_ref(), "the breaker was reset");
            if let Some(gpu) = &place {
                again(draft, node, gpu);
            }
        }
    }
}
