//! The estimator's thread: looks ahead from time to time, and tells when jobs that wait will start.
//!
//! A look ahead over a hundred thousand jobs takes seconds, so it is made neither in a pass nor for each question: the
//! planner's thread, which has a replica of the world, hands over a sketch of it at most every [`LOOK_EVERY`], and less
//! often if the last look took long, so that looking never takes more than a twentieth of a processor. What is told
//! stands until the next look.
//!
//! What is learnt is kept in the store as a value, a moment later; what of it is lost in a crash is learnt again.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use gotgan_core::amount::UnixMicros;
use gotgan_core::change::Change;
use gotgan_core::estimate::StartRange;
use gotgan_core::estimate::estimator::{Estimator, Learnt};
use gotgan_core::estimate::outcome::{Outcome, Watcher};
use gotgan_core::ids::{Epoch, JobId};
use gotgan_core::planned::PlannedStarts;
use gotgan_core::policy::Policy;
use gotgan_core::world::World;
use gotgan_store::Store;
use tokio::runtime::Handle;

use crate::clock;

/// Shortest time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// The first look comes sooner, after a start and once something waits at all.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// After a look the estimator rests so many times as long as it took.
const REST_FACTOR: u32 = 20;

/// How nice the thread is to the others, in the system's steps of up to 19: nobody waits for it, and a look takes seconds
/// that passes, reports and submissions would wait for where there are few processors.
const NICENESS: i32 = 10;

/// What is learnt is stored at most this often.
const KEEP_EVERY: Duration = Duration::from_secs(120);

/// Messages the thread may lag behind; what comes beyond that is not learnt from.
const INPUTS_MAX: usize = 4_096;

/// Name of the setting that keeps what was learnt.
const SETTING: &str = "estimates";

/// What the thread is told.
#[derive(Debug)]
enum Input {
    /// These came of jobs.
    Outcomes(Vec<Outcome>),
    /// Look ahead from here.
    Look(Box<World>, Arc<PlannedStarts>),
}

/// What is told now.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// When was looked ahead; `None` before the first time.
    pub looked: Option<UnixMicros>,
    ranges: BTreeMap<JobId, StartRange>,
}

/// What is told of jobs that wait, shared with those who ask.
#[derive(Debug, Clone, Default)]
pub struct Estimates(Arc<RwLock<Arc<Told>>>);

impl Estimates {
    /// What is told now.
    #[must_use]
    pub fn told(&self) -> Arc<Told> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, told: Told) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(told);
    }
}

impl Told {
    /// What is told of the first of these jobs that waits: of a job alone, or of the tasks of an array.
    #[must_use]
    pub fn first(&self, job: JobId, last: JobId) -> Option<StartRange> {
        self.ranges.range(job..=last).next().map(|(_, range)| *range)
    }
}

/// The planner's end: sees what was committed, and hands over sketches.
#[derive(Debug)]
pub struct Lookout {
    inputs: SyncSender<Input>,
    watcher: Watcher,
    /// A look is due then.
    due: Instant,
    /// Until when the thread rests; set by it.
    rests: Arc<RwLock<Option<Instant>>>,
}

impl Lookout {
    /// Takes in what was committed; `world` has it already.
    pub fn see(&mut self, world: &World, changes: &[Change]) {
        let outcomes = self.watcher.see(world, changes);
        if !outcomes.is_empty() {
            // A thread that is gone or far behind learns nothing from it, which costs nobody anything.
            let _ = self.inputs.try_send(Input::Outcomes(outcomes));
        }
    }

    /// Takes in a world of which it saw no changes.
    pub fn reset(&mut self, world: &World) {
        self.watcher.reset(world);
        self.due = clock::instant() + FIRST_LOOK;
    }

    /// Hands over a sketch if a look is due and the last one is over.
    pub fn look_if_due(&mut self, world: &World, planned: &Arc<PlannedStarts>) {
        let now = clock::instant();
        if now < self.due {
            return;
        }
        if world.queue.is_empty() {
            // The first job that waits is told soon.
            self.due = now + FIRST_LOOK;
            return;
        }
        let rests = *self.rests.read().unwrap_or_else(PoisonError::into_inner);
        if rests.is_some_and(|until| now >= until) {
            *self.rests.write().unwrap_or_else(PoisonError::into_inner) = None;
            let look = Input::Look(Box::new(world.sketch()), Arc::clone(planned));
            let _ = self.inputs.try_send(look);
        }
        self.due = now + LOOK_EVERY;
    }
}

/// The thread before it is started.
#[derive(Debug)]
pub struct EstimatorThread {
    inputs: Receiver<Input>,
    estimator: Estimator,
    estimates: Estimates,
    rests: Arc<RwLock<Option<Instant>>>,
    policy: Arc<Policy>,
}

/// What it keeps what it learnt in.
#[derive(Debug, Clone)]
pub struct Keeper {
    /// Where.
    pub store: Arc<dyn Store>,
    /// Under which leadership.
    pub epoch: Epoch,
    /// Where the store is asked.
    pub runtime: Handle,
}

/// Makes an estimator that has learnt this, the planner's end of it, and what it tells.
#[must_use]
pub fn new(policy: Arc<Policy>, learnt: Learnt) -> (EstimatorThread, Lookout, Estimates) {
    let (sender, inputs) = sync_channel(INPUTS_MAX);
    let rests = Arc::new(RwLock::new(Some(clock::instant())));
    let (watcher, due) = (Watcher::default(), clock::instant());
    let lookout = Lookout { inputs: sender, watcher, due, rests: Arc::clone(&rests) };
    let (estimator, estimates) = (Estimator::new(learnt), Estimates::default());
    let told = estimates.clone();
    (EstimatorThread { inputs, estimator, estimates, rests, policy }, lookout, told)
}

/// What was learnt before, as the store has it; nothing if it has nothing that can be read.
pub async fn learnt(store: &dyn Store) -> Learnt {
    let found = store.setting(SETTING).await;
    let text = found.unwrap_or_else(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "estimates begin anew");
        None
    });
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

impl EstimatorThread {
    /// Starts the thread; it ends when the planner's end is gone.
    ///
    /// # Errors
    /// The system's error if no thread can be made.
    pub fn spawn(self, keeper: Keeper) -> std::io::Result<()> {
        let run = move || self.run(&keeper);
        std::thread::Builder::new().name("estimator".to_owned()).spawn(run).map(|_| ())
    }

    fn run(mut self, keeper: &Keeper) {
        // On Linux this is of the calling thread alone.
        if let Err(error) = rustix::process::nice(NICENESS) {
            tracing::debug!(%error, "the estimator runs at the priority of all others");
        }
        let mut kept = clock::instant();
        while let Ok(input) = self.inputs.recv() {
            match input {
                Input::Outcomes(outcomes) => self.estimator.learn(&outcomes),
                Input::Look(world, planned) => {
                    self.look(&world, &planned);
                    if clock::since(kept) >= KEEP_EVERY {
                        keeper.keep(self.estimator.learnt());
                        kept = clock::instant();
                    }
                }
            }
        }
    }

    fn look(&mut self, world: &World, planned: &PlannedStarts) {
        let began = clock::instant();
        let foresight = self.estimator.look(world, &self.policy, planned, clock::now());
        let ranges = self.estimator.ranges(&foresight);
        self.estimator.tell_due(&foresight);
        self.estimates.set(Told { looked: Some(foresight.at), ranges });
        let rest = clock::since(began) * REST_FACTOR;
        *self.rests.write().unwrap_or_else(PoisonError::into_inner) = Some(clock::instant() + rest);
    }
}

impl Keeper {
    /// Stores what was learnt. If that fails, the next time will do.
    fn keep(&self, learnt: &Learnt) {
        let Ok(text) = serde_json::to_string(learnt) else { return };
        let kept = self.runtime.block_on(self.store.keep_setting(self.epoch, SETTING, &text));
        if let Err(error) = kept {
            tracing::debug!(error = &error as &dyn std::error::Error, "estimates not stored");
        }
    }
}
