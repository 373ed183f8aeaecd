//! The planner's thread: a replica of the world, a pass whenever something changed that a pass could use. Where full passes
//! take long, passes that only ask who starts in the room there is go between them, and from time to time one of these is
//! held against the same pass over everybody: they must agree.
//!
//! The replica is fed by what the writer committed, so planning never holds the writer up and never sees what is
//! not durable. A plan goes to the writer as one command and no other pass begins until it has been committed and
//! has come back as changes; otherwise the next pass would give the same resources again.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
#[cfg(feature = "simulation")]
use std::sync::mpsc::{RecvError, TryRecvError};
#[cfg(feature = "simulation")]
use std::task::Poll;
use std::time::Duration;

use gotgan_core::amount::UnixMicros;
use gotgan_core::change::Change;
use gotgan_core::lifecycle;
use gotgan_core::muster::Terms;
use gotgan_core::plan::{Plan, Report};
use gotgan_core::planner::{self, Bearings};
use gotgan_core::policy::Policy;
use gotgan_core::world::World;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::command::{FlowError, WriterHandle};
use super::estimate::Lookout;
use super::pace::{Depth, News, Past};
use super::replica::{IDLE_PASS, Replica};
use crate::clock;
use crate::config::Timing;
use crate::metrics::Metrics;

/// Rounds the planner may lag behind; past that it gets a copy of the whole world instead.
const FEED_MAX: usize = 16_384;

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
pub struct LastPass(Arc<watch::Sender<Pass>>);

impl LastPass {
    /// What it found.
    #[must_use]
    pub fn get(&self) -> Pass {
        self.0.borrow().clone()
    }

    /// Waits for the first one, but no longer than that.
    pub async fn first(&self, within: Duration) {
        let mut passes = self.0.subscribe();
        // Without one, nothing is known yet of what waits; it comes in its time.
        let _ = timeout(within, passes.wait_for(|pass| pass.count > 0)).await;
    }

    fn set(&self, report: Report, planned: UnixMicros, took: Duration) {
        let (report, planned) = (Arc::new(report), Some(planned));
        self.0.send_modify(|pass| *pass = Pass { report, planned, took, count: pass.count + 1 });
    }
}

/// The thread before it is started.
#[derive(Debug)]
pub struct Planner {
    inputs: Receiver<PlannerInput>,
    feed: PlannerFeed,
    policy: Arc<Policy>,
    timing: Timing,
    last: LastPass,
    metrics: Arc<Metrics>,
    lookout: Lookout,
}

/// Makes a planner and its feed.
#[must_use]
pub fn new(
    policy: Arc<Policy>,
    timing: Timing,
    metrics: Arc<Metrics>,
    lookout: Lookout,
) -> (Planner, PlannerFeed, LastPass) {
    let (sender, inputs) = sync_channel(FEED_MAX);
    let feed = PlannerFeed { sender, behind: false };
    let last = LastPass::default();
    let (own, shown) = (feed.clone(), last.clone());
    let planner = Planner { inputs, feed: own, policy, timing, last: shown, metrics, lookout };
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
        let mut replica = self.replica();
        loop {
            match self.inputs.recv_timeout(replica.rest()) {
                Ok(input) => self.absorb(&mut replica, Some(input)),
                Err(RecvTimeoutError::Timeout) => self.absorb(&mut replica, None),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if let Some(plan) = self.pass_if_due(&mut replica)
                && runtime.block_on(self.hand_over(&mut replica, plan, writer)).is_err()
            {
                return;
            }
            self.look_ahead(&replica);
        }
    }

    /// What the thread does, for one that has no thread of its own. Whoever polls this does so again when something was
    /// committed.
    #[cfg(feature = "simulation")]
    pub async fn walk(mut self, writer: WriterHandle) {
        let mut replica = self.replica();
        while let Ok(input) = arrival(&self.inputs, replica.rest()).await {
            self.absorb(&mut replica, input);
            if let Some(plan) = self.pass_if_due(&mut replica)
                && self.hand_over(&mut replica, plan, &writer).await.is_err()
            {
                return;
            }
            self.look_ahead(&replica);
        }
    }

    fn replica(&self) -> Replica {
        Replica::new(Duration::from_millis(self.timing.event_passes_beyond_ms))
    }

    /// Takes in what arrived, and what has passed.
    fn absorb(&mut self, replica: &mut Replica, first: Option<PlannerInput>) {
        let mut next = first;
        while let Some(input) = next {
            self.take(replica, input);
            next = self.inputs.try_recv().ok();
        }
        replica.look_around(self.terms());
        // Time alone lets a job start too: a retry delay that ran out, a decision that came too late before.
        let overdue = clock::since(replica.pace.last_full()) >= IDLE_PASS;
        if overdue && !replica.world.queue.is_empty() {
            replica.pace.note(News::Ground);
        }
    }

    fn take(&mut self, replica: &mut Replica, input: PlannerInput) {
        match input {
            PlannerInput::Changes(changes) => {
                replica.see(&changes, &self.last.get().report);
                self.lookout.see(&replica.world, &changes);
            }
            PlannerInput::Reset(world) => {
                replica.reset(*world);
                self.lookout.reset(&replica.world);
            }
            PlannerInput::PlanSettled => replica.in_flight = false,
        }
    }

    /// A plan that decides something, if a pass is due and finds one.
    fn pass_if_due(&self, replica: &mut Replica) -> Option<Plan> {
        let (due, depth) = replica.next_pass()?;
        if clock::instant() < due {
            return None;
        }
        let plan = self.pass(replica, depth);
        (!plan.decisions.is_empty()).then_some(plan)
    }

    fn look_ahead(&mut self, replica: &Replica) {
        if replica.muster.is_over() && replica.next_pass().is_none() {
            self.lookout.look_if_due(&replica.world, &self.last.get().report.planned);
        }
    }

    fn terms(&self) -> Terms {
        let Timing { quorum_percent, quorum_grace_ms, .. } = self.timing;
        Terms { quorum_percent, grace_ms: u64::from(quorum_grace_ms) }
    }

    fn pass(&self, replica: &mut Replica, depth: Depth) -> Plan {
        let began = clock::instant();
        let plan = match depth {
            Depth::Event => self.event_pass(replica),
            Depth::Full => None,
        };
        let (depth, plan) = match plan {
            Some(plan) => (Depth::Event, plan),
            None => (Depth::Full, self.full_pass(replica)),
        };
        let (took, has_more) = (clock::since(began), plan.report.deferred > 0);
        let started_any = !plan.decisions.is_empty();
        self.metrics.count_pass(depth == Depth::Full, took, plan.decisions.len());
        replica.pace.done(depth, Past { ended: clock::instant(), took, started_any, has_more });
        plan
    }

    fn full_pass(&self, replica: &mut Replica) -> Plan {
        let began = clock::instant();
        let before = Arc::clone(&self.last.get().report.planned);
        let (mut plan, bearings) =
            planner::plan_full(&before, &replica.world, &self.policy, clock::now());
        replica.bearings = bearings;
        replica.hold_back(&mut plan);
        // Whether there is more to start is asked of the plan, which keeps that alone.
        let kept = Report { deferred: plan.report.deferred, ..Report::default() };
        let report = std::mem::replace(&mut plan.report, kept);
        self.last.set(report, plan.planned, clock::since(began));
        plan
    }

    /// A pass for an event; `None` where only a full one will do.
    fn event_pass(&self, replica: &mut Replica) -> Option<Plan> {
        let now = clock::now();
        let every = Duration::from_secs(self.timing.cross_check_every_s);
        let checks = !every.is_zero() && clock::since(replica.cross_checked) >= every;
        let before = checks.then(|| replica.bearings.clone());
        let Replica { bearings, world, .. } = &mut *replica;
        let mut plan = planner::plan_event(bearings, world, &self.policy, now)?;
        if let Some(before) = before {
            replica.cross_checked = clock::instant();
            self.cross_check(&before, &replica.world, &plan);
        }
        replica.hold_back(&mut plan);
        Some(plan)
    }

    /// Holds a pass for an event against the same pass over everybody.
    fn cross_check(&self, before: &Bearings, world: &World, plan: &Plan) {
        let long = planner::plan_event_in_full(before, world, &self.policy, plan.planned);
        self.metrics.cross_checks.inc();
        let long = long.map(|long| long.decisions).unwrap_or_default();
        if long != plan.decisions {
            self.metrics.divergences.inc();
            let differs = plan.decisions.iter().zip(&long).position(|(one, other)| one != other);
            let at = differs.unwrap_or(plan.decisions.len().min(long.len()));
            tracing::error!(
                version = world.version,
                decision = at,
                short = ?plan.decisions.get(at),
                long = ?long.get(at),
                "a pass for an event decides other than the same pass over everybody"
            );
        }
    }

    /// Sends the plan to the writer.
    ///
    /// # Errors
    /// [`FlowError::Stopping`] if that is gone.
    async fn hand_over(
        &self,
        replica: &mut Replica,
        plan: Plan,
        writer: &WriterHandle,
    ) -> Result<(), FlowError> {
        replica.in_flight = true;
        let settled = Settled(self.feed.sender.clone());
        let metrics = Arc::clone(&self.metrics);
        let sent = writer.write_then(
            move |round| commit_plan(&mut round.draft, &plan, &metrics),
            move |_| drop(settled),
        );
        sent.await
    }
}

/// The next input; none after that long.
#[cfg(feature = "simulation")]
async fn arrival(
    inputs: &Receiver<PlannerInput>,
    rest: Duration,
) -> Result<Option<PlannerInput>, RecvError> {
    let mut rested = std::pin::pin!(clock::sleep(rest));
    std::future::poll_fn(|context| match inputs.try_recv() {
        Ok(input) => Poll::Ready(Ok(Some(input))),
        Err(TryRecvError::Empty) => rested.as_mut().poll(context).map(|()| Ok(None)),
        Err(TryRecvError::Disconnected) => Poll::Ready(Err(RecvError)),
    })
    .await
}

/// Commits the decisions one by one, with what is written down of them; what the present world no longer allows is left for the next pass.
fn commit_plan(draft: &mut lifecycle::Draft<'_>, plan: &Plan, metrics: &Metrics) {
    for refusal in lifecycle::commit_plan(draft, plan) {
        metrics.refused_decisions.inc();
        tracing::debug!(%refusal, "a decision came too late");
    }
}
