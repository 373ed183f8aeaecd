//! The planner's thread: a replica of the world, a pass whenever something changed that a pass could use.
//!
//! The replica is fed by what the writer committed, so planning never holds the writer up and never sees what is
//! not durable. A plan goes to the writer as one command and no other pass begins until it has been committed and
//! has come back as changes; otherwise the next pass would give the same resources again.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use gotgan_core::amount::UnixMicros;
use gotgan_core::attempt::AttemptState;
use gotgan_core::change::Change;
use gotgan_core::job::JobState;
use gotgan_core::lifecycle;
use gotgan_core::plan::{Plan, Report};
use gotgan_core::planner;
use gotgan_core::policy::Policy;
use gotgan_core::world::World;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::command::WriterHandle;
use super::estimate::Lookout;
use crate::clock;
use crate::metrics::Metrics;

/// Rounds the planner may lag behind; past that it gets a copy of the whole world instead.
const FEED_MAX: usize = 16_384;

/// A pass at least this often while jobs wait, for retry delays that run out and starts that are to be planned.
const IDLE_PASS: Duration = Duration::from_secs(1);

/// After a pass that started something the planner rests this many times as long as the pass took, so that planning a
/// long queue over and over cannot take more than half a processor from those who submit and report. Longer, and GPUs
/// that are free wait for it.
const REST_FACTOR: u32 = 1;

/// The same after a pass that started nothing, as long as nothing but new jobs came since: most of them only join
/// the queue, and the next pass would do its work over again to say so.
const FULL_REST_FACTOR: u32 = 10;

/// Longest rest.
const REST_MAX: Duration = Duration::from_millis(500);

/// What the planner's thread is told.
#[derive(Debug)]
enum PlannerInput {
    /// These were committed.
    Changes(Arc<Vec<Change>>),
    /// Forget the replica and take this.
    Reset(Box<World>),
    /// The plan sent last has been committed or refused.
    PlanSettled,
}

/// Feeds the planner's thread.
#[derive(Debug, Clone)]
pub struct PlannerFeed {
    sender: SyncSender<PlannerInput>,
    behind: bool,
}

impl PlannerFeed {
    /// Passes committed changes on. If the thread lags too far, it gets `world` whole as soon as it takes it.
    pub fn feed(&mut self, changes: Arc<Vec<Change>>, world: &World) {
        if self.behind {
            self.reset(world);
        } else {
            self.behind = !self.try_send(PlannerInput::Changes(changes));
        }
    }

    /// Replaces the replica.
    pub fn reset(&mut self, world: &World) {
        self.behind = !self.try_send(PlannerInput::Reset(Box::new(world.clone())));
    }

    fn try_send(&self, input: PlannerInput) -> bool {
        match self.sender.try_send(input) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => false,
            // The thread ends only when the scheduler does.
            Err(TrySendError::Disconnected(_)) => true,
        }
    }
}

/// What the last pass found.
#[derive(Debug, Clone, Default)]
pub struct Pass {
    /// Why each job it looked at and did not start waits.
    pub report: Arc<Report>,
    /// When it ran; `None` before the first.
    pub planned: Option<UnixMicros>,
    /// How long it took.
    pub took: Duration,
    /// Passes so far.
    pub count: u64,
}

/// The last pass, shared with those who explain.
#[derive(Debug, Clone, Default)]
pub struct LastPass(Arc<RwLock<Pass>>);

impl LastPass {
    /// What it found.
    #[must_use]
    pub fn get(&self) -> Pass {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, report: Report, planned: UnixMicros, took: Duration) {
        let mut pass = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let count = pass.count + 1;
        *pass = Pass { report: Arc::new(report), planned: Some(planned), took, count };
    }
}

/// The thread before it is started.
#[derive(Debug)]
pub struct Planner {
    inputs: Receiver<PlannerInput>,
    feed: PlannerFeed,
    policy: Arc<Policy>,
    last: LastPass,
    metrics: Arc<Metrics>,
    lookout: Lookout,
}

/// Makes a planner and its feed.
#[must_use]
pub fn new(
    policy: Arc<Policy>,
    metrics: Arc<Metrics>,
    lookout: Lookout,
) -> (Planner, PlannerFeed, LastPass) {
    let (sender, inputs) = sync_channel(FEED_MAX);
    let feed = PlannerFeed { sender, behind: false };
    let last = LastPass::default();
    let (own, shown) = (feed.clone(), last.clone());
    let planner = Planner { inputs, feed: own, policy, last: shown, metrics, lookout };
    (planner, feed, last)
}

/// Tells the thread, when dropped, that its plan is settled: committed, refused, or lost with the round it was in.
#[derive(Debug)]
struct Settled(SyncSender<PlannerInput>);

impl Drop for Settled {
    fn drop(&mut self) {
        // The thread empties its queue before it rests, so there is room soon; if it is gone, so be it.
        let _ = self.0.send(PlannerInput::PlanSettled);
    }
}

/// What the thread knows.
#[derive(Debug)]
struct Replica {
    world: World,
    /// What changed that a pass could use.
    news: News,
    /// A plan is on its way through the writer.
    in_flight: bool,
    /// What the last pass cost and achieved.
    rest: Rest,
    /// When the last pass began.
    last_pass: Instant,
}

/// What changed since the last pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    /// Nothing that a pass could use.
    None,
    /// More jobs wait.
    Jobs,
    /// Something was freed, came, or is allowed now; or a job came that may find room in what was left.
    Room,
}

/// The pause after a pass.
#[derive(Debug, Clone, Copy)]
struct Rest {
    since: Instant,
    took: Duration,
    started_any: bool,
    /// It stopped at the most that one pass may start.
    has_more: bool,
}

impl Rest {
    /// Before the first pass.
    fn none() -> Self {
        Self { since: Instant::now(), took: Duration::ZERO, started_any: false, has_more: false }
    }

    /// Until when the planner rests, with this news.
    fn until(self, news: News) -> Instant {
        if self.has_more {
            return self.since;
        }
        let is_full = !self.started_any && news == News::Jobs;
        let factor = if is_full { FULL_REST_FACTOR } else { REST_FACTOR };
        self.since + (self.took * factor).min(REST_MAX)
    }
}

impl Planner {
    /// Starts the thread; it ends when the writer is gone, and cancels `ended` then.
    ///
    /// # Errors
    /// The system's error if no thread can be made.
    pub fn spawn(
        self,
        writer: WriterHandle,
        runtime: Handle,
        ended: CancellationToken,
    ) -> std::io::Result<()> {
        let run = move || {
            // However it ends, also by a panic: without a planner nothing would ever start again.
            let _ended = ended.drop_guard();
            self.run(&writer, &runtime);
        };
        std::thread::Builder::new().name("planner".to_owned()).spawn(run).map(|_| ())
    }

    fn run(mut self, writer: &WriterHandle, runtime: &Handle) {
        let mut replica = Replica {
            world: World::default(),
            news: News::None,
            in_flight: false,
            rest: Rest::none(),
            last_pass: Instant::now(),
        };
        while self.absorb(&mut replica) {
            if replica.next_pass().is_some_and(|due| Instant::now() >= due) {
                let plan = self.pass(&mut replica);
                if !plan.decisions.is_empty()
                    && !self.hand_over(&mut replica, plan, writer, runtime)
                {
                    return;
                }
            }
            if replica.next_pass().is_none() {
                self.lookout.look_if_due(&replica.world, &self.last.get().report.planned);
            }
        }
    }

    /// Takes in what arrived, waiting for the first if there is nothing to do; false when it is over.
    fn absorb(&mut self, replica: &mut Replica) -> bool {
        let wait = replica
            .next_pass()
            .map_or(IDLE_PASS, |due| due.saturating_duration_since(Instant::now()));
        match self.inputs.recv_timeout(wait) {
            Ok(input) => replica.take(input, &self.last, &mut self.lookout),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        while let Ok(input) = self.inputs.try_recv() {
            replica.take(input, &self.last, &mut self.lookout);
        }
        // Time alone lets a job start too: a retry delay that ran out, a decision that came too late before.
        let overdue = replica.last_pass.elapsed() >= IDLE_PASS;
        if overdue && !replica.world.queue.is_empty() {
            replica.news = News::Room;
        }
        true
    }

    fn pass(&self, replica: &mut Replica) -> Plan {
        let began = Instant::now();
        replica.last_pass = began;
        let before = Arc::clone(&self.last.get().report.planned);
        let mut plan = planner::plan_after(&before, &replica.world, &self.policy, clock::now());
        let took = began.elapsed();
        self.metrics.plan_seconds.observe(took.as_secs_f64());
        self.metrics.decisions.inc_by(plan.decisions.len() as u64);
        let (has_more, started_any) = (plan.report.deferred > 0, !plan.decisions.is_empty());
        replica.news = if has_more { News::Room } else { News::None };
        replica.rest = Rest { since: Instant::now(), took, started_any, has_more };
        self.last.set(std::mem::take(&mut plan.report), plan.planned, took);
        plan
    }

    /// Sends the plan to the writer; false if that is gone.
    fn hand_over(
        &self,
        replica: &mut Replica,
        plan: Plan,
        writer: &WriterHandle,
        runtime: &Handle,
    ) -> bool {
        replica.in_flight = true;
        let settled = Settled(self.feed.sender.clone());
        let metrics = Arc::clone(&self.metrics);
        let sent = writer.write_then(
            move |round| commit_plan(&mut round.draft, &plan, &metrics),
            move |_| drop(settled),
        );
        runtime.block_on(sent).is_ok()
    }
}

impl Replica {
    /// When the next pass may begin; `None` while there is nothing to plan or a plan is on its way.
    fn next_pass(&self) -> Option<Instant> {
        let wanted = self.news != News::None && !self.in_flight;
        wanted.then(|| self.rest.until(self.news))
    }

    fn take(&mut self, input: PlannerInput, last: &LastPass, lookout: &mut Lookout) {
        match input {
            PlannerInput::Changes(changes) => {
                let report = last.get().report;
                let news = changes.iter().map(|change| news_of(change, &report));
                let news = news.max().unwrap_or(News::None);
                self.news = self.news.max(news);
                self.world.apply_all(changes.iter());
                lookout.see(&self.world, &changes);
            }
            PlannerInput::Reset(world) => {
                self.world = *world;
                lookout.reset(&self.world);
                self.news = News::Room;
            }
            PlannerInput::PlanSettled => self.in_flight = false,
        }
    }
}

/// Commits the decisions one by one, with what is written down of them; what the present world no longer allows is left for the next pass.
fn commit_plan(draft: &mut lifecycle::Draft<'_>, plan: &Plan, metrics: &Metrics) {
    for refusal in lifecycle::commit_plan(draft, plan) {
        metrics.refused_decisions.inc();
        tracing::debug!(%refusal, "a decision came too late");
    }
}

/// What a pass after this change could use that the pass before, which found this, could not.
fn news_of(change: &Change, report: &Report) -> News {
    match change {
        // A task of an array becomes a job when it starts, which leaves less room and no more jobs.
        Change::JobSubmitted(job) if job.array.is_some() => News::None,
        Change::JobSubmitted(job) if report.joins_queue(job) => News::Jobs,
        Change::JobSubmitted(_) => News::Room,
        // Some of its tasks may have been released.
        Change::JobMoved { status, .. } if status.tasks.is_some() => News::Jobs,
        Change::NodeRegistered(_)
        | Change::NodeAdministered { .. }
        | Change::WindowMoved(_)
        | Change::NodeHeard { .. }
        | Change::NodeLeftovers { .. }
        | Change::QuotaApplied { .. }
        | Change::QuotaTurned { .. } => News::Room,
        Change::JobMoved { status, .. } if status.state == JobState::Pending => News::Room,
        Change::AttemptMoved(attempt) if attempt.state == AttemptState::Ended => News::Room,
        Change::JobMoved { .. }
        | Change::AttemptMoved(_)
        | Change::AttemptLeased(_)
        | Change::StepCreated(_)
        | Change::TaskMoved { .. }
        | Change::PassRecorded(_)
        | Change::Booked(_)
        | Change::QuotaAudited(_)
        | Change::QuotaApproved(_)
        | Change::QuotaAlerted(_)
        | Change::Happened(_) => News::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(started_any: bool, has_more: bool) -> Rest {
        Rest { took: Duration::from_millis(10), started_any, has_more, ..Rest::none() }
    }

    #[test]
    fn a_pass_that_stopped_halfway_is_followed_at_once() {
        let rest = rest(true, true);
        assert_eq!(rest.until(News::Room), rest.since);
    }

    #[test]
    fn jobs_that_join_a_queue_of_which_nothing_started_wait_longer_than_room_does() {
        let rest = rest(false, false);
        assert_eq!(rest.until(News::Room), rest.since + Duration::from_millis(10));
        assert_eq!(rest.until(News::Jobs), rest.since + Duration::from_millis(100));
    }

    #[test]
    fn no_rest_is_longer_than_the_longest() {
        let rest = Rest { took: Duration::from_secs(9), ..rest(false, false) };
        assert_eq!(rest.until(News::Jobs), rest.since + REST_MAX);
    }
}
