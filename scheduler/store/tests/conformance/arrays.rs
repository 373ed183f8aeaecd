//! Arrays: one row until their tasks start.

use std::sync::Arc;

use gotgan_core::array::{ArraySpec, ArrayTasks, TaskSet, task_id};
use gotgan_core::change::Change;
use gotgan_core::ids::JobId;
use gotgan_core::job::{Job, JobState, JobStatus};
use gotgan_store::{JobFilter, Page, TaskFilter};

use crate::harness::Place;
use crate::things::{Leader, plain_job, status, submitted, user};

const TASKS: u32 = 100_000;
const ARRAY: JobId = JobId(1);

fn array(id: u64) -> Job {
    let mut job = plain_job(id);
    let spec = Arc::make_mut(&mut job.spec);
    spec.array = Some(ArraySpec::new(0..TASKS, Some(10)));
    job.status.tasks = Some(Arc::new(ArrayTasks::new(TASKS, false)));
    job
}

/// The array without the task at `place`, which is in that state, and the task as a job.
fn unfold(before: &Job, place: u32, state: JobState) -> [Change; 3] {
    let mut tasks = ArrayTasks::clone(before.status.tasks.as_ref().unwrap());
    tasks.waiting = tasks.waiting.minus(&TaskSet::one(place));
    tasks.count(None, state, 1);
    let state_of_array = tasks.state();
    let tasks = Some(Arc::new(tasks));
    let moved = JobStatus { state: state_of_array, tasks, ..before.status.clone() };
    let id = task_id(before.id, place);
    let task = before.folded_task(id).unwrap();
    [
        Change::JobMoved { id: before.id, status: Arc::new(moved) },
        submitted(task),
        Change::JobMoved { id, status: Arc::new(status(state)) },
    ]
}

pub async fn an_array_is_one_row_with_the_numbers_behind_it(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    leader.commit(vec![submitted(array(1))]).await;
    leader.assert_reloads().await;
    assert_eq!(leader.world.sequences.next_job, 2 + u64::from(TASKS));
    let rows = leader.store.count_jobs().await.unwrap();
    assert_eq!(rows.into_iter().collect::<Vec<_>>(), [(JobState::Pending, 1)]);
    let next = leader.world.sequences.next_job;
    leader.commit(vec![submitted(plain_job(next))]).await;
    leader.assert_reloads().await;
}

pub async fn a_task_that_starts_is_a_row_of_its_own_and_both_survive_a_reload(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    leader.commit(vec![submitted(array(1))]).await;
    leader.commit(unfold(&array(1), 3, JobState::Pending).to_vec()).await;
    leader.assert_reloads().await;
    let task = leader.store.job(task_id(ARRAY, 3)).await.unwrap().unwrap().job;
    assert_eq!((task.array, task.task_index()), (Some(ARRAY), Some(3)));
    assert_eq!(task.spec, array(1).spec, "what it asks for is the array's");
    // The key that the client chose is the array's alone.
    let found = leader.store.recent_submissions(10).await.unwrap();
    assert_eq!(found.iter().map(|one| one.job).collect::<Vec<_>>(), [ARRAY]);
}

pub async fn a_task_without_a_row_is_answered_as_the_job_it_would_be(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    leader.commit(vec![submitted(array(1))]).await;
    let mut gone = array(1);
    let mut tasks = ArrayTasks::new(TASKS, false);
    tasks.waiting = TaskSet::of([(0, 4)]);
    tasks.held = TaskSet::of([(5, 9)]);
    tasks.count(None, JobState::Cancelled, TASKS - 10);
    gone.status.tasks = Some(Arc::new(tasks));
    leader.commit(vec![Change::JobMoved { id: ARRAY, status: Arc::new(gone.status) }]).await;
    leader.assert_reloads().await;
    let ids: Vec<JobId> = [0, 5, 10, TASKS - 1, TASKS].map(|at| task_id(ARRAY, at)).to_vec();
    let states = leader.store.job_states(&ids).await.unwrap();
    let expected = [JobState::Pending, JobState::Held, JobState::Cancelled, JobState::Cancelled];
    assert_eq!(states.into_values().collect::<Vec<_>>(), expected);
    let mut all = leader.store.task_states(ARRAY).await.unwrap();
    assert_eq!(all.len(), TASKS as usize);
    all.retain(|id, _| ids.contains(id));
    assert_eq!(all.into_values().collect::<Vec<_>>(), expected);
    assert!(leader.store.task_states(task_id(ARRAY, 0)).await.unwrap().is_empty());
    let last = leader.store.job(task_id(ARRAY, TASKS - 1)).await.unwrap().unwrap();
    assert_eq!(last.job.owner, user("minji"));
    assert!(leader.store.job(task_id(ARRAY, TASKS)).await.unwrap().is_none());
}

pub async fn an_array_stands_for_its_tasks_in_listings(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    leader.commit(vec![submitted(array(1))]).await;
    leader.commit(unfold(&array(1), 0, JobState::Pending).to_vec()).await;
    let next = leader.world.sequences.next_job;
    leader.commit(vec![submitted(plain_job(next))]).await;
    let page = Page { size: 10, after: None };
    let listed = async |filter: JobFilter| -> Vec<u64> {
        let found = leader.store.jobs(&filter, &page).await.unwrap();
        found.into_iter().map(|detail| detail.job.id.0).collect()
    };
    for (tasks, expected) in [
        (TaskFilter::Beside, vec![next, 2, 1]),
        (TaskFilter::Without, vec![next, 1]),
        (TaskFilter::Of(ARRAY), vec![2]),
    ] {
        for filter in [
            JobFilter::default(),
            JobFilter { owner: Some(user("minji")), ..JobFilter::default() },
            JobFilter { states: vec![JobState::Pending], ..JobFilter::default() },
            JobFilter { within: vec![crate::things::path("public")], ..JobFilter::default() },
        ] {
            assert_eq!(listed(JobFilter { tasks, ..filter.clone() }).await, expected, "{filter:?}");
        }
    }
}
