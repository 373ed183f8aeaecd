//! After a start of the scheduler, or a take-over: which jobs may start while nodes come back?
//!
//! A scheduler that has just begun to lead has heard of no node. Were it to start what waits on the first few that come
//! back, it would crowd them, and pass over jobs whose nodes come a moment later. So until enough of the nodes in service
//! have reported, or a grace has run out, passes count on all of them: a job is given the place that it would have if every
//! node were there, and starts if the nodes of that place have reported. Otherwise it is held back, and nobody else is given
//! its place. Of equal places those come first that have reported. Nothing is stopped for others meanwhile, and what runs is
//! not touched.
//!
//! Counting on nodes is done in the planner's own copy of the world; in everybody else's they are unknown.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::attempt::Placement;
use crate::ids::JobId;
use crate::node::{Admin, Liveness};
use crate::plan::{Blocker, BlockerKind, Decision, Plan, Unit, spelled};
use crate::world::{Node, World};

/// Shortest and longest time in which nodes come back, milliseconds. A node is missed after fifteen seconds.
const RETURN_WITHIN_MS: RangeInclusive<u32> = 100..=10_000;

/// Nodes named at most to say what a job that is held back waits for.
const NAMED_MAX: usize = 4;

/// How many nodes are awaited, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Part of the nodes in service that must have reported, in hundredths; 0: none, so that nothing is awaited.
    pub quorum_percent: u32,
    /// How long they are awaited at most.
    pub grace_ms: u64,
}

/// Nodes that nobody took out of service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// All of them.
    pub known: u64,
    /// Those that have reported to this scheduler.
    pub heard: u64,
}

/// How far a muster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Jobs start only where nodes have reported, and others are counted on.
    Awaiting {
        /// Who has reported.
        count: Count,
        /// How many are needed.
        needed: u64,
    },
    /// Enough have reported.
    Gathered(Count),
    /// The grace ran out first.
    GraceOver(Count),
}

impl Standing {
    /// Whether nobody is counted on any more who has not reported.
    #[must_use]
    pub fn is_over(self) -> bool {
        match self {
            Standing::Awaiting { .. } => false,
            Standing::Gathered(_) | Standing::GraceOver(_) => true,
        }
    }
}

/// The nodes of a world that are expected to report. A drained node may be switched off, and one in maintenance is.
#[must_use]
pub fn count(world: &World) -> Count {
    let in_service = world
        .nodes
        .values()
        .filter(|node| node.admin == Admin::Active && node.maintenance.is_none());
    in_service.fold(Count::default(), |count, node| Count {
        known: count.known + 1,
        heard: count.heard + u64::from(has_reported(node.liveness)),
    })
}

fn has_reported(liveness: Liveness) -> bool {
    match liveness {
        Liveness::Ready | Liveness::Suspect => true,
        Liveness::Unknown | Liveness::Lost => false,
    }
}

/// How far a muster is in which nodes have been awaited for so many milliseconds.
#[must_use]
pub fn standing(terms: Terms, count: Count, waited_ms: u64) -> Standing {
    let percent = u64::from(terms.quorum_percent.min(100));
    let needed = (count.known * percent).div_ceil(100);
    if count.heard >= needed {
        Standing::Gathered(count)
    } else if waited_ms >= terms.grace_ms {
        Standing::GraceOver(count)
    } else {
        Standing::Awaiting { count, needed }
    }
}

/// Within what time, milliseconds, nodes come back that lost their scheduler, each at a moment of its own: for every node so
/// long as its connection costs a processor or two, so that while thousands of them come there is time for what else a
/// scheduler has to do that begins to lead, and for the people who call.
#[must_use]
pub fn return_within_ms(nodes: usize) -> u32 {
    const EACH_US: usize = 500;
    let all_ms = u32::try_from(nodes.saturating_mul(EACH_US) / 1_000).unwrap_or(u32::MAX);
    all_ms.clamp(*RETURN_WITHIN_MS.start(), *RETURN_WITHIN_MS.end())
}

/// Counts on every node of which nothing was heard yet.
pub fn count_on_all(world: &mut World) {
    for node in world.nodes.values_mut() {
        node.awaited = node.liveness == Liveness::Unknown;
    }
}

/// Counts on nobody any more who has not reported.
pub fn count_on_none(world: &mut World) {
    for node in world.nodes.values_mut() {
        node.awaited = false;
    }
}

/// Takes out of a plan over a world in which nodes are counted on what cannot be done yet: starts on nodes that have not
/// reported, for which its report says so, and stops for the sake of others.
pub fn hold_back(plan: &mut Plan, world: &World) {
    let mut held = Vec::new();
    plan.decisions.retain(|decision| match decision {
        Decision::Start { job, placement } => {
            let blocker = awaits(placement, world);
            held.extend(blocker.clone().map(|blocker| (*job, blocker)));
            blocker.is_none()
        }
        Decision::Preempt { .. } => false,
    });
    let list = |(job, blocker): (JobId, Blocker)| (job, Arc::new(vec![blocker]));
    plan.report.jobs.extend(held.into_iter().map(list));
}

/// What a start waits for whose nodes have not all reported; `None` if they have.
fn awaits(placement: &Placement, world: &World) -> Option<Blocker> {
    let is_awaited = |name| world.nodes.get(name).is_some_and(|node: &Node| node.awaited);
    let nodes = placement.nodes.iter().map(|held| &held.node);
    let awaited: Vec<&str> =
        nodes.filter(|name| is_awaited(*name)).map(|name| name.as_str()).collect();
    if awaited.is_empty() {
        return None;
    }
    let named = spelled(awaited.iter(), NAMED_MAX);
    let (all, missing) = (placement.nodes.len() as u64, awaited.len() as u64);
    Some(Blocker {
        kind: BlockerKind::NodesUnavailable,
        note: format!("{named} (not heard since this scheduler began to lead)"),
        subject: named,
        needed: all,
        available: all - missing,
        limit: all,
        unit: Unit::Nodes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms { quorum_percent: 50, grace_ms: 5_000 };

    fn after(known: u64, heard: u64, waited_ms: u64) -> Standing {
        standing(TERMS, Count { known, heard }, waited_ms)
    }

    #[test]
    fn nodes_are_awaited_until_half_of_them_have_reported_and_no_longer() {
        let count = Count { known: 5, heard: 2 };
        assert_eq!(after(5, 2, 10), Standing::Awaiting { count, needed: 3 });
        assert_eq!(after(5, 3, 10), Standing::Gathered(Count { known: 5, heard: 3 }));
    }

    #[test]
    fn nodes_that_do_not_come_are_awaited_no_longer_than_the_grace() {
        assert!(!after(100, 1, 4_999).is_over());
        assert_eq!(after(100, 1, 5_000), Standing::GraceOver(Count { known: 100, heard: 1 }));
    }

    #[test]
    fn the_more_nodes_there_are_the_longer_they_take_to_come_back() {
        assert_eq!([0, 10, 6_250].map(return_within_ms), [100, 100, 3_125]);
        assert_eq!([62_500, usize::MAX].map(return_within_ms), [10_000, 10_000]);
    }

    #[test]
    fn a_scheduler_that_knows_of_no_node_or_is_to_await_none_awaits_none() {
        assert!(after(0, 0, 0).is_over());
        let none = Terms { quorum_percent: 0, ..TERMS };
        assert!(standing(none, Count { known: 9, heard: 0 }, 0).is_over());
    }
}
