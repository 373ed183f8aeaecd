//! What the GPUs of attempts did, as workers measured it, and which of them do nothing. Nothing is charged by it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::amount::{GpuMilliSeconds, MemoryMib};
use crate::attempt::{Attempt, AttemptState};
use crate::ids::{AttemptId, NodeName};

/// What the GPUs of an attempt did. A figure that could not be read is absent and never 0. Of a part of a GPU: that part
/// of what the whole GPU did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasuredUse {
    /// Nodes that it was told of.
    pub nodes: u32,
    /// GPU time that readings of load stand for; less than was held where there were gaps.
    pub observed: GpuMilliSeconds,
    /// Of that, time in which something was computed: load over time.
    pub busy: Option<GpuMilliSeconds>,
    /// Energy, in millijoules.
    pub energy_mj: Option<u64>,
    /// The most memory in use on the GPUs of a node together, summed over nodes.
    pub peak_memory: Option<MemoryMib>,
    /// The longest time for which one of the GPUs did nothing, in milliseconds.
    pub longest_idle_ms: Option<u64>,
    /// It has parts of GPUs, which cannot be told apart.
    pub estimated: bool,
}

impl MeasuredUse {
    /// What two sets of nodes did together. A figure that one of them does not know is not known.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let sum = |(one, other): (u64, u64)| one.saturating_add(other);
        let memory = |(one, other): (MemoryMib, MemoryMib)| one + other;
        let longest = |(one, other): (u64, u64)| one.max(other);
        MeasuredUse {
            nodes: self.nodes.saturating_add(other.nodes),
            observed: self.observed + other.observed,
            busy: self.busy.zip(other.busy).map(|(one, other)| one + other),
            energy_mj: self.energy_mj.zip(other.energy_mj).map(sum),
            peak_memory: self.peak_memory.zip(other.peak_memory).map(memory),
            longest_idle_ms: self.longest_idle_ms.zip(other.longest_idle_ms).map(longest),
            estimated: self.estimated || other.estimated,
        }
    }

    /// The sum over nodes of which each may have told something; `None` if none has.
    #[must_use]
    pub fn sum(told: impl IntoIterator<Item = Option<Self>>) -> Option<Self> {
        told.into_iter().flatten().reduce(Self::and)
    }
}

/// Since how long the GPUs of attempts have done nothing, in milliseconds, as the latest beat of each node tells.
pub type IdleBeats = BTreeMap<AttemptId, BTreeMap<NodeName, u64>>;

/// Since how long all GPUs of an attempt have done nothing, in milliseconds; `None` unless every node that has GPUs of it
/// tells so.
#[must_use]
pub fn idle_ms(attempt: &Attempt, beats: &BTreeMap<NodeName, u64>) -> Option<u64> {
    let places = attempt.placement.nodes.iter().filter(|place| !place.gpus.is_empty());
    let told = places.map(|place| beats.get(&place.node).copied().filter(|idle| *idle > 0));
    told.min().flatten()
}

/// Whether its owner is to be told that its GPUs do nothing, and since how long, in milliseconds: once for each attempt,
/// after `warning_s` seconds; 0: never.
#[must_use]
pub fn idle_to_tell(
    attempt: &Attempt,
    beats: &BTreeMap<NodeName, u64>,
    warning_s: u32,
) -> Option<u64> {
    if warning_s == 0 || attempt.state != AttemptState::Running || attempt.idle_told.is_some() {
        return None;
    }
    idle_ms(attempt, beats).filter(|idle| *idle >= u64::from(warning_s) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(busy: Option<i64>, energy_mj: Option<u64>, idle_ms: u64) -> MeasuredUse {
        MeasuredUse {
            nodes: 1,
            observed: GpuMilliSeconds(1000),
            busy: busy.map(GpuMilliSeconds),
            energy_mj,
            peak_memory: Some(MemoryMib(10)),
            longest_idle_ms: Some(idle_ms),
            estimated: false,
        }
    }

    #[test]
    fn nodes_add_up_and_the_longest_idle_time_is_the_longest_of_any() {
        let both = measured(Some(1), Some(2), 3).and(measured(Some(10), Some(20), 30));
        assert_eq!((both.nodes, both.observed), (2, GpuMilliSeconds(2000)));
        assert_eq!((both.busy, both.energy_mj), (Some(GpuMilliSeconds(11)), Some(22)));
        assert_eq!((both.peak_memory, both.longest_idle_ms), (Some(MemoryMib(20)), Some(30)));
    }

    #[test]
    fn a_figure_that_one_node_does_not_know_is_not_known_of_all() {
        let both = measured(None, Some(2), 3).and(measured(Some(10), None, 30));
        assert_eq!((both.busy, both.energy_mj), (None, None));
    }

    #[test]
    fn nodes_that_told_nothing_are_left_out() {
        let one = measured(Some(1), Some(2), 3);
        assert_eq!(MeasuredUse::sum([None, Some(one), None]), Some(one));
        assert_eq!(MeasuredUse::sum([None, None]), None);
    }

    #[test]
    fn sums_of_any_size_stay_numbers() {
        let huge = MeasuredUse {
            observed: GpuMilliSeconds(i64::MAX),
            energy_mj: Some(u64::MAX),
            peak_memory: Some(MemoryMib(u64::MAX)),
            ..measured(Some(i64::MAX), None, 0)
        };
        assert_eq!(huge.and(huge).energy_mj, Some(u64::MAX));
    }
}
