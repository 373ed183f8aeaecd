//! The order of the leaves of a tree, by one of two rules.
//!
//! Both walk the tree level by level: the leaves below one node come together, before or after all leaves below its
//! sibling. Which sibling is first is decided by its *burden*, what it used for what it has a share of, and by
//! nothing else of the tree. Equals stay equal: leaves of equal burden share a turn, and the children of equal
//! siblings are merged into one level, each with the burden that it has among its own siblings. A leaf that is equal
//! to a node with children shares the turn of the first of them. A node without a share comes last under either rule,
//! whatever it used.
//!
//! [`OrderRule::UsePerShare`]: smallest use per share first. A node that never asked for anything has no use, and not
//! because it was passed over; it stands in the middle, as if it had used what its siblings on average did for its
//! share. The average counts only for the part of the time in which a node did not ask ([`Standing::asked`]):
//!
//! ```text
//! mean   = sum of use / sum of (share * asked)      over the siblings that have a share
//! burden = use / share + (1 - asked) * mean,        told in means, so that merged levels compare
//! ```
//!
//! So a new project, and one that has been idle for long, begins at the mean. From there it moves smoothly, with what
//! it uses while it asks: down if that is less than the others use for their shares, up if it is more. It is neither
//! first until it has caught up with everybody's last weeks, nor last. Where nobody used anything, all are equal.
//!
//! [`OrderRule::FairTree`]: level fair share = (its part of the siblings' shares) / (its part of their use), highest
//! first, no use highest of all. It knows no mean: without use means first.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Part;
use super::fraction::Fraction;
use crate::ids::ProjectPath;

/// By what siblings are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderRule {
    /// By use for each share; a node that did not ask stands in the middle.
    #[default]
    UsePerShare,
    /// By level fair share; a node without use is first.
    FairTree,
}

/// What a node of the tree has a right to, and what it made of it; all below it included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its share; only the proportion to its siblings' matters. None: last.
    pub share: u32,
    /// What it used, in any unit that is the same in the whole tree. Exact while the use of siblings adds up to less
    /// than 2^47, as parts of a capacity do, and GPU time of 50,000 GPUs in thousandths and up to 14 days' half-life.
    pub used: u64,
    /// In which part of the time, fading as use does, it had a job that waited or ran.
    pub asked: Part,
}

impl Standing {
    /// Of a node of which nobody knows when it asked: always if it has any use, never if it has none.
    #[must_use]
    pub fn of_use(share: u32, used: u64) -> Self {
        let asked = if used == 0 { Part::NONE } else { Part::WHOLE };
        Standing { share, used, asked }
    }
}

/// The place of a leaf in the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// The leaf.
    pub project: ProjectPath,
    /// Leaves that do not come before it, itself included; equal for equals.
    pub points: u32,
    /// Leaves in all; points of those that come first.
    pub of: u32,
}

/// All leaves of `tree`, first to come first, equals by their path. A node whose parent is not in the tree stands
/// among those that have none.
#[must_use]
pub fn order(tree: &BTreeMap<ProjectPath, Standing>, rule: OrderRule) -> Vec<Turn> {
    let forest = Forest::new(tree, rule);
    let ties = forest.ties(forest.roots.clone());
    let of = count(ties.iter().map(Vec::len).sum());
    let mut points = of;
    let mut turns = Vec::new();
    for tie in ties {
        turns.extend(tie.iter().map(|&leaf| Turn { project: forest.path(leaf), points, of }));
        points = points.saturating_sub(count(tie.len()));
    }
    turns
}

fn count(leaves: usize) -> u32 {
    u32::try_from(leaves).unwrap_or(u32::MAX)
}

/// How far a node is from its next turn; the smallest is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Burden {
    /// Told in what its siblings on average used for their shares.
    Of(Fraction),
    /// After all that have a share.
    NoShare,
}

/// The tree with every node's burden; nodes are known by their position in the order of paths.
struct Forest<'a> {
    nodes: Vec<Node<'a>>,
    roots: Vec<usize>,
}

struct Node<'a> {
    path: &'a ProjectPath,
    standing: Standing,
    burden: Burden,
    children: Vec<usize>,
}

impl<'a> Forest<'a> {
    fn new(tree: &'a BTreeMap<ProjectPath, Standing>, rule: OrderRule) -> Self {
        let mut forest = Forest { nodes: Vec::with_capacity(tree.len()), roots: Vec::new() };
        let mut known: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, (path, &standing)) in tree.iter().enumerate() {
            let parent = path.parent().and_then(|parent| known.get(parent));
            match parent {
                Some(&parent) => forest.nodes[parent].children.push(index),
                None => forest.roots.push(index),
            }
            let node = Node { path, standing, burden: Burden::NoShare, children: Vec::new() };
            forest.nodes.push(node);
            known.insert(path.as_str(), index);
        }
        forest.weigh_all(rule);
        forest
    }

    fn path(&self, index: usize) -> ProjectPath {
        self.nodes[index].path.clone()
    }

    fn weigh_all(&mut self, rule: OrderRule) {
        self.weigh(&self.roots.clone(), rule);
        for index in 0..self.nodes.len() {
            self.weigh(&self.nodes[index].children.clone(), rule);
        }
    }

    /// Burdens of siblings.
    fn weigh(&mut self, siblings: &[usize], rule: OrderRule) {
        let level = Level::of(siblings.iter().map(|&index| self.nodes[index].standing), rule);
        for &index in siblings {
            self.nodes[index].burden = level.burden(self.nodes[index].standing);
        }
    }

    /// Leaves below `siblings` and among them, first to come first, equals together. As deep as a path is at most.
    fn ties(&self, mut siblings: Vec<usize>) -> Vec<Vec<usize>> {
        siblings.sort_by(|&one, &other| self.compare(one, other).then(one.cmp(&other)));
        let equals = siblings.chunk_by(|&one, &other| self.compare(one, other).is_eq());
        equals.flat_map(|equals| self.ties_of_equals(equals)).collect()
    }

    fn ties_of_equals(&self, equals: &[usize]) -> Vec<Vec<usize>> {
        let (mut leaves, parents): (Vec<usize>, Vec<usize>) =
            equals.iter().partition(|&&index| self.nodes[index].children.is_empty());
        let below = parents.iter().flat_map(|&parent| &self.nodes[parent].children).copied();
        let mut ties = self.ties(below.collect());
        match ties.first_mut() {
            Some(first) => {
                first.append(&mut leaves);
                first.sort_unstable();
            }
            None => ties.push(leaves),
        }
        ties
    }

    fn compare(&self, one: usize, other: usize) -> Ordering {
        self.nodes[one].burden.cmp(&self.nodes[other].burden)
    }
}

/// Sums over siblings.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Level {
    /// Over those that have a share.
    UsePerShare {
        /// What they used.
        used: u128,
        /// Their shares, each times the part of the time in which its node asked.
        share_asked: u128,
    },
    /// Over all.
    FairTree {
        /// What they used.
        used: u128,
        /// Their shares.
        share: u128,
    },
    /// Over those that have a share, for shares in the unit of what is held.
    Past {
        /// What they used in the past.
        used: u128,
        /// Their shares, each times the part of the past in which its node asked.
        share_asked: u128,
    },
}

impl Level {
    /// Sums over these.
    pub fn of(siblings: impl Iterator<Item = Standing> + Clone, rule: OrderRule) -> Self {
        let used = |node: Standing| u128::from(node.used);
        match rule {
            OrderRule::UsePerShare => {
                let sharing = siblings.filter(|node| node.share != 0);
                Level::UsePerShare {
                    used: sharing.clone().map(used).sum(),
                    share_asked: sharing.map(|node| u128::from(node.share) * asked(node)).sum(),
                }
            }
            OrderRule::FairTree => Level::FairTree {
                used: siblings.clone().map(used).sum(),
                share: siblings.map(|node| u128::from(node.share)).sum(),
            },
        }
    }

    /// Sums over what these used in the past, for a pass in which their use grows and their past does not. By use for
    /// each share, burdens are told in use itself, since shares are told in GPUs.
    pub fn of_past(siblings: impl Iterator<Item = Standing> + Clone, rule: OrderRule) -> Self {
        match Self::of(siblings, rule) {
            Level::UsePerShare { used, share_asked } => Level::Past { used, share_asked },
            // Without any use there is no mean, and the mean is all that this is divided by.
            Level::FairTree { used, share } => Level::FairTree { used: used.max(1), share },
            level @ Level::Past { .. } => level,
        }
    }

    /// How far a node is from its next turn; it never falls when the node's use grows.
    ///
    /// `None` of a fraction means that nobody used anything, and then all are equal.
    pub fn burden(&self, node: Standing) -> Burden {
        let own_share = u128::from(node.share);
        if own_share == 0 {
            return Burden::NoShare;
        }
        let whole = u128::from(Part::WHOLE.0);
        let (own_use, idle) = (u128::from(node.used), whole - asked(node));
        Burden::Of(match *self {
            Level::UsePerShare { used, share_asked } => {
                let part = own_use.saturating_mul(share_asked);
                let neutral = (own_share * idle).saturating_mul(used);
                let mean = (own_share * whole).saturating_mul(used);
                let burden = Fraction::new(part.saturating_add(neutral), mean);
                burden.unwrap_or(Fraction::ONE)
            }
            Level::FairTree { used, share } => {
                Fraction::new(own_use * share, own_share * used).unwrap_or(Fraction::ZERO)
            }
            Level::Past { used, share_asked } => {
                // Without anybody who asked there is no mean.
                let asked = share_asked.max(1);
                let part = own_use.saturating_mul(asked);
                let neutral = (own_share * idle).saturating_mul(used);
                let burden = Fraction::new(part.saturating_add(neutral), own_share * asked);
                burden.unwrap_or(Fraction::ONE)
            }
        })
    }
}

/// Never more than always.
fn asked(node: Standing) -> u128 {
    u128::from(node.asked.min(Part::WHOLE).0)
}
