//! What a pass writes down of its order: every start is held against the record that the pass leaves of it.

use std::cmp::Ordering;

use gotgan_core::amount::UnixMicros;
use gotgan_core::change::{Event, EventKind, Subject};
use gotgan_core::ids::JobId;
use gotgan_core::job::{Job, JobState};
use gotgan_core::plan::{Decision, Plan};
use gotgan_core::precedence::{
    Absence, Facts, PASSED_MAX, PassTurns, RUNGS_MAX, Rule, Stage, StartTurn, Verdict, absence,
    compare, judge,
};
use gotgan_core::world::{CohortKey, World};

use crate::cluster::TestCluster;
use crate::naive;

/// Panics if a start contradicts what the pass has written down.
pub fn hold_against_record(world: &World, plan: &Plan) {
    let started: Vec<JobId> = plan.decisions.iter().filter_map(started).collect();
    let Some(turns) = &plan.turns else {
        assert!(started.is_empty(), "a pass that starts something leaves no record");
        return;
    };
    let mut recorded: Vec<JobId> = turns.starts.iter().map(|start| start.job).collect();
    let mut decided = started.clone();
    recorded.sort_unstable();
    decided.sort_unstable();
    assert_eq!(recorded, decided, "not every start is in the record");
    let waiting = waiting(world, &started, plan.planned);
    for start in few(&turns.starts) {
        follows_from_sheet(world, turns, start);
        for waits in few(&waiting) {
            holds(world, plan, turns, start, waits);
        }
    }
    for pair in turns.starts.windows(2) {
        assert_ne!(compare(&pair[0].rank, &pair[1].rank).first, Ordering::Greater, "{pair:#?}");
    }
}

/// All of a few, some of many.
fn few<T>(all: &[T]) -> impl Iterator<Item = &T> {
    all.iter().step_by(all.len() / 64 + 1)
}

fn started(decision: &Decision) -> Option<JobId> {
    match decision {
        Decision::Start { job, .. } => Some(*job),
        Decision::Preempt { .. } => None,
    }
}

/// Jobs that compete and do not start; of each array the first task of those that wait.
fn waiting(world: &World, started: &[JobId], now: UnixMicros) -> Vec<Job> {
    let queue = world.queue.iter().map(|key| key.job);
    let waiting = queue.filter(|job| !started.contains(job));
    let jobs = waiting.filter_map(|job| world.job(job).map(std::borrow::Cow::into_owned));
    jobs.filter(|job| job.status.waits_for.is_empty() && job.status.not_before <= now).collect()
}

/// The rank that a job started with is that which the sheet gives to one that waits at that moment.
fn follows_from_sheet(world: &World, turns: &PassTurns, start: &StartTurn) {
    let job = world.job(start.job).unwrap();
    let Some(rank) = turns.sheet.rank(&job, start.takes) else {
        let nodes: usize = turns.sheet.levels.iter().map(|level| level.nodes.len()).sum();
        assert!(nodes >= RUNGS_MAX || !world.quota.nodes.contains_key(&job.spec.project));
        return;
    };
    assert_eq!(rank.rungs, start.rank.rungs, "of job {}", start.job);
    assert_eq!(rank.own, start.rank.own);
    match start.rank.stage {
        Stage::Guaranteed => assert_eq!(rank.stage, Stage::Guaranteed),
        Stage::Scavenger => assert_eq!(rank.stage, Stage::Scavenger),
        // It may have found no room in a better part of the pass, or be beyond a budget.
        Stage::Reserved | Stage::Planned | Stage::Borrowed | Stage::Overuse => {}
    }
}

fn holds(world: &World, plan: &Plan, turns: &PassTurns, start: &StartTurn, waits: &Job) {
    let facts = Facts { sheet: &turns.sheet, start, other: waits, absence: None };
    let like = CohortKey::of(waits);
    let is_like = |job: JobId| world.job(job).is_some_and(|job| CohortKey::of(&job) == like);
    let order = judge(facts, is_like);
    let told = || format!("job {} before {}: {order:#?}", start.job, waits.id);
    match &order.verdict {
        Verdict::Absent(_) => panic!("{}", told()),
        Verdict::First(_) | Verdict::NotKept => {}
        // Its turn was first, so the pass must say why it does not start.
        Verdict::PassedOver(_, Some(passed)) => {
            let reasons = plan.report.of(waits).unwrap_or_else(|| panic!("{}", told()));
            let kinds: Vec<_> = reasons.iter().map(|reason| reason.kind).collect();
            assert!(kinds.contains(&passed.reason.kind), "{}", told());
        }
        Verdict::PassedOver(_, None) => {
            let has_reason = plan.report.of(waits).is_some_and(|reasons| !reasons.is_empty());
            assert!(has_reason || plan.report.deferred > 0, "{}", told());
        }
    }
    let Some(rank) = &order.other else { return };
    let ruling = compare(&start.rank, rank);
    let (shown, other) = (start.rank.told_for(ruling.rule), rank.told_for(ruling.rule));
    assert_eq!(compare(&shown, rank), ruling, "{}", told());
    assert_eq!(compare(&start.rank, &other), ruling, "{}", told());
}

/// A cluster of one node with 8 GPUs and two projects beside each other.
fn two_projects() -> TestCluster {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").add();
    cluster.limit("public/a", &[]);
    cluster.limit("public/b", &[]);
    cluster
}

fn judged(cluster: &TestCluster, plan: &Plan, first: JobId, other: JobId) -> Verdict {
    let turns = plan.turns.as_ref().unwrap();
    let start = turns.starts.iter().find(|start| start.job == first).unwrap();
    let other = cluster.world.job(other).unwrap();
    let facts = Facts { sheet: &turns.sheet, start, other: &other, absence: None };
    judge(facts, |_| false).verdict
}

fn rule(verdict: &Verdict) -> Rule {
    match verdict {
        Verdict::First(ruling) | Verdict::PassedOver(ruling, _) => ruling.rule,
        Verdict::Absent(_) | Verdict::NotKept => panic!("{verdict:?}"),
    }
}

#[test]
fn what_a_project_holds_decides_on_the_level_on_which_it_differs() {
    let mut cluster = two_projects();
    cluster.job().project("public/a").gpus(4, "b200").submit();
    cluster.start_all();
    let mine = cluster.job().project("public/a").gpus(4, "b200").submit();
    let theirs = cluster.job().project("public/b").gpus(4, "b200").submit();
    let plan = cluster.check().plan;
    assert_eq!(rule(&judged(&cluster, &plan, theirs, mine)), Rule::Share(0));
}

#[test]
fn of_one_project_the_priority_decides_and_then_the_age() {
    let mut cluster = two_projects();
    let third = cluster.job().project("public/a").gpus(8, "b200").submit();
    let first = cluster.job().project("public/a").gpus(8, "b200").priority(3).submit();
    let plan = cluster.check().plan;
    assert_eq!(rule(&judged(&cluster, &plan, first, third)), Rule::Priority);
    cluster.status(first, |status| status.state = JobState::Held);
    let second = cluster.job().project("public/a").gpus(8, "b200").submit();
    let plan = cluster.check().plan;
    let rule = rule(&judged(&cluster, &plan, third, second));
    assert!(matches!(rule, Rule::Age | Rule::Number), "{rule:?}");
}

#[test]
fn of_one_project_and_age_the_larger_one_is_first() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").memory_gib(8).add();
    let job = |cluster: &mut TestCluster, gpus| {
        let job = cluster.job().project("public/a").waiting_since_s(9).memory_gib(5);
        if gpus > 0 { job.gpus(gpus, "b200").submit() } else { job.submit() }
    };
    cluster.limit("public/a", &[]);
    let [small, large] = [0, 1].map(|gpus| job(&mut cluster, gpus));
    let plan = cluster.check().plan;
    assert_eq!(rule(&judged(&cluster, &plan, large, small)), Rule::Size);
    let naive = naive::plan(&cluster.world, cluster.now);
    assert_eq!(naive.keys().collect::<Vec<_>>(), [&large]);
}

#[test]
fn a_job_that_was_passed_over_is_named_with_its_reason() {
    let mut cluster = two_projects();
    let large = cluster.job().project("public/a").gpus(8, "b200").nodes(2).submit();
    let small = cluster.job().project("public/a").gpus(1, "b200").submit();
    let plan = cluster.check().plan;
    let Verdict::PassedOver(_, Some(passed)) = judged(&cluster, &plan, small, large) else {
        panic!("{:?}", plan.turns)
    };
    assert_eq!(passed.job, large);
}

#[test]
fn within_a_guarantee_goes_before_less_use() {
    let mut cluster = two_projects();
    cluster.guarantee("public/a", 1, &[("b200", 6)]);
    cluster.job().project("public/a").gpus(2, "b200").submit();
    cluster.start_all();
    let within = cluster.job().project("public/a").gpus(4, "b200").submit();
    let beyond = cluster.job().project("public/b").gpus(4, "b200").submit();
    let plan = cluster.check().plan;
    assert_eq!(rule(&judged(&cluster, &plan, within, beyond)), Rule::Stage);
}

#[test]
fn the_record_of_a_pass_stays_small_however_many_wait() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").add();
    for number in 0..600 {
        let project = format!("public/p{number}");
        cluster.limit(&project, &[]);
        cluster.job().project(&project).gpus(8, "b200").nodes(2 + number % 7).submit();
    }
    cluster.limit("public/small", &[]);
    cluster.job().project("public/small").gpus(1, "b200").submit();
    let turns = cluster.check().plan.turns.unwrap();
    let kept: usize = turns.sheet.levels.iter().map(|level| level.nodes.len()).sum();
    assert_eq!((kept, turns.sheet.passed.len()), (RUNGS_MAX, PASSED_MAX));
    let bytes = serde_json::to_string(&turns.sheet).unwrap().len();
    assert!(bytes < 40_000, "{bytes} bytes");
    let bytes = serde_json::to_string(&turns.starts[0]).unwrap().len();
    assert!(bytes < 600, "{bytes} bytes");
}

#[test]
fn of_a_large_tree_the_levels_on_the_path_of_a_start_are_kept_and_decide() {
    let mut cluster = TestCluster::new();
    cluster.node("n1").gpus(8, "b200").add();
    let project = |number: usize| format!("d{}/p{}/{number}", number % 3, number / 3 % 10);
    for number in 0..300 {
        let path = project(number);
        for end in path.match_indices('/').map(|(at, _)| at).chain([path.len()]) {
            cluster.limit(&path[..end], &[]);
        }
    }
    cluster.job().project(&project(0)).gpus(4, "b200").submit();
    cluster.start_all();
    let waits: Vec<JobId> =
        (0..300).map(|at| cluster.job().project(&project(at)).gpus(8, "b200").submit()).collect();
    let starts = cluster.job().project(&project(1)).gpus(1, "b200").submit();
    let plan = cluster.check().plan;
    assert_eq!(rule(&judged(&cluster, &plan, starts, waits[3])), Rule::Share(0));
    let sheet = plan.turns.unwrap().sheet;
    let kept: Vec<usize> = sheet.levels.iter().map(|level| level.nodes.len()).collect();
    assert_eq!(kept, [3, 10, 10]);
    let bytes = serde_json::to_string(&sheet.levels).unwrap().len();
    assert!(bytes < 4_000, "{bytes} bytes");
}

#[test]
fn a_job_that_was_held_or_came_later_did_not_compete() {
    let mut cluster = two_projects();
    let id = cluster.job().project("public/a").gpus(8, "b200").submit();
    cluster.check();
    let job = cluster.world.jobs[&id].clone();
    let (seq, text) = (1, String::new());
    let event = |seconds, kind, state| {
        let subject = Subject::Job { id, attempt: 0, state };
        Event { seq, at: job.submitted.plus_seconds(seconds), subject, kind, text: text.clone() }
    };
    let events = [
        event(0, EventKind::Submitted, JobState::Pending),
        event(10, EventKind::Held, JobState::Held),
        event(20, EventKind::Released, JobState::Pending),
    ];
    let at = |seconds| absence(&job, &events, job.submitted.plus_seconds(seconds));
    let submitted = job.submitted;
    assert_eq!(at(-1), Some(Absence::NotSubmitted { at: submitted }));
    assert_eq!(at(5), None);
    assert_eq!(at(15), Some(Absence::Held { until: Some(submitted.plus_seconds(20)) }));
    assert_eq!(at(25), None);
}
