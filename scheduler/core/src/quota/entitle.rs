//! Entitlement: how many GPUs of a class each node of the tree is entitled to at this instant, and how much of that
//! is its guarantee. It says what is fair, not what starts: order, limits and places are the planner's.
//!
//! Top-down, from what is in service. Guarantees are scaled once, by what there is and whoever asks for it:
//! if they exceed it, whole GPUs go by largest remainder, and ties to the earlier path. Each node then gets what it
//! demands of its scaled guarantee, and what its siblings leave is filled up by weight, like water. So at each node
//! the children together get exactly the least of what the node has and what they ask.
//!
//! The scaled guarantee does not depend on demand, so nobody loses a guarantee because a neighbour asks for less,
//! and only the filling is done again when a demand changes: along the path of the leaf, and below whoever got
//! another amount because of it.
//!
//! What a node keeps of a guarantee that it does not ask for is given to it like what it asks, so that nobody else is
//! entitled to it, and taken off again when it is asked what the node is entitled to.
//!
//! A guarantee given below counts at every node above, also where that has none of its own, as far as its limit
//! goes. By largest remainder one more GPU in service may move a scaled guarantee down by one: that is the price of
//! exact sums, and it can happen only while there is too little for all guarantees.

mod share;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bounds::{Bounds, ClassAmount};
use super::{QuotaNode, QuotaTree};
use crate::amount::GpuMilli;
use crate::ids::{GpuClass, ProjectPath};

use share::{Claim, scale, spread};

/// A node of the tree, numbered in the order of paths, so that parents come before their children.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeIndex(u32);

impl NodeIndex {
    /// Its place in a list with one entry for each node, as [`Arena::len`] has them.
    #[must_use]
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

/// The shape of a tree: built once, shared by all classes.
#[derive(Debug, Clone)]
pub struct Arena {
    places: Vec<Place>,
    tops: Vec<NodeIndex>,
    by_path: BTreeMap<ProjectPath, NodeIndex>,
    /// By node, its place where everything below a node comes right behind it.
    in_order: Vec<u32>,
}

#[derive(Debug, Clone)]
struct Place {
    path: ProjectPath,
    parent: Option<NodeIndex>,
    children: Vec<NodeIndex>,
    weight: u64,
}

impl Arena {
    /// The shape of `tree`.
    #[must_use]
    pub fn of(tree: &QuotaTree) -> Self {
        let (places, tops, in_order) = (Vec::new(), Vec::new(), vec![0; tree.nodes.len()]);
        let mut arena = Arena { places, tops, by_path: BTreeMap::new(), in_order };
        for (number, (path, node)) in (0..u32::MAX).zip(&tree.nodes) {
            let index = NodeIndex(number);
            let parent = path.parent().and_then(|parent| arena.by_path.get(parent)).copied();
            match parent {
                Some(parent) => arena.places[parent.get()].children.push(index),
                None => arena.tops.push(index),
            }
            let weight = u64::from(node.weight.max(1));
            let (path, children) = (path.clone(), Vec::new());
            arena.by_path.insert(path.clone(), index);
            arena.places.push(Place { path, parent, children, weight });
        }
        let mut next: Vec<NodeIndex> = arena.tops.iter().rev().copied().collect();
        for place in 0..u32::MAX {
            let Some(node) = next.pop() else { break };
            arena.in_order[node.get()] = place;
            next.extend(arena.places[node.get()].children.iter().rev());
        }
        arena
    }

    /// Nodes in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is no node.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Every node, parents first.
    pub fn indexes(&self) -> impl DoubleEndedIterator<Item = NodeIndex> + use<> {
        (0..u32::try_from(self.places.len()).unwrap_or(u32::MAX)).map(NodeIndex)
    }

    /// The node of that path.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<NodeIndex> {
        self.by_path.get(path).copied()
    }

    /// The path of a node.
    #[must_use]
    pub fn path(&self, node: NodeIndex) -> &ProjectPath {
        &self.places[node.get()].path
    }

    /// The node above.
    #[must_use]
    pub fn parent(&self, node: NodeIndex) -> Option<NodeIndex> {
        self.places[node.get()].parent
    }

    /// Whether nothing lies below.
    #[must_use]
    pub fn is_leaf(&self, node: NodeIndex) -> bool {
        self.places[node.get()].children.is_empty()
    }

    /// The part of a node in what is left over among its siblings, at least 1.
    #[must_use]
    pub fn weight(&self, node: NodeIndex) -> u64 {
        self.places[node.get()].weight
    }

    /// The node, the one above it, and so on up to the top.
    pub fn self_and_ancestors(&self, node: NodeIndex) -> impl Iterator<Item = NodeIndex> + '_ {
        std::iter::successors(Some(node), |node| self.parent(*node))
    }

    /// The place of a node in an order in which everything below a node comes right behind it, before its siblings.
    #[must_use]
    pub fn place_in_order(&self, node: NodeIndex) -> u32 {
        self.in_order[node.get()]
    }

    /// The children of a node; of `None`: the tops.
    #[must_use]
    pub fn children(&self, node: Option<NodeIndex>) -> &[NodeIndex] {
        node.map_or(&self.tops, |node| &self.places[node.get()].children)
    }
}

/// What a node is entitled to, of one class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entitlement {
    /// Both parts together.
    pub entitled: GpuMilli,
    /// Within its scaled guarantee.
    pub guaranteed: GpuMilli,
    /// Beyond it, from what others leave.
    pub borrowed: GpuMilli,
}

/// Entitlements of one class, kept up to date as demands change.
#[derive(Debug, Clone)]
pub struct Entitlements {
    arena: Arc<Arena>,
    capacity: u64,
    /// By node, as are the following: as the tree says, with what is given below.
    guarantee: Vec<u64>,
    limit: Vec<u64>,
    /// What is left of the guarantee where there is too little for all.
    scaled: Vec<u64>,
    /// What is kept of it, and what may be borrowed beyond it.
    terms: KeepTerms,
    /// What each leaf asks for.
    wished: Vec<u64>,
    /// What is asked, cut to what the node may hold.
    demand: Vec<u64>,
    /// Of the guarantee that is not asked for, what nobody outside may have.
    kept: Vec<u64>,
    /// What is given to the node, with what is kept at it and below it.
    entitled: Vec<u64>,
}

impl Entitlements {
    /// Entitlements of `class` with so much of it in service; `demand` says what each leaf holds and could start,
    /// and is not asked about others.
    #[must_use]
    pub fn new(
        arena: Arc<Arena>,
        tree: &QuotaTree,
        class: &GpuClass,
        capacity: GpuMilli,
        demand: impl Fn(NodeIndex) -> GpuMilli,
    ) -> Self {
        let of = |node: &QuotaNode| node.limits.get(class).map_or(u64::MAX, |limit| limit.0);
        let limit: Vec<u64> = tree.nodes.values().map(of).collect();
        let zeros = vec![0; arena.len()];
        let mut new = Entitlements {
            guarantee: guarantees(&arena, tree, class, &limit),
            limit,
            scaled: zeros.clone(),
            terms: KeepTerms::of(tree, class),
            wished: zeros.clone(),
            demand: zeros.clone(),
            kept: zeros.clone(),
            entitled: zeros,
            capacity: capacity.0,
            arena,
        };
        for leaf in new.arena.indexes().filter(|node| new.arena.is_leaf(*node)) {
            new.wished[leaf.get()] = demand(leaf).0;
        }
        new.scale_all();
        new.ask_all();
        new.spread_all();
        new
    }

    /// What the node is entitled to.
    #[must_use]
    pub fn of(&self, node: NodeIndex) -> Entitlement {
        let entitled = GpuMilli(self.without_kept(node));
        let guaranteed = entitled.min(self.scaled_guarantee(node));
        Entitlement { entitled, guaranteed, borrowed: entitled.saturating_sub(guaranteed) }
    }

    /// What is given to the node, without what is kept at it and below it.
    fn without_kept(&self, node: NodeIndex) -> u64 {
        let given = self.entitled[node.get()];
        if self.kept[node.get()] == 0 {
            return given;
        }
        let below = self.arena.children(Some(node)).iter();
        let below = below.map(|child| self.without_kept(*child)).reduce(u64::saturating_add);
        below.unwrap_or_else(|| given.min(self.demand[node.get()]))
    }

    /// Of its guarantee that it does not ask for, what it and those below it keep from others.
    #[must_use]
    pub fn kept(&self, node: NodeIndex) -> GpuMilli {
        GpuMilli(self.kept[node.get()])
    }

    /// The node's guarantee as the tree gives it, with those given below it.
    #[must_use]
    pub fn guarantee(&self, node: NodeIndex) -> GpuMilli {
        GpuMilli(self.guarantee[node.get()])
    }

    /// What is left of that, if too little is in service for all guarantees.
    #[must_use]
    pub fn scaled_guarantee(&self, node: NodeIndex) -> GpuMilli {
        GpuMilli(self.scaled[node.get()])
    }

    /// The shape they were made for.
    #[must_use]
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Another amount is in service.
    pub fn set_capacity(&mut self, capacity: GpuMilli) {
        if self.capacity != capacity.0 {
            self.capacity = capacity.0;
            self.scale_all();
            self.ask_all();
            self.spread_all();
        }
    }

    /// A leaf asks for another amount.
    pub fn set_demand(&mut self, leaf: NodeIndex, demand: GpuMilli) {
        let mut path = Vec::new();
        self.wished[leaf.get()] = demand.0;
        let mut at = Some(leaf);
        while let Some(node) = at.filter(|node| self.ask(*node)) {
            path.push(node);
            at = self.arena.parent(node);
        }
        if !path.is_empty() {
            self.spread_below(at, &path);
        }
    }

    /// Spreads again below a node whose own entitlement is as it was, and below each node under it that got another
    /// one or lies on the path of those that ask differently.
    fn spread_below(&mut self, from: Option<NodeIndex>, path: &[NodeIndex]) {
        let mut todo = vec![from];
        while let Some(node) = todo.pop() {
            let shares = self.shares_of(node);
            for (place, share) in shares.into_iter().enumerate() {
                let child = self.arena.children(node)[place];
                let before = std::mem::replace(&mut self.entitled[child.get()], share);
                let stale = before != share || path.contains(&child);
                if stale && !self.arena.is_leaf(child) {
                    todo.push(Some(child));
                }
            }
        }
    }

    fn spread_all(&mut self) {
        let arena = Arc::clone(&self.arena);
        let inner = arena.indexes().filter(|node| !arena.is_leaf(*node)).map(Some);
        for node in std::iter::once(None).chain(inner) {
            for (child, share) in arena.children(node).iter().zip(self.shares_of(node)) {
                self.entitled[child.get()] = share;
            }
        }
    }

    /// What each child of the node gets of what the node has.
    fn shares_of(&self, node: Option<NodeIndex>) -> Vec<u64> {
        let has = node.map_or(self.capacity, |node| self.entitled[node.get()]);
        let claim = |child: &NodeIndex| {
            let at = child.get();
            // What is kept is given like what is asked, so that no sibling is.
            let asked = self.demand[at].saturating_add(self.kept[at]);
            let (sure, weight) = (self.scaled[at].min(asked), self.arena.places[at].weight);
            Claim { sure, asked, weight }
        };
        let claims: Vec<Claim> = self.arena.children(node).iter().map(claim).collect();
        spread(has, &claims)
    }

    fn scale_all(&mut self) {
        let arena = Arc::clone(&self.arena);
        let inner = arena.indexes().filter(|node| !arena.is_leaf(*node)).map(Some);
        for node in std::iter::once(None).chain(inner) {
            let has = node.map_or(self.capacity, |node| self.scaled[node.get()]);
            let children = arena.children(node);
            let wanted: Vec<u64> =
                children.iter().map(|child| self.guarantee[child.get()]).collect();
            for (child, scaled) in children.iter().zip(scale(has, &wanted)) {
                self.scaled[child.get()] = scaled;
            }
        }
    }

    fn ask_all(&mut self) {
        for node in self.arena.indexes().rev() {
            self.ask(node);
        }
    }

    /// Finds what a node asks and keeps, from what it wishes or those below it ask and keep; whether that changed.
    fn ask(&mut self, node: NodeIndex) -> bool {
        let at = node.get();
        let children = self.arena.children(Some(node)).iter();
        let sum =
            |of: &[u64]| children.clone().fold(0, |sum: u64, c| sum.saturating_add(of[c.get()]));
        let wished = if self.arena.is_leaf(node) { self.wished[at] } else { sum(&self.demand) };
        let most = self.limit[at].min(self.scaled[at].saturating_add(self.terms.borrow[at]));
        let demand = wished.min(most);
        let unused = self.scaled[at].saturating_sub(demand);
        let kept = self.terms.kept_of(at, unused).max(sum(&self.kept));
        let before = (self.demand[at], self.kept[at]);
        (self.demand[at], self.kept[at]) = (demand, kept);
        before != (demand, kept)
    }
}

/// Each node's own guarantee, or what those below it have together if that is more, cut to its limit.
fn guarantees(arena: &Arena, tree: &QuotaTree, class: &GpuClass, limit: &[u64]) -> Vec<u64> {
    let of = |node: &QuotaNode| node.guarantees.get(class).map_or(0, |given| given.0);
    let mut guarantee: Vec<u64> = tree.nodes.values().map(of).collect();
    for node in arena.indexes().rev() {
        let below = arena.children(Some(node)).iter().map(|child| guarantee[child.get()]);
        let below = below.fold(0, u64::saturating_add);
        let at = node.get();
        guarantee[at] = guarantee[at].max(below).min(limit[at]);
    }
    guarantee
}

/// What nodes say of keeping and borrowing one class, by node.
#[derive(Debug, Clone)]
struct KeepTerms {
    /// Most beyond the guarantee.
    borrow: Vec<u64>,
    /// What is kept of what is unused; empty where no node keeps anything.
    keeps: Vec<(u64, u64)>,
}

impl KeepTerms {
    fn of(tree: &QuotaTree, class: &GpuClass) -> Self {
        let bounds = || tree.nodes.values().map(|node| &node.bounds);
        let of = |amount: &Option<ClassAmount>| amount.as_ref().and_then(|amount| amount.of(class));
        let borrow = bounds().map(|of_node| of(&of_node.borrow_max).map_or(u64::MAX, |max| max.0));
        let keeps = bounds().map(|of_node| {
            let idle = of(&of_node.keep_idle).unwrap_or_default().0;
            (idle, of(&of_node.lend_max).map_or(u64::MAX, |max| max.0))
        });
        let any = bounds().any(Bounds::keeps);
        KeepTerms { borrow: borrow.collect(), keeps: keeps.filter(|_| any).collect() }
    }

    /// Of so much that a node does not use, what it keeps.
    fn kept_of(&self, at: usize, unused: u64) -> u64 {
        let of = |(idle, max): &(u64, u64)| unused.min(*idle).max(unused.saturating_sub(*max));
        self.keeps.get(at).map_or(0, of)
    }
}

#[cfg(test)]
mod tests;
