//! Which nodes a reservation by command gets where only their number is said: those on which the fewest jobs are still
//! there at its beginning, then the closest together, then the soonest free.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::amount::UnixMicros;
use crate::fabric::{self, ReservationSet};
use crate::ids::{AttemptId, GpuClass, NodeName, ProjectPath, ReservationName};
use crate::node::{Admin, Liveness};
use crate::quota::{Interval, show_moment};
use crate::topology::Level;
use crate::window::{WindowId, ends_of};
use crate::world::{Node, World};

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// How many nodes.
    pub count: u32,
    /// With GPUs of this class; `None`: of the one class there is, or any nodes where there are no GPUs.
    pub class: Option<GpuClass>,
    /// Of this block; `None`: of any.
    pub block: Option<(Level, String)>,
}

/// What a node has at that time already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clash {
    /// Maintenance.
    Maintenance(WindowId, Interval),
    /// Another reservation by command.
    Reservation(ReservationName, Interval),
    /// A reservation of the quota files that is for others.
    Book(ReservationName, Interval),
}

impl std::fmt::Display for Clash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let span = |during: &Interval| {
            format!("from {} until {}", show_moment(during.from), show_moment(during.until))
        };
        match self {
            Clash::Maintenance(id, during) => write!(f, "in maintenance {id} {}", span(during)),
            Clash::Reservation(name, during) => write!(f, "reserved by {name} {}", span(during)),
            Clash::Book(name, during) => {
                write!(f, "reserved by {name} of the quota files {}", span(during))
            }
        }
    }
}

/// What nodes have in a span of time beside what the reservation in question is.
#[derive(Debug)]
pub struct Busy<'w> {
    world: &'w World,
    book: BTreeMap<&'w NodeName, ReservationSet>,
    during: Interval,
    holders: BTreeSet<ProjectPath>,
    except: Option<WindowId>,
}

impl<'w> Busy<'w> {
    /// In that time, for somebody who reserves for these; `except` is the reservation itself if it is there already.
    #[must_use]
    pub fn of(
        world: &'w World,
        during: Interval,
        holders: &BTreeSet<ProjectPath>,
        except: Option<WindowId>,
    ) -> Self {
        let book = fabric::reserved(world, &fabric::standby(world));
        Busy { world, book, during, holders: holders.clone(), except }
    }

    /// The first thing that the node has already; `None` if it has nothing.
    #[must_use]
    pub fn on(&self, name: &NodeName) -> Option<Clash> {
        let meets =
            |other: Interval| other.from < self.during.until && self.during.from < other.until;
        let windows = self.world.windows.of_node(name);
        let mut windows =
            windows.filter(|window| meets(window.during) && Some(window.id) != self.except);
        let window = windows.next().map(|window| match &window.reserved {
            None => Clash::Maintenance(window.id, window.during),
            Some(reserved) => Clash::Reservation(reserved.name.clone(), window.during),
        });
        window.or_else(|| self.in_book(name, meets))
    }

    /// A reservation of the quota files is in the way unless all that it is for now may use it.
    fn in_book(&self, name: &NodeName, meets: impl Fn(Interval) -> bool) -> Option<Clash> {
        let own = self.book.get(name)?;
        let all = self.world.quota.reservations.iter().enumerate();
        let mut found = all.filter(|(place, (_, terms))| {
            let shared = self.holders.iter().all(|one| one.is_within(terms.holder.as_str()));
            own.has(*place) && meets(terms.during) && !shared
        });
        found.next().map(|(_, (name, terms))| Clash::Book(name.clone(), terms.during))
    }
}

/// Why no nodes were found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceRefusal {
    /// Nodes have different GPUs, and nobody said which.
    #[error("there are nodes with {}: say which class", .0.join(", "))]
    Classes(Vec<String>),
    /// Too few are there and have nothing else at that time.
    #[error(
        "{wanted} nodes are wanted; {there} like that are there, and {busy} of them are in maintenance or reserved at that \
         time"
    )]
    TooFew {
        /// How many are wanted.
        wanted: u32,
        /// How many are there.
        there: usize,
        /// How many of them have something else.
        busy: usize,
    },
}

/// A node that could be one of them.
#[derive(Debug, Clone)]
struct Candidate<'w> {
    name: &'w NodeName,
    node: &'w Node,
    /// Attempts that are still there at the beginning, as far as time limits tell.
    staying: BTreeSet<AttemptId>,
    /// When the last attempt is over.
    free: UnixMicros,
}

/// What a set of nodes costs. The derived order *is* the rule: smaller is better, from the first field to the last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Cost<'w> {
    /// Jobs that are still there at the beginning.
    staying: usize,
    /// Closest first: the level at which all are of one block, or none.
    apart: Reverse<Option<Level>>,
    /// When the last of them is free.
    free: UnixMicros,
    /// Nodes of the block that are left over: a tight one leaves larger ones whole.
    left: usize,
    /// So that the order is total.
    first: Option<&'w NodeName>,
}

/// Nodes for a reservation in that time.
///
/// # Errors
/// [`ChoiceRefusal`] with how many there are.
pub fn choose(
    world: &World,
    wanted: &Wanted,
    busy: &Busy<'_>,
    now: UnixMicros,
) -> Result<BTreeSet<NodeName>, ChoiceRefusal> {
    let class = class_of(world, wanted)?;
    let standby = fabric::standby(world);
    let serves = |(name, node): &(&NodeName, &Node)| {
        let inventory = &node.inventory;
        let of_class =
            class.as_ref().is_none_or(|class| inventory.gpus.iter().any(|gpu| gpu.class == *class));
        let block = wanted.block.as_ref();
        let of_block =
            block.is_none_or(|(level, name)| inventory.block(*level) == Some(name.as_str()));
        of_class
            && of_block
            && node.admin == Admin::Active
            && node.liveness != Liveness::Lost
            && !standby.contains(name)
    };
    let there: Vec<(&NodeName, &Node)> = world.nodes.iter().filter(serves).collect();
    let free = there.iter().filter(|(name, _)| busy.on(name).is_none());
    let from = busy.during.from;
    let candidates: Vec<_> =
        free.map(|(name, node)| candidate(world, (name, node), from, now)).collect();
    best(&candidates, wanted.count as usize).ok_or(ChoiceRefusal::TooFew {
        wanted: wanted.count,
        there: there.len(),
        busy: there.len() - candidates.len(),
    })
}

/// The class that is meant.
fn class_of(world: &World, wanted: &Wanted) -> Result<Option<GpuClass>, ChoiceRefusal> {
    if wanted.class.is_some() {
        return Ok(wanted.class.clone());
    }
    let gpus = world.nodes.values().flat_map(|node| &node.inventory.gpus);
    let classes: BTreeSet<&GpuClass> = gpus.map(|gpu| &gpu.class).collect();
    if classes.len() > 1 {
        return Err(ChoiceRefusal::Classes(classes.iter().map(ToString::to_string).collect()));
    }
    Ok(classes.first().map(|class| (*class).clone()))
}

fn candidate<'w>(
    world: &World,
    (name, node): (&'w NodeName, &'w Node),
    from: UnixMicros,
    now: UnixMicros,
) -> Candidate<'w> {
    let attempts = node.attempts.iter().filter_map(|id| world.attempts.get(id));
    let ends = attempts.filter_map(|attempt| Some((attempt.id, ends_of(world, attempt, now)?)));
    let (mut staying, mut free) = (BTreeSet::new(), now);
    for (id, end) in ends {
        free = free.max(end);
        if end > from {
            staying.insert(id);
        }
    }
    Candidate { name, node, staying, free }
}

/// The best of what each block of each level gives, and of all nodes together.
fn best(candidates: &[Candidate<'_>], count: usize) -> Option<BTreeSet<NodeName>> {
    let mut groups: BTreeMap<Option<(Level, &str)>, Vec<&Candidate<'_>>> = BTreeMap::new();
    for one in candidates {
        groups.entry(None).or_default().push(one);
        for level in Level::ALL {
            if let Some(block) = one.node.inventory.block(level) {
                groups.entry(Some((level, block))).or_default().push(one);
            }
        }
    }
    let enough = groups.into_iter().filter(|(_, nodes)| nodes.len() >= count);
    let costs = enough.map(|(block, nodes)| {
        let left = nodes.len() - count;
        let chosen = pick(nodes, count);
        let staying: BTreeSet<&AttemptId> = chosen.iter().flat_map(|one| &one.staying).collect();
        let cost = Cost {
            staying: staying.len(),
            apart: Reverse(block.map(|(level, _)| level)),
            free: chosen.iter().map(|one| one.free).max().unwrap_or_default(),
            left,
            first: chosen.iter().map(|one| one.name).min(),
        };
        (cost, chosen)
    });
    let (_, chosen) = costs.min_by(|(one, _), (other, _)| one.cmp(other))?;
    Some(chosen.into_iter().map(|one| one.name.clone()).collect())
}

/// The best nodes of one group: those without anybody at the beginning first, of the blocks that have most of these, so
/// that what no one block holds is in few.
fn pick<'c, 'w>(mut nodes: Vec<&'c Candidate<'w>>, count: usize) -> Vec<&'c Candidate<'w>> {
    let key = |one: &Candidate<'w>| Level::ALL.map(|level| one.node.inventory.block(level));
    let mut sizes: BTreeMap<[Option<&str>; Level::ALL.len()], usize> = BTreeMap::new();
    for one in nodes.iter().filter(|one| one.staying.is_empty()) {
        *sizes.entry(key(one)).or_default() += 1;
    }
    nodes.sort_by_cached_key(|one| {
        let block = key(one);
        let size = sizes.get(&block).copied().unwrap_or_default();
        (one.staying.len(), Reverse(size), block, one.free, one.name)
    });
    nodes.truncate(count);
    nodes
}
