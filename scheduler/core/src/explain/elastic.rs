//! Elastic jobs in words.

use crate::job::Job;
use crate::plan::{Blocker, BlockerKind, Unit};

/// With how many nodes it can start, for a job that can do with different numbers of them.
pub(super) fn blocker(job: &Job) -> Option<Blocker> {
    job.spec.is_elastic().then(|| Blocker {
        kind: BlockerKind::Elastic,
        subject: String::new(),
        needed: job.spec.nodes.into(),
        available: 0,
        limit: job.spec.most_nodes().into(),
        unit: Unit::Nodes,
        note: String::new(),
    })
}

/// What is needed is the fewest nodes, the limit the most.
pub(super) fn sentence(blocker: &Blocker) -> String {
    let Blocker { needed, limit, .. } = blocker;
    let nodes = if *needed == 1 { "node" } else { "nodes" };
    format!("starts with {needed} {nodes} or more, as many as it can have then, up to {limit}")
}
