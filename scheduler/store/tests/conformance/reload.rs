//! The world rebuilt from the store is the world that had the changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotgan_core::amount::GpuMilli;
use gotgan_core::attempt::{Attempt, AttemptState, Cause, ExitStatus, Stop};
use gotgan_core::change::{Change, EventKind, Subject};
use gotgan_core::fairshare::{HalfLife, History};
use gotgan_core::ids::{AttemptId, GpuClass, JobId};
use gotgan_core::job::{JobState, JobStatus, PendingAction};
use gotgan_core::node::{Admin, Liveness};
use gotgan_core::quota::{QuotaNode, QuotaTree};
use gotgan_core::spec::{Dependency, DependencyKind};
use gotgan_core::step::{Task, TaskState};
use gotgan_core::world::World;

use crate::harness::Place;
use crate::things::{
    Leader, at, attempt, ended, event, inventory, job_event, moved, node_name, path, plain_job,
    running, status, step, submitted,
};

pub async fn an_empty_store_loads_an_empty_world(place: Arc<Place>) {
    let store = place.open().await;
    assert_eq!(
        World::restore(store.load(HalfLife::default(), at(1)).await.unwrap(), at(1)),
        World::default()
    );
}

pub async fn every_kind_of_change_survives_a_reload(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    let mut waiting = plain_job(2);
    waiting.status.waits_for = vec![Dependency::on(DependencyKind::AfterOk, JobId(1))];
    leader
        .commit(vec![
            Change::NodeRegistered(Arc::new(inventory("n1"))),
            Change::NodeHeard {
                node: node_name("n1"),
                liveness: Liveness::Ready,
                at: gotgan_core::amount::UnixMicros(7),
            },
            Change::NodeRegistered(Arc::new(inventory("n2"))),
            Change::QuotaApplied { book: Arc::new(quota(1).into()), at: at(1) },
            Change::QuotaApplied { book: Arc::new(quota(2).into()), at: at(1) },
            submitted(plain_job(1)),
            submitted(waiting),
            job_event(1, 1),
            event(2, Subject::Node(node_name("n1")), EventKind::NodeRegistered, "n1"),
            event(3, Subject::Quota, EventKind::QuotaApplied, "revision 2"),
        ])
        .await;
    leader.assert_reloads().await;
    let first = attempt(1, 1, "n1", &[0, 1], 1000);
    leader.commit(leader.lease(&first)).await;
    leader.commit(vec![moved(1, JobState::Starting), drained("n2")]).await;
    leader.commit(vec![Change::StepCreated(Arc::new(step(1, 1, 0, 3)))]).await;
    leader.assert_reloads().await;
    leader.commit(a_stop_with_everything_set()).await;
    leader.assert_reloads().await;
    leader.commit(leader.end(&ended(first, 40, Cause::Node))).await;
    leader.commit(vec![moved(1, JobState::Failed), undrained("n2")]).await;
    leader.assert_reloads().await;
}

fn a_stop_with_everything_set() -> Vec<Change> {
    let mut stopping = running(attempt(1, 1, "n1", &[0, 1], 1000));
    stopping.state = AttemptState::Stopping;
    stopping.next_step = 4;
    stopping.stop = Some(Stop {
        cause: Cause::Limit,
        reason: "time".to_owned(),
        exit: Some(ExitStatus::Signal(9)),
        grace_s: 5,
    });
    let mut status = status(JobState::Running);
    status.started = Some(at(12));
    status.attempt = 1;
    status.avoid.insert(node_name("n2"));
    status.pending_action = Some(PendingAction::Requeue { reason: "\u{0}\"'".to_owned() });
    let exit = ExitStatus::Code(3);
    let state =
        TaskState::Ended { started: None, ended: at(13), exit, detail: "no such file".to_owned() };
    let task = Task { rank: 2, node: node_name("n1"), local_rank: 2, state };
    vec![
        Change::AttemptMoved(Arc::new(stopping)),
        Change::JobMoved { id: JobId(1), status: Arc::new(status) },
        Change::TaskMoved {
            attempt: AttemptId { job: JobId(1), number: 1 },
            step: 0,
            task: Arc::new(task),
        },
    ]
}

fn drained(node: &str) -> Change {
    let admin =
        Admin::Drain { by: "yuna".to_owned(), reason: "fan \"3\"".to_owned(), since: at(3) };
    Change::NodeAdministered { node: node_name(node), admin }
}

fn undrained(node: &str) -> Change {
    Change::NodeAdministered { node: node_name(node), admin: Admin::Active }
}

fn quota(revision: u64) -> QuotaTree {
    let limits = BTreeMap::from([(GpuClass::new("b200").unwrap(), GpuMilli::whole(8))]);
    let leaf = QuotaNode {
        title: "국가 AI".to_owned(),
        limits,
        any_limit: Some(GpuMilli(500)),
        ..QuotaNode::default()
    };
    let paths = ["public", "public/nup", "public/nup/a"];
    let nodes = paths.into_iter().map(|text| (path(text), leaf.clone())).collect();
    QuotaTree { revision, nodes, ..QuotaTree::default() }
}

pub async fn terminal_jobs_and_ended_attempts_are_not_loaded(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    let attempt = attempt(1, 1, "n1", &[0], 1000);
    leader
        .commit(vec![
            Change::NodeRegistered(Arc::new(inventory("n1"))),
            submitted(plain_job(1)),
            Change::AttemptLeased(Arc::new(attempt.clone())),
            Change::StepCreated(Arc::new(step(1, 1, 0, 1))),
        ])
        .await;
    leader.commit(leader.end(&ended(attempt, 20, Cause::User))).await;
    leader.commit(vec![moved(1, JobState::Completed)]).await;
    let snapshot = leader.store.load(HalfLife::default(), at(1)).await.unwrap();
    assert_eq!((snapshot.jobs.len(), snapshot.attempts.len(), snapshot.steps.len()), (0, 0, 0));
    assert_eq!(snapshot.sequences.next_job, 2);
    leader.assert_reloads().await;
}

/// Attempts that ended well, or by what is given back, long ago or a moment ago; one runs on.
pub async fn what_was_used_is_known_to_the_last_number_after_a_restart(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    let hour = HalfLife::from_minutes(60).unwrap();
    leader.world.history = History::new(hour);
    let node = Change::NodeRegistered(Arc::new(inventory("n1")));
    leader.commit(vec![node]).await;
    let causes = [Cause::User, Cause::Hardware, Cause::Limit, Cause::Site, Cause::Preempted];
    for (id, cause) in (1..).zip(causes.into_iter().cycle().take(20)) {
        leader.commit(vec![submitted(plain_job(id))]).await;
        let held: Vec<usize> = (0..1 + id as usize % 4).collect();
        let mut one = attempt(id, 1, "n1", &held, 1000);
        one.leased = at(id as i64 * 7919);
        leader.commit(leader.lease(&one)).await;
        if id < 20 {
            leader.commit(leader.end(&ended(one, id as i64 * 8111 + 100, cause))).await;
        }
    }
    let (class, project) = (GpuClass::new("b200").unwrap(), "public/nup/a");
    for now in [at(30_000), at(160_000), at(170_000), at(400_000), at(4_000_000)] {
        let loaded = World::restore(leader.store.load(hour, now).await.unwrap(), now).history;
        let of = |history: &History, path| {
            let moment = history.moment(now);
            (history.used(path, &class, moment), history.asked(path, &class, moment, None))
        };
        for path in ["public", "public/nup", project] {
            assert_eq!(of(&loaded, path), of(&leader.world.history, path), "{path} at {now:?}");
        }
    }
    let loaded = World::restore(leader.store.load(hour, at(30_000)).await.unwrap(), at(1));
    assert_eq!(loaded.history, leader.world.history);
    assert!(loaded.history.used(project, &class, loaded.history.moment(at(160_000))).0 > 0);
}

pub async fn a_long_random_story_survives_a_reload_at_every_turn(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    let nodes = ["n1", "n2", "n3"].map(|node| Change::NodeRegistered(Arc::new(inventory(node))));
    leader.commit(nodes.to_vec()).await;
    let mut dice = Dice(7);
    for turn in 0..60 {
        let mut changes = Vec::new();
        // Changes of one round see the world as it was, so each job is touched once a round.
        let jobs: Vec<JobId> = leader.world.jobs.keys().copied().collect();
        for id in jobs {
            if dice.roll(3) == 0 {
                changes.extend(next_of(&leader, id, &mut dice));
            }
        }
        for more in 0..dice.roll(3) {
            let id = leader.world.sequences.next_job + more;
            changes.push(submitted(plain_job(id)));
        }
        renumber(&mut changes, leader.world.sequences.next_entry);
        leader.commit(changes).await;
        if turn % 5 == 0 {
            leader.assert_reloads().await;
        }
    }
    leader.assert_reloads().await;
    let audit = leader.store.audit_ledger().await.unwrap();
    assert_eq!(audit.differences, Vec::<String>::new());
    assert!(audit.attempts > 10, "{}", audit.attempts);
}

/// One step in the life of a job, by its state.
fn next_of(leader: &Leader, id: JobId, dice: &mut Dice) -> Vec<Change> {
    let status = &leader.world.jobs[&id].status;
    let alive = leader.world.attempts.get(&AttemptId { job: id, number: status.attempt });
    match (status.state, alive) {
        (JobState::Pending, _) => start(leader, id),
        (JobState::Starting, Some(attempt)) => {
            let status = JobStatus { state: JobState::Running, ..status.clone() };
            vec![
                Change::AttemptMoved(Arc::new(running(attempt.as_ref().clone()))),
                Change::JobMoved { id, status: Arc::new(status) },
            ]
        }
        (_, Some(attempt)) => end(leader, attempt, dice),
        (_, None) => Vec::new(),
    }
}

/// Every job wants the one GPU that its number says; the oldest that waits for a free one gets it.
fn start(leader: &Leader, id: JobId) -> Vec<Change> {
    let world = &leader.world;
    let node = ["n1", "n2", "n3"][(id.0 % 3) as usize];
    let gpu = (id.0 % 8) as usize;
    let older = world
        .jobs
        .range(..id)
        .any(|(other, job)| other.0 % 24 == id.0 % 24 && job.status.state == JobState::Pending);
    if older || world.nodes[&node_name(node)].free.gpus[gpu] < GpuMilli::WHOLE {
        return Vec::new();
    }
    let status = &world.jobs[&id].status;
    let attempt = attempt(id.0, status.attempt + 1, node, &[gpu], 1000);
    let number = attempt.id.number;
    let status = JobStatus { state: JobState::Starting, attempt: number, ..status.clone() };
    let mut changes = leader.lease(&attempt);
    changes.push(Change::JobMoved { id, status: Arc::new(status) });
    changes.push(Change::StepCreated(Arc::new(step(id.0, number, 0, 2))));
    changes
}

fn end(leader: &Leader, attempt: &Attempt, dice: &mut Dice) -> Vec<Change> {
    let (cause, state) = match dice.roll(3) {
        0 => (Cause::Node, JobState::Pending),
        1 => (Cause::User, JobState::Completed),
        _ => (Cause::Limit, JobState::TimedOut),
    };
    let id = attempt.id.job;
    let status = JobStatus { state, ..leader.world.jobs[&id].status.clone() };
    let mut changes = leader.end(&ended(attempt.clone(), 20 + id.0 as i64, cause));
    changes.push(Change::JobMoved { id, status: Arc::new(status) });
    changes
}

/// Gives the lines of a round the positions that follow each other.
fn renumber(changes: &mut [Change], first: u64) {
    let lines = changes.iter_mut().filter_map(|change| match change {
        Change::Booked(entry) => Some(entry),
        _ => None,
    });
    for (seq, entry) in (first..).zip(lines) {
        entry.seq = seq;
    }
}

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}
