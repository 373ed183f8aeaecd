//! By when a demand within a guarantee gets back what was lent out.

use super::QuotaTree;
use crate::amount::UnixMicros;
use crate::job::Job;

/// What a job within its guarantee was promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recall {
    /// By when what it needs is free.
    pub by: UnixMicros,
    /// How long that may take from when it asked, seconds.
    pub within_s: i64,
}

impl QuotaTree {
    /// What the nearest node at or above the job's project promises it; `None` where none promises anything. It counts
    /// from when the job was queued, or may be tried again.
    #[must_use]
    pub fn recall_of(&self, job: &Job) -> Option<Recall> {
        let mut chain = job.spec.project.self_and_ancestors();
        let within_s = chain.find_map(|path| self.nodes.get(path)?.bounds.recall_s)?;
        let since = job.status.queued.max(job.status.not_before);
        Some(Recall { by: since.plus_seconds(within_s), within_s })
    }
}

impl Recall {
    /// Whether a victim that gets so many seconds to end must be told to stop by now.
    #[must_use]
    pub fn is_due(self, grace_s: u32, now: UnixMicros) -> bool {
        now.plus_seconds(i64::from(grace_s)) >= self.by
    }

    /// The seconds that a victim gets to end if it is told to stop at `now`: its own, as far as they end in time. Where
    /// the moment is over already, since the job was not within its guarantee before or had no nodes to run on, its own
    /// as far as the promised time goes.
    #[must_use]
    pub fn grace_s(self, grace_s: u32, now: UnixMicros) -> u32 {
        let left_s = self.by.millis_since(now) / 1000;
        let most_s = if left_s >= 1 { left_s } else { self.within_s };
        grace_s.min(u32::try_from(most_s).unwrap_or(u32::MAX))
    }
}
