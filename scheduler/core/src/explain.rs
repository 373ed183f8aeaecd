//! Why a job stands as it does, in words for a person.
//!
//! The reasons come from the planner's last report; this only adds what a report has not (held, running) and
//! puts everything into sentences.

use crate::amount::UnixMicros;
use crate::ids::JobId;
use crate::job::JobState;
use crate::plan::{Blocker, Report};
use crate::world::World;

/// Why a job stands as it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// How it stands.
    pub state: JobState,
    /// One sentence.
    pub summary: String,
    /// Worst first; empty if nothing blocks it or no pass has looked at it.
    pub blockers: Vec<Blocker>,
    /// Pending jobs ahead of it in the queue that want the same class.
    pub jobs_ahead: u64,
    /// When the pass that found this ran; `None` if none has looked at the job yet.
    pub planned: Option<UnixMicros>,
}

/// Explains a job of `world` by the report of the last pass and the moment of that pass; `None` if the world has no
/// such job (it is terminal or never was).
#[must_use]
pub fn explain(
    world: &World,
    job: JobId,
    last: Option<&Report>,
    planned: Option<UnixMicros>,
) -> Option<Explanation> {
    let _ = (last, planned);
    let job = world.jobs.get(&job)?;
    Some(Explanation {
        state: job.status.state,
        summary: String::new(),
        blockers: Vec::new(),
        jobs_ahead: 0,
        planned: None,
    })
}

/// The blocker as a sentence with its numbers, without a full stop.
#[must_use]
pub fn sentence(blocker: &Blocker) -> String {
    blocker.note.clone()
}

/// What would change it; empty if the caller can do nothing about it.
#[must_use]
pub fn hint(blocker: &Blocker) -> String {
    let _ = blocker;
    String::new()
}
