//! Whether a start stays within a guarantee, and how far each node of the quota tree is above its share.
//!
//! Only where the tree guarantees something; in any other tree there are no tiers, and the queue alone orders.
//! Shares are found once, at the beginning of the pass, from what is held and asked for then. What the pass gives
//! away counts as held at once, so within a pass a job only gets worse: from guaranteed to borrowed, and further
//! above its share. The order of turns rests on that.

use std::cmp::Ordering;
use std::sync::Arc;

use super::fit::Machine;
use super::score::ClassIndex;
use crate::amount::GpuMilli;
use crate::ids::{GpuClass, ProjectPath};
use crate::job::Job;
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
}

/// What is held against what is due; a node to which nothing is due is infinitely far above it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ratio {
    held: u64,
    share: u64,
}

impl Ord for Ratio {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.share, other.share) {
            (0, _) | (_, 0) => (self.share == 0).cmp(&(other.share == 0)),
            (own, others) => {
                let left = u128::from(self.held) * u128::from(others);
                left.cmp(&(u128::from(other.held) * u128::from(own)))
            }
        }
    }
}

impl PartialOrd for Ratio {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ratio {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ratio {}

/// Guarantees, shares and what is held, by class and node of the tree.
#[derive(Debug)]
pub(super) struct Fair {
    arena: Arc<Arena>,
    /// By [`ClassIndex`].
    classes: Vec<ClassFair>,
    /// How often something was taken; as long as it is the same, so are all ratios.
    pub taken: u64,
}

#[derive(Debug)]
struct ClassFair {
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

/// Whether anybody is guaranteed anything.
pub(super) fn has_guarantees(tree: &QuotaTree) -> bool {
    tree.nodes.values().any(|node| node.guarantees.values().any(|gpus| !gpus.is_zero()))
}

impl Fair {
    /// Shares as the world has them, with `jobs` asking for more.
    pub fn of<'a>(
        world: &World,
        machine: &Machine<'_>,
        jobs: impl Iterator<Item = &'a Job>,
    ) -> Self {
        let arena = Arc::new(Arena::of(&world.quota));
        let held: Vec<Vec<u64>> =
            machine.classes.iter().map(|class| held(world, &arena, class)).collect();
        let mut asked = held.clone();
        for job in jobs {
            ask(&mut asked, machine, &arena, job);
        }
        let in_service = in_service(machine);
        let class_fair = |(at, held): (usize, Vec<u64>)| {
            let demand = |node: NodeIndex| GpuMilli(asked[at][node.get()]);
            let (arena, class) = (Arc::clone(&arena), &machine.classes[at]);
            let due = Entitlements::new(arena, &world.quota, class, in_service[at], demand);
            ClassFair { due, held }
        };
        let classes = held.into_iter().enumerate().map(class_fair).collect();
        Fair { arena, classes, taken: 0 }
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

    /// What the tree guarantees a node, however much is in service.
    pub fn full_guarantee(&self, node: NodeIndex, class: ClassIndex) -> GpuMilli {
        self.classes[usize::from(class.0)].due.guarantee(node)
    }

    /// What a node is entitled to.
    pub fn due(&self, node: NodeIndex, class: ClassIndex) -> GpuMilli {
        self.classes[usize::from(class.0)].due.of(node).entitled
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

    /// How far every node from the top down to this one is above its share of a class, or of all together.
    pub fn ratios(&self, node: NodeIndex, class: Option<ClassIndex>) -> Arc<[Ratio]> {
        let ratio = |node: NodeIndex| {
            let of = |class: &ClassFair| (class.held[node.get()], class.due.of(node).entitled.0);
            let (held, share) = match class {
                Some(class) => of(&self.classes[usize::from(class.0)]),
                None => self
                    .classes
                    .iter()
                    .map(of)
                    .fold((0, 0), |sums, (held, share)| (sums.0 + held, sums.1 + share)),
            };
            Ratio { held, share }
        };
        let mut ratios: Vec<Ratio> = self.arena.self_and_ancestors(node).map(ratio).collect();
        ratios.reverse();
        ratios.into()
    }

    /// Counts what the pass gave.
    pub fn take(&mut self, node: NodeIndex, class: ClassIndex, gpus: GpuMilli) {
        self.taken += 1;
        let held = &mut self.classes[usize::from(class.0)].held;
        for above in self.arena.self_and_ancestors(node) {
            held[above.get()] = held[above.get()].saturating_add(gpus.0);
        }
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

/// Adds what a waiting job asks for; one that takes any class asks for each.
fn ask(asked: &mut [Vec<u64>], machine: &Machine<'_>, arena: &Arena, job: &Job) {
    let gpus = job.spec.total_gpus().0;
    let Some(node) = arena.find(job.spec.project.as_str()).filter(|_| gpus > 0) else {
        return;
    };
    let only = job.spec.per_node.gpus.class().map(|class| machine.class(class));
    for (at, asked) in asked.iter_mut().enumerate() {
        if only.is_none_or(|only| only.is_some_and(|only| usize::from(only.0) == at)) {
            asked[node.get()] = asked[node.get()].saturating_add(gpus);
        }
    }
}

/// GPUs of each class on nodes that count: those that are only being waited for still do.
fn in_service(machine: &Machine<'_>) -> Vec<GpuMilli> {
    let mut in_service = vec![GpuMilli::ZERO; machine.classes.len()];
    for slot in machine.slots.iter().filter(|slot| slot.node.is_in_service()) {
        for class in slot.layout.classes() {
            in_service[usize::from(class.0)] += GpuMilli::whole(slot.gpus_of(class));
        }
    }
    in_service
}
