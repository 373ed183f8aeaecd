//! Ending attempts, and what follows for the job and for those that wait for it.

use std::sync::Arc;

use crate::amount::UnixMicros;
use crate::attempt::{
    Attempt, AttemptEvent, AttemptState, Cause, MemberEnd, Outcome, Progress, Stop, transition,
};
use crate::change::EventKind;
use crate::ids::{AttemptId, JobId, NodeName};
use crate::job::{AVOIDED_MAX, Job, JobEvent, JobState, JobStatus, PendingAction};
use crate::meter;
use crate::retry::{self, Verdict};
use crate::spec::Dependency;
use crate::step::{Step, StepKind, TaskState};

use super::array::{cancel_waiting, meet_counterparts, meet_dropped};
use super::draft::Draft;
use super::health::{is_to_blame, mark, put_down_to_hardware};
use super::submit::{Standing, standing};

/// Orders an attempt to stop, once; a second order changes nothing.
pub(super) fn order_stop(draft: &mut Draft<'_>, id: AttemptId, stop: Stop) {
    let Some(attempt) = draft.world.attempts.get(&id) else {
        return;
    };
    if attempt.stop.is_some() {
        return;
    }
    let mut attempt = Attempt::clone(attempt);
    if let Ok(state) = transition(attempt.state, AttemptEvent::StopOrdered) {
        attempt.state = state;
    }
    let reason = stop.reason.clone();
    attempt.stop = Some(stop);
    draft.move_attempt(attempt);
    let state = draft.world.jobs.get(&id.job).map_or(JobState::Running, |job| job.status.state);
    draft.tell_job(id.job, id.number, state, EventKind::Stopping, reason);
}

/// Records that nothing of the attempt is left on one node, and draws the consequences for the others.
pub(super) fn end_member(draft: &mut Draft<'_>, id: AttemptId, rank: usize, end: MemberEnd) {
    let Some(attempt) = draft.world.attempts.get(&id) else {
        return;
    };
    let mut attempt = Attempt::clone(attempt);
    let Some(member) = attempt.members.get_mut(rank) else {
        return;
    };
    if matches!(member.progress, Progress::Ended(_)) {
        return;
    }
    member.progress = Progress::Ended(end.clone());
    let finished = attempt.all_members_ended();
    let stop =
        if attempt.stop.is_none() { stop_for_others(draft, &attempt, rank, &end) } else { None };
    draft.move_attempt(attempt.clone());
    if finished {
        finish(draft, &attempt);
    } else if let Some(stop) = stop {
        order_stop(draft, id, stop);
    }
}

/// Whether the end of one member ends the attempt everywhere.
fn stop_for_others(
    draft: &Draft<'_>,
    attempt: &Attempt,
    rank: usize,
    end: &MemberEnd,
) -> Option<Stop> {
    let failed = end.cause != Cause::User || end.exit.is_some_and(|exit| !exit.is_success());
    let batch =
        draft.world.steps.get(&(attempt.id, 0)).is_some_and(|step| step.kind == StepKind::Batch);
    if !(failed || batch && rank == 0) {
        return None;
    }
    let reason = if failed { member_detail(attempt, rank, end) } else { String::new() };
    Some(Stop { cause: end.cause, reason, exit: end.exit, grace_s: grace_of(draft, attempt) })
}

pub(super) fn grace_of(draft: &Draft<'_>, attempt: &Attempt) -> u32 {
    let job = draft.world.jobs.get(&attempt.id.job);
    job.map_or(draft.policy.default_grace_s, |job| job.spec.grace_s)
}

fn member_detail(attempt: &Attempt, rank: usize, end: &MemberEnd) -> String {
    let node = attempt.placement.nodes.get(rank).map_or("?", |a| a.node.as_str());
    match (&end.exit, end.detail.as_str()) {
        (_, detail) if !detail.is_empty() => format!("{node}: {detail}"),
        (Some(exit), _) => format!("{node} ended with {exit}"),
        (None, _) => format!("{node} ended with cause {}", end.cause.word()),
    }
}

/// Ends an attempt of which nothing is left: books it, and decides about the job.
fn finish(draft: &mut Draft<'_>, attempt: &Attempt) {
    let mut attempt = attempt.clone();
    let outcome = outcome_of(draft, &attempt);
    let ended = end_time(&attempt, draft.now);
    if let Ok(state) = transition(attempt.state, AttemptEvent::AllEnded) {
        attempt.state = state;
    }
    debug_assert_eq!(attempt.state, AttemptState::Ended);
    attempt.ended = Some(ended);
    attempt.outcome = Some(outcome.clone());
    if let Some(class) = attempt.placement.class.clone() {
        let book = Arc::clone(&draft.world.book);
        let lines = meter::end(&mut attempt, &book, &class, ended, outcome.cause);
        draft.book(&attempt, &class, lines);
    }
    draft.move_attempt(attempt.clone());
    mark(draft, &attempt, &outcome);
    settle_job(draft, &attempt, &outcome);
}

/// When the last member ended.
fn end_time(attempt: &Attempt, now: UnixMicros) -> UnixMicros {
    let ends = attempt.members.iter().filter_map(|member| match &member.progress {
        Progress::Ended(end) => Some(end.at),
        Progress::Leased | Progress::Accepted | Progress::Running => None,
    });
    ends.max().unwrap_or(now).clamp(attempt.leased, now.max(attempt.leased))
}

/// The order to stop if there was one, else the worst end of a member, else the first. A failing task is blamed on a
/// member that was lost, if there is one: when a node dies, the ranks on the others fail first, with broken links.
fn outcome_of(draft: &Draft<'_>, attempt: &Attempt) -> Outcome {
    let mut outcome = match &attempt.stop {
        Some(stop) => Outcome { cause: stop.cause, exit: stop.exit, detail: stop.reason.clone() },
        None => worst_end(attempt),
    };
    let failed = outcome.exit.is_some_and(|exit| !exit.is_success());
    if outcome.cause == Cause::User && failed {
        if let Some((rank, end)) = lost_member(attempt) {
            let detail = member_detail(attempt, rank, end);
            return Outcome { cause: end.cause, exit: None, detail };
        }
        if let Some(outcome) = put_down_to_hardware(draft, attempt) {
            return outcome;
        }
        if let Some(task) = failed_task(draft, attempt.id) {
            outcome.detail = task;
        }
    }
    outcome
}

/// Whether the cause is nobody's doing and lies with the place.
fn is_loss(cause: Cause) -> bool {
    matches!(cause, Cause::Node | Cause::Hardware | Cause::Network)
}

/// The first member that ended by what is nobody's doing.
fn lost_member(attempt: &Attempt) -> Option<(usize, &MemberEnd)> {
    attempt.members.iter().enumerate().find_map(|(rank, member)| match &member.progress {
        Progress::Ended(end) if end.own && is_loss(end.cause) => Some((rank, end)),
        Progress::Ended(_) | Progress::Leased | Progress::Accepted | Progress::Running => None,
    })
}

fn worst_end(attempt: &Attempt) -> Outcome {
    let ends =
        attempt.members.iter().enumerate().filter_map(|(rank, member)| match &member.progress {
            Progress::Ended(end) => Some((rank, end)),
            Progress::Leased | Progress::Accepted | Progress::Running => None,
        });
    let badness = |end: &MemberEnd| match (end.cause, end.exit) {
        (Cause::User, None) => 0,
        (Cause::User, Some(exit)) if exit.is_success() => 1,
        (Cause::User, Some(_)) => 2,
        _ => 3,
    };
    // The first of the worst, so that ties name the lowest rank.
    let worst =
        ends.reduce(|kept, next| if badness(next.1) > badness(kept.1) { next } else { kept });
    worst.map_or(
        Outcome { cause: Cause::Node, exit: None, detail: String::new() },
        |(rank, end)| {
            let bad = badness(end) >= 2;
            let detail = if bad { member_detail(attempt, rank, end) } else { String::new() };
            Outcome { cause: end.cause, exit: end.exit, detail }
        },
    )
}

/// Names the task that brought the attempt down: of a script, the script and, if the last step it ran failed, the
/// rank of that step which failed first; of a command, the rank which failed first.
fn failed_task(draft: &Draft<'_>, id: AttemptId) -> Option<String> {
    let own = draft.world.steps.get(&(id, 0)).and_then(|step| first_failure(step));
    let (_, last) = draft.world.steps.range((id, 1)..=(id, u32::MAX)).next_back().unzip();
    match (own, last.and_then(|step| first_failure(step))) {
        (Some(own), Some(last)) => Some(format!("{last}; {own}")),
        (own, last) => own.or(last),
    }
}

/// The task of a step that failed first, in words.
fn first_failure(step: &Step) -> Option<String> {
    let failed = step.tasks.iter().filter_map(|task| match &task.state {
        TaskState::Ended { exit, ended, detail, .. } if !exit.is_success() => {
            Some((*ended, task.rank, &task.node, exit, detail))
        }
        TaskState::Pending | TaskState::Running { .. } | TaskState::Ended { .. } => None,
    });
    let (_, rank, node, exit, detail) = failed.min_by_key(|failure| (failure.0, failure.1))?;
    let note = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
    let end = format!("ended with {exit} on {node}{note}");
    Some(match step.kind {
        StepKind::Batch => format!("the script {end}"),
        StepKind::Command => format!("rank {rank} {end}"),
        StepKind::Run => format!("step {} ({}), rank {rank} {end}", step.number, step.name),
    })
}

/// What becomes of the job now that its attempt has ended.
fn settle_job(draft: &mut Draft<'_>, attempt: &Attempt, outcome: &Outcome) {
    let Some(job) = draft.world.jobs.get(&attempt.id.job).cloned() else {
        return;
    };
    let verdict = match &job.status.pending_action {
        Some(PendingAction::Cancel { reason }) => Settled::Cancelled(reason.clone()),
        Some(PendingAction::Requeue { reason }) => Settled::Requeued(reason.clone()),
        None => {
            Settled::By(retry::verdict(&job.spec, &job.status, outcome, draft.policy, draft.now))
        }
    };
    let text = format!("attempt {} ended: cause {}", attempt.id, outcome.cause.word());
    draft.tell_job(job.id, attempt.id.number, job.status.state, EventKind::AttemptEnded, text);
    settle(draft, &job, attempt, outcome, verdict);
}

/// How it was settled.
enum Settled {
    Cancelled(String),
    Requeued(String),
    By(Verdict),
}

fn settle(draft: &mut Draft<'_>, job: &Job, attempt: &Attempt, outcome: &Outcome, how: Settled) {
    let mut status = job.status.clone();
    status.pending_action = None;
    status.detail.clone_from(&outcome.detail);
    remember_lost_nodes(draft, &mut status, attempt);
    match how {
        Settled::Cancelled(reason) => {
            status.detail = reason;
            conclude(draft, job, status, JobEvent::Cancelled, Some(outcome));
        }
        Settled::Requeued(reason) => {
            status.detail = reason;
            status.not_before = draft.now;
            put_back(draft, job, status, JobEvent::Requeued);
        }
        Settled::By(Verdict::Completed) => {
            status.detail.clear();
            conclude(draft, job, status, JobEvent::Completed, Some(outcome));
        }
        Settled::By(Verdict::Failed) => {
            conclude(draft, job, status, JobEvent::Failed, Some(outcome))
        }
        Settled::By(Verdict::TimedOut) => {
            conclude(draft, job, status, JobEvent::TimedOut, Some(outcome));
        }
        Settled::By(Verdict::Retry { not_before, by_own_doing }) => {
            status.not_before = not_before;
            let lost = !by_own_doing && outcome.cause != Cause::Preempted;
            status.failures += u32::from(by_own_doing);
            status.losses += u32::from(lost);
            put_back(draft, job, status, JobEvent::Requeued);
        }
        Settled::By(Verdict::Hold) => {
            status.losses += 1;
            status.detail =
                format!("held after {} losses; the last: {}", status.losses, status.detail);
            put_back(draft, job, status, JobEvent::RequeuedHeld);
        }
    }
}

/// Nodes that lost the attempt are avoided from now on.
fn remember_lost_nodes(draft: &Draft<'_>, status: &mut JobStatus, attempt: &Attempt) {
    let failed = attempt.outcome.as_ref().map(|outcome| outcome.cause);
    for (member, allocation) in attempt.members.iter().zip(&attempt.placement.nodes) {
        let Progress::Ended(end) = &member.progress else {
            continue;
        };
        let lost = end.own && matches!(end.cause, Cause::Hardware | Cause::Node);
        let node = &allocation.node;
        if lost || failed == Some(Cause::Hardware) && is_to_blame(draft, node, attempt.id) {
            avoid(status, node);
        }
    }
}

/// The node is avoided from now on; past the limit the older ones are forgotten.
pub(super) fn avoid(status: &mut JobStatus, node: &NodeName) {
    if status.avoid.len() >= AVOIDED_MAX {
        status.avoid.clear();
    }
    status.avoid.insert(node.clone());
}

fn put_back(draft: &mut Draft<'_>, job: &Job, mut status: JobStatus, event: JobEvent) {
    let Ok(state) = crate::job::transition(status.state, event) else {
        return;
    };
    status.state = state;
    let (attempt, text) = (status.attempt, status.detail.clone());
    draft.move_job(job.id, status);
    draft.tell_job(job.id, attempt, state, EventKind::Requeued, text);
}

/// Makes a job terminal, and settles those that wait for it.
pub(super) fn conclude(
    draft: &mut Draft<'_>,
    job: &Job,
    status: JobStatus,
    event: JobEvent,
    outcome: Option<&Outcome>,
) {
    if let Some(state) = make_terminal(draft, job, status, event, outcome) {
        meet_dependents(draft, job.id, state);
    }
}

/// Makes a job terminal and tells it; `None` if the machine has no such move.
fn make_terminal(
    draft: &mut Draft<'_>,
    job: &Job,
    mut status: JobStatus,
    event: JobEvent,
    outcome: Option<&Outcome>,
) -> Option<JobState> {
    let state = crate::job::transition(status.state, event).ok()?;
    status.state = state;
    status.ended = Some(draft.now);
    status.waits_for.clear();
    status.cause = outcome.map(|outcome| outcome.cause);
    status.exit = outcome.and_then(|outcome| outcome.exit);
    let (attempt, text) = (status.attempt, status.detail.clone());
    draft.move_job(job.id, status);
    draft.tell_job(job.id, attempt, state, kind_of_end(state), text);
    Some(state)
}

/// The event of coming to a state that is never left.
pub(super) fn kind_of_end(state: JobState) -> EventKind {
    match state {
        JobState::Completed => EventKind::Completed,
        JobState::Cancelled => EventKind::Cancelled,
        JobState::TimedOut => EventKind::TimedOut,
        JobState::Failed
        | JobState::Held
        | JobState::Pending
        | JobState::Starting
        | JobState::Running => EventKind::Failed,
    }
}

/// Fulfils dependencies on `other`, which is in `state` now, and cancels jobs whose dependency became impossible.
///
/// Works through a list instead of calling itself, since a chain of dependent jobs may be long. Arrays that came further
/// on the way are in the list as well.
pub(super) fn meet_dependents(draft: &mut Draft<'_>, other: JobId, state: JobState) {
    draft.reached.push((other, state));
    meet_all(draft);
}

/// Settles what waits for anything that was noted as having come further.
pub(super) fn meet_all(draft: &mut Draft<'_>) {
    loop {
        if let Some((other, state)) = draft.reached.pop() {
            meet_waiting(draft, other, state);
            meet_counterparts(draft, other, state);
        } else if let Some((array, places)) = draft.dropped.pop() {
            meet_dropped(draft, array, &places);
        } else {
            return;
        }
    }
}

fn meet_waiting(draft: &mut Draft<'_>, other: JobId, state: JobState) {
    let waiting = draft.world.dependents.get(&other).cloned().unwrap_or_default();
    for id in waiting {
        let Some(job) = draft.world.record(id).cloned() else {
            continue;
        };
        if let Some(cancelled) = meet_one(draft, &job, other, state) {
            draft.reached.push((id, cancelled));
        }
    }
}

/// Returns the state of `job` if it ended because of it.
fn meet_one(draft: &mut Draft<'_>, job: &Job, other: JobId, state: JobState) -> Option<JobState> {
    let on_other = |dependency: &&Dependency| dependency.job == other;
    let standings: Vec<(Dependency, Standing)> = job
        .status
        .waits_for
        .iter()
        .filter(on_other)
        .map(|dependency| (*dependency, standing(dependency.kind, state)))
        .collect();
    if let Some((dependency, _)) = standings.iter().find(|(_, s)| *s == Standing::Impossible) {
        let (kind, named) = (dependency.kind.word(), dependency.named());
        let detail =
            format!("{kind}:{named} cannot be fulfilled: job {named} has {}", state.word());
        if job.is_array() {
            cancel_waiting(draft, job, detail);
            return None;
        }
        let status = JobStatus { detail, ..job.status.clone() };
        return make_terminal(draft, job, status, JobEvent::Cancelled, None);
    }
    let met = |dependency: &Dependency| standings.contains(&(*dependency, Standing::Met));
    if standings.iter().any(|(_, s)| *s == Standing::Met) {
        let mut status = job.status.clone();
        status.waits_for.retain(|dependency| !met(dependency));
        let named = standings.first().map_or_else(|| other.to_string(), |(one, _)| one.named());
        let text = format!("job {named} has {}", state.word());
        let (attempt, now) = (status.attempt, status.state);
        draft.move_job(job.id, status);
        draft.tell_job(job.id, attempt, now, EventKind::DependencyMet, text);
    }
    None
}

/// Ends the part of every live attempt on `node` with cause node.
pub(super) fn lose_node(draft: &mut Draft<'_>, node: &NodeName, lost: &[AttemptId], detail: &str) {
    for id in lost {
        let Some(attempt) = draft.world.attempts.get(id) else {
            continue;
        };
        let Some(rank) = attempt.rank_of(node) else {
            continue;
        };
        let (cause, exit, at) = (Cause::Node, None, draft.now);
        let end = MemberEnd { cause, exit, detail: detail.to_owned(), at, own: true };
        end_member(draft, *id, rank, end);
    }
}
