//! Storing a new job, and replacing the quota tree.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::behind::{Counterparts, counterparts};
use super::draft::Draft;
use crate::amount::UnixMicros;
use crate::array::ArrayTasks;
use crate::change::{Change, EventKind};
use crate::ids::{IdempotencyKey, JobId, UserName};
use crate::job::{Digest, Job, JobState, JobStatus};
use crate::quota::show_moment;
use crate::reservation::unmet;
use crate::spec::{Dependency, DependencyKind, JobSpec};
use crate::world::World;

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
        "project {project} has {waiting} jobs waiting, and with {more} more it would have more than the {most} it may \
         have; wait until some have started"
    )]
    ProjectQueueFull {
        /// Which project.
        project: String,
        /// How many wait.
        waiting: u64,
        /// How many this would add.
        more: u64,
        /// How many may wait.
        most: u64,
    },
    /// The centre has too many waiting jobs.
    #[error(
        "{waiting} jobs are waiting, and with {more} more they would be more than the {most} the site allows; try again \
         later"
    )]
    QueueFull {
        /// How many wait.
        waiting: u64,
        /// How many this would add.
        more: u64,
        /// How many may wait.
        most: u64,
    },
    /// A dependency names no job.
    #[error("job {0} does not exist; a dependency names a job submitted before")]
    UnknownDependency(JobId),
    /// A dependency ended between the look at the store and the submission; look again.
    #[error("job {0} has just ended; submit again")]
    StaleDependency(JobId),
    /// It could not end in time even if it started at once.
    #[error(
        "cannot end by its deadline {deadline}: if it started now, its time limit would be over at {ends}; give a later \
         deadline or a shorter time limit"
    )]
    DeadlineTooSoon {
        /// Its deadline, in words.
        deadline: String,
        /// When its time limit would be over, in words.
        ends: String,
    },
    /// It asks for a reservation that it will never have nodes of.
    #[error("{0}")]
    Reservation(String),
    /// More jobs of its name are left than a singleton can wait for.
    #[error(
        "{others} other jobs named \"{name}\" are left, and a singleton can wait for {NAMESAKES_MAX}; wait until some have \
         ended, or give it another name"
    )]
    TooManyNamesakes {
        /// The name.
        name: String,
        /// How many there are.
        others: usize,
    },
    /// A dependency can never be fulfilled.
    #[error("{} cannot be fulfilled: job {} has {}", .0.kind.word(), .0.named(), .1.word())]
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
    let mut ahead = 0;
    for (index, submission) in submissions.iter().enumerate() {
        check_room(draft, &submission.spec, ahead).map_err(|refusal| (index, refusal))?;
        check_deadline(draft, &submission.spec).map_err(|refusal| (index, refusal))?;
        check_reservation(draft.world, &submission.spec, draft.now)
            .map_err(|refusal| (index, refusal))?;
        let before = submissions.get(..index).unwrap_or_default();
        check_namesakes(draft, submission, before).map_err(|refusal| (index, refusal))?;
        ahead += jobs_of(&submission.spec);
        let unmet = unmet_dependencies(draft, submission).map_err(|refusal| (index, refusal))?;
        let behind = counterparts(draft, submission).map_err(|refusal| (index, refusal))?;
        waits.push((unmet, behind));
    }
    let both = submissions.into_iter().zip(waits);
    Ok(both.map(|(submission, waits_for)| store_one(draft, submission, waits_for)).collect())
}

/// Other jobs that a singleton can wait for: each is an entry of its record.
const NAMESAKES_MAX: usize = 256;

fn check_deadline(draft: &Draft<'_>, spec: &JobSpec) -> Result<(), SubmitRefusal> {
    let Some(deadline) = spec.deadline.map(|deadline| deadline.moment(draft.now)) else {
        return Ok(());
    };
    let ends = draft.now.plus_seconds(spec.time_limit_s);
    if ends > deadline {
        let (deadline, ends) = (show_moment(deadline), show_moment(ends));
        return Err(SubmitRefusal::DeadlineTooSoon { deadline, ends });
    }
    Ok(())
}

/// Whether the reservation that a job asks for, if it does, is there, is for it, and has room for its nodes and its time
/// limit.
///
/// # Errors
/// [`SubmitRefusal::Reservation`] if it can never have nodes of it.
pub fn check_reservation(
    world: &World,
    spec: &JobSpec,
    now: UnixMicros,
) -> Result<(), SubmitRefusal> {
    let Some(name) = &spec.constraints.reservation else { return Ok(()) };
    match unmet(&world.windows, spec, now) {
        Some(unmet) if !unmet.passes() => {
            Err(SubmitRefusal::Reservation(unmet.describe(name, spec.nodes)))
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether a singleton has not too many others to wait for, those before it in the list included.
fn check_namesakes(
    draft: &Draft<'_>,
    submission: &Submission,
    before: &[Submission],
) -> Result<(), SubmitRefusal> {
    let Submission { owner, spec, .. } = submission;
    if !spec.singleton {
        return Ok(());
    }
    let alike = |other: &&Submission| {
        (&other.owner, &other.spec.project, &other.spec.name) == (owner, &spec.project, &spec.name)
    };
    let others = namesakes(draft, owner, spec).count() + before.iter().filter(alike).count();
    if others > NAMESAKES_MAX {
        return Err(SubmitRefusal::TooManyNamesakes { name: spec.name.clone(), others });
    }
    Ok(())
}

/// Jobs of the same owner, project and name that have not ended.
fn namesakes<'a>(
    draft: &'a Draft<'_>,
    owner: &UserName,
    spec: &'a JobSpec,
) -> impl Iterator<Item = JobId> + use<'a> {
    let named =
        move |id: &JobId| draft.world.record(*id).is_some_and(|other| other.spec.name == spec.name);
    draft.world.people.jobs(owner, &spec.project).filter(named)
}

/// What a singleton waits for beside its dependencies: that none of its namesakes is left.
fn singleton_waits(draft: &Draft<'_>, submission: &Submission) -> Vec<Dependency> {
    if !submission.spec.singleton {
        return Vec::new();
    }
    let others = namesakes(draft, &submission.owner, &submission.spec);
    others.map(|job| Dependency::on(DependencyKind::AfterAny, job)).collect()
}

fn store_one(
    draft: &mut Draft<'_>,
    submission: Submission,
    (mut waits_for, behind): (Vec<Dependency>, Counterparts),
) -> JobId {
    for other in singleton_waits(draft, &submission) {
        if !waits_for.contains(&other) {
            waits_for.push(other);
        }
    }
    let id = JobId(draft.world.sequences.next_job);
    let (state, detail) = if submission.spec.hold {
        (JobState::Held, format!("held by {} at submission", submission.owner))
    } else {
        (JobState::Pending, String::new())
    };
    let (project, owner) = (&submission.spec.project, &submission.owner);
    let array = submission.spec.array.as_ref();
    let text = match array {
        Some(array) => format!("{} tasks submitted to {project} by {owner}", array.len()),
        None => format!("submitted to {project} by {owner}"),
    };
    let gone = array.map(|array| array.show(&behind.gone)).filter(|gone| !gone.is_empty());
    let tasks = array.map(|array| {
        let mut tasks = ArrayTasks::new(array.len(), submission.spec.hold);
        behind.enter(&mut tasks);
        Arc::new(tasks)
    });
    let job = Job {
        id,
        owner: submission.owner,
        key: submission.key,
        digest: submission.digest,
        submitted: draft.now,
        spec: submission.spec,
        status: JobStatus { tasks, ..JobStatus::new(state, detail, draft.now, waits_for) },
        array: None,
    };
    draft.push(Change::JobSubmitted(Arc::new(job)));
    draft.tell_job(id, 0, state, EventKind::Submitted, text);
    if let Some(gone) = gone {
        let text = format!("tasks {gone} cancelled: their counterparts have not completed");
        draft.tell_job(id, 0, state, EventKind::TasksCancelled, text);
    }
    id
}

/// How many jobs it is: an array is as many as it has tasks.
fn jobs_of(spec: &JobSpec) -> u64 {
    spec.array.as_ref().map_or(1, |array| u64::from(array.len()))
}

/// Whether there is room for it beside `ahead` other jobs of the same list. Counting all of the list
/// against the project of each is strict at the very limit only.
fn check_room(draft: &Draft<'_>, spec: &JobSpec, ahead: u64) -> Result<(), SubmitRefusal> {
    let more = jobs_of(spec);
    let waiting = draft.world.jobs.len() as u64 + draft.world.folded + ahead;
    let most = draft.policy.max_pending;
    if waiting + more > most {
        return Err(SubmitRefusal::QueueFull { waiting, more, most });
    }
    let waiting = draft.world.waiting_jobs_of(&spec.project) + ahead;
    let most = draft.policy.max_pending_per_project;
    if waiting + more > most {
        let project = spec.project.to_string();
        return Err(SubmitRefusal::ProjectQueueFull { project, waiting, more, most });
    }
    Ok(())
}

/// Dependencies that still have to be waited for.
fn unmet_dependencies(
    draft: &Draft<'_>,
    submission: &Submission,
) -> Result<Vec<Dependency>, SubmitRefusal> {
    let mut unmet = Vec::new();
    let asked = submission.spec.dependencies.iter();
    // What waits task by task is no wait of the whole.
    for &dependency in asked.filter(|one| one.kind != DependencyKind::AfterCorr) {
        let live = draft.world.state_of(dependency.job);
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
        (K::After | K::AfterAny, _) | (K::AfterOk | K::AfterCorr, JobState::Completed) => {
            Standing::Met
        }
        (K::AfterNotOk, JobState::Failed | JobState::Cancelled | JobState::TimedOut) => {
            Standing::Met
        }
        (
            K::AfterOk | K::AfterCorr,
            JobState::Failed | JobState::Cancelled | JobState::TimedOut,
        )
        | (K::AfterNotOk, JobState::Completed) => Standing::Impossible,
    }
}
