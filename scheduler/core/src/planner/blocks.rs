//! Gangs that are to keep together: which blocks of nodes take one, the tightest first, and in which order its nodes
//! have their ranks. Jobs without such a wish come here only for the order of their ranks.
//!
//! A gang is counted in segments: parts of so many nodes that are each inside one block; single nodes where none are
//! asked for. Of a list of blocks the largest are filled up, as few as will do, and what is then left goes to the
//! tightest that takes all of it: so the fewest blocks are broken, and large ones stay whole for large gangs.

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::fit::{Extent, Machine};
use super::gang::Pick;
use super::score::SlotId;
use super::slot::Slot;
use super::whole::Whole;
use crate::topology::{BlockTerms, Level};
use crate::world::World;

/// A block of some level, numbered in the order of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BlockId(u32);

/// The blocks of one level.
#[derive(Debug)]
struct Blocks {
    /// By node.
    of: Vec<Option<BlockId>>,
    /// By block: nodes of it that take work.
    in_use: Vec<u32>,
}

/// The blocks of every level; those of one are found once the first gang asks for them.
#[derive(Debug)]
pub(super) struct Topology<'w> {
    levels: [OnceCell<Blocks>; Level::ALL.len()],
    /// Where there are nodes beside those of the machine, which are of its blocks too.
    others: Option<(&'w World, Arc<Whole>)>,
}

impl<'w> Topology<'w> {
    /// Nothing is found yet, for a machine of so many of the world's nodes.
    pub fn of(world: &'w World, whole: &Arc<Whole>, extent: Extent) -> Self {
        let others = match extent {
            Extent::All => None,
            Extent::GpusLeft => Some((world, Arc::clone(whole))),
        };
        Topology { levels: Default::default(), others }
    }
}

impl Blocks {
    fn of(slots: &[Slot<'_>], others: Option<&(&World, Arc<Whole>)>, level: Level) -> Self {
        let name = |slot: &Slot<'_>| slot.node.inventory.block(level).map(str::to_owned);
        let names: BTreeSet<String> = slots.iter().filter_map(name).collect();
        let numbers: BTreeMap<&str, BlockId> =
            names.iter().map(String::as_str).zip((0..).map(BlockId)).collect();
        let block = |slot: &Slot<'_>| numbers.get(slot.node.inventory.block(level)?).copied();
        let of: Vec<Option<BlockId>> = slots.iter().map(block).collect();
        if let Some((world, whole)) = others {
            let all = whole.in_use(world, level);
            let in_use = names.iter().map(|name| all.get(name).copied().unwrap_or(0)).collect();
            return Blocks { of, in_use };
        }
        let mut in_use = vec![0; names.len()];
        for (slot, block) in slots.iter().zip(&of) {
            if let Some(block) = block.filter(|_| slot.takes_work) {
                in_use[block.0 as usize] += 1;
            }
        }
        Blocks { of, in_use }
    }
}

/// Which block takes all of a gang, or what is left of it. The derived order *is* the policy: smaller is better, from
/// the first field to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Tightness {
    /// It is no block but all nodes that belong to none.
    loose: bool,
    /// Free places that stay.
    left: usize,
    /// Nodes that could serve larger gangs later: a block with a drained node is of less use to them.
    in_use: u32,
    /// By name.
    block: Option<BlockId>,
}

/// Which block is filled up first where none takes all, ordered likewise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Fullness {
    /// It is no block but all nodes that belong to none.
    loose: bool,
    /// Segments that have room there, the most first: so the fewest blocks are needed.
    segments: Reverse<u32>,
    /// Free places that stay.
    left: usize,
    /// Nodes that could serve larger gangs later.
    in_use: u32,
    /// By name.
    block: Option<BlockId>,
}

/// What a block has free for a gang.
#[derive(Debug)]
struct Room {
    /// `None`: all nodes that belong to no block.
    block: Option<BlockId>,
    /// Nodes of it that take work.
    in_use: u32,
    /// Its places, the best first, each node once.
    picks: Vec<Pick>,
}

/// A room with the segments it takes.
#[derive(Debug)]
struct Counted {
    room: Room,
    segments: u32,
}

impl Room {
    fn tightness(&self, nodes: u32) -> Tightness {
        Tightness {
            loose: self.block.is_none(),
            left: self.picks.len().saturating_sub(nodes as usize),
            in_use: self.in_use,
            block: self.block,
        }
    }
}

impl Counted {
    fn fullness(&self, unit: u32) -> Fullness {
        let nodes = self.segments.saturating_mul(unit);
        let Tightness { loose, left, in_use, block } = self.room.tightness(nodes);
        Fullness { loose, segments: Reverse(self.segments), left, in_use, block }
    }
}

impl Machine<'_> {
    fn blocks(&self, level: Level) -> &Blocks {
        let Topology { levels, others } = &self.topology;
        levels[level as usize].get_or_init(|| Blocks::of(&self.slots, others.as_ref(), level))
    }

    /// The places by block; those that belong to none come first, if there are any.
    fn rooms(&self, level: Level, picks: Vec<Pick>) -> impl Iterator<Item = Room> + use<> {
        let blocks = self.blocks(level);
        let mut loose = Vec::new();
        let mut rooms: Vec<Vec<Pick>> = vec![Vec::new(); blocks.in_use.len()];
        for pick in picks {
            match blocks.of[pick.slot.0 as usize] {
                Some(block) => rooms[block.0 as usize].push(pick),
                None => loose.push(pick),
            }
        }
        let of_blocks = rooms.into_iter().zip(blocks.in_use.clone()).zip((0..).map(BlockId));
        let of_blocks =
            of_blocks.map(|((picks, in_use), block)| Room { block: Some(block), in_use, picks });
        let loose = Room { block: None, in_use: 0, picks: loose };
        std::iter::once(loose).chain(of_blocks).filter(|room| !room.picks.is_empty())
    }
}

/// The best places for a gang of `nodes` distinct nodes that keeps together as asked, among `places`, which come in
/// their order; in the order of names. `None` if there are too few.
pub(super) fn choose(
    machine: &Machine<'_>,
    terms: &BlockTerms,
    places: impl Iterator<Item = Pick>,
    nodes: u32,
) -> Option<Vec<Pick>> {
    let all = distinct(machine, places);
    let mut chosen = match terms.one {
        None => spread(machine, terms, all, nodes)?,
        Some(level) => {
            let large = |room: &Room| room.block.is_some() && room.picks.len() >= nodes as usize;
            let mut rooms: Vec<Room> = machine.rooms(level, all).filter(large).collect();
            rooms.sort_by_key(|room| room.tightness(nodes));
            rooms.into_iter().find_map(|room| spread(machine, terms, room.picks, nodes))?
        }
    };
    chosen.sort_unstable();
    Some(chosen)
}

/// The places of each block of a level.
pub(super) fn apart(machine: &Machine<'_>, level: Level, places: Vec<Pick>) -> Vec<Vec<Pick>> {
    let blocks = machine.rooms(level, places).filter(|room| room.block.is_some());
    blocks.map(|room| room.picks).collect()
}

/// Each node once, at its best place.
fn distinct(machine: &Machine<'_>, places: impl Iterator<Item = Pick>) -> Vec<Pick> {
    let mut seen = vec![false; machine.slots.len()];
    places.filter(|pick| !std::mem::replace(&mut seen[pick.slot.0 as usize], true)).collect()
}

/// So many of the nodes in whole segments, of as few preferred blocks as possible. What is only preferred gives way
/// where segments would not fit because of it.
fn spread(
    machine: &Machine<'_>,
    terms: &BlockTerms,
    picks: Vec<Pick>,
    nodes: u32,
) -> Option<Vec<Pick>> {
    let unit = terms.segment_nodes();
    let wanted = nodes / unit;
    if !nodes.is_multiple_of(unit) || picks.len() < nodes as usize {
        return None;
    }
    let preferred = terms.prefer.and_then(|level| {
        let counted = |room: Room| {
            let segments = segments_in(machine, terms, &room.picks);
            Counted { room, segments }
        };
        let rooms = machine.rooms(level, picks.clone()).map(counted).collect();
        let parts = allot(rooms, wanted, unit)?;
        let part = |(room, part): (Room, u32)| segments(machine, terms, room.picks, part);
        let parts: Option<Vec<Vec<Pick>>> = parts.into_iter().map(part).collect();
        parts.map(|parts| parts.concat())
    });
    preferred.or_else(|| segments(machine, terms, picks, wanted))
}

/// So many whole segments of the nodes.
fn segments(
    machine: &Machine<'_>,
    terms: &BlockTerms,
    mut picks: Vec<Pick>,
    wanted: u32,
) -> Option<Vec<Pick>> {
    let Some(segment) = terms.segment else {
        picks.truncate(wanted as usize);
        return (picks.len() == wanted as usize).then_some(picks);
    };
    let unit = terms.segment_nodes();
    let counted = |room: Room| Counted { segments: whole_segments(room.picks.len(), unit), room };
    let blocks = machine.rooms(segment.level, picks).filter(|room| room.block.is_some());
    let parts = allot(blocks.map(counted).collect(), wanted, unit)?;
    let nodes =
        |(room, part): (Room, u32)| room.picks.into_iter().take(part.saturating_mul(unit) as usize);
    Some(parts.into_iter().flat_map(nodes).collect())
}

/// How many whole segments the nodes make.
fn segments_in(machine: &Machine<'_>, terms: &BlockTerms, picks: &[Pick]) -> u32 {
    let Some(segment) = terms.segment else { return whole_segments(picks.len(), 1) };
    let blocks = machine.rooms(segment.level, picks.to_vec()).filter(|room| room.block.is_some());
    blocks.map(|room| whole_segments(room.picks.len(), terms.segment_nodes())).sum()
}

fn whole_segments(nodes: usize, unit: u32) -> u32 {
    u32::try_from(nodes).unwrap_or(u32::MAX) / unit
}

/// So many segments of `unit` nodes over as few of the rooms as possible, and how many go to each; `None` if all of
/// them together have too few.
fn allot(mut rooms: Vec<Counted>, wanted: u32, unit: u32) -> Option<Vec<(Room, u32)>> {
    rooms.retain(|counted| counted.segments > 0);
    rooms.sort_by_key(|counted| counted.fullness(unit));
    let (mut left, mut full) = (wanted, 0);
    while let Some(largest) = rooms.get(full).filter(|largest| largest.segments < left) {
        left -= largest.segments;
        full += 1;
    }
    let rest = rooms.split_off(full);
    let mut parts: Vec<(Room, u32)> =
        rooms.into_iter().map(|Counted { room, segments }| (room, segments)).collect();
    if left > 0 {
        let takes_all = rest.into_iter().filter(|counted| counted.segments >= left);
        let nodes = left.saturating_mul(unit);
        let tightest = takes_all.min_by_key(|counted| counted.room.tightness(nodes))?;
        parts.push((tightest.room, left));
    }
    Some(parts)
}

/// Of these nodes, which serve, as many as can be of one gang: all, or those of the block that has the most, and of
/// each block of segments as many as make whole ones.
pub(super) fn together(
    machine: &Machine<'_>,
    terms: &BlockTerms,
    slots: BTreeSet<SlotId>,
) -> BTreeSet<SlotId> {
    let picks = slots.iter().map(|slot| Pick { slot: *slot, gpu: None }).collect();
    let of_blocks = |level: Level, picks: Vec<Pick>| {
        machine.rooms(level, picks).filter(|room| room.block.is_some()).map(|room| room.picks)
    };
    let whole = |picks: Vec<Pick>| -> Vec<Pick> {
        let Some(segment) = terms.segment else { return picks };
        let unit = terms.segment_nodes() as usize;
        let truncated = |mut picks: Vec<Pick>| {
            picks.truncate(picks.len() / unit * unit);
            picks
        };
        of_blocks(segment.level, picks).flat_map(truncated).collect()
    };
    let most: Vec<Pick> = match terms.one {
        None => whole(picks),
        Some(level) => {
            let larger = |most: Vec<Pick>, next: Vec<Pick>| {
                if next.len() > most.len() { next } else { most }
            };
            of_blocks(level, picks).map(whole).fold(Vec::new(), larger)
        }
    };
    most.into_iter().map(|pick| pick.slot).collect()
}

/// Sets of nodes of which the gang could be made if they were empty, those first of which most serve already: one
/// block after the other, or the blocks of its segments together.
pub(super) fn aims(
    machine: &Machine<'_>,
    terms: &BlockTerms,
    open: &BTreeSet<SlotId>,
    fitting: &BTreeSet<SlotId>,
    nodes: u32,
) -> impl Iterator<Item = BTreeSet<SlotId>> {
    let level = terms.one.or(terms.segment.map(|segment| segment.level));
    let blocks = level.map(|level| nearest_blocks(machine, level, open, fitting, nodes));
    let mut aim = BTreeSet::new();
    let mut aims = blocks.into_iter().flatten().map(move |slots| {
        if terms.one.is_some() {
            return slots.collect();
        }
        aim.extend(slots);
        aim.clone()
    });
    let enough = move |slots: &BTreeSet<SlotId>| {
        together(machine, terms, slots.clone()).len() >= nodes as usize
    };
    // Of segments one aim is enough: all others have it in them.
    let most = if terms.one.is_some() { usize::MAX } else { 1 };
    std::iter::from_fn(move || aims.find(|aim| enough(aim))).take(most)
}

/// The nodes of each block, those blocks first of which most nodes serve already.
fn nearest_blocks(
    machine: &Machine<'_>,
    level: Level,
    open: &BTreeSet<SlotId>,
    fitting: &BTreeSet<SlotId>,
    nodes: u32,
) -> impl Iterator<Item = impl Iterator<Item = SlotId> + use<>> + use<> {
    let picks = open.iter().map(|slot| Pick { slot: *slot, gpu: None }).collect();
    let rooms = machine.rooms(level, picks).filter(|room| room.block.is_some());
    let missing = |room: Room| {
        let serving = room.picks.iter().filter(|pick| fitting.contains(&pick.slot)).count();
        ((nodes as usize).saturating_sub(serving), room)
    };
    let mut rooms: Vec<(usize, Room)> = rooms.map(missing).collect();
    rooms.sort_by_key(|(missing, room)| (*missing, room.tightness(nodes)));
    rooms.into_iter().map(|(_, room)| room.picks.into_iter().map(|pick| pick.slot))
}

/// The order of ranks: nodes of one block are neighbours, at the level that is asked for always, at the others as far
/// as one lies inside the other; of one block by name.
pub(super) fn ranked(machine: &Machine<'_>, terms: &BlockTerms, mut picks: Vec<Pick>) -> Vec<Pick> {
    let place = |pick: &Pick| {
        let inventory = &machine.slot(pick.slot).node.inventory;
        (Level::ALL.map(|level| inventory.block(level)), pick.slot)
    };
    let Some(level) = terms.ranked_by() else {
        picks.sort_by_cached_key(place);
        return picks;
    };
    let own = |pick: &Pick| machine.slot(pick.slot).node.inventory.block(level);
    let mut first = BTreeMap::new();
    for pick in &picks {
        let here = place(pick);
        let known = first.entry(own(pick)).or_insert(here);
        *known = here.min(*known);
    }
    picks.sort_by_cached_key(|pick| (first.get(&own(pick)).copied(), place(pick)));
    picks
}
