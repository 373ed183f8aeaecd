//! The nodes of a run, and for each shape how good each of them is: looked at again only where something changed since
//! that shape last came.

use std::collections::{BTreeMap, BTreeSet};

use gotgan_core::amount::GpuMilli;
use gotgan_core::fragmentation::{Counts, GpuShape, Room, Shape};

use super::arrivals::place;
use super::policy::{Rank, Rule};
use crate::draw::Draw;

/// What marks a node on which a shape does not fit.
const NO_ROOM: i64 = i64::MAX;

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// What is free.
    pub room: Room,
    /// Kinds of tasks that run on it.
    pub kinds: BTreeSet<Kind>,
}

/// Kinds of tasks that GpuClustering tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Shares, of whatever size.
    Share,
    /// So many whole GPUs.
    Whole(u32),
}

impl Kind {
    /// Of that shape; none without GPUs.
    #[must_use]
    pub fn of(shape: &Shape) -> Option<Self> {
        match shape.gpus {
            GpuShape::None => None,
            GpuShape::Share(_) => Some(Kind::Share),
            GpuShape::Whole(count) => Some(Kind::Whole(count)),
        }
    }
}

impl Host {
    /// Nothing runs on it yet.
    #[must_use]
    pub fn idle(name: String, room: Room) -> Self {
        Host { name, room, kinds: BTreeSet::new() }
    }

    /// Whether it is as good as the other one for whatever comes.
    fn is_like(&self, other: &Host) -> bool {
        self.room == other.room && self.kinds == other.kinds
    }
}

/// All nodes, with what was found about them.
#[derive(Debug)]
pub struct Board {
    hosts: Vec<Host>,
    rule: Rule,
    /// Fragments of each node as it is.
    fragments: Vec<u64>,
    /// Nodes in the order in which they changed, one for each change.
    changes: Vec<usize>,
    /// Of each node, its last place among the changes.
    last_change: Vec<usize>,
    known: BTreeMap<Shape, Known>,
}

/// How good each node was for a shape, when so many changes had been.
#[derive(Debug)]
struct Known {
    seen: usize,
    costs: Vec<i64>,
}

impl Board {
    /// Nodes in the order of names, and who chooses among them.
    #[must_use]
    pub fn new(hosts: Vec<Host>, rule: Rule) -> Self {
        let fragments = hosts.iter().map(|host| rule.fragments(host)).collect();
        let last_change = vec![0; hosts.len()];
        let (changes, known) = (Vec::new(), BTreeMap::new());
        Board { hosts, rule, fragments, changes, last_change, known }
    }

    /// The nodes as they are.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Tells the rule what came so far.
    pub fn learn(&mut self, counts: &Counts) {
        if self.rule.learn(counts) {
            self.known.clear();
            self.fragments = self.hosts.iter().map(|host| self.rule.fragments(host)).collect();
        }
    }

    /// Places the task on the best node; whether it fits anywhere.
    pub fn place(&mut self, shape: &Shape, draw: &mut Draw) -> bool {
        self.look(shape);
        let drawn = matches!(self.rule, Rule::Random);
        let node = if drawn { self.any(shape, draw) } else { self.best(shape) };
        let Some(node) = node else { return false };
        let rank = self.rank(node, shape);
        let gpu = if drawn { self.any_gpu(node, shape, draw) } else { rank.and_then(|r| r.gpu) };
        self.take(node, shape, gpu)
    }

    /// What every node costs for the shape now, `None` where it does not fit.
    pub fn costs(&mut self, shape: &Shape) -> Vec<Option<i64>> {
        self.look(shape);
        let costs = self.known.get(shape).into_iter().flat_map(|known| &known.costs);
        costs.map(|cost| Some(*cost).filter(|cost| *cost != NO_ROOM)).collect()
    }

    fn take(&mut self, node: usize, shape: &Shape, gpu: Option<usize>) -> bool {
        let host = &mut self.hosts[node];
        if !host.room.take(shape, gpu) {
            return false;
        }
        host.kinds.extend(Kind::of(shape));
        self.fragments[node] = self.rule.fragments(host);
        self.last_change[node] = self.changes.len();
        self.changes.push(node);
        true
    }

    fn rank(&self, node: usize, shape: &Shape) -> Option<Rank> {
        self.rule.rank(&self.hosts[node], self.fragments[node], shape)
    }

    fn cost(&self, node: usize, shape: &Shape) -> i64 {
        self.rank(node, shape).map_or(NO_ROOM, |rank| rank.cost)
    }

    /// Looks at every node the first time that a shape comes, and later at those that changed.
    fn look(&mut self, shape: &Shape) {
        let known = match self.known.remove(shape) {
            Some(known) => self.looked_again(known, shape),
            None => Known { seen: self.changes.len(), costs: self.all_costs(shape) },
        };
        self.known.insert(*shape, known);
    }

    fn looked_again(&self, mut known: Known, shape: &Shape) -> Known {
        for (place, node) in self.changes.iter().enumerate().skip(known.seen) {
            // A node that changed several times is looked at once.
            if self.last_change[*node] == place {
                known.costs[*node] = self.cost(*node, shape);
            }
        }
        known.seen = self.changes.len();
        known
    }

    /// Neighbours are often alike as long as little runs.
    fn all_costs(&self, shape: &Shape) -> Vec<i64> {
        let mut costs: Vec<i64> = Vec::with_capacity(self.hosts.len());
        for node in 0..self.hosts.len() {
            let like_last = node > 0 && self.hosts[node].is_like(&self.hosts[node - 1]);
            let last = costs.last().copied().filter(|_| like_last);
            costs.push(last.unwrap_or_else(|| self.cost(node, shape)));
        }
        costs
    }

    /// The cheapest node, of equals the first by name.
    fn best(&self, shape: &Shape) -> Option<usize> {
        let costs = &self.known.get(shape)?.costs;
        let (node, cost) = costs.iter().enumerate().min_by_key(|(_, cost)| **cost)?;
        (*cost != NO_ROOM).then_some(node)
    }

    /// Any node with room.
    fn any(&self, shape: &Shape, draw: &mut Draw) -> Option<usize> {
        let costs = self.known.get(shape)?.costs.iter().enumerate();
        let fits: Vec<_> = costs.filter(|(_, cost)| **cost != NO_ROOM).collect();
        fits.get(place(draw, fits.len())).map(|(node, _)| *node)
    }

    /// For a share, any GPU of the node that has room.
    fn any_gpu(&self, node: usize, shape: &Shape, draw: &mut Draw) -> Option<usize> {
        let GpuShape::Share(milli) = shape.gpus else { return None };
        let large = |(place, free): (usize, &GpuMilli)| (*free >= milli).then_some(place);
        let fits: Vec<_> =
            self.hosts[node].room.gpus.iter().enumerate().filter_map(large).collect();
        fits.get(place(draw, fits.len())).copied()
    }
}
