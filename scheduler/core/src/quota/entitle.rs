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
//! A guarantee given below counts at every node above, also where that has none of its own, as far as its limit
//! goes. By largest remainder one more GPU in service may move a scaled guarantee down by one: that is the price of
//! exact sums, and it can happen only while there is too little for all guarantees.

mod share;

use std::collections::BTreeMap;
use std::sync::Arc;

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
        let mut arena = Arena { places: Vec::new(), tops: Vec::new(), by_path: BTreeMap::new() };
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
    /// What is asked, cut to the limit.
    demand: Vec<u64>,
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
            demand: zeros.clone(),
            entitled: zeros,
            capacity: capacity.0,
            arena,
        };
        new.scale_all();
        new.ask_all(demand);
        new.spread_all();
        new
    }

    /// What the node is entitled to.
    #[must_use]
    pub fn of(&self, node: NodeIndex) -> Entitlement {
        let entitled = GpuMilli(self.entitled[node.get()]);
        let guaranteed = entitled.min(self.scaled_guarantee(node));
        Entitlement { entitled, guaranteed, borrowed: entitled.saturating_sub(guaranteed) }
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
            self.spread_all();
        }
    }

    /// A leaf asks for another amount.
    pub fn set_demand(&mut self, leaf: NodeIndex, demand: GpuMilli) {
        let mut path = Vec::new();
        let mut asked = demand.0.min(self.limit[leaf.get()]);
        let mut at = Some(leaf);
        while let Some(node) = at.filter(|node| self.demand[node.get()] != asked) {
            self.demand[node.get()] = asked;
            path.push(node);
            at = self.arena.parent(node);
            if let Some(parent) = at {
                asked = self.asked_below(parent);
            }
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
            let (sure, asked) = (self.scaled[at].min(self.demand[at]), self.demand[at]);
            Claim { sure, asked, weight: self.arena.places[at].weight }
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

    fn ask_all(&mut self, demand: impl Fn(NodeIndex) -> GpuMilli) {
        for node in self.arena.indexes().rev() {
            let asked =
                if self.arena.is_leaf(node) { demand(node).0 } else { self.asked_below(node) };
            self.demand[node.get()] = asked.min(self.limit[node.get()]);
        }
    }

    /// What the children of a node ask, cut to its limit.
    fn asked_below(&self, node: NodeIndex) -> u64 {
        let asked = self.arena.children(Some(node)).iter().map(|child| self.demand[child.get()]);
        asked.fold(0, u64::saturating_add).min(self.limit[node.get()])
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

#[cfg(test)]
mod tests;
