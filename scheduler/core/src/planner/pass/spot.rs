//! Which of the places that serve a job is the best one: where it adds least to what typical jobs cannot use of the
//! machine, and then the first in the order of the machine's indexes.
//!
//! Only jobs of one node are weighed. Gangs mostly take whole nodes, and among those the indexes know the best.

use std::collections::BTreeSet;

use super::{Pass, Want};
use crate::fragmentation::{
    ClassNumber, ClassSet, Counts, GpuShape, GrowthSteps, Mix, Room, Shape,
};
use crate::planner::fit::Machine;
use crate::planner::gang::{GpuNeed, Need, Pick};
use crate::planner::horizon::Ask;
use crate::planner::power::Asked;
use crate::planner::score::ClassIndex;
use crate::planner::slot::Slot;
use crate::spec::NodeRequest;
use crate::world::World;

/// Places that are weighed for a job, the first in the order of the indexes. More find little that is better (measured:
/// docs/placement.md), and each costs time with every start.
const LOOK_MAX: usize = 64;

/// Where a job could start. The derived order *is* the policy: smaller is better, from the first field to the last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    /// By how much less typical jobs could use afterwards; nothing for gangs.
    pub growth: GrowthSteps,
    /// Which of the classes of its family, in the order in which they are tried.
    pub place: usize,
    /// Its nodes.
    pub picks: Vec<Pick>,
}

impl Spot {
    /// The one with more nodes, of equals the first.
    pub fn larger(self, other: Spot) -> Spot {
        if other.picks.len() > self.picks.len() { other } else { self }
    }
}

/// Jobs as they come, by all that are not over.
pub(super) fn mix_of(world: &World, machine: &Machine<'_>) -> Mix {
    let mut counts = Counts::new();
    for (request, jobs) in world.requests.iter() {
        *counts.entry(shape_asked(request, machine)).or_default() += jobs;
    }
    Mix::of(&counts)
}

fn shape_asked(request: &NodeRequest, machine: &Machine<'_>) -> Shape {
    let classes = request.gpus.class().map_or(ClassSet::ANY, |name| {
        machine.class(name).map_or(ClassSet::NONE, |class| ClassSet::only(number(class)))
    });
    Shape { classes, ..shape_of(&Need::of(request)) }
}

fn shape_of(need: &Need) -> Shape {
    let gpus = match need.gpus {
        // Instances are cut already: what is left of them is lost to nobody who asks for GPUs.
        GpuNeed::None | GpuNeed::Mig(..) => GpuShape::None,
        GpuNeed::Whole(count) => GpuShape::Whole(count),
        GpuNeed::Share(milli) => GpuShape::Share(milli),
    };
    let Need { cpu_milli, memory_mib, .. } = *need;
    Shape { gpus, classes: ClassSet::ANY, cpu_milli, memory_mib }
}

fn number(class: ClassIndex) -> ClassNumber {
    ClassNumber(class.0)
}

impl Pass<'_> {
    /// The best place now among nodes of one class, beside what is planned.
    pub(super) fn search(&self, want: Want, place: usize, ask: &Ask<'_>) -> Option<Spot> {
        let family = self.families.get(want.family);
        let (class, territory) = (family.tries[place].class, &family.territory);
        let places = self.open_places(want, place, ask);
        let purse = self.horizon.purse_now(&self.machine, ask);
        let keeps_together = !territory.constraints.blocks.is_empty();
        if want.nodes > 1 || keeps_together || self.mix.is_empty() {
            let asked = Asked { class, need: &family.need, nodes: want.nodes };
            let picks = territory.choose_powered(&self.machine, purse.as_ref(), asked, places)?;
            return Some(Spot { growth: GrowthSteps(0), place, picks });
        }
        let asked = Asked { class, need: &family.need, nodes: 1 };
        let places = places.filter(|pick| self.machine.affords(purse.as_ref(), *pick, asked));
        let (growth, pick) = self.lightest(class, &family.need, places)?;
        Some(Spot { growth, place, picks: vec![pick] })
    }

    /// Whether there is any place now, beside what is planned.
    pub(super) fn has_place(&self, want: Want, place: usize, ask: &Ask<'_>) -> bool {
        let family = self.families.get(want.family);
        let places = self.open_places(want, place, ask);
        let purse = self.horizon.purse_now(&self.machine, ask);
        let class = family.tries[place].class;
        let asked = Asked { class, need: &family.need, nodes: want.nodes };
        family.territory.choose_powered(&self.machine, purse.as_ref(), asked, places).is_some()
    }

    /// Places among nodes of one class where nothing that is planned is put off.
    fn open_places<'a>(
        &'a self,
        want: Want,
        place: usize,
        ask: &'a Ask<'_>,
    ) -> impl Iterator<Item = Pick> + 'a {
        let family = self.families.get(want.family);
        let places =
            family.territory.places(&self.machine, family.tries[place].class, &family.need);
        let nothing_planned = self.horizon.is_open();
        places.filter(move |pick| {
            nothing_planned || self.horizon.leaves_planned(&self.machine, *pick, ask)
        })
    }

    /// The place that costs least, of equals the first.
    fn lightest(
        &self,
        class: Option<ClassIndex>,
        need: &Need,
        places: impl Iterator<Item = Pick>,
    ) -> Option<(GrowthSteps, Pick)> {
        let mut places = places.peekable();
        // Where a node is taken whole there is nothing to weigh.
        let first = self.machine.slot(places.peek()?.slot);
        let takes_node = matches!(need.gpus, GpuNeed::Whole(count) if count >= first.gpus);
        let look = if takes_node { 1 } else { LOOK_MAX };
        let mut last: Option<Pick> = None;
        let differs = places.take(look).filter(|pick| {
            let before = last.replace(*pick);
            !before.is_some_and(|before| self.are_alike(before, *pick))
        });
        let weighed = differs.map(|pick| (self.growth(class, need, pick), pick));
        weighed.min_by_key(|(growth, _)| *growth)
    }

    /// Whether two places are the same to any job.
    fn are_alike(&self, one: Pick, other: Pick) -> bool {
        let (a, b) = (self.machine.slot(one.slot), self.machine.slot(other.slot));
        let of_gpu = |slot: &Slot<'_>, pick: Pick| {
            pick.gpu.map(|gpu| slot.free.gpus.get(gpu as usize).copied())
        };
        let cut = a.cut || b.cut;
        !cut && a.free == b.free && a.layout == b.layout && of_gpu(a, one) == of_gpu(b, other)
    }

    /// By how much less of the node typical jobs could use if the job were there. A job without GPUs may cost GPUs of
    /// every class that the node has.
    fn growth(&self, class: Option<ClassIndex>, need: &Need, pick: Pick) -> GrowthSteps {
        let slot = self.machine.slot(pick.slot);
        let classes = class.map_or_else(|| slot.layout.classes(), |class| BTreeSet::from([class]));
        let growth = |class: ClassIndex| {
            let room = room_of(slot, class);
            let gpu = slot.free_of(class).position(|(gpu, _)| Some(gpu) == at(pick));
            let before = self.mix.fragments(&room);
            self.mix.weigh(&room, before, &shape_of(need), gpu).map_or(0, |choice| choice.growth.0)
        };
        GrowthSteps(classes.into_iter().map(growth).fold(0, i64::saturating_add))
    }
}

fn at(pick: Pick) -> Option<usize> {
    pick.gpu.map(|gpu| gpu as usize)
}

fn room_of(slot: &Slot<'_>, class: ClassIndex) -> Room {
    Room {
        class: number(class),
        cpu_milli: slot.free.cpu_milli,
        memory_mib: slot.free.memory_mib,
        gpus: slot.free_of(class).map(|(_, free)| free).collect(),
    }
}
