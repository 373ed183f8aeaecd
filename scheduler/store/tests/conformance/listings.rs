//! Finding jobs, events and submissions.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotgan_core::amount::GpuMilliSeconds;
use gotgan_core::attempt::Cause;
use gotgan_core::change::{Change, EventKind, Subject};
use gotgan_core::ids::{IdempotencyKey, JobId, ProjectPath};
use gotgan_core::job::{Job, JobState, JobStatus};
use gotgan_store::{JobFilter, Page, Store};

use crate::harness::Place;
use crate::things::{
    Leader, attempt, close, ended, event, inventory, job, job_event, moved, node_name, path,
    plain_job, status, step, submitted, user,
};

const ALL: Page = Page { size: 1000, after: None };

async fn ids(store: &dyn Store, filter: &JobFilter, page: &Page) -> Vec<u64> {
    let found = store.jobs(filter, page).await.unwrap();
    found.into_iter().map(|detail| detail.job.id.0).collect()
}

pub async fn pages_neither_repeat_nor_skip_while_jobs_arrive(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    leader.commit((1..=20).map(|id| submitted(plain_job(id))).collect()).await;
    for filter in [
        JobFilter::default(),
        JobFilter { owner: Some(user("minji")), ..JobFilter::default() },
        JobFilter {
            states: vec![JobState::Pending, JobState::Held, JobState::Pending],
            ..JobFilter::default()
        },
        JobFilter { project: Some(path("public")), ..JobFilter::default() },
    ] {
        let mut seen = Vec::new();
        let mut page = Page { size: 7, after: None };
        loop {
            let found = ids(&*leader.store, &filter, &page).await;
            let Some(last) = found.last() else { break };
            page.after = Some(*last);
            seen.extend(found);
            let next = leader.world.sequences.next_job;
            leader.commit(vec![submitted(plain_job(next))]).await;
        }
        let newest = seen[0];
        assert_eq!(seen, (1..=newest).rev().collect::<Vec<_>>());
    }
}

/// What a filter means, said without a database.
fn passes(filter: &JobFilter, job: &Job) -> bool {
    let within = |path: &ProjectPath| job.spec.project.is_within(path.as_str());
    (filter.states.is_empty() || filter.states.contains(&job.status.state))
        && (filter.within.is_empty() || filter.within.iter().any(within))
        && filter.project.as_ref().is_none_or(within)
        && filter.owner.as_ref().is_none_or(|owner| *owner == job.owner)
        && filter.name.as_ref().is_none_or(|name| *name == job.spec.name)
        && (filter.ids.is_empty() || filter.ids.contains(&job.id))
}

pub async fn every_filter_finds_what_a_plain_search_finds(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    let projects = ["public", "public/nup", "public/nup/a", "public/nup-b", "private/x"];
    let states = [JobState::Pending, JobState::Held, JobState::Completed, JobState::Cancelled];
    let jobs = (1..=60_u64).map(|id| {
        let owner = ["minji", "jun", "sora"][(id % 3) as usize];
        let mut job =
            job(id, owner, projects[(id % 5) as usize], ["train", "eval"][(id % 2) as usize]);
        job.status.state = states[(id / 5 % 4) as usize];
        job
    });
    let jobs: Vec<Job> = jobs.collect();
    leader.commit(jobs.iter().cloned().map(submitted).collect()).await;
    for filter in filters() {
        let expected: Vec<u64> =
            jobs.iter().rev().filter(|job| passes(&filter, job)).map(|job| job.id.0).collect();
        assert_eq!(ids(&*leader.store, &filter, &ALL).await, expected, "{filter:?}");
    }
}

/// Every combination of some values of every field.
fn filters() -> Vec<JobFilter> {
    let (nup, private) = (path("public/nup"), path("private"));
    let living = vec![JobState::Pending, JobState::Held];
    let several = vec![path("private/x"), nup.clone(), path("public")];
    let ids = [3, 7, 33, 99].map(JobId).to_vec();
    let mut filters = vec![JobFilter::default()];
    vary(&mut filters, &[vec![], living, vec![JobState::Completed]], |f, v| f.states = v);
    vary(&mut filters, &[vec![], vec![nup.clone()], several], |f, v| f.within = v);
    vary(&mut filters, &[None, Some(nup), Some(private)], |f, v| f.project = v);
    vary(&mut filters, &[None, Some(user("jun"))], |f, v| f.owner = v);
    vary(&mut filters, &[None, Some("eval".to_owned())], |f, v| f.name = v);
    vary(&mut filters, &[vec![], ids], |f, v| f.ids = v);
    filters
}

/// Each filter once with each value.
fn vary<V: Clone>(filters: &mut Vec<JobFilter>, values: &[V], set: fn(&mut JobFilter, V)) {
    let mut varied = Vec::new();
    for filter in filters.iter() {
        for value in values {
            let mut filter = filter.clone();
            set(&mut filter, value.clone());
            varied.push(filter);
        }
    }
    *filters = varied;
}

pub async fn a_path_is_not_a_prefix_of_its_neighbours(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    let projects = ["a", "a/b", "a-b", "a0", "ab", "a/0", "a/z/z"];
    let jobs = (1..).zip(projects).map(|(id, project)| submitted(job(id, "minji", project, "x")));
    leader.commit(jobs.collect()).await;
    let within = JobFilter { within: vec![path("a")], ..JobFilter::default() };
    assert_eq!(ids(&*leader.store, &within, &ALL).await, [7, 6, 2, 1]);
    let project = JobFilter { project: Some(path("a")), ..JobFilter::default() };
    assert_eq!(ids(&*leader.store, &project, &ALL).await, [7, 6, 2, 1]);
}

/// Job 1 was tried twice: lost on its node, then completed. Job 2 was never tried.
async fn leader_with_history(place: &Place) -> Leader {
    let mut leader = Leader::at(place).await;
    leader
        .commit(vec![
            Change::NodeRegistered(Arc::new(inventory("n1"))),
            submitted(plain_job(1)),
            submitted(plain_job(2)),
        ])
        .await;
    for (number, cause, seconds) in [(1, Cause::Node, 20), (2, Cause::User, 40)] {
        let attempt = attempt(1, number, "n1", &[0, 1], 1000);
        leader.commit(leader.lease(&attempt)).await;
        leader.commit(vec![Change::StepCreated(Arc::new(step(1, number, 0, 2)))]).await;
        leader.commit(leader.end(&ended(attempt, seconds, cause))).await;
    }
    let done = JobStatus { attempt: 2, ..status(JobState::Completed) };
    leader.commit(vec![Change::JobMoved { id: JobId(1), status: Arc::new(done) }]).await;
    leader
}

pub async fn a_listing_shows_the_latest_attempt_and_what_was_paid(place: Arc<Place>) {
    let leader = leader_with_history(&place).await;
    let listed = leader.store.jobs(&JobFilter::default(), &ALL).await.unwrap();
    let numbers = |place: usize| listed[place].attempts.iter().map(|attempt| attempt.id.number);
    assert_eq!(numbers(0).collect::<Vec<_>>(), Vec::<u32>::new());
    assert_eq!(numbers(1).collect::<Vec<_>>(), [2]);
    assert_eq!(listed[1].attempts[0].placement.nodes[0].node, node_name("n1"));
    assert_eq!(listed[1].paid, GpuMilliSeconds(2 * 1000 * 30));
    assert!(listed[1].steps.is_empty() && listed[1].charged.is_empty());
}

pub async fn a_job_comes_with_all_that_happened_to_it(place: Arc<Place>) {
    let leader = leader_with_history(&place).await;
    let detail = leader.store.job(JobId(1)).await.unwrap().unwrap();
    let mut first = ended(attempt(1, 1, "n1", &[0, 1], 1000), 20, Cause::Node);
    let mut second = ended(attempt(1, 2, "n1", &[0, 1], 1000), 40, Cause::User);
    close(&mut first);
    close(&mut second);
    assert_eq!(detail.attempts, [first, second]);
    assert_eq!(detail.steps, [Arc::new(step(1, 1, 0, 2)), Arc::new(step(1, 2, 0, 2))]);
    assert_eq!(detail.charged, [(1, GpuMilliSeconds(20_000)), (2, GpuMilliSeconds(60_000))]);
    assert_eq!(detail.refunded, [(1, GpuMilliSeconds(20_000))]);
    assert_eq!(detail.paid, GpuMilliSeconds(60_000));
    assert_eq!(detail.job.spec, plain_job(1).spec);
    assert_eq!(leader.store.job(JobId(99)).await.unwrap(), None);
}

pub async fn submissions_are_found_by_owner_and_key(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    leader.commit(vec![submitted(plain_job(1)), submitted(job(2, "jun", "public", "x"))]).await;
    let key = |number: u64| IdempotencyKey::new(&format!("key-{number}")).unwrap();
    let asked = [
        (user("minji"), key(1)),
        (user("minji"), key(2)),
        (user("jun"), key(2)),
        (user("jun"), key(9)),
    ];
    let found = leader.store.submissions(&asked).await.unwrap();
    let found: Vec<_> = found.into_iter().map(|one| (one.owner, one.job, one.digest)).collect();
    let digest = |id| plain_job(id).digest;
    assert_eq!(found, [(user("minji"), JobId(1), digest(1)), (user("jun"), JobId(2), digest(2))]);
    assert!(leader.store.submissions(&[]).await.unwrap().is_empty());
}

pub async fn states_and_counts_agree_with_the_jobs(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    leader.commit((1..=4).map(|id| submitted(plain_job(id))).collect()).await;
    leader.commit(vec![moved(2, JobState::Held), moved(3, JobState::TimedOut)]).await;
    let counts = leader.store.count_jobs().await.unwrap();
    let expected = [(JobState::Held, 1), (JobState::Pending, 2), (JobState::TimedOut, 1)];
    assert_eq!(counts, BTreeMap::from(expected));
    let states = leader.store.job_states(&[JobId(3), JobId(1), JobId(50)]).await.unwrap();
    assert_eq!(
        states,
        BTreeMap::from([(JobId(1), JobState::Pending), (JobId(3), JobState::TimedOut)])
    );
}

pub async fn events_come_in_order_and_by_job(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    let on_node = Subject::Node(node_name("n1"));
    leader
        .commit(vec![
            job_event(1, 1),
            job_event(2, 2),
            event(3, on_node.clone(), EventKind::NodeLost, "gone"),
            event(4, Subject::Quota, EventKind::QuotaApplied, "r"),
            job_event(5, 1),
        ])
        .await;
    let seqs =
        |events: Vec<gotgan_core::change::Event>| events.iter().map(|e| e.seq).collect::<Vec<_>>();
    let store = &leader.store;
    let all = store.events(0, None, 10).await.unwrap();
    assert_eq!((&all[2].subject, &all[3].subject), (&on_node, &Subject::Quota));
    assert_eq!(seqs(all), [1, 2, 3, 4, 5]);
    assert_eq!(seqs(store.events(1, None, 2).await.unwrap()), [2, 3]);
    assert_eq!(seqs(store.events(0, Some(&[JobId(1)]), 10).await.unwrap()), [1, 5]);
    assert_eq!(seqs(store.events(1, Some(&[JobId(1), JobId(2)]), 1).await.unwrap()), [2]);
    assert!(store.events(0, Some(&[]), 10).await.unwrap().is_empty());
}

pub async fn wildcards_quotes_and_foreign_letters_are_only_letters(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    let names = [
        "a%",
        "a_",
        "a'b\"c",
        "곳간 🍚",
        "\\",
        "$1",
        "'); DROP TABLE jobs; --",
        "null",
        "[1]",
        "a\u{0}b",
        "",
    ];
    let jobs = (1..).zip(names).map(|(id, name)| submitted(job(id, "a_b@c", "public", name)));
    leader.commit(jobs.collect()).await;
    for (id, name) in (1..).zip(names) {
        let filter = JobFilter { name: Some(name.to_owned()), ..JobFilter::default() };
        assert_eq!(ids(&*leader.store, &filter, &ALL).await, [id], "{name:?}");
        let found = leader.store.job(JobId(id)).await.unwrap().unwrap();
        assert_eq!(found.job.spec.name, name);
    }
}
