//! After a start of the scheduler, or a take-over: when may jobs start again?
//!
//! A scheduler that has just begun to lead has heard of no node. Were it to start what waits on the first few that come
//! back, it would crowd them, and pass over jobs whose nodes come a moment later. So nothing starts, and nothing is
//! stopped for others, until enough of the nodes in service have reported, or a grace has run out. What runs is not
//! touched.

use crate::node::{Admin, Liveness};
use crate::world::World;

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
    /// Jobs do not start yet.
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
    /// Whether jobs may start.
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

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms { quorum_percent: 50, grace_ms: 5_000 };

    fn after(known: u64, heard: u64, waited_ms: u64) -> Standing {
        standing(TERMS, Count { known, heard }, waited_ms)
    }

    #[test]
    fn jobs_start_once_half_of_the_nodes_have_reported_and_not_before() {
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
    fn a_scheduler_that_knows_of_no_node_or_is_to_await_none_begins_at_once() {
        assert!(after(0, 0, 0).is_over());
        let none = Terms { quorum_percent: 0, ..TERMS };
        assert!(standing(none, Count { known: 9, heard: 0 }, 0).is_over());
    }
}
