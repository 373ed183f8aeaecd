//! Plays the workers: takes orders, and says what a worker would say, each time a while later.
//!
//! All nodes of a gang are equally fast, and an elastic job on twice as many of them is twice as fast. A node that fell silent says nothing; what ran there is lost, and the rest of
//! its gang stands still until the scheduler has noticed.

use std::collections::BTreeMap;

use gotgan_core::amount::UnixMicros;
use gotgan_core::attempt::{Attempt, Cause, ExitStatus, Progress};
use gotgan_core::ids::{AttemptId, JobId, NodeName};
use gotgan_core::lifecycle::orders::{self, Order};
use gotgan_core::lifecycle::{MemberEvent, Report};
use gotgan_core::world::World;

use crate::scenario::WorkerPace;
use crate::units::Span;

/// What the workers of an attempt do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkerStep {
    /// They have it in their journals.
    Confirm(AttemptId),
    /// The processes are there.
    Start(AttemptId),
    /// The work is done, or the time limit has come.
    Finish(AttemptId),
    /// The processes have obeyed an order to stop.
    Obey(AttemptId),
}

/// Work of a job that is left.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// How long it takes, of an elastic job on its fewest nodes, milliseconds.
    pub left_ms: i64,
    /// It is saved each time so much of it is done, milliseconds.
    pub checkpoint_ms: Option<i64>,
}

/// An attempt as its workers see it.
#[derive(Debug, Clone, Default)]
struct Played {
    confirming: bool,
    starting: bool,
    runs_from: Option<UnixMicros>,
    pace: Pace,
    stopped: Option<UnixMicros>,
    /// When a node of it fell silent.
    broken: Option<UnixMicros>,
}

/// How fast an attempt is by its nodes.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// That it has.
    nodes: i64,
    /// On which its work takes as long as it is said to.
    least: i64,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { nodes: 1, least: 1 }
    }
}

impl Pace {
    fn of(attempt: &Attempt, world: &World) -> Self {
        let count = |nodes: usize| i64::try_from(nodes).unwrap_or(i64::MAX).max(1);
        let nodes = count(attempt.placement.nodes.len());
        let least = world.jobs.get(&attempt.id.job).map_or(nodes, |job| job.spec.nodes.into());
        Pace { nodes, least: least.max(1) }
    }

    /// How long so much work takes, milliseconds.
    fn time_for_ms(self, work_ms: i64) -> i64 {
        let (work, least, nodes) = (work_ms.into(), i128::from(self.least), i128::from(self.nodes));
        let product: i128 = least.saturating_mul(work);
        i64::try_from((product + nodes - 1) / nodes).unwrap_or(i64::MAX)
    }

    /// How much work is done in so long, milliseconds.
    fn done_in_ms(self, time_ms: i64) -> i64 {
        let product = i128::from(time_ms).saturating_mul(self.nodes.into());
        i64::try_from(product / i128::from(self.least)).unwrap_or(i64::MAX)
    }
}

/// All workers.
#[derive(Debug)]
pub struct Workers {
    pace: WorkerPace,
    /// Nodes that are silent, and since when.
    pub silent: BTreeMap<NodeName, UnixMicros>,
    /// Work left of every job that is not over.
    pub work: BTreeMap<JobId, Work>,
    played: BTreeMap<AttemptId, Played>,
}

impl Workers {
    /// Workers that have nothing to do.
    #[must_use]
    pub fn new(pace: WorkerPace) -> Self {
        let (silent, work, played) = Default::default();
        Workers { pace, silent, work, played }
    }

    /// Takes the orders about an attempt as the state has them; a repeated order is taken as done.
    pub fn take_orders(
        &mut self,
        world: &World,
        attempt: &std::sync::Arc<Attempt>,
        now: UnixMicros,
    ) -> Vec<(UnixMicros, WorkerStep)> {
        let mut next = Vec::new();
        for (node, order) in orders::for_attempt(world, attempt) {
            if !self.silent.contains_key(&node) {
                next.extend(self.take_order(order, now));
            }
        }
        next
    }

    fn take_order(&mut self, order: Order, now: UnixMicros) -> Option<(UnixMicros, WorkerStep)> {
        match order {
            Order::Run { attempt, start_now, .. } => {
                let played = self.played.entry(attempt.id).or_default();
                let first = !std::mem::replace(&mut played.confirming, true);
                played.starting |= start_now;
                first.then(|| (after(now, self.pace.accept), WorkerStep::Confirm(attempt.id)))
            }
            Order::Start(id) => {
                let played = self.played.entry(id).or_default();
                let first = !std::mem::replace(&mut played.starting, true);
                first.then(|| (after(now, self.pace.start), WorkerStep::Start(id)))
            }
            Order::Stop(id, stop) => {
                let played = self.played.entry(id).or_default();
                let first = played.stopped.is_none();
                played.stopped.get_or_insert(now);
                let grace = Span::millis(i64::from(stop.grace_s) * 1000);
                first.then(|| (after(now, self.pace.stop.min(grace)), WorkerStep::Obey(id)))
            }
            Order::StartTasks(_) | Order::Forget(_) => None,
        }
    }

    /// What the workers report at that step, and what they do later.
    pub fn perform(
        &mut self,
        step: WorkerStep,
        world: &World,
        now: UnixMicros,
    ) -> (Vec<Report>, Option<(UnixMicros, WorkerStep)>) {
        match step {
            WorkerStep::Confirm(id) => self.confirm(id, world, now),
            WorkerStep::Start(id) => self.start(id, world, now),
            WorkerStep::Finish(id) => (self.finish(id, world, now), None),
            WorkerStep::Obey(id) => {
                let cause = world.attempts.get(&id).and_then(|attempt| attempt.stop.as_ref());
                let cause = cause.map_or(Cause::Site, |stop| stop.cause);
                (self.end_all(id, world, now, cause, None), None)
            }
        }
    }

    fn confirm(
        &mut self,
        id: AttemptId,
        world: &World,
        now: UnixMicros,
    ) -> (Vec<Report>, Option<(UnixMicros, WorkerStep)>) {
        let Some(played) = self.played.get(&id).filter(|played| played.stopped.is_none()) else {
            return (Vec::new(), None);
        };
        let start = played.starting && played.runs_from.is_none();
        let next = start.then(|| (after(now, self.pace.start), WorkerStep::Start(id)));
        let leased = |progress: &Progress| *progress == Progress::Leased;
        (self.report(id, world, now, leased, &MemberEvent::Accepted), next)
    }

    fn start(
        &mut self,
        id: AttemptId,
        world: &World,
        now: UnixMicros,
    ) -> (Vec<Report>, Option<(UnixMicros, WorkerStep)>) {
        let Some(played) = self.played.get_mut(&id).filter(|played| played.stopped.is_none())
        else {
            return (Vec::new(), None);
        };
        played.runs_from = Some(now);
        played.pace = world.attempts.get(&id).map_or_else(Pace::default, |it| Pace::of(it, world));
        let left = self.work.get(&id.job).map_or(0, |work| work.left_ms);
        let left = played.pace.time_for_ms(left);
        let until = after(now, Span::millis(left.min(limit_ms(world, id.job))));
        let accepted = |progress: &Progress| *progress == Progress::Accepted;
        let reports = self.report(id, world, now, accepted, &MemberEvent::Started);
        (reports, Some((until, WorkerStep::Finish(id))))
    }

    /// The work is done, or cut by the limit; of an attempt that was stopped or has lost a node it never is.
    fn finish(&self, id: AttemptId, world: &World, now: UnixMicros) -> Vec<Report> {
        let whole = |played: &&Played| played.stopped.is_none() && played.broken.is_none();
        let played = self.played.get(&id).filter(whole);
        let Some((from, pace)) = played.and_then(|played| Some((played.runs_from?, played.pace)))
        else {
            return Vec::new();
        };
        let left = self.work.get(&id.job).map_or(0, |work| work.left_ms);
        let left = pace.time_for_ms(left);
        if now.millis_since(from) >= left {
            return self.end_all(id, world, now, Cause::User, Some(ExitStatus::Code(0)));
        }
        self.end_all(id, world, now, Cause::Limit, None)
    }

    fn end_all(
        &self,
        id: AttemptId,
        world: &World,
        now: UnixMicros,
        cause: Cause,
        exit: Option<ExitStatus>,
    ) -> Vec<Report> {
        let here = |progress: &Progress| !matches!(progress, Progress::Ended(_));
        self.report(
            id,
            world,
            now,
            here,
            &MemberEvent::Ended { cause, reason: String::new(), exit },
        )
    }

    /// The same report from each node that is heard and has come that far.
    fn report(
        &self,
        id: AttemptId,
        world: &World,
        at: UnixMicros,
        counts: impl Fn(&Progress) -> bool,
        event: &MemberEvent,
    ) -> Vec<Report> {
        let Some(attempt) = world.attempts.get(&id) else { return Vec::new() };
        let members = attempt.members.iter().zip(&attempt.placement.nodes);
        let heard = members.filter(|(member, place)| {
            counts(&member.progress) && !self.silent.contains_key(&place.node)
        });
        heard
            .map(|(member, place)| Report {
                node: place.node.clone(),
                attempt: id,
                seq: member.last_seq + 1,
                at,
                event: event.clone(),
            })
            .collect()
    }

    /// A node falls silent: what it had confirmed is lost.
    pub fn lose(&mut self, world: &World, node: &NodeName, now: UnixMicros) {
        self.silent.entry(node.clone()).or_insert(now);
        let Some(known) = world.nodes.get(node) else { return };
        for attempt in known.attempts.iter().filter_map(|id| world.attempts.get(id)) {
            let member = attempt.rank_of(node).and_then(|rank| attempt.members.get(rank));
            let confirmed = member.is_some_and(|member| {
                matches!(member.progress, Progress::Accepted | Progress::Running)
            });
            if confirmed {
                let played = self.played.entry(attempt.id).or_default();
                played.broken.get_or_insert(now);
            }
        }
    }

    /// A node is back: what it never confirmed is confirmed now.
    pub fn come_back(&mut self, world: &World, node: &NodeName) -> Vec<WorkerStep> {
        self.silent.remove(node);
        let known = world.nodes.get(node).into_iter().flat_map(|node| &node.attempts);
        let attempts = known.filter_map(|id| world.attempts.get(id));
        let leased = attempts.filter(|attempt| {
            let member = attempt.rank_of(node).and_then(|rank| attempt.members.get(rank));
            member.is_some_and(|member| member.progress == Progress::Leased)
        });
        leased.map(|attempt| WorkerStep::Confirm(attempt.id)).collect()
    }

    /// Nothing of an attempt is left: counts what it saved; returns how long it ran for what it did not save,
    /// milliseconds.
    pub fn forget(&mut self, attempt: &Attempt, cause: Cause, now: UnixMicros) -> i64 {
        let Some(played) = self.played.remove(&attempt.id) else { return 0 };
        let (Some(from), Some(work)) = (played.runs_from, self.work.get_mut(&attempt.id.job))
        else {
            return 0;
        };
        let until = [Some(now), played.broken, played.stopped].into_iter().flatten().min();
        let ran_ms = until.map_or(0, |until| until.millis_since(from)).max(0);
        let ran = played.pace.done_in_ms(ran_ms).min(work.left_ms);
        let saved = match (cause, work.checkpoint_ms) {
            (Cause::User | Cause::Limit | Cause::OutOfMemory, _) => ran,
            (_, Some(every)) => ran - ran % every,
            (_, None) => 0,
        };
        work.left_ms -= saved;
        played.pace.time_for_ms(ran - saved)
    }
}

/// The time limit of a job, milliseconds.
fn limit_ms(world: &World, job: JobId) -> i64 {
    world.jobs.get(&job).map_or(i64::MAX, |job| job.spec.time_limit_s.saturating_mul(1000))
}

fn after(now: UnixMicros, span: Span) -> UnixMicros {
    now.plus_millis(span.as_millis())
}
