//! By how much a placement makes the fragmentation of a node more; the smaller, the better.

use super::{Fragments, GpuShape, Mix, Room, Shape};
use crate::amount::GpuMilli;

/// Growth is counted in tenths of a GPU. What is less makes no difference: places that are alike but for a little are
/// taken in one order, and so one after the other is filled. Measured: docs/placement.md.
const STEP_MILLI: u64 = 100;

/// Growth of the expected fragmentation of a node, in tenths of a GPU, rounded down; negative where it shrinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GrowthSteps(pub i64);

/// The best way to put a job on a node. The derived order *is* the policy: smaller is better, from the first field to
/// the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Choice {
    /// How much it costs.
    pub growth: GrowthSteps,
    /// What is free on the GPU that a share is of; nothing for whole ones.
    pub gpu_free: GpuMilli,
    /// Place of that GPU on the node.
    pub gpu: Option<usize>,
}

impl Mix {
    /// The best way to put a job of that shape into the room, whose fragments were `before`; `None` if it does not fit.
    /// `before` is [`Mix::fragments`] of the room, which whoever asks for many shapes needs only once.
    #[must_use]
    pub fn choose(&self, room: &Room, before: Fragments, shape: &Shape) -> Option<Choice> {
        if !room.fits(shape) {
            return None;
        }
        let GpuShape::Share(milli) = shape.gpus else {
            return self.weigh(room, before, shape, None);
        };
        let large = |place: &usize| room.gpus[*place] >= milli;
        // GPUs with as much free are alike; the first one stands for all.
        let first = |place: &usize| !room.gpus[..*place].contains(&room.gpus[*place]);
        let places = (0..room.gpus.len()).filter(large).filter(first);
        places.filter_map(|place| self.weigh(room, before, shape, Some(place))).min()
    }

    /// What it costs to put a job there, a share onto the GPU at `gpu`; `None` if it does not fit.
    #[must_use]
    pub fn weigh(
        &self,
        room: &Room,
        before: Fragments,
        shape: &Shape,
        gpu: Option<usize>,
    ) -> Option<Choice> {
        let mut after = room.clone();
        if !after.take(shape, gpu) {
            return None;
        }
        let growth = self.growth(before, self.fragments(&after));
        let gpu_free = gpu.and_then(|gpu| room.gpus.get(gpu)).copied().unwrap_or_default();
        Some(Choice { growth, gpu_free, gpu })
    }

    /// From so many fragments to so many.
    #[must_use]
    pub fn growth(&self, before: Fragments, after: Fragments) -> GrowthSteps {
        let step = signed(self.jobs().max(1).saturating_mul(STEP_MILLI));
        GrowthSteps(signed(after.0).saturating_sub(signed(before.0)).div_euclid(step))
    }
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}
