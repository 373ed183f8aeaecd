//! What found no room in a pass, and why. As long as nothing is freed, whatever asks for as much or more finds none
//! either; so what is said of one kind and size of job holds for everybody who asks for that.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::amount::UnixMicros;
use crate::ids::JobId;
use crate::plan::{Blocker, BlockerKind, Unit};
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

    /// Both.
    #[must_use]
    pub fn and(mut self, other: &Failures) -> Failures {
        other.0.iter().for_each(|(nodes, seconds)| self.note(*nodes, *seconds));
        self
    }
}

/// Why jobs of one kind and size wait that nothing but room keeps from starting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usual {
    /// What there is too little of, worst first.
    pub capacity: Arc<Vec<Blocker>>,
    /// Where there is room but for what is planned.
    pub behind: Option<BehindPlan>,
}

impl Usual {
    /// The worst reason of one of them with that time limit, seconds.
    pub(crate) fn worst(&self, limit_s: i64) -> Option<Blocker> {
        let behind = self.behind.map(|behind| behind.blocker(limit_s));
        behind.or_else(|| self.capacity.first().cloned())
    }
}

/// A planned start that a job would put off if it started where there is room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BehindPlan {
    /// For whom it is planned.
    pub ahead: JobId,
    /// By when.
    pub by: UnixMicros,
    /// How long the job could take without putting it off, seconds.
    pub open_s: i64,
}

impl BehindPlan {
    /// What it tells a job with that time limit, seconds.
    #[must_use]
    pub fn blocker(&self, limit_s: i64) -> Blocker {
        let millis = |seconds: i64| u64::try_from(seconds.saturating_mul(1000)).unwrap_or(0);
        Blocker {
            kind: BlockerKind::Order,
            subject: self.ahead.to_string(),
            needed: millis(limit_s),
            available: millis(self.open_s.min(limit_s.saturating_sub(1))),
            limit: 0,
            unit: Unit::Millis,
            note: self.by.0.to_string(),
        }
    }
}

/// What each node must give, and where.
type Kind = (NodeRequest, Constraints);

/// What is known of one kind of request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// What failed on each class that may serve it.
    pub failed: Vec<Failures>,
    /// Why gangs of so many nodes wait.
    pub usual: BTreeMap<u32, Usual>,
}

/// Everything that found no room, of jobs that avoid no nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Crowded {
    kinds: BTreeMap<Kind, Found>,
}

impl Crowded {
    /// These kinds of requests.
    pub(crate) fn of(kinds: impl IntoIterator<Item = (Kind, Found)>) -> Self {
        Crowded { kinds: kinds.into_iter().collect() }
    }

    /// Whether a job that comes now only joins the queue, as far as room goes.
    #[must_use]
    pub fn has_no_room_for(&self, spec: &JobSpec) -> bool {
        self.found(spec).is_some()
    }

    /// Why a job waits that nothing but room keeps from starting; `None` if the pass had no such jobs.
    #[must_use]
    pub fn usual(&self, spec: &JobSpec) -> Option<&Usual> {
        self.found(spec)?.usual.get(&spec.nodes)
    }

    /// Every reason for which jobs wait.
    pub fn lists(&self) -> impl Iterator<Item = &Arc<Vec<Blocker>>> {
        self.kinds.values().flat_map(|found| found.usual.values()).map(|usual| &usual.capacity)
    }

    /// What is known of its kind, if that finds no room.
    fn found(&self, spec: &JobSpec) -> Option<&Found> {
        let kind = (spec.per_node.clone(), spec.constraints.clone());
        let covers = |failures: &Failures| failures.cover(spec.nodes, spec.time_limit_s);
        self.kinds.get(&kind).filter(|found| found.failed.iter().all(covers))
    }
}
