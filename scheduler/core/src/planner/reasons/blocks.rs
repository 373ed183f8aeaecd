//! What is told of a gang that is to keep together: in which blocks, and which of them is nearest to having room.

use std::collections::BTreeSet;

use super::{Look, count};
use crate::explain::BEST;
use crate::planner::blocks;
use crate::planner::gang::Need;
use crate::planner::score::SlotId;
use crate::planner::slot::Slot;
use crate::topology::{BlockTerms, Level};

/// How near a gang is to having its nodes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Nearest {
    /// Nodes it could have now.
    pub available: u32,
    /// Of how many, if they were empty.
    pub limit: u32,
    /// What they must have in common, and where that is; follows what each must give.
    pub words: String,
}

impl<'w> Look<'_, 'w> {
    pub(super) fn terms(&self) -> &BlockTerms {
        &self.family.territory.constraints.blocks
    }

    /// What the nodes must have in common, in words that follow what each must give.
    pub(super) fn together_words(&self) -> String {
        let in_one = |level: Level| format!(" in one {}", level.noun());
        let one = self.terms().one.map(in_one).unwrap_or_default();
        let segments = self.terms().segment.map(|segment| {
            let (nodes, noun) = (segment.nodes, segment.level.noun());
            format!(" in segments of {nodes} nodes of one {noun} each")
        });
        format!("{one}{}", segments.unwrap_or_default())
    }

    /// How near it is by the nodes that give so much now; of blocks only those count that are large enough.
    pub(super) fn nearest(&self, need: &Need) -> Nearest {
        let territory = &self.family.territory;
        let serving: BTreeSet<SlotId> =
            territory.places(self.machine, self.class, need).map(|pick| pick.slot).collect();
        let together = |slots: &BTreeSet<SlotId>| {
            count(territory.together(self.machine, slots.iter().copied()).iter())
        };
        let words = self.together_words();
        let Some(level) = self.terms().one else {
            return Nearest { available: together(&serving), limit: self.capable, words };
        };
        let aim = self.aim(&serving);
        let serving = aim.intersection(&serving).copied().collect();
        let name = aim.first().and_then(|id| self.slot(*id).node.inventory.block(level));
        let words = name.map_or(words.clone(), |name| format!("{words}{BEST}{name}"));
        Nearest { available: together(&serving), limit: together(&aim), words }
    }

    /// The block that is large enough and has most of these nodes; the largest if none is large enough now.
    fn aim(&self, serving: &BTreeSet<SlotId>) -> BTreeSet<SlotId> {
        let open = self.could_serve(|slot| slot.takes_work);
        let nearest = blocks::aims(self.machine, self.terms(), &open, serving, self.nodes).next();
        let largest = || self.family.territory.together(self.machine, open.iter().copied());
        nearest.unwrap_or_else(largest)
    }

    /// Nodes of the territory that would serve if they were empty.
    fn could_serve(&self, counts: impl Fn(&Slot<'w>) -> bool) -> BTreeSet<SlotId> {
        let serves = |id: &SlotId| {
            let slot = self.slot(*id);
            counts(slot)
                && slot.could_fit(self.class, &self.family.need)
                && self.family.territory.contains(slot)
        };
        self.machine.ids_of(self.class).filter(serves).collect()
    }

    /// Nodes that would serve if they took work and were empty, as many as can be of one gang.
    pub(super) fn largest_gang(&self) -> BTreeSet<SlotId> {
        let all = self.could_serve(|slot| slot.takes_work || slot.is_unavailable());
        self.family.territory.together(self.machine, all.into_iter())
    }

    /// Those of the nodes that can be of one gang with as many as possible.
    pub(super) fn of_one_gang(&self, nodes: &[SlotId]) -> Vec<SlotId> {
        if !self.terms().is_binding() {
            return nodes.to_vec();
        }
        let largest = self.largest_gang();
        nodes.iter().copied().filter(|id| largest.contains(id)).collect()
    }

    /// Those of the nodes with which there would be enough beside the `now` that serve already; `None` if there would
    /// not be.
    pub(super) fn that_help(&self, nodes: Vec<SlotId>, now: u32) -> Option<Vec<SlotId>> {
        if !self.terms().is_binding() {
            return (now.saturating_add(count(nodes.iter())) >= self.nodes).then_some(nodes);
        }
        let territory = &self.family.territory;
        let places = territory.places(self.machine, self.class, &self.family.need);
        let all = places.map(|pick| pick.slot).chain(nodes.iter().copied());
        let with = territory.together(self.machine, all);
        let enough = count(with.iter()) >= self.nodes;
        enough.then(|| nodes.into_iter().filter(|id| with.contains(id)).collect())
    }
}
