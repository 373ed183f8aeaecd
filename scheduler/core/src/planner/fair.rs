//! Whether a start stays within a guarantee, what each node of the quota tree is entitled to, and whose turn it is.
//!
//! All of it is found once, at the beginning of the pass, from what is held and asked for then. What the pass gives
//! away counts as held at once, so within a pass a job only gets worse: from guaranteed to borrowed, and further from
//! its turn. The order of turns rests on that.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::burden::{Behind, Burdens, Fairness, Waits};
use super::fit::Machine;
use super::score::ClassIndex;
use super::standing::behind_others;
use crate::amount::{GpuMilli, UnixMicros};
use crate::fairshare::OrderRule;
use crate::fairshare::order::Burden;
use crate::ids::{GpuClass, ProjectPath};
use crate::plan::Blocker;
use crate::quota::QuotaTree;
use crate::quota::entitle::{Arena, Entitlements, NodeIndex};
use crate::world::World;

/// How good the claim of a start is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    /// Afterwards its project holds no more than its guarantee.
    Guaranteed,
    /// Afterwards its project holds more, as long as nobody with a guarantee wants it.
    Borrowed,
    /// It is beyond a budget, and starts only where nobody else wants the GPUs.
    Overuse,
    /// It takes what nobody else wants, and stops for anybody.
    Scavenger,
}

/// Guarantees, shares and what is held, by class and node of the tree.
#[derive(Debug, Clone)]
pub(super) struct Fair {
    arena: Arc<Arena>,
    /// By [`ClassIndex`].
    classes: Vec<ClassFair>,
    burdens: Burdens,
    /// Whether anybody is guaranteed anything.
    pub has_tiers: bool,
    /// What the pass gave.
    taken: Vec<Taken>,
}

/// What a project was given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    /// Its project.
    pub node: NodeIndex,
    /// Of which class.
    pub class: ClassIndex,
    /// How much.
    pub gpus: GpuMilli,
}

#[derive(Debug, Clone)]
struct ClassFair {
    in_service: GpuMilli,
    due: Entitlements,
    /// By node, summed over everything below.
    held: Vec<u64>,
}

/// A project that borrows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Borrower {
    /// Which.
    pub path: ProjectPath,
    /// What it holds beyond its guarantee.
    pub excess: GpuMilli,
    /// Further projects that hold more than is guaranteed to them.
    pub others: u64,
}

/// Jobs of one project that wait for the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    /// Whose; `None` for a project that the tree has not.
    pub node: Option<NodeIndex>,
    /// For what.
    pub wanted: Wanted,
    /// All together.
    pub gpus: GpuMilli,
    /// When the first of them was queued.
    pub since: UnixMicros,
}

impl Demand {
    /// Of these, who waits for GPUs of which class; inner `None`: of any.
    pub fn of_gpus(demands: &[Demand]) -> Vec<(NodeIndex, Option<ClassIndex>)> {
        demands.iter().filter_map(|demand| demand.node.zip(demand.wanted.of_gpus())).collect()
    }
}

/// What jobs want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wanted {
    /// No GPUs.
    Nothing,
    /// GPUs of this class; `None`: no node has it.
    Class(Option<ClassIndex>),
    /// GPUs of any class.
    Any,
}

/// Whether anybody is guaranteed anything.
pub(super) fn has_guarantees(tree: &QuotaTree) -> bool {
    tree.nodes.values().any(|node| node.guarantees.values().any(|gpus| !gpus.is_zero()))
}

impl Fair {
    /// Shares as the world has them, while this is asked for.
    pub fn of(
        world: &World,
        arena: &Arc<Arena>,
        machine: &Machine<'_>,
        demands: &[Demand],
        rule: OrderRule,
        now: UnixMicros,
    ) -> Self {
        let held: Vec<Vec<u64>> =
            machine.classes.iter().map(|class| held(world, arena, class)).collect();
        let mut asked = held.clone();
        let mut waits = vec![vec![None; arena.len()]; machine.classes.len()];
        let mut waits_for_any = vec![None; arena.len()];
        for demand in demands {
            ask(&mut asked, demand);
            wait(arena, &mut waits, &mut waits_for_any, demand);
        }
        let in_service = in_service(machine);
        let fairness = Fairness { history: &world.history, rule, now };
        let tree = (arena, &*world.quota);
        let burdens =
            Burdens::of(tree, machine, &in_service, &held, &waits, &waits_for_any, fairness);
        let class_fair = |(at, held): (usize, Vec<u64>)| {
            let demand = |node: NodeIndex| GpuMilli(asked[at][node.get()]);
            let (arena, class) = (Arc::clone(arena), &machine.classes[at]);
            let due = Entitlements::new(arena, &world.quota, class, in_service[at], demand);
            ClassFair { in_service: in_service[at], due, held }
        };
        let classes = held.into_iter().enumerate().map(class_fair).collect();
        let (arena, has_tiers) = (Arc::clone(arena), has_guarantees(&world.quota));
        Fair { arena, classes, burdens, has_tiers, taken: Vec::new() }
    }

    /// What is due, by class.
    pub fn into_entitlements(self, machine: &Machine<'_>) -> BTreeMap<GpuClass, Entitlements> {
        let dues = self.classes.into_iter().map(|class| class.due);
        machine.classes.iter().cloned().zip(dues).collect()
    }

    /// The node of that path.
    pub fn find(&self, path: &ProjectPath) -> Option<NodeIndex> {
        self.arena.find(path.as_str())
    }

    /// Every class.
    pub fn class_indexes(&self) -> impl Iterator<Item = ClassIndex> + use<> {
        (0..u16::try_from(self.classes.len()).unwrap_or(u16::MAX)).map(ClassIndex)
    }

    /// How good the claim of a start is.
    pub fn tier(&self, node: NodeIndex, class: ClassIndex, gpus: GpuMilli) -> Tier {
        let (guarantee, held) = self.guaranteed(node, class);
        if held + gpus <= guarantee { Tier::Guaranteed } else { Tier::Borrowed }
    }

    /// The scaled guarantee of a node, and what it holds.
    pub fn guaranteed(&self, node: NodeIndex, class: ClassIndex) -> (GpuMilli, GpuMilli) {
        let class = &self.classes[usize::from(class.0)];
        (class.due.scaled_guarantee(node), GpuMilli(class.held[node.get()]))
    }

    /// The same of every node, by class.
    pub fn all_guaranteed(&self) -> Vec<Vec<(GpuMilli, GpuMilli)>> {
        let of_class = |class: ClassIndex| {
            self.arena.indexes().map(move |node| self.guaranteed(node, class)).collect()
        };
        self.class_indexes().map(of_class).collect()
    }

    /// What the tree guarantees a node, however much is in service.
    pub fn full_guarantee(&self, node: NodeIndex, class: ClassIndex) -> GpuMilli {
        self.classes[usize::from(class.0)].due.guarantee(node)
    }

    /// GPUs on nodes that count, of which all is given.
    pub fn in_service(&self, class: ClassIndex) -> GpuMilli {
        self.classes[usize::from(class.0)].in_service
    }

    /// What a node is entitled to.
    pub fn due(&self, node: NodeIndex, class: ClassIndex) -> GpuMilli {
        self.classes[usize::from(class.0)].due.of(node).entitled
    }

    /// The shape of the tree.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Every node beside the path from the top to this one.
    pub fn beside(&self, node: NodeIndex) -> impl Iterator<Item = NodeIndex> + '_ {
        self.arena.self_and_ancestors(node).flat_map(|on_path| {
            let siblings = self.arena.children(self.arena.parent(on_path)).iter().copied();
            siblings.filter(move |sibling| *sibling != on_path)
        })
    }

    /// Nodes of the tree.
    pub fn nodes(&self) -> usize {
        self.arena.len()
    }

    /// The node of that path.
    pub fn find_path(&self, path: &str) -> Option<NodeIndex> {
        self.arena.find(path)
    }

    /// The node, the one above it, and so on up to the top.
    pub fn self_and_ancestors(&self, node: NodeIndex) -> impl Iterator<Item = NodeIndex> + '_ {
        self.arena.self_and_ancestors(node)
    }

    /// The node and those above it that are not above the other one.
    pub fn branch(
        &self,
        node: NodeIndex,
        other: NodeIndex,
    ) -> impl Iterator<Item = NodeIndex> + '_ {
        let others: Vec<NodeIndex> = self.arena.self_and_ancestors(other).collect();
        self.arena.self_and_ancestors(node).take_while(move |node| !others.contains(node))
    }

    /// Whether the two have a node above them in common.
    pub fn meet(&self, one: NodeIndex, other: NodeIndex) -> bool {
        self.arena.self_and_ancestors(one).last() == self.arena.self_and_ancestors(other).last()
    }

    /// How far every node from the top down to this one is from its turn, for a class or for all together.
    pub fn burdens(&self, node: NodeIndex, class: Option<ClassIndex>) -> Arc<[Burden]> {
        self.burdens.path(node, class)
    }

    /// How far every node is from its turn.
    pub fn all_burdens(&self) -> &Burdens {
        &self.burdens
    }

    /// Whom of those that wait for GPUs of a class, or of any, fair share puts behind others.
    pub fn turns(
        &self,
        names: &[GpuClass],
        waiting: &[(NodeIndex, Option<ClassIndex>)],
    ) -> BTreeMap<(ProjectPath, Option<GpuClass>), Blocker> {
        let turn = |((node, class), behind): (&(NodeIndex, Option<ClassIndex>), Option<Behind>)| {
            let class = class.map(|class| names[usize::from(class.0)].clone());
            let blocker = behind_others(self.arena.path(behind?.node), behind?);
            Some(((self.arena.path(*node).clone(), class), blocker))
        };
        waiting.iter().zip(self.burdens.behind(waiting)).filter_map(turn).collect()
    }

    /// What the pass gave, in the order in which it did.
    pub fn taken(&self) -> &[Taken] {
        &self.taken
    }

    /// Counts what the pass gave.
    pub fn take(&mut self, node: NodeIndex, class: ClassIndex, gpus: GpuMilli) {
        self.taken.push(Taken { node, class, gpus });
        self.burdens.take(node, class, gpus);
        self.each_held(node, class, |held| *held = held.saturating_add(gpus.0));
    }

    /// As it was when only so much of that had been given; what was given after it, the first first.
    pub fn rewind(&mut self, to: usize) -> Vec<Taken> {
        let later = self.taken.split_off(to);
        for Taken { node, class, gpus } in &later {
            self.burdens.give_back(*node, *class, *gpus);
            self.each_held(*node, *class, |held| *held = held.saturating_sub(gpus.0));
        }
        later
    }

    /// What the node and those above it hold of the class.
    fn each_held(&mut self, node: NodeIndex, class: ClassIndex, change: impl Fn(&mut u64)) {
        let held = &mut self.classes[usize::from(class.0)].held;
        for above in self.arena.self_and_ancestors(node) {
            change(&mut held[above.get()]);
        }
    }

    /// What was given is no longer told apart from what was held.
    pub fn settle(&mut self) {
        self.taken.clear();
    }

    /// Puts right what a node holds now, whatever was counted before.
    pub fn put_right(&mut self, node: NodeIndex, class: ClassIndex, now: GpuMilli) {
        let held = &mut self.classes[usize::from(class.0)].held[node.get()];
        let before = std::mem::replace(held, now.0);
        self.burdens.put_right(node, class, (GpuMilli(before), now));
    }

    /// The project that is furthest above its share of those above their guarantee; `None` if nobody is.
    pub fn borrower(&self, class: ClassIndex) -> Option<Borrower> {
        let class = &self.classes[usize::from(class.0)];
        let excess = |node: &NodeIndex| {
            class.held[node.get()].saturating_sub(class.due.scaled_guarantee(*node).0)
        };
        let above = |node: &NodeIndex| {
            class.held[node.get()].saturating_sub(class.due.of(*node).entitled.0)
        };
        let leaves = self.arena.indexes().filter(|node| self.arena.is_leaf(*node));
        let borrowers: Vec<NodeIndex> = leaves.filter(|node| excess(node) > 0).collect();
        let first = |node: &&NodeIndex| (above(node), excess(node), std::cmp::Reverse(**node));
        let most = borrowers.iter().max_by_key(first)?;
        Some(Borrower {
            path: self.arena.path(*most).clone(),
            excess: GpuMilli(excess(most)),
            others: borrowers.len() as u64 - 1,
        })
    }
}

/// What every node holds.
fn held(world: &World, arena: &Arena, class: &GpuClass) -> Vec<u64> {
    arena.indexes().map(|node| world.usage.held(arena.path(node).as_str(), class).0).collect()
}

/// Adds what waiting jobs ask for; those that take any class ask for each.
fn ask(asked: &mut [Vec<u64>], demand: &Demand) {
    let Some(node) = demand.node else { return };
    for (at, asked) in asked.iter_mut().enumerate() {
        if demand.wanted.has_class(at) {
            asked[node.get()] = asked[node.get()].saturating_add(demand.gpus.0);
        }
    }
}

/// Notes since when a node and those above it wait for what.
fn wait(arena: &Arena, waits: &mut [Waits], any: &mut Waits, demand: &Demand) {
    let Some(node) = demand.node else { return };
    let classes = waits.iter_mut().enumerate().filter(|(at, _)| demand.wanted.has_class(*at));
    for waits in classes.map(|(_, waits)| waits).chain([any]) {
        for above in arena.self_and_ancestors(node) {
            let since = &mut waits[above.get()];
            *since = Some(since.map_or(demand.since, |since| since.min(demand.since)));
        }
    }
}

impl Wanted {
    /// The class, inner `None` for any; outer `None` where no GPUs will do.
    fn of_gpus(self) -> Option<Option<ClassIndex>> {
        match self {
            Wanted::Nothing | Wanted::Class(None) => None,
            Wanted::Class(class) => Some(class),
            Wanted::Any => Some(None),
        }
    }

    /// How many different things can be wanted where there are so many classes.
    pub fn kinds(classes: usize) -> usize {
        classes + 3
    }

    /// A number of its own.
    pub fn number(self) -> usize {
        match self {
            Wanted::Nothing => 0,
            Wanted::Any => 1,
            Wanted::Class(None) => 2,
            Wanted::Class(Some(class)) => usize::from(class.0) + 3,
        }
    }

    /// Whether GPUs of the class with that index will do.
    pub fn has_class(self, at: usize) -> bool {
        match self {
            Wanted::Nothing => false,
            Wanted::Class(class) => class.is_some_and(|class| usize::from(class.0) == at),
            Wanted::Any => true,
        }
    }
}

/// GPUs of each class on nodes that count: those that are only being waited for still do.
fn in_service(machine: &Machine<'_>) -> Vec<GpuMilli> {
    let mut in_service = vec![GpuMilli::ZERO; machine.classes.len()];
    for slot in machine.slots.iter().filter(|slot| slot.is_in_service()) {
        for class in slot.layout.classes() {
            in_service[usize::from(class.0)] += slot.amount_of(class);
        }
    }
    in_service
}
