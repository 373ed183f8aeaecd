//! Arrays: how the record of one follows its tasks, and what people do to many tasks at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::action::{Action, ActionRefusal, Actor, Changed, act_on_job, by_line};
use super::draft::Draft;
use super::end::{kind_of_end, meet_all};
use crate::array::{self, ArrayTasks, PIECES_MAX, TaskSet};
use crate::change::{Change, EventKind};
use crate::ids::JobId;
use crate::job::{Job, JobState, JobStatus};
use crate::spec::DependencyKind;

impl Draft<'_> {
    /// Makes a task of an array that waits a job of its own, as if it had been submitted alone; anything else stays as
    /// it is.
    pub(super) fn unfold(&mut self, id: JobId) {
        let Some(array) = self.world.array_over(id) else { return };
        let (Some(job), Some(tasks)) = (array.folded_task(id), &array.status.tasks) else { return };
        let Some(place) = array::place_of(array.id, id) else { return };
        let (array, mut status) = (array.id, array.status.clone());
        let mut tasks = ArrayTasks::clone(tasks);
        tasks.take(&TaskSet::one(place));
        tasks.count(None, job.status.state, 1);
        status.tasks = Some(Arc::new(tasks));
        self.push(Change::JobMoved { id: array, status: Arc::new(status) });
        self.push(Change::JobSubmitted(Arc::new(job)));
    }

    /// Notes in an array that one of its tasks is in another state.
    pub(super) fn follow_task(&mut self, array: JobId, from: JobState, to: JobState) {
        let Some(array) = self.world.arrays.get(&array).filter(|_| from != to) else { return };
        let mut tasks = array.status.tasks.as_deref().cloned().unwrap_or_default();
        tasks.count(Some(from), to, 1);
        let (id, status) = (array.id, array.status.clone());
        self.move_array(id, status, tasks);
    }

    /// Drafts an array's new status with its tasks as they stand now, and tells what that makes of the whole.
    fn move_array(&mut self, id: JobId, mut status: JobStatus, tasks: ArrayTasks) {
        let (before, after) = (status.state, tasks.state());
        let starts = after == JobState::Running && status.started.is_none();
        status.state = after;
        if starts {
            status.started = Some(self.now);
        }
        if after.is_terminal() {
            status.ended = Some(self.now);
            status.waits_for.clear();
            status.detail = end_of(&tasks, &status.detail);
        }
        let text = tasks.summary();
        status.tasks = Some(Arc::new(tasks));
        self.push(Change::JobMoved { id, status: Arc::new(status) });
        if before != after && (starts || after.is_terminal()) {
            let kind = if starts { EventKind::Started } else { kind_of_end(after) };
            self.tell_job(id, 0, after, kind, text);
            self.reached.push((id, after));
        }
    }
}

/// Does something to tasks of an array, or to all of them.
///
/// # Errors
/// [`ActionRefusal`]; then nothing was drafted.
pub(super) fn act_on_tasks(
    draft: &mut Draft<'_>,
    array: &Job,
    places: &TaskSet,
    action: Action,
    (actor, reason): (&Actor, &str),
) -> Result<Changed, ActionRefusal> {
    let mut tasks = array.status.tasks.as_deref().cloned().unwrap_or_default();
    let jobs = jobs_for(draft, array, places, action);
    let folded = match action {
        Action::Cancel => drop_tasks(&mut tasks, places),
        Action::Hold => shift(&mut tasks.waiting, &mut tasks.held, places),
        Action::Release => shift(&mut tasks.held, &mut tasks.waiting, places),
        Action::Requeue => TaskSet::default(),
    };
    if action == Action::Requeue && jobs.is_empty() {
        let advice = "; only starting or running tasks can be requeued";
        let (job, state) = (array.id, array.status.state);
        return Err(ActionRefusal::WrongState { job, action, state, advice });
    }
    if tasks.waiting.pieces().saturating_add(tasks.held.pieces()) > PIECES_MAX {
        return Err(ActionRefusal::TooManyPieces { array: array.id });
    }
    let mut changed = !folded.is_empty();
    if changed {
        tell_tasks(draft, array, &folded, tasks, action, by_line(action.past(), actor, reason));
    }
    for job in jobs {
        changed |= act_on_job(draft, job, action, actor, reason).is_ok_and(|done| done.changed);
    }
    meet_reached(draft);
    let state = draft.world.state_of(array.id).or_else(|| draft.last_state(array.id));
    Ok(Changed { changed, state: state.unwrap_or(array.status.state) })
}

/// Tasks that are jobs of their own and that the action means.
fn jobs_for(draft: &Draft<'_>, array: &Job, places: &TaskSet, action: Action) -> Vec<JobId> {
    let means = |state: JobState| match action {
        Action::Cancel => true,
        Action::Hold => state == JobState::Pending,
        Action::Release => state == JobState::Held,
        Action::Requeue => state.is_active(),
    };
    let chosen = |job: &&Job| {
        let place = array::place_of(array.id, job.id);
        means(job.status.state) && place.is_some_and(|place| places.contains(place))
    };
    draft.world.tasks_of(array).filter(chosen).map(|job| job.id).collect()
}

/// Takes the places that are in one set to the other; which those are.
fn shift(from: &mut TaskSet, to: &mut TaskSet, places: &TaskSet) -> TaskSet {
    let moved = from.meet(places);
    *from = from.minus(&moved);
    *to = to.join(&moved);
    moved
}

fn drop_tasks(tasks: &mut ArrayTasks, places: &TaskSet) -> TaskSet {
    let gone = tasks.take(places);
    tasks.count(None, JobState::Cancelled, gone.len());
    gone
}

/// Drafts what became of tasks that are no jobs of their own: one event for the array, however many they are.
fn tell_tasks(
    draft: &mut Draft<'_>,
    array: &Job,
    folded: &TaskSet,
    tasks: ArrayTasks,
    action: Action,
    detail: String,
) {
    let asked = array.spec.array.as_ref();
    let shown = asked.map(|asked| asked.show(folded)).unwrap_or_default();
    let kind = match action {
        Action::Cancel => EventKind::TasksCancelled,
        Action::Hold => EventKind::Held,
        Action::Release => EventKind::Released,
        Action::Requeue => EventKind::Requeued,
    };
    let text = format!("tasks {shown} {detail}");
    draft.tell_job(array.id, 0, tasks.state(), kind, text);
    let mut status = array.status.clone();
    status.detail = if action == Action::Release { String::new() } else { detail };
    draft.move_array(array.id, status, tasks);
    if action == Action::Cancel {
        let first_to_last = array.id..=array.last_id();
        let waited_for: BTreeSet<JobId> =
            draft.world.dependents.range(first_to_last).map(|(id, _)| *id).collect();
        let is_gone =
            |id: &JobId| array::place_of(array.id, *id).is_some_and(|place| folded.contains(place));
        let gone = waited_for.into_iter().filter(is_gone);
        draft.reached.extend(gone.map(|id| (id, JobState::Cancelled)));
        draft.dropped.push((array.id, folded.clone()));
    }
}

/// How an array ended, with the reason if it was cancelled.
fn end_of(tasks: &ArrayTasks, detail: &str) -> String {
    let summary = tasks.summary();
    let tells = tasks.state() == JobState::Cancelled && !detail.is_empty();
    if tells { format!("{summary}: {detail}") } else { summary }
}

/// Cancels all tasks of an array that waits for something which can never be.
pub(super) fn cancel_waiting(draft: &mut Draft<'_>, array: &Job, detail: String) {
    let mut tasks = array.status.tasks.as_deref().cloned().unwrap_or_default();
    let gone = drop_tasks(&mut tasks, &TaskSet::all(u32::MAX));
    tell_tasks(draft, array, &gone, tasks, Action::Cancel, format!("cancelled: {detail}"));
}

/// Settles tasks of other arrays that wait for this task, which has ended like that.
pub(super) fn meet_counterparts(draft: &mut Draft<'_>, other: JobId, state: JobState) {
    if !state.is_terminal() {
        return;
    }
    let before = draft.world.behind.range(..other).next_back();
    let (other_array, arrays) = before.map(|(id, set)| (*id, set.clone())).unzip();
    let place = other_array.and_then(|array| array::place_of(array, other));
    for (id, place) in arrays.into_iter().flatten().filter_map(|id| Some((id, place?))) {
        let Some(array) = draft.world.arrays.get(&id).cloned() else { continue };
        let mut tasks = array.status.tasks.as_deref().cloned().unwrap_or_default();
        if tasks.counterpart(place) != Some(other) {
            continue;
        }
        let one = TaskSet::one(place);
        if state == JobState::Completed {
            tasks.catch_up(&one);
            draft.move_array(id, array.status.clone(), tasks);
        } else {
            cancel_behind(draft, &array, &one, state);
        }
    }
}

/// Settles tasks of other arrays that wait for these, which were cancelled before they started.
pub(super) fn meet_dropped(draft: &mut Draft<'_>, other: JobId, places: &TaskSet) {
    for id in draft.world.behind.get(&other).cloned().unwrap_or_default() {
        let Some(array) = draft.world.arrays.get(&id).cloned() else { continue };
        let behind = array.status.tasks.as_ref().and_then(|tasks| tasks.behind.as_ref());
        let gone = behind.map(|behind| behind.places.meet(places)).unwrap_or_default();
        if !gone.is_empty() {
            cancel_behind(draft, &array, &gone, JobState::Cancelled);
        }
    }
}

/// Cancels tasks whose counterparts have ended in another way than they wait for.
fn cancel_behind(draft: &mut Draft<'_>, array: &Job, places: &TaskSet, state: JobState) {
    let mut tasks = array.status.tasks.as_deref().cloned().unwrap_or_default();
    let Some(other) = tasks.behind.as_ref().map(|behind| behind.array) else { return };
    let gone = drop_tasks(&mut tasks, places);
    let kind = DependencyKind::AfterCorr.word();
    let asked = array.spec.array.as_ref().map(|asked| asked.show(&gone)).unwrap_or_default();
    let named =
        if gone.len() == 1 { format!("{other}_{asked}") } else { format!("{other}_[{asked}]") };
    let detail =
        format!("cancelled: {kind}:{other} cannot be fulfilled: {named} has {}", state.word());
    tell_tasks(draft, array, &gone, tasks, Action::Cancel, detail);
}

/// Settles what waits for arrays that have come further, and for tasks that went with theirs.
pub(super) fn meet_reached(draft: &mut Draft<'_>) {
    meet_all(draft);
}
