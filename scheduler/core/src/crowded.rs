//! What found no room in a pass. As long as nothing is freed, whatever asks for as much or more finds none either.

use std::collections::BTreeMap;

use crate::spec::{Constraints, JobSpec, NodeRequest};

/// Gangs that did not fit: what is no smaller and no shorter than one of them does not either.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failures(Vec<(u32, i64)>);

impl Failures {
    /// Whether a gang of so many nodes that may take so many seconds cannot fit.
    #[must_use]
    pub fn cover(&self, nodes: u32, seconds: i64) -> bool {
        self.0.iter().any(|failed| failed.0 <= nodes && failed.1 <= seconds)
    }

    /// Notes that such a gang did not fit, and forgets what follows from that.
    pub fn note(&mut self, nodes: u32, seconds: i64) {
        self.0.retain(|failed| failed.0 < nodes || failed.1 < seconds);
        self.0.push((nodes, seconds));
    }
}

/// What each node must give, and where.
type Kind = (NodeRequest, Constraints);

/// Everything that found no room, of jobs that avoid no nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Crowded {
    /// For each class that may serve, by kind of request.
    kinds: BTreeMap<Kind, Vec<Failures>>,
}

impl Crowded {
    /// These kinds of requests, with what failed on each class that may serve them.
    pub(crate) fn of(kinds: impl IntoIterator<Item = (Kind, Vec<Failures>)>) -> Self {
        Crowded { kinds: kinds.into_iter().collect() }
    }

    /// Whether a job that comes now only joins the queue, as far as room goes.
    #[must_use]
    pub fn has_no_room_for(&self, spec: &JobSpec) -> bool {
        let kind = (spec.per_node.clone(), spec.constraints.clone());
        let covers = |failures: &Failures| failures.cover(spec.nodes, spec.time_limit_s);
        self.kinds.get(&kind).is_some_and(|classes| classes.iter().all(covers))
    }
}
