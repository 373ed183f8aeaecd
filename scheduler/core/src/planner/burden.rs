//! How far every node of the quota tree is from its next turn, by what it used and holds for its share.
//!
//! **Use** fades ([`History`]), and what is held now counts as if it had been held always: as much again as all its
//! past. So what a pass gives away makes a project worse at once, and without any past the order is that of what is
//! held for each share. By [`OrderRule::UsePerShare`], for the part of the past in which a node did not ask it counts
//! as if it had used what its siblings on average did for their shares while they asked.
//!
//! **Share** is what a node would be entitled to if everybody asked for everything: its guarantee and, by weight, its
//! part of what is not guaranteed, as far as its limit goes. It does not depend on what is asked now, so nobody gains
//! or loses by asking for more or less. It is never less than a thousandth of a GPU for each unit of its weight: where
//! everything is guaranteed to others, those without a guarantee still have an order among each other.
//!
//! How much there was to use in all is a common factor of all siblings and changes no order, so nobody keeps it.
//!
//! Within a pass the sums over siblings stay as they were at its beginning. So a burden never falls.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fit::Machine;
use super::score::ClassIndex;
use crate::amount::{GpuMilli, UnixMicros};
use crate::fairshare::decay::Moment;
use crate::fairshare::order::{Burden, Level};
use crate::fairshare::{History, OrderRule, Part, Standing};
use crate::ids::GpuClass;
use crate::quota::QuotaTree;
use crate::quota::entitle::{Arena, Entitlements, NodeIndex};

/// Since when each node waits, by [`NodeIndex`]; `None`: it does not.
pub(super) type Waits = Vec<Option<UnixMicros>>;

/// By what the nodes are compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fairness<'a> {
    /// What was used.
    pub history: &'a History,
    /// The rule.
    pub rule: OrderRule,
    /// The present.
    pub now: UnixMicros,
}

/// Burdens of every node, for each class and for all together.
#[derive(Debug, Clone)]
pub(super) struct Burdens {
    arena: Arc<Arena>,
    /// By [`ClassIndex`].
    classes: Vec<Table>,
    any: Table,
    /// What holding something now counts for, in seconds.
    always_s: u64,
}

/// Nodes for one class.
#[derive(Debug, Clone)]
struct Table {
    /// By node.
    standings: Vec<Standing>,
    /// By parent: that of the tops first, then by its number. Those of leaves are over nothing.
    levels: Vec<Level>,
}

impl Burdens {
    /// Burdens at the beginning of a pass. `held` and `waits` are by class; `waits_for_any` has those too that wait
    /// for no GPUs.
    pub fn of(
        (arena, tree): (&Arc<Arena>, &QuotaTree),
        machine: &Machine<'_>,
        in_service: &[GpuMilli],
        held: &[Vec<u64>],
        waits: &[Waits],
        waits_for_any: &Waits,
        fairness: Fairness<'_>,
    ) -> Self {
        let moment = fairness.history.moment(fairness.now);
        let standings = |(at, class): (usize, &GpuClass)| {
            let shares = shares(arena, tree, class, in_service[at]);
            let look = Look { arena, history: fairness.history, moment, class };
            look.standings(&shares, &waits[at])
        };
        let past: Vec<Vec<Standing>> = machine.classes.iter().enumerate().map(standings).collect();
        let any = sums(arena, &past, waits_for_any, (fairness.history, moment));
        let table = |past| Table::of(arena, past, fairness.rule);
        let classes = past.into_iter().map(table).collect();
        let (arena, any, always_s) = (Arc::clone(arena), table(any), moment.always_s());
        let mut burdens = Burdens { arena, classes, any, always_s };
        burdens.hold(held);
        burdens
    }

    /// Adds what is held at the beginning, which is summed over everything below already.
    fn hold(&mut self, held: &[Vec<u64>]) {
        for (table, held) in self.classes.iter_mut().zip(held) {
            for (at, held) in held.iter().enumerate() {
                let used = held.saturating_mul(self.always_s);
                for table in [&mut *table, &mut self.any] {
                    table.standings[at].used = table.standings[at].used.saturating_add(used);
                }
            }
        }
    }

    /// Burdens from the top down to this node, for a class or for all together.
    pub fn path(&self, node: NodeIndex, class: Option<ClassIndex>) -> Arc<[Burden]> {
        let above = self.arena.self_and_ancestors(node);
        let deciding = above.filter(|node| self.decides(*node));
        let mut burdens: Vec<Burden> = deciding.map(|node| self.burden(node, class)).collect();
        burdens.reverse();
        burdens.into()
    }

    /// How far one node is from its turn among its siblings.
    pub fn burden(&self, node: NodeIndex, class: Option<ClassIndex>) -> Burden {
        self.table(class).burden(self.arena.parent(node), node)
    }

    /// Whether anything can be decided by a node: under a single top nothing is by that.
    pub fn decides(&self, node: NodeIndex) -> bool {
        self.arena.parent(node).is_some() || self.arena.children(None).len() > 1
    }

    /// What a node's burden for a class or for all together is made from.
    pub fn standing(&self, node: NodeIndex, class: Option<ClassIndex>) -> (Standing, Level) {
        let (table, parent) = (self.table(class), self.arena.parent(node));
        (table.standings[node.get()], *table.level(parent))
    }

    /// What holding something now counts for, in seconds.
    pub fn always_s(&self) -> u64 {
        self.always_s
    }

    /// Who of these, each waiting for a class or for any, has others before it that wait for the same, on the first
    /// level from the top on which that is so.
    pub fn behind(&self, waiting: &[(NodeIndex, Option<ClassIndex>)]) -> Vec<Option<Behind>> {
        let mut tables: BTreeMap<Option<ClassIndex>, Vec<u64>> = BTreeMap::new();
        for (_, class) in waiting {
            let alike = waiting.iter().filter(|(_, other)| other == class).map(|(node, _)| *node);
            tables.entry(*class).or_insert_with(|| self.table(*class).ahead(&self.arena, alike));
        }
        let behind = |(node, class): &(NodeIndex, Option<ClassIndex>)| {
            let path: Vec<NodeIndex> = self.arena.self_and_ancestors(*node).collect();
            let ahead = |node: &NodeIndex| tables[class][node.get()];
            let node = path.into_iter().rev().find(|node| ahead(node) > 0)?;
            Some(self.table(*class).told(&self.arena, node, ahead(&node)))
        };
        waiting.iter().map(behind).collect()
    }

    /// Counts that one node holds so much now instead of what it held before; those above it are told of by themselves.
    pub fn put_right(
        &mut self,
        node: NodeIndex,
        class: ClassIndex,
        (before, now): (GpuMilli, GpuMilli),
    ) {
        let [before, now] = [before, now].map(|gpus| gpus.0.saturating_mul(self.always_s));
        for table in [&mut self.classes[usize::from(class.0)], &mut self.any] {
            let used = &mut table.standings[node.get()].used;
            *used = used.saturating_sub(before).saturating_add(now);
        }
    }

    fn table(&self, class: Option<ClassIndex>) -> &Table {
        class.map_or(&self.any, |class| &self.classes[usize::from(class.0)])
    }

    /// Counts what the pass gave.
    pub fn take(&mut self, node: NodeIndex, class: ClassIndex, gpus: GpuMilli) {
        let more = gpus.0.saturating_mul(self.always_s);
        self.each_used(node, class, |used| *used = used.saturating_add(more));
    }

    /// Counts that it was not given.
    pub fn give_back(&mut self, node: NodeIndex, class: ClassIndex, gpus: GpuMilli) {
        let less = gpus.0.saturating_mul(self.always_s);
        self.each_used(node, class, |used| *used = used.saturating_sub(less));
    }

    /// What the node and those above it used of the class, and of all together.
    fn each_used(&mut self, node: NodeIndex, class: ClassIndex, change: impl Fn(&mut u64)) {
        for table in [&mut self.classes[usize::from(class.0)], &mut self.any] {
            for above in self.arena.self_and_ancestors(node) {
                change(&mut table.standings[above.get()].used);
            }
        }
    }
}

impl Table {
    fn of(arena: &Arena, standings: Vec<Standing>, rule: OrderRule) -> Self {
        let level = |parent: Option<NodeIndex>| {
            let siblings = arena.children(parent).iter().map(|node| standings[node.get()]);
            Level::of_past(siblings, rule)
        };
        let levels = std::iter::once(None).chain(arena.indexes().map(Some)).map(level).collect();
        Table { standings, levels }
    }

    fn burden(&self, parent: Option<NodeIndex>, node: NodeIndex) -> Burden {
        self.level(parent).burden(self.standings[node.get()])
    }

    fn level(&self, parent: Option<NodeIndex>) -> &Level {
        &self.levels[parent.map_or(0, |parent| parent.get() + 1)]
    }

    /// By node: how many of its siblings come before it, of those at or above a leaf that waits.
    fn ahead(&self, arena: &Arena, waiting: impl Iterator<Item = NodeIndex>) -> Vec<u64> {
        let mut waits = vec![false; arena.len()];
        for node in waiting.flat_map(|leaf| arena.self_and_ancestors(leaf)) {
            waits[node.get()] = true;
        }
        let mut ahead = vec![0; arena.len()];
        for parent in std::iter::once(None).chain(arena.indexes().map(Some)) {
            let waiting = arena.children(parent).iter().filter(|node| waits[node.get()]);
            let mut level: Vec<(Burden, NodeIndex)> =
                waiting.map(|node| (self.burden(parent, *node), *node)).collect();
            level.sort_by_key(|(burden, _)| *burden);
            for (burden, node) in &level {
                ahead[node.get()] = level.partition_point(|(other, _)| other < burden) as u64;
            }
        }
        ahead
    }

    fn told(&self, arena: &Arena, node: NodeIndex, ahead: u64) -> Behind {
        let level = arena.children(arena.parent(node)).iter().map(|of| self.standings[of.get()]);
        let sum = |sum: (u64, u64), of: Standing| {
            (sum.0.saturating_add(of.used), sum.1 + u64::from(of.share))
        };
        let (own, (used, share)) = (self.standings[node.get()], level.fold((0, 0), sum));
        let (used, share) = (Part::of(own.used, used), Part::of(own.share.into(), share));
        Behind { node, ahead, used, share }
    }
}

/// A node with others of its level before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behind {
    /// Which.
    pub node: NodeIndex,
    /// How many are before it.
    pub ahead: u64,
    /// Its part of what the level used.
    pub used: Part,
    /// Its part of the shares of the level.
    pub share: Part,
}

/// What one class was used for in the past.
struct Look<'a> {
    arena: &'a Arena,
    history: &'a History,
    moment: Moment,
    class: &'a GpuClass,
}

impl Look<'_> {
    fn standings(&self, shares: &[u64], waits: &Waits) -> Vec<Standing> {
        let of = |node: NodeIndex| self.standing(node, shares[node.get()], waits[node.get()]);
        self.arena.indexes().map(of).collect()
    }

    fn standing(&self, node: NodeIndex, share: u64, waits: Option<UnixMicros>) -> Standing {
        let path = self.arena.path(node).as_str();
        let used = self.history.used(path, self.class, self.moment).0;
        Standing {
            share: in_milli(share),
            used: u64::try_from(used).unwrap_or(0),
            asked: self.history.asked(path, self.class, self.moment, waits),
        }
    }
}

/// Over all classes together. Who asked for GPUs of any class asked, and so did who waits for none.
fn sums(
    arena: &Arena,
    classes: &[Vec<Standing>],
    waits: &Waits,
    (history, moment): (&History, Moment),
) -> Vec<Standing> {
    let sum = |node: NodeIndex| {
        let waited = waits[node.get()].map(|since| history.waited(moment, since));
        let none = Standing { share: 0, used: 0, asked: waited.unwrap_or_default() };
        let sum = classes.iter().map(|of| of[node.get()]).fold(none, |sum, of| Standing {
            share: sum.share.saturating_add(of.share),
            used: sum.used.saturating_add(of.used),
            asked: sum.asked.max(of.asked),
        });
        Standing { share: sum.share.max(in_milli(arena.weight(node))), ..sum }
    };
    arena.indexes().map(sum).collect()
}

/// A share in thousandths of GPUs; four million GPUs fit.
fn in_milli(share: u64) -> u32 {
    u32::try_from(share).unwrap_or(u32::MAX)
}

/// What every node would be entitled to if everybody asked for everything.
fn shares(
    arena: &Arc<Arena>,
    tree: &QuotaTree,
    class: &GpuClass,
    in_service: GpuMilli,
) -> Vec<u64> {
    let all = Entitlements::new(Arc::clone(arena), tree, class, in_service, |_| in_service);
    let share = |node| all.of(node).entitled.0.max(arena.weight(node));
    arena.indexes().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fairshare::order;
    use crate::ids::ProjectPath;
    use crate::quota::QuotaNode;
    use proptest::prelude::*;

    /// Trees of two levels.
    fn any_tree() -> impl Strategy<Value = BTreeMap<ProjectPath, Standing>> {
        let standing = |(share, used)| Standing { share, used, asked: Part::WHOLE };
        let standing = (1..4_u32, 0..5_u64).prop_map(standing);
        let leaf = prop_oneof!["[ab]/[abcd]", "c/[ab]"];
        let leaves = proptest::collection::btree_map(leaf, standing.clone(), 1..9);
        (leaves, proptest::array::uniform3(standing)).prop_map(|(leaves, tops)| {
            let path = |text: &str| ProjectPath::new(text).unwrap();
            let tops = ["a", "b", "c"].into_iter().zip(tops);
            let above = |top: &str| leaves.keys().any(|leaf| leaf.starts_with(top));
            let tops: Vec<_> = tops.filter(|(top, _)| above(top)).collect();
            let leaves = leaves.iter().map(|(leaf, standing)| (path(leaf), *standing));
            tops.iter().map(|(top, standing)| (path(top), *standing)).chain(leaves).collect()
        })
    }

    fn table(tree: &BTreeMap<ProjectPath, Standing>, rule: OrderRule) -> (Arc<Arena>, Table) {
        let mut quota = QuotaTree::default();
        quota.nodes.extend(tree.keys().map(|path| (path.clone(), QuotaNode::default())));
        let arena = Arc::new(Arena::of(&quota));
        let table = Table::of(&arena, tree.values().copied().collect(), rule);
        (arena, table)
    }

    proptest! {
        #[test]
        fn at_the_beginning_the_order_is_that_of_the_rule(tree in any_tree(), golden in any::<bool>()) {
            let rule = if golden { OrderRule::FairTree } else { OrderRule::UsePerShare };
            let (arena, table) = table(&tree, rule);
            let path = |leaf: &ProjectPath| -> Vec<Burden> {
                let node = arena.find(leaf.as_str()).unwrap();
                let parent = arena.parent(node).unwrap();
                vec![table.burden(None, parent), table.burden(Some(parent), node)]
            };
            let turns = order(&tree, rule);
            for (one, other) in turns.iter().flat_map(|one| turns.iter().map(move |other| (one, other))) {
                let by_rule = other.points.cmp(&one.points);
                // Only the Fair Tree rule tells children of equal siblings by what is usual at home.
                if golden || one.project.parent() == other.project.parent() {
                    prop_assert_eq!(path(&one.project).cmp(&path(&other.project)), by_rule);
                }
            }
        }

        #[test]
        fn a_burden_never_falls_when_use_grows(tree in any_tree(), golden in any::<bool>(), more in 1..9_u64) {
            let rule = if golden { OrderRule::FairTree } else { OrderRule::UsePerShare };
            let (arena, mut table) = table(&tree, rule);
            for node in arena.indexes() {
                let before = table.burden(arena.parent(node), node);
                table.standings[node.get()].used += more;
                prop_assert!(table.burden(arena.parent(node), node) > before);
            }
        }
    }
}
