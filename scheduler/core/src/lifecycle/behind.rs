//! Arrays that are submitted behind another one: which of their tasks wait for the task of the same index there, which
//! need not wait any more, and which can never start.

use super::draft::Draft;
use super::submit::{Standing, Submission, SubmitRefusal, standing};
use crate::array::{self, ArraySpec, ArrayTasks, Behind, TaskSet};
use crate::ids::JobId;
use crate::job::JobState;
use crate::spec::{Dependency, DependencyKind};

/// How the tasks of a new array stand to their counterparts.
#[derive(Debug, Default)]
pub(super) struct Counterparts {
    /// Those that still wait.
    pub behind: Option<Behind>,
    /// Those whose counterparts have ended otherwise.
    pub gone: TaskSet,
}

/// How they stand; nothing for what is submitted behind no array.
pub(super) fn counterparts(
    draft: &Draft<'_>,
    submission: &Submission,
) -> Result<Counterparts, SubmitRefusal> {
    let spec = &submission.spec;
    let on = spec.dependencies.iter().find(|one| one.kind == DependencyKind::AfterCorr);
    let Some((on, all)) = on.zip(spec.array.as_ref().map(ArraySpec::len)) else {
        return Ok(Counterparts::default());
    };
    let tasks = draft.world.arrays.get(&on.job).and_then(|array| array.status.tasks.as_deref());
    let folded = tasks.map(|tasks| tasks.waiting.join(&tasks.held)).unwrap_or_default();
    let (mut open, mut gone, mut end) = (Vec::new(), Vec::new(), JobState::Failed);
    for place in TaskSet::all(all).minus(&folded).ranges().flat_map(|(first, last)| first..=last) {
        let state = state_of(draft, submission, array::task_id(on.job, place), on)?;
        match standing(on.kind, state) {
            Standing::Met => {}
            Standing::Open => open.push((place, place)),
            Standing::Impossible => (end, _) = (state, gone.push((place, place))),
        }
    }
    let gone = TaskSet::of(gone);
    if gone.len() == all {
        return Err(SubmitRefusal::ImpossibleDependency(*on, end));
    }
    let places = folded.join(&TaskSet::of(open));
    let behind = (!places.is_empty()).then_some(Behind { array: on.job, places });
    Ok(Counterparts { behind, gone })
}

/// The state of a task of the other array, which may have ended before this.
fn state_of(
    draft: &Draft<'_>,
    submission: &Submission,
    task: JobId,
    on: &Dependency,
) -> Result<JobState, SubmitRefusal> {
    match (draft.world.state_of(task), submission.outcomes.get(&task)) {
        (Some(state), _) => Ok(state),
        (None, Some(state)) if state.is_terminal() => Ok(*state),
        // It was alive when the store was asked and is not any more.
        (None, Some(_)) => Err(SubmitRefusal::StaleDependency(on.job)),
        (None, None) => Err(SubmitRefusal::UnknownDependency(on.job)),
    }
}

impl Counterparts {
    /// The tasks of a new array, with those that can never start cancelled.
    pub fn enter(self, tasks: &mut ArrayTasks) {
        tasks.behind = self.behind;
        let gone = tasks.take(&self.gone);
        if !gone.is_empty() {
            tasks.count(None, JobState::Cancelled, gone.len());
        }
    }
}
