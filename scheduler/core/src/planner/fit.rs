//! The machine during a pass: what is free, less what the pass has given away, and the ordered indexes that find
//! the best place without looking at every node.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::blocks::Topology;
use super::closed;
use super::gang::{GpuNeed, Need, Pick};
use super::power::Power;
use super::reservations::Reservation;
use super::score::{ClassIndex, CpuScore, Score, ShareScore, SlotId, Tie, WholeScore};
use super::slot::{Layout, Slot, slot_of};
use super::whole::{Whole, class_of};
use crate::amount::{CpuMilli, GpuMilli, UnixMicros};
use crate::attempt::{GpuAllocation, NodeAllocation, Placement};
use crate::ids::{GpuClass, NodeName};
use crate::mig::MigKind;
use crate::power::PowerTerms;
use crate::quota::Interval;
use crate::world::{Node, NodeFree, Windows, World};

/// The nodes of a pass: all, or those that matter to it.
#[derive(Debug)]
pub(super) struct Machine<'w> {
    /// Every class there is, in the order of names.
    pub classes: Vec<GpuClass>,
    /// The nodes, in the order of names.
    pub slots: Vec<Slot<'w>>,
    /// Those that take no work; spare ones that stand by are none of them, since as many others are there.
    pub unavailable: Vec<SlotId>,
    /// Reservations that are not over, by their places in a [`fabric::ReservationSet`].
    pub reservations: Vec<Reservation<'w>>,
    /// Maintenance that is planned or under way, and reservations by command.
    pub windows: &'w Windows,
    /// Moments at which nodes go into it next, each once, in their order.
    pub closings: Vec<UnixMicros>,
    /// Which nodes are close to each other.
    pub topology: Topology<'w>,
    /// What the site says of power.
    power_terms: &'w PowerTerms,
    /// What is left of it; `None` where nothing is limited.
    pub power: Option<Power<'w>>,
    /// How often something was taken; as long as it is the same, so is what is free.
    pub taken: u64,
    pools: Vec<Pool>,
    cpu: BTreeSet<CpuScore>,
    /// How many GPUs a node may have: the levels of `cpu`.
    cpu_levels: BTreeSet<u32>,
}

/// Places of one class, best first; only on nodes that take work.
#[derive(Debug, Default)]
struct Pool {
    /// Every node that has GPUs of the class, in the order of names.
    nodes: Vec<SlotId>,
    /// Nodes with at least one whole free GPU.
    whole: BTreeSet<WholeScore>,
    /// Nodes with at least one free instance, by their kind.
    instances: BTreeMap<MigKind, BTreeSet<WholeScore>>,
    /// GPUs with something free: every broken one, and the first untouched one of each node.
    shares: BTreeSet<ShareScore>,
    /// Most whole GPUs of the class that are free on one node.
    gpus_max: u32,
    /// Most GPUs of the class on one node; found once asked for.
    node_gpus: OnceCell<u32>,
    /// GPUs of the class on all nodes; found once asked for.
    capacity: OnceCell<GpuMilli>,
}

/// Which nodes a machine is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Every node there is.
    All,
    /// Those on which some GPU is not wholly taken. Whatever asks for GPUs and finds a place finds it there.
    GpusLeft,
}

impl<'w> Machine<'w> {
    /// The machine as the world has it, of which that goes for all nodes together.
    pub fn of(world: &'w World, whole: &Arc<Whole>, extent: Extent) -> Self {
        let index = whole.class_indexes();
        let slot = |(name, node): (&'w NodeName, &'w Node)| {
            let reserved = whole.reserved.get(name).copied().unwrap_or_default();
            let standing = (reserved, whole.standby.contains(name));
            slot_of(name, node, &index, standing, &world.power)
        };
        let mut slots: Vec<_> = match extent {
            Extent::All => world.nodes.iter().map(slot).collect(),
            Extent::GpusLeft => {
                let left = world.with_gpus_left.iter();
                left.filter_map(|name| world.nodes.get_key_value(name)).map(slot).collect()
            }
        };
        let closings = closed::close(world, &mut slots);
        let mut machine = Machine {
            pools: index.iter().map(|_| Pool::default()).collect(),
            classes: whole.classes.clone(),
            unavailable: ids(&slots).filter(|id| slots[id.0 as usize].is_unavailable()).collect(),
            reservations: Reservation::all(world),
            windows: &world.windows,
            closings,
            topology: Topology::of(world, whole, extent),
            power_terms: &world.power,
            power: Power::of(world),
            taken: 0,
            cpu: BTreeSet::new(),
            cpu_levels: slots.iter().map(|slot| slot.gpus).collect(),
            slots,
        };
        machine.build_indexes();
        machine
    }

    /// Collected first and sorted once: several times faster than inserting one by one.
    fn build_indexes(&mut self) {
        let mut whole = vec![Vec::new(); self.pools.len()];
        let mut shares = vec![Vec::new(); self.pools.len()];
        let mut instances = Vec::new();
        let mut cpu = Vec::new();
        for id in ids(&self.slots) {
            let slot = &self.slots[id.0 as usize];
            for class in slot.layout.classes() {
                self.pools[usize::from(class.0)].nodes.push(id);
            }
            if !slot.takes_work {
                continue;
            }
            for_each_score(id, slot, |score| match score {
                Score::Whole(class, score) => whole[usize::from(class.0)].push(score),
                Score::Share(class, score) => shares[usize::from(class.0)].push(score),
                Score::Mig(class, kind, score) => instances.push((class, kind, score)),
                Score::Cpu(score) => cpu.push(score),
            });
        }
        for ((pool, whole), shares) in self.pools.iter_mut().zip(whole).zip(shares) {
            pool.gpus_max = whole.iter().map(|score| score.whole_free).max().unwrap_or(0);
            pool.whole = whole.into_iter().collect();
            pool.shares = shares.into_iter().collect();
        }
        for (class, kind, score) in instances {
            let pool = &mut self.pools[usize::from(class.0)];
            pool.instances.entry(kind).or_default().insert(score);
        }
        self.cpu = cpu.into_iter().collect();
    }

    /// What the site says of power.
    pub fn power_terms(&self) -> &'w PowerTerms {
        self.power_terms
    }

    /// Numbers of all nodes, in the order of names.
    pub fn ids(&self) -> impl Iterator<Item = SlotId> + use<> {
        ids(&self.slots)
    }

    /// Numbers of all nodes that have GPUs of a class, or of all there are, in the order of names.
    pub fn ids_of(&self, class: Option<ClassIndex>) -> impl Iterator<Item = SlotId> + '_ {
        let of_class = class.map(|class| self.pools[usize::from(class.0)].nodes.iter().copied());
        let all = if class.is_none() { Some(self.ids()) } else { None };
        of_class.into_iter().flatten().chain(all.into_iter().flatten())
    }

    /// The node of that number.
    pub fn slot(&self, id: SlotId) -> &Slot<'w> {
        &self.slots[id.0 as usize]
    }

    /// The node of that name.
    pub fn find(&self, name: &NodeName) -> Option<SlotId> {
        let found = self.slots.binary_search_by(|slot| slot.name.cmp(name)).ok()?;
        u32::try_from(found).ok().map(SlotId)
    }

    /// The class of that name.
    pub fn class(&self, name: &GpuClass) -> Option<ClassIndex> {
        class_of(&self.classes, name)
    }

    /// The name of that class.
    pub fn class_name(&self, class: ClassIndex) -> &GpuClass {
        &self.classes[usize::from(class.0)]
    }

    /// Most GPUs of the class on one node.
    pub fn node_gpus(&self, class: ClassIndex) -> u32 {
        let most = || self.working().map(|slot| slot.gpus_of(class)).max().unwrap_or(0);
        *self.pools[usize::from(class.0)].node_gpus.get_or_init(most)
    }

    fn working(&self) -> impl Iterator<Item = &Slot<'w>> {
        self.slots.iter().filter(|slot| slot.takes_work)
    }

    /// GPUs of the class on nodes that take work, instances with what they count.
    pub fn capacity(&self, class: ClassIndex) -> GpuMilli {
        let all = || self.working().map(|slot| slot.amount_of(class)).sum();
        *self.pools[usize::from(class.0)].capacity.get_or_init(all)
    }

    /// Reservations that take the node, now or later.
    pub fn reserved_on(
        &self,
        slot: &Slot<'w>,
    ) -> impl Iterator<Item = Reservation<'w>> + use<'_, 'w> {
        let set = slot.reserved;
        let all = if set.is_empty() { &[][..] } else { &self.reservations[..] };
        let own = all.iter().enumerate().filter(move |(place, _)| set.has(*place));
        own.map(|(_, reservation)| *reservation)
    }

    /// When the node is in maintenance, now or later.
    pub fn maintained(&self, slot: &Slot<'w>) -> impl Iterator<Item = Interval> + use<'_, 'w> {
        let has_any = !self.windows.is_empty();
        let windows = has_any.then(|| self.windows.maintenance_of(slot.name));
        windows.into_iter().flatten().map(|window| window.during)
    }

    /// Every place that serves one node of a gang now, best first. A node may come more than once for shares.
    pub fn places(
        &self,
        class: Option<ClassIndex>,
        need: &Need,
    ) -> Box<dyn Iterator<Item = Pick> + '_> {
        let need = *need;
        let fits = move |id: SlotId| {
            let slot = self.slot(id);
            let free = &slot.free;
            free.cpu_milli >= need.cpu_milli
                && free.memory_mib >= need.memory_mib
                && slot.can_cap(&need)
        };
        let pool = class.map(|class| &self.pools[usize::from(class.0)]);
        match (need.gpus, pool) {
            (GpuNeed::None, _) => {
                Box::new(self.cpu_places(need.cpu_milli).filter(move |p| fits(p.slot)))
            }
            (GpuNeed::Whole(_) | GpuNeed::Share(_) | GpuNeed::Mig(..), None) => {
                Box::new(std::iter::empty())
            }
            (GpuNeed::Whole(wanted), Some(pool)) => {
                Box::new(pool.whole_places(wanted, need.cpu_milli).filter(move |p| fits(p.slot)))
            }
            (GpuNeed::Share(milli), Some(pool)) => {
                Box::new(pool.share_places(milli).filter(move |p| fits(p.slot)))
            }
            (GpuNeed::Mig(wanted, kind), Some(pool)) => {
                Box::new(pool.instance_places(wanted, kind).filter(move |p| fits(p.slot)))
            }
        }
    }

    fn cpu_places(&self, cpu_milli: CpuMilli) -> impl Iterator<Item = Pick> {
        let bound = move |gpus: u32, cpu_free| CpuScore { gpus, cpu_free, tie: Tie::FIRST };
        self.cpu_levels
            .iter()
            .flat_map(move |&gpus| {
                self.cpu
                    .range(bound(gpus, cpu_milli)..bound(gpus.saturating_add(1), CpuMilli::ZERO))
            })
            .map(|score| Pick { slot: score.tie.slot(), gpu: None })
    }

    /// The same as [`Machine::places`] among a few nodes known by name.
    pub fn places_among<'a>(
        &'a self,
        names: impl Iterator<Item = &'a NodeName>,
        class: Option<ClassIndex>,
        need: &Need,
    ) -> Vec<Pick> {
        let mut scores = Vec::new();
        for id in names.filter_map(|name| self.find(name)) {
            let slot = self.slot(id);
            if slot.takes_work && slot.fits(class, need) {
                for_each_score(id, slot, |score| scores.extend(serves(score, class, need)));
            }
        }
        scores.sort_unstable();
        scores.into_iter().map(|(_, pick)| pick).collect()
    }

    /// Takes what a gang needs on the chosen places; nodes get their rank in that order.
    pub fn take(
        &mut self,
        class: Option<ClassIndex>,
        need: &Need,
        picks: impl IntoIterator<Item = Pick>,
    ) -> Placement {
        let nodes = picks.into_iter().map(|pick| self.take_one(class, need, pick)).collect();
        let class = class.map(|class| self.class_name(class).clone());
        let cap = |class: &GpuClass| self.power_terms.cap_watts(class, need.cap_watts);
        // Instances are not capped.
        let capped = class.as_ref().filter(|_| need.gpus.kind().is_none());
        let gpu_cap_watts = capped.and_then(cap);
        Placement { class, nodes, gpu_cap_watts }
    }

    fn take_one(&mut self, class: Option<ClassIndex>, need: &Need, pick: Pick) -> NodeAllocation {
        self.index(pick.slot, false);
        if let Some(power) = &mut self.power {
            let class = class.map(|class| &self.classes[usize::from(class.0)]);
            power.take(&self.slots[pick.slot.0 as usize], class, need, pick);
        }
        let slot = &mut self.slots[pick.slot.0 as usize];
        let taken = gpus_to_take(slot, class, need.gpus, pick.gpu);
        let free = slot.free.to_mut();
        for (gpu, milli) in &taken {
            free.gpus[*gpu] -= *milli;
        }
        free.cpu_milli -= need.cpu_milli;
        free.memory_mib -= need.memory_mib;
        let inventory = &slot.node.inventory;
        let uuid = |gpu: usize| inventory.gpus[gpu].uuid.clone();
        let gpus =
            taken.iter().map(|&(gpu, milli)| GpuAllocation { uuid: uuid(gpu), milli }).collect();
        let allocation = NodeAllocation {
            node: slot.name.clone(),
            gpus,
            cpu_milli: need.cpu_milli,
            memory_mib: need.memory_mib,
            imex: None,
        };
        self.index(pick.slot, true);
        allocation
    }

    /// Keeps a part of what is free on a node from all that come later in the pass.
    pub fn keep(&mut self, id: SlotId, part: &NodeFree) {
        self.index(id, false);
        let free = self.slots[id.0 as usize].free.to_mut();
        for (gpu, kept) in free.gpus.iter_mut().zip(&part.gpus) {
            *gpu -= *kept;
        }
        free.cpu_milli -= part.cpu_milli;
        free.memory_mib -= part.memory_mib;
        self.index(id, true);
    }

    /// Keeps power for a start there that comes later.
    pub fn keep_power(&mut self, id: SlotId, class: ClassIndex, need: &Need) {
        if let Some(power) = &mut self.power {
            power.keep(id, Some(&self.classes[usize::from(class.0)]), need);
        }
    }

    /// Enters a node into the indexes or takes it out, by what is free on it now.
    fn index(&mut self, id: SlotId, enter: bool) {
        self.taken += 1;
        let (pools, cpu) = (&mut self.pools, &mut self.cpu);
        for_each_score(id, &self.slots[id.0 as usize], |score| {
            match score {
                Score::Whole(class, score) => {
                    change(&mut pools[usize::from(class.0)].whole, score, enter)
                }
                Score::Share(class, score) => {
                    change(&mut pools[usize::from(class.0)].shares, score, enter)
                }
                Score::Mig(class, kind, score) => {
                    let kinds = &mut pools[usize::from(class.0)].instances;
                    change(kinds.entry(kind).or_default(), score, enter)
                }
                Score::Cpu(score) => change(cpu, score, enter),
            };
        });
    }
}

impl Pool {
    fn whole_places(&self, wanted: u32, cpu_milli: CpuMilli) -> impl Iterator<Item = Pick> {
        let bound =
            move |whole_free: u32, cpu_free| WholeScore { whole_free, cpu_free, tie: Tie::FIRST };
        (wanted..=self.gpus_max)
            .flat_map(move |level| {
                self.whole
                    .range(bound(level, cpu_milli)..bound(level.saturating_add(1), CpuMilli::ZERO))
            })
            .map(|score| Pick { slot: score.tie.slot(), gpu: None })
    }

    /// The nodes that keep the fewest free instances first, as for whole GPUs.
    fn instance_places(&self, wanted: u32, kind: MigKind) -> impl Iterator<Item = Pick> {
        let first = WholeScore { whole_free: wanted, cpu_free: CpuMilli::ZERO, tie: Tie::FIRST };
        let of_kind = self.instances.get(&kind).into_iter();
        let enough = of_kind.flat_map(move |scores| scores.range(first..));
        enough.map(|score| Pick { slot: score.tie.slot(), gpu: None })
    }

    fn share_places(&self, milli: GpuMilli) -> impl Iterator<Item = Pick> {
        let first = ShareScore {
            gpu_free: milli,
            whole_free: 0,
            cpu_free: CpuMilli::ZERO,
            tie: Tie::FIRST,
            gpu: 0,
        };
        self.shares
            .range(first..)
            .map(|score| Pick { slot: score.tie.slot(), gpu: Some(score.gpu) })
    }
}

fn change<T: Ord>(set: &mut BTreeSet<T>, score: T, enter: bool) -> bool {
    if enter { set.insert(score) } else { set.remove(&score) }
}

/// The score with its place, if it belongs to the index that serves the need and the GPU has enough.
fn serves(score: Score, class: Option<ClassIndex>, need: &Need) -> Option<(Score, Pick)> {
    let pick = match (score, need.gpus) {
        (Score::Cpu(cpu), GpuNeed::None) => Pick { slot: cpu.tie.slot(), gpu: None },
        (Score::Whole(own, whole), GpuNeed::Whole(_)) if Some(own) == class => {
            Pick { slot: whole.tie.slot(), gpu: None }
        }
        (Score::Share(own, share), GpuNeed::Share(milli))
            if Some(own) == class && share.gpu_free >= milli =>
        {
            Pick { slot: share.tie.slot(), gpu: Some(share.gpu) }
        }
        (Score::Mig(own, of, mig), GpuNeed::Mig(wanted, kind))
            if Some(own) == class && of == kind && mig.whole_free >= wanted =>
        {
            Pick { slot: mig.tie.slot(), gpu: None }
        }
        _ => return None,
    };
    Some((score, pick))
}

/// GPUs to take on a node, by position: the first whole ones, or the share's own.
fn gpus_to_take(
    slot: &Slot<'_>,
    class: Option<ClassIndex>,
    need: GpuNeed,
    gpu: Option<u32>,
) -> Vec<(usize, GpuMilli)> {
    match (need, class) {
        (GpuNeed::None, _) | (_, None) => Vec::new(),
        (GpuNeed::Share(milli), Some(_)) => {
            gpu.map(|gpu| (gpu as usize, milli)).into_iter().collect()
        }
        (GpuNeed::Whole(wanted), Some(class)) => slot
            .free_of(class)
            .filter(|(_, free)| *free == GpuMilli::WHOLE)
            .take(wanted as usize)
            .collect(),
        (GpuNeed::Mig(wanted, kind), Some(class)) => slot
            .free_for(class, Some(kind))
            .filter(|(_, free)| *free == kind.amount())
            .take(wanted as usize)
            .collect(),
    }
}

/// Every score of a node as it stands.
fn for_each_score(id: SlotId, slot: &Slot<'_>, mut enter: impl FnMut(Score)) {
    let (cpu_free, tie) = (slot.free.cpu_milli, Tie::of(id, slot.node.awaited));
    enter(Score::Cpu(CpuScore { gpus: slot.gpus, cpu_free, tie }));
    match &slot.layout {
        Layout::Uniform(class) => for_each_gpu_score(tie, slot, *class, &mut enter),
        Layout::Mixed(_) => {
            for class in slot.layout.classes() {
                for_each_gpu_score(tie, slot, class, &mut enter);
            }
        }
    }
}

fn for_each_gpu_score(tie: Tie, slot: &Slot<'_>, class: ClassIndex, enter: &mut impl FnMut(Score)) {
    let whole_free = slot.whole_free(class);
    let cpu_free = slot.free.cpu_milli;
    if whole_free > 0 {
        enter(Score::Whole(class, WholeScore { whole_free, cpu_free, tie }));
    }
    for (kind, _) in slot.instances_of(class) {
        let whole_free = slot.instances_free(class, kind);
        if whole_free > 0 {
            enter(Score::Mig(class, kind, WholeScore { whole_free, cpu_free, tie }));
        }
    }
    let mut untouched_seen = false;
    for (gpu, gpu_free) in slot.free_of(class) {
        let untouched = gpu_free == GpuMilli::WHOLE;
        if gpu_free.is_zero() || (untouched && untouched_seen) {
            continue;
        }
        untouched_seen |= untouched;
        let gpu = u32::try_from(gpu).unwrap_or(u32::MAX);
        enter(Score::Share(class, ShareScore { gpu_free, whole_free, cpu_free, tie, gpu }));
    }
}

fn ids(slots: &[Slot<'_>]) -> impl Iterator<Item = SlotId> + use<> {
    (0..u32::try_from(slots.len()).unwrap_or(u32::MAX)).map(SlotId)
}
