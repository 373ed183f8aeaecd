//! GPUs are cut anew by plan: from the command on the GPU takes no new work; once nothing is on it, its worker is told to cut
//! it, and once that registers it as it was to be, it takes work again. What went wrong stays with the plan until somebody
//! repeats the command or asks for something else.

use super::draft::Draft;
use super::health::{change, name_of, nothing_is_on};
use crate::change::EventKind;
use crate::ids::{GpuUuid, NodeName, UserName};
use crate::mig::{CutPlan, Mig, MigProfile};
use crate::node::Gpu;
use crate::world::World;

/// Most instances that a GPU can be cut into: more than any has slices.
pub const INSTANCES_MAX: usize = 16;

/// What a GPU is to be cut into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutRequest {
    /// Which node.
    pub node: NodeName,
    /// Which of its GPUs.
    pub gpu: GpuUuid,
    /// Profiles of the instances; `None`: it is to be whole.
    pub profiles: Option<Vec<MigProfile>>,
}

/// Why a GPU cannot be cut by command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CutRefusal {
    /// There is no such node.
    #[error("there is no node {0}; see `gotgan nodes`")]
    UnknownNode(NodeName),
    /// There is no such GPU on it.
    #[error("node {0} has no GPU {1}; see `gotgan node {0}`")]
    UnknownGpu(NodeName, GpuUuid),
    /// No instance, or too many.
    #[error(
        "name 1 to {INSTANCES_MAX} profiles, as in 3g.40gb,2g.20gb,2g.20gb, or ask for the whole GPU"
    )]
    Instances,
    /// Only whole GPU instances are made.
    #[error(
        "{0} is a part of a GPU instance; instances are made with all compute slices of theirs, as in 3g.40gb"
    )]
    PartOfInstance(MigProfile),
}

/// Plans that a GPU is cut anew. Returns whether that changed anything: not if it is so already, or planned.
///
/// # Errors
/// [`CutRefusal`].
pub fn cut_gpu(
    draft: &mut Draft<'_>,
    request: &CutRequest,
    by: &UserName,
) -> Result<bool, CutRefusal> {
    let CutRequest { node, gpu, profiles } = request;
    let known = draft.world.nodes.get(node);
    let known = known.ok_or_else(|| CutRefusal::UnknownNode(node.clone()))?;
    let card = known.registered.gpus.iter().find(|own| own.uuid == *gpu);
    let card = card.ok_or_else(|| CutRefusal::UnknownGpu(node.clone(), gpu.clone()))?;
    judge(profiles.as_deref())?;
    let planned = known.health.cuts.get(gpu);
    if is_cut_into(card, profiles.as_deref()) {
        return Ok(planned.is_some() && take_back(draft, node, gpu, by));
    }
    if planned.is_some_and(|plan| plan.failed.is_none() && same(&plan.profiles, profiles)) {
        return Ok(false);
    }
    let plan =
        CutPlan { profiles: profiles.clone(), by: by.clone(), since: draft.now, failed: None };
    let text = format!("{} is to be {} (by {by})", name_of(draft, node, Some(gpu)), plan.words());
    change(draft, node, |health| _ = health.cuts.insert(gpu.clone(), plan));
    draft.tell_node(node, EventKind::GpuCutPlanned, text);
    Ok(true)
}

fn judge(profiles: Option<&[MigProfile]>) -> Result<(), CutRefusal> {
    let Some(profiles) = profiles else { return Ok(()) };
    if profiles.is_empty() || profiles.len() > INSTANCES_MAX {
        return Err(CutRefusal::Instances);
    }
    let part = profiles.iter().find(|profile| profile.is_part_of_instance());
    part.map_or(Ok(()), |profile| Err(CutRefusal::PartOfInstance(*profile)))
}

/// It is as it is to be, so nothing is planned for it any more.
fn take_back(draft: &mut Draft<'_>, node: &NodeName, gpu: &GpuUuid, by: &UserName) -> bool {
    let name = name_of(draft, node, Some(gpu));
    change(draft, node, |health| _ = health.cuts.remove(gpu));
    draft.tell_node(node, EventKind::GpuCutDone, format!("{name} stays as it is (by {by})"));
    true
}

/// A worker registered: what is as it was to be takes work again.
pub(super) fn registered(draft: &mut Draft<'_>, node: &NodeName) {
    let Some(known) = draft.world.nodes.get(node) else { return };
    let is_done = |gpu: &&Gpu| {
        let plan = known.health.cuts.get(&gpu.uuid);
        plan.is_some_and(|plan| is_cut_into(gpu, plan.profiles.as_deref()))
    };
    let done: Vec<Gpu> = known.registered.gpus.iter().filter(is_done).cloned().collect();
    for gpu in done {
        let text = match &gpu.mig {
            Mig::Off | Mig::Instance(_) => format!("GPU {} is whole", gpu.index),
            Mig::Cut(cut) => format!("GPU {} is cut: {}", gpu.index, cut.words()),
        };
        change(draft, node, |health| _ = health.cuts.remove(&gpu.uuid));
        draft.tell_node(node, EventKind::GpuCutDone, text);
    }
}

/// A worker could not do what was planned at that moment. Another plan, or one that has failed before, is left alone.
pub fn cut_failed(draft: &mut Draft<'_>, node: &NodeName, gpu: &GpuUuid, planned: i64, why: &str) {
    let known = draft.world.nodes.get(node);
    let plan = known.and_then(|known| known.health.cuts.get(gpu));
    let Some(plan) = plan.filter(|plan| plan.since.0 == planned && plan.failed.is_none()) else {
        return;
    };
    let failed = CutPlan { failed: Some(why.to_owned()), ..plan.clone() };
    let text = format!(
        "{} could not be {}: {why}; it stays out until the command is repeated",
        name_of(draft, node, Some(gpu)),
        plan.words()
    );
    change(draft, node, |health| _ = health.cuts.insert(gpu.clone(), failed));
    draft.tell_node(node, EventKind::GpuCutFailed, text);
}

/// What a node's worker must be told to cut now: GPUs with a plan that nothing is on.
#[must_use]
pub fn cuts_due(world: &World, node: &NodeName) -> Vec<(GpuUuid, CutPlan)> {
    let Some(known) = world.nodes.get(node).filter(|known| !known.health.cuts.is_empty()) else {
        return Vec::new();
    };
    let plans = known.health.cuts.iter();
    let due =
        plans.filter(|(gpu, plan)| plan.failed.is_none() && nothing_is_on(world, known, Some(gpu)));
    due.map(|(gpu, plan)| (gpu.clone(), plan.clone())).collect()
}

/// Whether a GPU has exactly these instances, whatever their order.
fn is_cut_into(gpu: &Gpu, profiles: Option<&[MigProfile]>) -> bool {
    match (&gpu.mig, profiles) {
        (Mig::Off | Mig::Instance(_), None) => true,
        (Mig::Cut(cut), Some(profiles)) => {
            let own = cut.instances().iter().map(|instance| instance.profile);
            sorted(own) == sorted(profiles.iter().copied())
        }
        (Mig::Off | Mig::Instance(_), Some(_)) | (Mig::Cut(_), None) => false,
    }
}

fn same(one: &Option<Vec<MigProfile>>, other: &Option<Vec<MigProfile>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => sorted(one.iter().copied()) == sorted(other.iter().copied()),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn sorted(profiles: impl Iterator<Item = MigProfile>) -> Vec<MigProfile> {
    let mut profiles: Vec<MigProfile> = profiles.collect();
    profiles.sort_unstable();
    profiles
}
