//! Where a search for room aims if a gang is to keep together: at one place after the other, and not at nodes that lie
//! scattered and together are of no use to it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::blocks;
use super::super::gang::Pick;
use super::super::score::SlotId;
use super::search::{Room, Search};
use super::{Line, Recalls};
use crate::topology::BlockTerms;
use crate::world::NodeFree;

/// Places aimed at for one job, the nearest to being free first: each that fails costs a search.
const AIMS_MAX: usize = 8;

impl<'w> Recalls<'w> {
    /// Victims for a job that may be anywhere; for one that keeps together, those at the first place where they
    /// suffice.
    pub(super) fn collect_aiming(&mut self, search: &mut Search<'_, 'w>) -> Option<Line<'w>> {
        search.look_around(self.room());
        if !search.terms().is_binding() {
            return self.collect_sparing(search);
        }
        for aim in search.aims() {
            search.spared.clear();
            search.aim_at(aim, self.room());
            if let Some(victims) = self.collect_sparing(search) {
                return Some(victims);
            }
        }
        None
    }
}

impl Search<'_, '_> {
    /// How close its nodes are to be.
    pub fn terms(&self) -> &BlockTerms {
        &self.family.territory.constraints.blocks
    }

    fn aims(&self) -> impl Iterator<Item = BTreeSet<SlotId>> + use<> {
        let machine = self.scene.machine;
        let open = machine.ids().filter(|slot| self.is_open(*slot)).collect();
        let aims = blocks::aims(machine, self.terms(), &open, &self.fitting, self.want.nodes);
        aims.take(AIMS_MAX).collect::<Vec<_>>().into_iter()
    }

    /// From now on only these nodes are looked at.
    fn aim_at(&mut self, aim: BTreeSet<SlotId>, room: Room<'_>) {
        self.aim = Some(aim);
        self.look_around(room);
    }

    /// Whether the search is about this node.
    pub fn aims_at(&self, slot: SlotId) -> bool {
        self.aim.as_ref().is_none_or(|aim| aim.contains(&slot))
    }

    /// The best of the nodes that would serve, in the order in which they would be given.
    pub fn chosen(&self, soon: &BTreeMap<SlotId, NodeFree>) -> Vec<SlotId> {
        let mut slots: Vec<SlotId> = self.fitting.iter().copied().collect();
        slots.sort_by_key(|slot| self.score(*slot, soon.get(slot)));
        let mut slots = self.powered(slots, soon);
        let (terms, nodes) = (self.terms(), self.want.nodes);
        if !terms.is_binding() {
            slots.truncate(nodes as usize);
            return slots;
        }
        let picks = slots.into_iter().map(|slot| Pick { slot, gpu: None });
        let chosen = blocks::choose(self.scene.machine, terms, picks, nodes);
        chosen.into_iter().flatten().map(|pick| pick.slot).collect()
    }
}
