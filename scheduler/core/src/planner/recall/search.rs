//! A search for room for one job: which nodes would serve once what stops has gone, and what would help it further.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::super::fair::Fair;
use super::super::fit::Machine;
use super::super::gang::{GpuNeed, Need, Pick};
use super::super::limits::Limits;
use super::super::pass::Want;
use super::super::power::Asked;
use super::super::request::{Families, Family};
use super::super::score::{ClassIndex, SlotId};
use super::Givers;
use crate::amount::{CpuMilli, GpuMilli, MemoryMib};
use crate::attempt::Attempt;
use crate::ids::AttemptId;
use crate::mig::MigKind;
use crate::quota::Recall;
use crate::quota::entitle::NodeIndex;
use crate::world::NodeFree;

/// Where the pass stands when a job asks for a recall.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Scene<'a, 'w> {
    /// The nodes.
    pub machine: &'a Machine<'w>,
    /// Limits of projects.
    pub limits: &'a Limits<'w>,
    /// Guarantees.
    pub fair: &'a Fair,
    /// Kinds of requests.
    pub families: &'a Families<'w>,
}

/// What will be free, and what will be gone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room<'a> {
    /// By node of the machine, beside what is free now.
    pub soon: &'a BTreeMap<SlotId, NodeFree>,
    /// By class and node of the tree.
    pub leaving: &'a [Vec<u64>],
}

/// What a job is short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    /// Nodes that would serve.
    Nodes,
    /// Room below a limit, or nothing.
    Limit,
}

/// A search for one job.
#[derive(Debug)]
pub(super) struct Search<'a, 'w> {
    /// Where the pass stands.
    pub scene: Scene<'a, 'w>,
    /// Its kind of request.
    pub family: &'a Family<'w>,
    /// What it wants, for whom.
    pub want: Want,
    /// Its project in the tree.
    pub own: NodeIndex,
    /// The class it is within its guarantee of.
    pub class: ClassIndex,
    /// By when it was promised its guarantee.
    pub promise: Option<Recall>,
    /// Who may be stopped for it.
    pub givers: Givers,
    /// The only nodes that are looked at; `None`: all.
    pub aim: Option<BTreeSet<SlotId>>,
    /// Nodes that would serve.
    pub fitting: BTreeSet<SlotId>,
    /// Attempts that are left alone, as they would be in the way of others.
    pub spared: BTreeSet<AttemptId>,
}

impl<'w> Search<'_, 'w> {
    /// Nodes that would serve as it stands.
    pub fn look_around(&mut self, room: Room<'_>) {
        let machine = self.scene.machine;
        let places = self.family.territory.places(machine, Some(self.class), &self.family.need);
        self.fitting = places.map(|pick| pick.slot).filter(|slot| self.aims_at(*slot)).collect();
        for slot in room.soon.keys() {
            self.look_at(room, *slot);
        }
    }

    pub fn look_again(&mut self, room: Room<'_>, victim: &Attempt) {
        let machine = self.scene.machine;
        for allocation in &victim.placement.nodes {
            if let Some(slot) = machine.find(&allocation.node) {
                self.look_at(room, slot);
            }
        }
    }

    pub fn look_at(&mut self, room: Room<'_>, slot: SlotId) {
        if self.is_open(slot) && self.would_fit(slot, room.soon.get(&slot)) {
            self.fitting.insert(slot);
        } else {
            self.fitting.remove(&slot);
        }
    }

    /// Whether the node could serve if it were empty.
    pub fn is_open(&self, id: SlotId) -> bool {
        let slot = self.scene.machine.slot(id);
        self.aims_at(id)
            && slot.takes_work
            && slot.could_fit(Some(self.class), &self.family.need)
            && self.family.territory.contains(slot)
    }

    pub fn would_fit(&self, id: SlotId, soon: Option<&NodeFree>) -> bool {
        let slot = self.scene.machine.slot(id);
        let Need { gpus, cpu_milli, memory_mib, .. } = self.family.need;
        let free = sum(&slot.free, soon);
        let serving = slot.free_for(self.class, gpus.kind()).map(|(gpu, _)| free.gpus[gpu]);
        let enough = serving.filter(|free| *free >= gpus.each()).count() >= gpus.count() as usize;
        enough && free.cpu_milli >= cpu_milli && free.memory_mib >= memory_mib
    }

    /// The order in which nodes would be given if what stops had gone; as the scores of free ones, smaller is better.
    pub fn score(
        &self,
        id: SlotId,
        soon: Option<&NodeFree>,
    ) -> (GpuMilli, usize, CpuMilli, SlotId) {
        let slot = self.scene.machine.slot(id);
        let free = sum(&slot.free, soon);
        let gpus = self.family.need.gpus;
        let of_class = || slot.free_for(self.class, gpus.kind()).map(|(gpu, _)| free.gpus[gpu]);
        let all = gpus.kind().map_or(GpuMilli::WHOLE, MigKind::amount);
        let whole = of_class().filter(|free| *free >= all).count();
        let share = match gpus {
            GpuNeed::None | GpuNeed::Whole(_) | GpuNeed::Mig(..) => GpuMilli::ZERO,
            GpuNeed::Share(milli) => {
                of_class().filter(|free| *free >= milli).min().unwrap_or_default()
            }
        };
        (share, whole, free.cpu_milli, id)
    }

    /// What the job takes of the node, from what is free and what will be.
    pub fn need_on(&self, id: SlotId, soon: Option<&NodeFree>) -> NodeFree {
        let slot = self.scene.machine.slot(id);
        let Need { gpus, cpu_milli, memory_mib, .. } = self.family.need;
        let free = sum(&slot.free, soon);
        let (wanted, milli) = (gpus.count() as usize, gpus.each());
        let serving = slot.free_for(self.class, gpus.kind()).map(|(gpu, _)| gpu);
        let mut serving: Vec<usize> = serving.filter(|gpu| free.gpus[*gpu] >= milli).collect();
        // What is free already comes first: else another job would take it, and this one would wait for what stops
        // last.
        let now = |gpu: &usize| std::cmp::Reverse(slot.free.gpus[*gpu]);
        serving.sort_by_key(|gpu| (free.gpus[*gpu], now(gpu), *gpu));
        let mut need = NodeFree { cpu_milli, memory_mib, ..nothing(free.gpus.len()) };
        for gpu in serving.into_iter().take(wanted) {
            need.gpus[gpu] = milli;
        }
        need
    }

    /// Of the nodes that would serve, those that can be of one gang.
    pub fn serving(&self) -> Cow<'_, BTreeSet<SlotId>> {
        let territory = &self.family.territory;
        if territory.constraints.blocks.is_binding() {
            Cow::Owned(territory.together(self.scene.machine, self.fitting.iter().copied()))
        } else {
            Cow::Borrowed(&self.fitting)
        }
    }

    pub fn lack(&self) -> Lack {
        let enough = self.serving().len() >= self.want.nodes as usize;
        if enough { Lack::Limit } else { Lack::Nodes }
    }

    /// Whether enough nodes would serve, within every limit.
    pub fn is_enough(&self, room: Room<'_>) -> bool {
        self.lack() == Lack::Limit
            && self.is_powered(room)
            && match self.givers {
                Givers::Borrowers => self.within_limits(room),
                // Its limits are no matter of what scavengers hold.
                Givers::Scavengers { short } => short.is_zero() || self.will_be_free(room) >= short,
            }
    }

    /// Whether there is power for enough of the nodes that would serve, once what stops has gone.
    fn is_powered(&self, room: Room<'_>) -> bool {
        self.scene.machine.power.is_none()
            || self.chosen(room.soon).len() >= self.want.nodes as usize
    }

    /// Of these nodes, those for which there is power together, once what stops has gone.
    pub fn powered(&self, slots: Vec<SlotId>, soon: &BTreeMap<SlotId, NodeFree>) -> Vec<SlotId> {
        let machine = self.scene.machine;
        let Some(power) = &machine.power else { return slots };
        let purse = power.left_after(machine, soon);
        let picks = slots.into_iter().map(|slot| Pick { slot, gpu: None });
        let asked =
            Asked { class: Some(self.class), need: &self.family.need, nodes: self.want.nodes };
        let picks = machine.powered_when_idle(power, &purse, picks, asked);
        picks.into_iter().map(|pick| pick.slot).collect()
    }

    /// What of the class will be free beside what is.
    fn will_be_free(&self, room: Room<'_>) -> GpuMilli {
        let on = |(slot, soon): (&SlotId, &NodeFree)| -> GpuMilli {
            let of_class = self.scene.machine.slot(*slot).all_free_of(self.class);
            of_class.map(|(gpu, _)| soon.gpus[gpu]).sum()
        };
        room.soon.iter().map(on).sum()
    }

    /// Whether stopping a scavenger could bring the job any further.
    pub fn is_cleared_by(&self, scavenger: &Attempt) -> bool {
        match (self.lack(), self.givers) {
            (Lack::Nodes, _) => self.frees_a_node(scavenger),
            (Lack::Limit, Givers::Scavengers { .. }) => {
                let class = self.scene.machine.class_name(self.class);
                scavenger.placement.class.as_ref() == Some(class)
            }
            (Lack::Limit, Givers::Borrowers) => false,
        }
    }

    pub fn within_limits(&self, room: Room<'_>) -> bool {
        let Scene { machine, limits, fair, .. } = self.scene;
        let gpus = self.family.need.gpu_milli().times(u64::from(self.want.nodes));
        let leaving = |path: &str, class: Option<ClassIndex>| {
            let Some(node) = fair.find_path(path) else { return GpuMilli::ZERO };
            let all = room.leaving.iter().enumerate();
            let counted =
                all.filter(|(at, _)| class.is_none_or(|class| usize::from(class.0) == *at));
            counted.map(|(_, leaving)| GpuMilli(leaving[node.get()])).sum()
        };
        let of_class = |path: &str| leaving(path, Some(self.class));
        let of_any = |path: &str| leaving(path, None);
        let class = machine.class_name(self.class);
        limits.allow_after(self.want.project, class, gpus, &of_class, &of_any)
    }

    /// Whether stopping it could bring the job any further: it frees something where the job may be, or what its
    /// project holds is what keeps the job below a limit.
    pub fn helps(&self, victim: &Attempt) -> bool {
        if self.spared.contains(&victim.id) {
            return false;
        }
        match self.lack() {
            Lack::Nodes => self.frees_a_node(victim),
            Lack::Limit => self.shares_a_parent(victim),
        }
    }

    /// Whether it holds something where the job may be and does not fit yet.
    fn frees_a_node(&self, victim: &Attempt) -> bool {
        let nodes = victim.placement.nodes.iter();
        let mut slots = nodes.filter_map(|held| self.scene.machine.find(&held.node));
        slots.any(|id| self.is_open(id) && !self.fitting.contains(&id))
    }

    pub fn shares_a_parent(&self, victim: &Attempt) -> bool {
        let fair = self.scene.fair;
        fair.find(&victim.project).is_some_and(|node| fair.meet(node, self.own))
    }

    /// Where it counts as held; nowhere if it is a scavenger.
    pub fn place_of(&self, victim: &Attempt) -> Option<(ClassIndex, NodeIndex)> {
        if victim.scavenges() {
            return None;
        }
        self.scene.fair.find(&victim.project).map(|node| (self.class, node))
    }
}

/// What an attempt holds on each node.
pub(super) fn held_on<'a>(
    machine: &'a Machine<'_>,
    attempt: &'a Attempt,
) -> impl Iterator<Item = (SlotId, NodeFree)> + 'a {
    attempt.placement.nodes.iter().filter_map(|allocation| {
        let id = machine.find(&allocation.node)?;
        let node = machine.slot(id).node;
        let mut held = nothing(node.free.gpus.len());
        for gpu in &allocation.gpus {
            if let Some(index) = node.gpu_index(&gpu.uuid) {
                held.gpus[index] += gpu.milli;
            }
        }
        held.cpu_milli = allocation.cpu_milli;
        held.memory_mib = allocation.memory_mib;
        Some((id, held))
    })
}

pub(super) fn nothing(gpus: usize) -> NodeFree {
    NodeFree {
        gpus: vec![GpuMilli::ZERO; gpus],
        cpu_milli: CpuMilli::ZERO,
        memory_mib: MemoryMib::ZERO,
    }
}

pub(super) fn add(to: &mut NodeFree, more: &NodeFree) {
    for (gpu, more) in to.gpus.iter_mut().zip(&more.gpus) {
        *gpu += *more;
    }
    to.cpu_milli += more.cpu_milli;
    to.memory_mib += more.memory_mib;
}

/// What is left, or nothing.
pub(super) fn subtract(from: &mut NodeFree, less: &NodeFree) {
    for (gpu, less) in from.gpus.iter_mut().zip(&less.gpus) {
        *gpu = gpu.saturating_sub(*less);
    }
    from.cpu_milli = from.cpu_milli.saturating_sub(less.cpu_milli);
    from.memory_mib = from.memory_mib.saturating_sub(less.memory_mib);
}

pub(super) fn sum(free: &NodeFree, soon: Option<&NodeFree>) -> NodeFree {
    let mut sum = free.clone();
    if let Some(soon) = soon {
        add(&mut sum, soon);
    }
    sum
}

/// Of each the smaller amount.
pub(super) fn least(one: &NodeFree, other: &NodeFree) -> NodeFree {
    NodeFree {
        gpus: one.gpus.iter().zip(&other.gpus).map(|(one, other)| *one.min(other)).collect(),
        cpu_milli: one.cpu_milli.min(other.cpu_milli),
        memory_mib: one.memory_mib.min(other.memory_mib),
    }
}
