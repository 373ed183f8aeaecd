//! What people do to jobs: cancel, hold, release, requeue.

use super::array::act_on_tasks;
use super::draft::Draft;
use super::end::{conclude, order_stop};
use crate::array::{self, PIECES_MAX, TaskSet};
use crate::attempt::{Cause, Stop};
use crate::change::EventKind;
use crate::ids::{AttemptId, JobId, UserName};
use crate::job::{Job, JobEvent, JobState, PendingAction, transition};

/// What to do to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// End it for good.
    Cancel,
    /// Keep it from starting.
    Hold,
    /// Let it start again.
    Release,
    /// Stop its attempt and put it back into the queue.
    Requeue,
}

impl Action {
    /// The word people type.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Action::Cancel => "cancel",
            Action::Hold => "hold",
            Action::Release => "release",
            Action::Requeue => "requeue",
        }
    }

    /// What it then is.
    #[must_use]
    pub(super) fn past(self) -> &'static str {
        match self {
            Action::Cancel => "cancelled",
            Action::Hold => "held",
            Action::Release => "released",
            Action::Requeue => "requeued",
        }
    }
}

/// Who acts.
#[derive(Debug, Clone)]
pub struct Actor {
    /// Name.
    pub name: UserName,
    /// Acts for the site, not for the project: a requeue then costs the project nothing.
    pub for_site: bool,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// False where the job already was as asked.
    pub changed: bool,
    /// Its state now.
    pub state: JobState,
}

/// Why it cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionRefusal {
    /// Not in the world: terminal, or never was.
    #[error("job {0} is not waiting or running")]
    NotLive(JobId),
    /// The state does not allow it.
    #[error("cannot {} job {job}: it is {}{advice}", action.word(), state.word())]
    WrongState {
        /// Which job.
        job: JobId,
        /// What was asked.
        action: Action,
        /// How it stands.
        state: JobState,
        /// What to do instead, with its leading punctuation.
        advice: &'static str,
    },
    /// The tasks of an array that wait would be in too many pieces.
    #[error(
        "the waiting tasks of array {array} would be in more than {PIECES_MAX} pieces; name longer ranges, or the whole \
         array"
    )]
    TooManyPieces {
        /// Which array.
        array: JobId,
    },
    /// A task that the array has not.
    #[error("job {job} has no task {index}{}", has(.tasks))]
    NoSuchTask {
        /// Which job.
        job: JobId,
        /// What was asked for.
        index: u32,
        /// Its tasks, as they are written; empty if it is no array.
        tasks: String,
    },
}

fn has(tasks: &str) -> String {
    if tasks.is_empty() { ": it is no array".to_owned() } else { format!("; it has {tasks}") }
}

/// Does it to a job, to a task of an array, or to all tasks of one.
///
/// # Errors
/// [`ActionRefusal`]; then nothing was drafted.
pub fn act(
    draft: &mut Draft<'_>,
    id: JobId,
    action: Action,
    actor: &Actor,
    reason: &str,
) -> Result<Changed, ActionRefusal> {
    if draft.world.jobs.contains_key(&id) {
        return act_on_job(draft, id, action, actor, reason);
    }
    let all = draft.world.arrays.get(&id).map(|array| (array.as_ref(), TaskSet::all(u32::MAX)));
    let one = || {
        let array = draft.world.array_over(id)?;
        array.folded_task(id)?;
        Some((array, TaskSet::one(array::place_of(array.id, id)?)))
    };
    let Some((array, places)) = all.or_else(one) else { return Err(ActionRefusal::NotLive(id)) };
    let array = array.clone();
    let changed = act_on_tasks(draft, &array, &places, action, (actor, reason))?;
    let state = if array.id == id { changed.state } else { task_state(draft, id) };
    Ok(Changed { state, ..changed })
}

/// Does it to the tasks of an array with these indexes, ends included.
///
/// # Errors
/// [`ActionRefusal`]; then nothing was drafted.
pub fn act_on_indexes(
    draft: &mut Draft<'_>,
    id: JobId,
    indexes: &[(u32, u32)],
    action: Action,
    (actor, reason): (&Actor, &str),
) -> Result<Changed, ActionRefusal> {
    if let (true, Some((index, _))) = (draft.world.jobs.contains_key(&id), indexes.first()) {
        let (job, index, tasks) = (id, *index, String::new());
        return Err(ActionRefusal::NoSuchTask { job, index, tasks });
    }
    let array = draft.world.arrays.get(&id).cloned().ok_or(ActionRefusal::NotLive(id))?;
    let asked = array.spec.array.as_ref();
    let tasks = asked.map(ToString::to_string).unwrap_or_default();
    let missing = |index| ActionRefusal::NoSuchTask { job: id, index, tasks: tasks.clone() };
    let mut places = TaskSet::default();
    for (first, last) in indexes {
        let found = asked.map(|asked| asked.places_between(*first, *last)).unwrap_or_default();
        if found.is_empty() {
            return Err(missing(*first));
        }
        places = places.join(&found);
    }
    act_on_tasks(draft, &array, &places, action, (actor, reason))
}

/// A task that is neither a job nor folded any more was just cancelled.
fn task_state(draft: &Draft<'_>, id: JobId) -> JobState {
    draft.world.state_of(id).unwrap_or(JobState::Cancelled)
}

/// Does it to a job of its own.
pub(super) fn act_on_job(
    draft: &mut Draft<'_>,
    id: JobId,
    action: Action,
    actor: &Actor,
    reason: &str,
) -> Result<Changed, ActionRefusal> {
    let job = draft.world.jobs.get(&id).cloned().ok_or(ActionRefusal::NotLive(id))?;
    match action {
        Action::Cancel => Ok(cancel(draft, &job, actor, reason)),
        Action::Hold => hold(draft, &job, actor, reason),
        Action::Release => release(draft, &job, actor),
        Action::Requeue => requeue(draft, &job, actor, reason),
    }
}

fn cancel(draft: &mut Draft<'_>, job: &Job, actor: &Actor, reason: &str) -> Changed {
    let detail = by_line("cancelled", actor, reason);
    if job.status.state.is_active() {
        let action = PendingAction::Cancel { reason: detail.clone() };
        let already = matches!(job.status.pending_action, Some(PendingAction::Cancel { .. }));
        if !already {
            set_pending(draft, job, action);
            stop_attempt(draft, job, Cause::User, detail);
        }
        return Changed { changed: !already, state: job.status.state };
    }
    let mut status = job.status.clone();
    status.detail = detail;
    conclude(draft, job, status, JobEvent::Cancelled, None);
    Changed { changed: true, state: JobState::Cancelled }
}

fn hold(
    draft: &mut Draft<'_>,
    job: &Job,
    actor: &Actor,
    reason: &str,
) -> Result<Changed, ActionRefusal> {
    if job.status.state == JobState::Held {
        return Ok(Changed { changed: false, state: JobState::Held });
    }
    let detail = by_line("held", actor, reason);
    let advice = "; cancel or requeue it instead";
    move_plainly(draft, job, Action::Hold, JobEvent::Held, EventKind::Held, detail, advice)
}

fn release(draft: &mut Draft<'_>, job: &Job, actor: &Actor) -> Result<Changed, ActionRefusal> {
    if job.status.state == JobState::Pending {
        return Ok(Changed { changed: false, state: JobState::Pending });
    }
    let text = by_line("released", actor, "");
    move_plainly(draft, job, Action::Release, JobEvent::Released, EventKind::Released, text, "")
}

/// A move that only changes the state and the detail.
fn move_plainly(
    draft: &mut Draft<'_>,
    job: &Job,
    action: Action,
    event: JobEvent,
    kind: EventKind,
    text: String,
    advice: &'static str,
) -> Result<Changed, ActionRefusal> {
    let mut status = job.status.clone();
    let from = status.state;
    status.state = transition(from, event).map_err(|_| ActionRefusal::WrongState {
        job: job.id,
        action,
        state: from,
        advice,
    })?;
    status.detail = if status.state == JobState::Held { text.clone() } else { String::new() };
    status.promised.clear();
    let (state, attempt) = (status.state, status.attempt);
    draft.move_job(job.id, status);
    draft.tell_job(job.id, attempt, state, kind, text);
    Ok(Changed { changed: true, state })
}

fn requeue(
    draft: &mut Draft<'_>,
    job: &Job,
    actor: &Actor,
    reason: &str,
) -> Result<Changed, ActionRefusal> {
    let state = job.status.state;
    if !state.is_active() {
        let advice = "; only a starting or running job can be requeued";
        return Err(ActionRefusal::WrongState {
            job: job.id,
            action: Action::Requeue,
            state,
            advice,
        });
    }
    if job.status.pending_action.is_some() {
        return Ok(Changed { changed: false, state });
    }
    let detail = by_line("requeued", actor, reason);
    set_pending(draft, job, PendingAction::Requeue { reason: detail.clone() });
    let cause = if actor.for_site { Cause::Site } else { Cause::User };
    stop_attempt(draft, job, cause, detail);
    Ok(Changed { changed: true, state })
}

fn set_pending(draft: &mut Draft<'_>, job: &Job, action: PendingAction) {
    let mut status = job.status.clone();
    status.pending_action = Some(action);
    draft.move_job(job.id, status);
}

fn stop_attempt(draft: &mut Draft<'_>, job: &Job, cause: Cause, reason: String) {
    let id = AttemptId { job: job.id, number: job.status.attempt };
    let stop = Stop { cause, reason, exit: None, grace_s: job.spec.grace_s };
    order_stop(draft, id, stop);
}

pub(super) fn by_line(what: &str, actor: &Actor, reason: &str) -> String {
    if reason.is_empty() {
        format!("{what} by {}", actor.name)
    } else {
        format!("{what} by {}: {reason}", actor.name)
    }
}
