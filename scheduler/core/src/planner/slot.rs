//! One node during a pass: what it has, what is left of it, and whether that serves.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::closed::NEVER;
use super::gang::{GpuNeed, Need};
use super::score::ClassIndex;
use crate::amount::{CpuMilli, GpuMilli, MemoryMib};
use crate::fabric::ReservationSet;
use crate::ids::{GpuClass, NodeName};
use crate::mig::MigKind;
use crate::node::Gpu;
use crate::power::PowerTerms;
use crate::world::{Node, NodeFree};

/// One node during a pass.
#[derive(Debug)]
pub(super) struct Slot<'w> {
    /// Its name.
    pub name: &'w NodeName,
    /// As the world has it.
    pub node: &'w Node,
    /// What is free now; copied from the world only once something is taken.
    pub free: Cow<'w, NodeFree>,
    /// Classes of its GPUs.
    pub layout: Layout,
    /// Whether the world lets work be placed here.
    pub takes_work: bool,
    /// CPUs it has; here and not behind two pointers, since every reason for waiting looks at all nodes.
    pub cpu_milli: CpuMilli,
    /// Memory it has.
    pub memory_mib: MemoryMib,
    /// GPUs it has.
    pub gpus: u32,
    /// Whether any of those is an instance of one that is cut.
    pub cut: bool,
    /// Reservations that take it.
    pub reserved: ReservationSet,
    /// Which of the moments at which nodes close is its own; the last number there is if it does not.
    pub closes: u32,
    /// Whether it is a spare one that stands by.
    pub stands_by: bool,
    /// The lowest cap that all of its GPUs take, watts; `None` if they cannot be capped.
    pub cap_floor_watts: Option<u32>,
    /// Its GPUs cannot be capped as the site orders, so nobody gets them.
    pub defies_order: bool,
}

/// Classes of the GPUs of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layout {
    /// All of one class: nearly every node there is.
    Uniform(ClassIndex),
    /// By position in the inventory; empty if there are none.
    Mixed(Vec<ClassIndex>),
}

impl Layout {
    /// Class of the GPU at that position.
    pub fn class_of(&self, gpu: usize) -> Option<ClassIndex> {
        match self {
            Layout::Uniform(class) => Some(*class),
            Layout::Mixed(classes) => classes.get(gpu).copied(),
        }
    }

    /// Each class once.
    pub fn classes(&self) -> BTreeSet<ClassIndex> {
        match self {
            Layout::Uniform(class) => BTreeSet::from([*class]),
            Layout::Mixed(classes) => classes.iter().copied().collect(),
        }
    }
}

impl Slot<'_> {
    /// Whether it takes no work and may take some again.
    pub fn is_unavailable(&self) -> bool {
        !self.takes_work && !self.stands_by
    }

    /// Whether a start can be planned here: it takes work, or will when its maintenance is over.
    pub fn will_take_work(&self) -> bool {
        self.takes_work || (self.node.only_maintained() && !self.stands_by)
    }

    /// Whether its GPUs count as capacity.
    pub fn is_in_service(&self) -> bool {
        self.node.is_in_service() && !self.stands_by
    }

    /// GPUs of the class it has, those that are cut left out.
    pub fn gpus_of(&self, class: ClassIndex) -> u32 {
        match &self.layout {
            Layout::Uniform(own) if *own == class && !self.cut => self.gpus,
            Layout::Uniform(own) if *own != class => 0,
            Layout::Uniform(_) | Layout::Mixed(_) => count(self.free_of(class)),
        }
    }

    /// What it has of the class, instances with what they count.
    pub fn amount_of(&self, class: ClassIndex) -> GpuMilli {
        if !self.cut {
            return GpuMilli::whole(self.gpus_of(class));
        }
        let gpus = self.node.inventory.gpus.iter().enumerate();
        let of_class = gpus.filter(|(gpu, _)| self.layout.class_of(*gpu) == Some(class));
        of_class.map(|(_, gpu)| gpu.amount()).sum()
    }

    /// What is free on each GPU and each instance of the class, by position in the inventory.
    pub fn all_free_of(&self, class: ClassIndex) -> impl Iterator<Item = (usize, GpuMilli)> {
        let free = self.free.gpus.iter().copied().enumerate();
        free.filter(move |(gpu, _)| self.layout.class_of(*gpu) == Some(class))
    }

    /// What is free on each GPU of the class that is not cut, by position in the inventory.
    pub fn free_of(&self, class: ClassIndex) -> impl Iterator<Item = (usize, GpuMilli)> {
        self.free_for(class, None)
    }

    /// What is free on what serves: instances of the kind, or GPUs that are not cut.
    pub fn free_for(
        &self,
        class: ClassIndex,
        kind: Option<MigKind>,
    ) -> impl Iterator<Item = (usize, GpuMilli)> {
        self.all_free_of(class).filter(move |(gpu, _)| self.is_of_kind(*gpu, kind))
    }

    /// Whether what is at that position is an instance of the kind, or without one a GPU that is not cut.
    pub fn is_of_kind(&self, gpu: usize, kind: Option<MigKind>) -> bool {
        if !self.cut {
            return kind.is_none();
        }
        self.node.inventory.gpus.get(gpu).is_some_and(|gpu| gpu.kind() == kind)
    }

    /// Instances of the class it has, by kind.
    pub fn instances_of(&self, class: ClassIndex) -> BTreeMap<MigKind, u32> {
        let mut kinds = BTreeMap::new();
        if !self.cut {
            return kinds;
        }
        let gpus = self.node.inventory.gpus.iter().enumerate();
        let of_class = gpus.filter(|(gpu, _)| self.layout.class_of(*gpu) == Some(class));
        for kind in of_class.filter_map(|(_, gpu)| gpu.kind()) {
            *kinds.entry(kind).or_default() += 1;
        }
        kinds
    }

    /// Whole free GPUs of the class.
    pub fn whole_free(&self, class: ClassIndex) -> u32 {
        count(self.free_of(class).filter(|(_, free)| *free == GpuMilli::WHOLE))
    }

    /// Free instances of a kind, of the class.
    pub fn instances_free(&self, class: ClassIndex, kind: MigKind) -> u32 {
        count(self.free_for(class, Some(kind)).filter(|(_, free)| *free == kind.amount()))
    }

    /// Whether what is free now serves one node of a gang.
    pub fn fits(&self, class: Option<ClassIndex>, need: &Need) -> bool {
        self.free.cpu_milli >= need.cpu_milli
            && self.free.memory_mib >= need.memory_mib
            && self.fits_gpus(class, need.gpus)
            && self.can_cap(need)
    }

    /// Whether the GPUs that it would give can be capped as the job asks and the site orders.
    pub fn can_cap(&self, need: &Need) -> bool {
        let takes = |watts| self.cap_floor_watts.is_some_and(|floor| floor <= watts);
        match need.gpus {
            GpuNeed::None | GpuNeed::Mig(..) => true,
            GpuNeed::Whole(_) | GpuNeed::Share(_) => {
                !self.defies_order && need.cap_watts.is_none_or(takes)
            }
        }
    }

    fn fits_gpus(&self, class: Option<ClassIndex>, gpus: GpuNeed) -> bool {
        match (class, gpus) {
            (_, GpuNeed::None) => true,
            (None, GpuNeed::Whole(_) | GpuNeed::Share(_) | GpuNeed::Mig(..)) => false,
            (Some(class), GpuNeed::Whole(wanted)) => self.whole_free(class) >= wanted,
            (Some(class), GpuNeed::Share(milli)) => {
                self.free_of(class).any(|(_, free)| free >= milli)
            }
            (Some(class), GpuNeed::Mig(wanted, kind)) => self.instances_free(class, kind) >= wanted,
        }
    }

    /// Whether it would serve one node of a gang if it were empty.
    pub fn could_fit(&self, class: Option<ClassIndex>, need: &Need) -> bool {
        let serving = |class| match need.gpus {
            GpuNeed::None | GpuNeed::Whole(_) | GpuNeed::Share(_) => self.gpus_of(class),
            GpuNeed::Mig(_, kind) => count(self.free_for(class, Some(kind))),
        };
        class.map_or(0, serving) >= need.gpus.count()
            && self.cpu_milli >= need.cpu_milli
            && self.memory_mib >= need.memory_mib
            && self.can_cap(need)
    }
}

/// The node as the world has it.
pub(super) fn slot_of<'w>(
    name: &'w NodeName,
    node: &'w Node,
    classes: &BTreeMap<&GpuClass, ClassIndex>,
    (reserved, stands_by): (ReservationSet, bool),
    power: &PowerTerms,
) -> Slot<'w> {
    let inventory = &node.inventory;
    let defies = |gpu: &Gpu| {
        power.cap_watts(&gpu.class, None).is_some_and(|cap| !inventory.takes_cap(&gpu.class, cap))
    };
    Slot {
        name,
        node,
        free: Cow::Borrowed(&node.free),
        layout: layout_of(&inventory.gpus, classes),
        takes_work: node.takes_work() && !stands_by,
        cpu_milli: inventory.cpu_milli,
        memory_mib: inventory.memory_mib,
        gpus: count(inventory.gpus.iter()),
        cut: node.has_instances(),
        reserved,
        closes: NEVER,
        stands_by,
        cap_floor_watts: inventory.cap_floor_watts(),
        defies_order: !power.cap_watts.is_empty() && inventory.gpus.iter().any(defies),
    }
}

fn layout_of(gpus: &[Gpu], classes: &BTreeMap<&GpuClass, ClassIndex>) -> Layout {
    let class_of = |gpu: &Gpu| classes.get(&gpu.class).copied();
    let first = gpus.first().and_then(class_of);
    match first {
        Some(class) if gpus.iter().all(|gpu| gpu.class == gpus[0].class) => Layout::Uniform(class),
        _ => Layout::Mixed(gpus.iter().filter_map(class_of).collect()),
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}
