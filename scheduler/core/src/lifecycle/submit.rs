//! Storing a new job, and replacing the quota tree.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::draft::Draft;
use crate::change::{Change, EventKind};
use crate::ids::{IdempotencyKey, JobId, UserName};
use crate::job::{Digest, Job, JobState, JobStatus};
use crate::spec::{Dependency, DependencyKind, JobSpec};

/// An admitted job on its way into the store.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Who submits.
    pub owner: UserName,
    /// Under which key.
    pub key: IdempotencyKey,
    /// Digest of the request's body.
    pub digest: Digest,
    /// What was admitted.
    pub spec: Arc<JobSpec>,
    /// States of the jobs it depends on that are not in the world, as the store knows them.
    pub outcomes: BTreeMap<JobId, JobState>,
}

/// Why a submission is not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitRefusal {
    /// The project has too many waiting jobs.
    #[error(
        "project {project} has {waiting} jobs waiting, as many as it may have; wait until some have started"
    )]
    ProjectQueueFull {
        /// Which project.
        project: String,
        /// How many wait.
        waiting: u64,
    },
    /// The centre has too many waiting jobs.
    #[error("{waiting} jobs are waiting, as many as the site allows; try again later")]
    QueueFull {
        /// How many wait.
        waiting: u64,
    },
    /// A dependency names no job.
    #[error("job {0} does not exist; a dependency names a job submitted before")]
    UnknownDependency(JobId),
    /// A dependency ended between the look at the store and the submission; look again.
    #[error("job {0} has just ended; submit again")]
    StaleDependency(JobId),
    /// A dependency can never be fulfilled.
    #[error("{} cannot be fulfilled: job {} has {}", .0.kind.word(), .0.job, .1.word())]
    ImpossibleDependency(Dependency, JobState),
}

/// Stores jobs, all or none; answers their numbers in order.
///
/// # Errors
/// The place in the list of the first job that cannot be stored, and why; then nothing was drafted.
pub fn submit(
    draft: &mut Draft<'_>,
    submissions: Vec<Submission>,
) -> Result<Vec<JobId>, (usize, SubmitRefusal)> {
    let mut waits = Vec::with_capacity(submissions.len());
    for (index, submission) in submissions.iter().enumerate() {
        check_room(draft, &submission.spec, index as u64).map_err(|refusal| (index, refusal))?;
        let unmet = unmet_dependencies(draft, submission).map_err(|refusal| (index, refusal))?;
        waits.push(unmet);
    }
    let both = submissions.into_iter().zip(waits);
    Ok(both.map(|(submission, waits_for)| store_one(draft, submission, waits_for)).collect())
}

fn store_one(draft: &mut Draft<'_>, submission: Submission, waits_for: Vec<Dependency>) -> JobId {
    let id = JobId(draft.world.sequences.next_job);
    let (state, detail) = if submission.spec.hold {
        (JobState::Held, format!("held by {} at submission", submission.owner))
    } else {
        (JobState::Pending, String::new())
    };
    let text = format!("submitted to {} by {}", submission.spec.project, submission.owner);
    let job = Job {
        id,
        owner: submission.owner,
        key: submission.key,
        digest: submission.digest,
        submitted: draft.now,
        spec: submission.spec,
        status: JobStatus::new(state, detail, draft.now, waits_for),
    };
    draft.push(Change::JobSubmitted(Arc::new(job)));
    draft.tell_job(id, 0, state, EventKind::Submitted, text);
    id
}

/// Whether there is room for one more job beside `ahead` others of the same list. Counting all of the list
/// against the project of each is strict at the very limit only.
fn check_room(draft: &Draft<'_>, spec: &JobSpec, ahead: u64) -> Result<(), SubmitRefusal> {
    let waiting = draft.world.jobs.len() as u64 + ahead;
    if waiting >= draft.policy.max_pending {
        return Err(SubmitRefusal::QueueFull { waiting });
    }
    let waiting = draft.world.waiting_jobs_of(&spec.project) + ahead;
    if waiting >= draft.policy.max_pending_per_project {
        let project = spec.project.to_string();
        return Err(SubmitRefusal::ProjectQueueFull { project, waiting });
    }
    Ok(())
}

/// Dependencies that still have to be waited for.
fn unmet_dependencies(
    draft: &Draft<'_>,
    submission: &Submission,
) -> Result<Vec<Dependency>, SubmitRefusal> {
    let mut unmet = Vec::new();
    for &dependency in &submission.spec.dependencies {
        let live = draft.world.jobs.get(&dependency.job).map(|job| job.status.state);
        let state = match (live, submission.outcomes.get(&dependency.job)) {
            (Some(state), _) => state,
            (None, Some(state)) if state.is_terminal() => *state,
            // It was alive when the store was asked and is not any more: what was read is stale.
            (None, Some(_)) => return Err(SubmitRefusal::StaleDependency(dependency.job)),
            (None, None) => return Err(SubmitRefusal::UnknownDependency(dependency.job)),
        };
        match standing(dependency.kind, state) {
            Standing::Met => {}
            Standing::Open => unmet.push(dependency),
            Standing::Impossible => {
                return Err(SubmitRefusal::ImpossibleDependency(dependency, state));
            }
        }
    }
    Ok(unmet)
}

/// Where a dependency stands, given the state of the other job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Met,
    Open,
    Impossible,
}

/// Where a dependency of this kind stands when the other job is in `state`.
pub(super) fn standing(kind: DependencyKind, state: JobState) -> Standing {
    use DependencyKind as K;
    match (kind, state) {
        (K::After, JobState::Running) => Standing::Met,
        (_, JobState::Held | JobState::Pending | JobState::Starting | JobState::Running) => {
            Standing::Open
        }
        (K::After | K::AfterAny, _) | (K::AfterOk, JobState::Completed) => Standing::Met,
        (K::AfterNotOk, JobState::Failed | JobState::Cancelled | JobState::TimedOut) => {
            Standing::Met
        }
        (K::AfterOk, JobState::Failed | JobState::Cancelled | JobState::TimedOut)
        | (K::AfterNotOk, JobState::Completed) => Standing::Impossible,
    }
}
