//! GPUs of unused guarantees that nodes of the quota tree keep from those that borrow.
//!
//! A start beyond its project's guarantee must leave free what all nodes beside its path keep: of the guarantee that a
//! node does not use, what it keeps itself or what those below it keep together, whichever is more. A start within a
//! guarantee takes from what is kept for it, so both shrink alike; what was refused once in a pass stays refused.
//! Only what is held counts as used, not what is being freed for somebody: until it is held, it is kept.

use super::fair::Fair;
use super::fit::Machine;
use super::score::{ClassIndex, SlotId};
use crate::amount::GpuMilli;
use crate::plan::{Blocker, BlockerKind, Unit};
use crate::quota::QuotaTree;
use crate::quota::bounds::Bounds;
use crate::quota::entitle::NodeIndex;
use crate::world::NodeFree;

/// What is free and what is kept of it, by class.
#[derive(Debug)]
pub(super) struct Lending<'w> {
    tree: &'w QuotaTree,
    classes: Vec<ClassLending>,
}

#[derive(Debug)]
struct ClassLending {
    in_service: u64,
    /// Of that, what is free and not promised to anybody.
    free: u64,
    /// By node, as are the following.
    held: Vec<u64>,
    kept: Vec<u64>,
    /// What the children keep together.
    below: Vec<u64>,
    /// What the tops keep together.
    tops: u64,
}

impl<'w> Lending<'w> {
    /// What is kept at the beginning of a pass; `None` where no node keeps anything.
    pub fn of(tree: &'w QuotaTree, fair: &Fair, machine: &Machine<'_>) -> Option<Self> {
        if !tree.nodes.values().any(|node| node.bounds.keeps()) {
            return None;
        }
        let classes = fair.class_indexes().map(|class| ClassLending::of(fair, machine, class));
        let mut lending = Lending { tree, classes: classes.collect() };
        for class in fair.class_indexes() {
            for node in fair.arena().indexes().rev() {
                lending.keep(fair, machine, class, node);
            }
        }
        Some(lending)
    }

    /// Whether the project may have so much more of the class as far as others keep theirs.
    pub fn allows(&self, fair: &Fair, node: NodeIndex, class: ClassIndex, gpus: GpuMilli) -> bool {
        self.lacks(fair, node, class, gpus, false).is_zero()
    }

    /// What must be freed of the class so that others have what they keep once the project has so much more. Within a
    /// guarantee that is nothing; but nobody guarantees a scavenger anything.
    pub fn lacks(
        &self,
        fair: &Fair,
        node: NodeIndex,
        class: ClassIndex,
        gpus: GpuMilli,
        scavenges: bool,
    ) -> GpuMilli {
        let of = self.class(class);
        if !scavenges && of.held[node.get()] + gpus.0 <= fair.guaranteed(node, class).0.0 {
            return GpuMilli::ZERO;
        }
        GpuMilli(of.outside(fair, node).saturating_add(gpus.0).saturating_sub(of.free))
    }

    /// Whether it could if nobody held anything.
    pub fn could_allow(
        &self,
        fair: &Fair,
        node: NodeIndex,
        class: ClassIndex,
        gpus: GpuMilli,
    ) -> bool {
        let of = self.class(class);
        self.allows(fair, node, class, gpus)
            || of.outside(fair, node).saturating_add(gpus.0) <= of.in_service
    }

    /// Counts a start.
    pub fn take(
        &mut self,
        fair: &Fair,
        machine: &Machine<'_>,
        node: NodeIndex,
        class: ClassIndex,
        gpus: GpuMilli,
    ) {
        self.take_free(class, gpus);
        for above in fair.self_and_ancestors(node) {
            let held = &mut self.classes[usize::from(class.0)].held[above.get()];
            *held = held.saturating_add(gpus.0);
            self.keep(fair, machine, class, above);
        }
    }

    /// Counts the start of a scavenger, which uses no guarantee.
    pub fn take_free(&mut self, class: ClassIndex, gpus: GpuMilli) {
        let of = &mut self.classes[usize::from(class.0)];
        of.free = of.free.saturating_sub(gpus.0);
    }

    /// Counts what is kept for a job that others stop for.
    pub fn promise(&mut self, class: ClassIndex, kept: &[(SlotId, NodeFree)]) {
        self.take_free(class, kept.iter().flat_map(|(_, part)| &part.gpus).copied().sum());
    }

    /// Tells who keeps what the project could be given; `None` if that is not what it waits for.
    pub fn blocker(
        &self,
        fair: &Fair,
        machine: &Machine<'_>,
        (node, class): (NodeIndex, ClassIndex),
        gpus: GpuMilli,
        scavenges: bool,
    ) -> Option<Blocker> {
        let of = self.class(class);
        if self.lacks(fair, node, class, gpus, scavenges).is_zero() || of.free < gpus.0 {
            return None;
        }
        let keepers = fair.beside(node).filter(|beside| of.kept[beside.get()] > 0);
        let keepers: Vec<NodeIndex> = keepers.collect();
        let most =
            *keepers.iter().max_by_key(|node| (of.kept[node.get()], std::cmp::Reverse(**node)))?;
        let outside = of.outside(fair, node);
        Some(Blocker {
            kind: BlockerKind::Kept,
            subject: fair.arena().path(most).to_string(),
            needed: gpus.0,
            available: of.free.saturating_sub(outside),
            limit: outside,
            unit: Unit::GpuMilli,
            note: format!("{} {}", machine.class_name(class), keepers.len() - 1),
        })
    }

    fn class(&self, class: ClassIndex) -> &ClassLending {
        &self.classes[usize::from(class.0)]
    }

    /// Finds what a node keeps; those below it are found already.
    fn keep(&mut self, fair: &Fair, machine: &Machine<'_>, class: ClassIndex, node: NodeIndex) {
        let at = node.get();
        let of = &mut self.classes[usize::from(class.0)];
        let unused = fair.guaranteed(node, class).0.0.saturating_sub(of.held[at]);
        let bounds = self.tree.get(fair.arena().path(node)).map(|node| &node.bounds);
        let bounds = bounds.filter(|bounds| unused > 0 && Bounds::keeps(bounds));
        let name = machine.class_name(class);
        let own = bounds.map_or(0, |bounds| bounds.kept_of(name, GpuMilli(unused)).0);
        let kept = own.max(of.below[at]);
        let before = std::mem::replace(&mut of.kept[at], kept);
        let sum = match fair.arena().parent(node) {
            Some(parent) => &mut of.below[parent.get()],
            None => &mut of.tops,
        };
        *sum = (*sum + kept).saturating_sub(before);
    }
}

impl ClassLending {
    /// Nothing is kept yet.
    fn of(fair: &Fair, machine: &Machine<'_>, class: ClassIndex) -> Self {
        let zeros = vec![0; fair.nodes()];
        let held = fair.arena().indexes().map(|node| fair.guaranteed(node, class).1.0);
        let slots = machine.slots.iter().filter(|slot| slot.is_in_service());
        let free = slots.flat_map(|slot| slot.all_free_of(class)).map(|(_, free)| free.0);
        ClassLending {
            in_service: fair.in_service(class).0,
            free: free.sum(),
            held: held.collect(),
            kept: zeros.clone(),
            below: zeros,
            tops: 0,
        }
    }

    /// What nodes beside the path to a node keep.
    fn outside(&self, fair: &Fair, node: NodeIndex) -> u64 {
        let beside = fair.self_and_ancestors(node).map(|on_path| {
            let all = fair.arena().parent(on_path).map_or(self.tops, |up| self.below[up.get()]);
            all.saturating_sub(self.kept[on_path.get()])
        });
        beside.fold(0, u64::saturating_add)
    }
}
