//! Committing a decision of the planner: a job gets its attempt, its resources and its first step, or an attempt is
//! told to stop for another.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::draft::Draft;
use super::end::{avoid, order_stop};
use crate::account::{self, Standing};
use crate::amount::{GpuMilliSeconds, UnixMicros};
use crate::attempt::{Attempt, AttemptState, Cause, Member, Placement, Progress, Stop};
use crate::change::{Change, EventKind};
use crate::check::{self, Reckoning, Refusal};
use crate::ids::{AttemptId, GpuClass, JobId, NodeName};
use crate::imex::{self, Leased};
use crate::job::{Job, JobEvent, JobStatus, transition};
use crate::ledger::Line;
use crate::meter::{self, Footing, Meter};
use crate::node::Liveness;
use crate::plan::Decision;
use crate::spec::{GpuRequest, TaskLayout, Work};
use crate::step::{Step, StepKind, Task, TaskState};

/// Commits one decision, after checking it again against the present world: all of it or nothing.
///
/// # Errors
/// [`Refusal`] if the world has moved and the decision is no longer allowed; then nothing was drafted.
pub fn commit(draft: &mut Draft<'_>, decision: &Decision) -> Result<(), Refusal> {
    commit_next(draft, &mut Reckoning::default(), decision)
}

/// Commits decisions one by one, each checked again against what those before it have made of the world.
pub fn commit_each(draft: &mut Draft<'_>, decisions: &[Decision]) -> Vec<Result<(), Refusal>> {
    let mut reckoning = Reckoning::default();
    let decisions = decisions.iter();
    decisions.map(|decision| commit_next(draft, &mut reckoning, decision)).collect()
}

fn commit_next(
    draft: &mut Draft<'_>,
    reckoning: &mut Reckoning,
    decision: &Decision,
) -> Result<(), Refusal> {
    check::next_decision(reckoning, draft.world, decision, draft.now)?;
    match decision {
        Decision::Start { job, .. } => draft.unfold(*job),
        Decision::Preempt { .. } => {}
    }
    match decision {
        Decision::Start { job, placement } => start(draft, *job, placement)?,
        Decision::Preempt { attempt, for_job, nodes } => {
            preempt(draft, *attempt, *for_job, nodes)?;
        }
    }
    reckoning.committed(draft.world, decision);
    Ok(())
}

fn start(draft: &mut Draft<'_>, id: JobId, placement: &Arc<Placement>) -> Result<(), Refusal> {
    let Some(job) = draft.world.jobs.get(&id).cloned() else {
        return Err(Refusal { job: id, reason: "there is no such job".to_owned() });
    };
    let mut status = job.status.clone();
    status.state = transition(status.state, JobEvent::Leased)
        .map_err(|illegal| Refusal { job: job.id, reason: illegal.to_string() })?;
    status.attempt += 1;
    status.promised.clear();
    status.detail.clear();
    let id = AttemptId { job: job.id, number: status.attempt };
    let Leased { placement, exhausted } = imex::lease(draft.world, id, placement);
    let placement = &placement;
    let mut attempt = new_attempt(draft, &job, id, placement);
    let lines = match &placement.class {
        Some(class) => begin_to_pay(draft, &mut attempt, class, job.spec.time_limit_s),
        None => Vec::new(),
    };
    let attempt = Arc::new(attempt);
    let footing = match attempt.meter.footing {
        Footing::Budget => "",
        Footing::Overuse => ", beyond a budget",
        Footing::Scavenger => ", as a scavenger",
    };
    let text = format!("attempt {id} on {}{footing}{}", node_names(placement), without(&exhausted));
    draft.push(Change::AttemptLeased(Arc::clone(&attempt)));
    draft.push(Change::StepCreated(Arc::new(first_step(&job, id, placement, draft.now))));
    if let Some(class) = &placement.class {
        draft.book(&attempt, class, lines);
    }
    let state = status.state;
    draft.move_job(job.id, status);
    draft.tell_job(job.id, id.number, state, EventKind::Leased, text);
    Ok(())
}

/// What is said of an attempt that should have IMEX channels of these domains and has none.
fn without(exhausted: &BTreeSet<String>) -> String {
    let of = |domain: &String| format!(", without an IMEX channel of {domain}: all are held");
    exhausted.iter().map(of).collect()
}

/// The attempt stops with its job's own grace, or less where the other job was promised its guarantee sooner, and its
/// job goes back to the queue with its age.
fn preempt(
    draft: &mut Draft<'_>,
    id: AttemptId,
    for_job: JobId,
    nodes: &BTreeSet<NodeName>,
) -> Result<(), Refusal> {
    let refusal = |reason: &str| Refusal { job: id.job, reason: reason.to_owned() };
    let world = &draft.world;
    let (Some(attempt), Some(job)) = (world.attempts.get(&id), world.jobs.get(&id.job)) else {
        return Err(refusal("there is no such attempt"));
    };
    let Some(claimant) = world.job(for_job).map(Cow::into_owned) else {
        return Err(refusal("there is no job to make room for"));
    };
    let (now, promise) = (draft.now, world.quota.recall_of(&claimant));
    let grace_s = job.spec.grace_s;
    let ran_ms = now.millis_since(attempt.leased);
    let safe_ms = draft.policy.min_runtime_before_preemption_s.saturating_mul(1000);
    let is_safe = !attempt.scavenges() && ran_ms < safe_ms;
    if is_safe && !promise.is_some_and(|promise| promise.is_due(grace_s, now)) {
        return Err(refusal("has not run for as long as it is promised"));
    }
    let grace_s = promise.map_or(grace_s, |promise| promise.grace_s(grace_s, now));
    let reason = if attempt.scavenges() {
        format!("a scavenger, makes room for job {for_job}")
    } else {
        let project = &claimant.spec.project;
        format!("makes room for job {for_job}, which is within the guarantee of {project}")
    };
    order_stop(draft, id, Stop { cause: Cause::Preempted, reason, exit: None, grace_s });
    if claimant.status.promised != *nodes {
        draft.unfold(for_job);
        draft.move_job(for_job, JobStatus { promised: nodes.clone(), ..claimant.status });
    }
    Ok(())
}

/// Stops attempts that a worker which is heard has not confirmed within `patience_ms`, counted from the lease or from
/// when the worker was heard again, so that a worker that hears but does not act cannot hold resources for ever.
pub fn stop_unconfirmed(draft: &mut Draft<'_>, patience_ms: i64) {
    let overdue: Vec<(AttemptId, NodeName)> = draft
        .world
        .attempts
        .values()
        .filter(|attempt| attempt.state == AttemptState::Leased)
        .filter_map(|attempt| Some((attempt.id, silent_node(draft, attempt, patience_ms)?)))
        .collect();
    for (id, node) in overdue {
        let reason = format!("node {node} did not confirm the attempt in time");
        order_stop(draft, id, Stop { cause: Cause::Node, reason, exit: None, grace_s: 0 });
        // It ends because it was told to, so its end will not tell whose fault it was.
        if let Some(mut status) = draft.world.jobs.get(&id.job).map(|job| job.status.clone()) {
            avoid(&mut status, &node);
            draft.move_job(id.job, status);
        }
    }
}

/// The first node that is heard and has been silent about the attempt for too long.
fn silent_node(draft: &Draft<'_>, attempt: &Attempt, patience_ms: i64) -> Option<NodeName> {
    let members = attempt.members.iter().zip(&attempt.placement.nodes);
    let silent = members.filter(|(member, _)| member.progress == Progress::Leased);
    let mut heard = silent.filter(|(_, place)| {
        draft.world.nodes.get(&place.node).is_some_and(|node| {
            let since = node.liveness_since.max(attempt.leased);
            node.liveness == Liveness::Ready && draft.now.millis_since(since) > patience_ms
        })
    });
    heard.next().map(|(_, place)| place.node.clone())
}

fn new_attempt(draft: &Draft<'_>, job: &Job, id: AttemptId, placement: &Arc<Placement>) -> Attempt {
    let member = Member { last_seq: 0, progress: Progress::Leased };
    Attempt {
        id,
        project: job.spec.project.clone(),
        placement: Arc::clone(placement),
        epoch: draft.epoch,
        leased: draft.now,
        hold: GpuMilliSeconds::default(),
        meter: Meter { footing: footing_of(job), ..Meter::default() },
        state: AttemptState::Leased,
        started: None,
        ended: None,
        members: vec![member; placement.nodes.len()],
        stop: None,
        outcome: None,
        next_step: 1,
        measured: None,
        idle_told: None,
    }
}

/// Before anything is set aside for it.
fn footing_of(job: &Job) -> Footing {
    if job.spec.scavenger { Footing::Scavenger } else { Footing::Budget }
}

/// Sets aside its first slice; it starts beyond a budget if that does not fit one.
fn begin_to_pay(
    draft: &Draft<'_>,
    attempt: &mut Attempt,
    class: &GpuClass,
    time_limit_s: i64,
) -> Vec<Line> {
    let world = &draft.world;
    let lines = meter::begin(attempt, &world.book, class, time_limit_s);
    let held = attempt.held_ngh();
    let standing = account::standing(&world.quota, &world.accounts, &attempt.project, held);
    if standing != Standing::Within && !attempt.scavenges() {
        attempt.meter.footing = Footing::Overuse;
    }
    lines
}

/// Step 0: the script on the first node, or the command's tasks over all nodes.
fn first_step(job: &Job, attempt: AttemptId, placement: &Placement, now: UnixMicros) -> Step {
    let (kind, argv, tasks) = match &job.spec.work {
        Work::Script { .. } => (StepKind::Batch, Vec::new(), batch_task(placement)),
        Work::Command { argv, layout } => {
            let per_node = match (layout, &job.spec.per_node.gpus) {
                (
                    TaskLayout::PerGpu,
                    GpuRequest::Whole { count, .. } | GpuRequest::Mig { count, .. },
                ) => *count,
                (TaskLayout::PerGpu | TaskLayout::PerNode, _) => 1,
            };
            (StepKind::Command, argv.clone(), tasks_per_node(placement, per_node))
        }
    };
    let per_gpu = matches!(&job.spec.work, Work::Command { layout: TaskLayout::PerGpu, .. });
    Step {
        attempt,
        number: 0,
        kind,
        name: job.spec.name.clone(),
        argv,
        environment: BTreeMap::new(),
        working_directory: String::new(),
        created: now,
        tasks,
        gpus_per_task: u32::from(per_gpu),
    }
}

fn batch_task(placement: &Placement) -> Vec<Task> {
    let first = placement.nodes.first();
    first.map(|allocation| task(0, allocation.node.clone(), 0)).into_iter().collect()
}

/// Tasks over all nodes, ranks filling node after node.
fn tasks_per_node(placement: &Placement, per_node: u32) -> Vec<Task> {
    let places = placement
        .nodes
        .iter()
        .flat_map(|allocation| (0..per_node).map(move |local| (allocation.node.clone(), local)));
    (0..).zip(places).map(|(rank, (node, local))| task(rank, node, local)).collect()
}

pub(super) fn task(rank: u32, node: NodeName, local_rank: u32) -> Task {
    Task { rank, node, local_rank, state: TaskState::Pending }
}

/// Names for a line of text: all of a few, the ends of many.
fn node_names(placement: &Placement) -> String {
    let names: Vec<&str> =
        placement.nodes.iter().map(|allocation| allocation.node.as_str()).collect();
    match names.as_slice() {
        [first, .., last] if names.len() > 4 => format!("{} nodes, {first} to {last}", names.len()),
        few => few.join(", "),
    }
}
