//! Which of two places is the better one. The derived order of these structs *is* the policy: fields are compared
//! from the first to the last, smaller is better, and the last ones make the order total.

use crate::amount::{CpuMilli, GpuMilli};
use crate::mig::MigKind;

/// A node of the pass, numbered in the order of names, so that comparing numbers compares names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SlotId(pub u32);

/// Which of two nodes comes first that are equal otherwise: one that has reported before one that is awaited, since there it
/// can start now; then by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tie(u32);

impl Tie {
    /// Before all nodes.
    pub const FIRST: Tie = Tie(0);
    /// Set for nodes that are awaited. No machine has so many nodes that one would need this bit.
    const AWAITED: u32 = 1 << 31;

    /// Where the node stands.
    pub fn of(slot: SlotId, awaited: bool) -> Self {
        if awaited { Tie(slot.0 | Self::AWAITED) } else { Tie(slot.0) }
    }

    /// The node.
    pub fn slot(self) -> SlotId {
        SlotId(self.0 & !Self::AWAITED)
    }
}

/// A class of the pass, numbered in the order of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClassIndex(pub u16);

/// A node for whole GPUs of a class: the one that keeps the fewest of them, so that emptier nodes stay whole for
/// the gangs that need them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WholeScore {
    /// Whole free GPUs of the class.
    pub whole_free: u32,
    /// Free CPUs.
    pub cpu_free: CpuMilli,
    /// Among equals.
    pub tie: Tie,
}

/// A GPU for a share: the fullest that still fits, and before an untouched one is broken, one on the node that has
/// the fewest untouched ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ShareScore {
    /// Free on this GPU.
    pub gpu_free: GpuMilli,
    /// Whole free GPUs of the class on its node.
    pub whole_free: u32,
    /// Free CPUs of its node.
    pub cpu_free: CpuMilli,
    /// Among equals.
    pub tie: Tie,
    /// Position in the inventory.
    pub gpu: u32,
}

/// A node for a job without GPUs: one without GPUs, then the one with the fewest, so that CPUs stay beside GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CpuScore {
    /// GPUs the node has, free or not.
    pub gpus: u32,
    /// Free CPUs.
    pub cpu_free: CpuMilli,
    /// Among equals.
    pub tie: Tie,
}

/// A score in the index it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Score {
    /// For whole GPUs.
    Whole(ClassIndex, WholeScore),
    /// For shares.
    Share(ClassIndex, ShareScore),
    /// For instances of a kind; the GPUs of its score are those.
    Mig(ClassIndex, MigKind, WholeScore),
    /// For jobs without GPUs.
    Cpu(CpuScore),
}
