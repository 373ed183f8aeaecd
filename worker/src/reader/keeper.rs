//! The daemon's side of the process that reads GPUs: starts it, hears it, and starts it again.
//!
//! Nothing waits for the process: what it says is read by a thread of its own, and one that cannot be killed is left alone.
//! All of it is started by one thread that lives as long as the daemon, since the kernel ends such a process with the thread
//! that started it.

use std::collections::BTreeMap;
use std::io::{self, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gotgan_proto::v1::GpuDevice;
use tokio::sync::{mpsc as tokio_mpsc, watch};

use super::board::{Board, Seen};
use super::frames::{self, Described, Happened, Look, Opened, Said, Watching};
use crate::clock::now_us;
use crate::inventory::cards::Cards;
use crate::inventory::classes::gpu_class;
use crate::inventory::{InventoryError, InventoryPlan};

/// The driver's first answer may take long on a machine that has just booted, with many GPUs.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(60);
/// Once it has answered, the first readings are waited for so long.
const FIRST_READINGS_MAX: Duration = Duration::from_secs(5);
/// How often silence is looked for.
const LOOK: Duration = Duration::from_millis(250);
/// A process that says nothing at all hangs as a whole after so long, or three times the patience for a reading.
const SILENCE_MIN: Duration = Duration::from_secs(10);
/// Pauses before it is started again: the first, the longest, and how long it must have lived for the first.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(60);
const GOOD_LIFE: Duration = Duration::from_secs(60);
/// Processes that do not die although they were killed. With so many no other is started.
const UNDEAD_MAX: usize = 3;
/// Messages waiting for the thread that takes them; it does nothing that lasts.
const TOLD_QUEUE: usize = 64;
/// Observations waiting for the daemon. When it is full the process that reads waits, and the driver keeps its events.
const OBSERVATIONS: usize = 1024;
/// The running program itself, whatever became of its file.
pub(crate) const OWN_PROGRAM: &str = "/proc/self/exe";
/// What of the daemon's environment the process needs: where the library is found, and what is logged.
pub(crate) const PASSED_ON: [&str; 3] = ["LD_LIBRARY_PATH", "PATH", "RUST_LOG"];

/// What the driver says once.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// GPUs, in the driver's order.
    pub gpus: Vec<GpuDevice>,
    /// Numbers of their device nodes, by UUID, where the driver tells them.
    pub minors: BTreeMap<String, u32>,
    /// As in "580.65.06".
    pub driver_version: String,
    /// As in "12.8".
    pub cuda_version: String,
    /// The library is a double for tests, and its GPUs are invented.
    pub double: bool,
}

/// Something that is told once.
#[derive(Clone, Debug, PartialEq)]
pub enum Observation {
    /// The driver told of an event.
    Event(Happened),
    /// A GPU counts so many uncorrectable errors now, which is another number than before.
    Uncorrected {
        /// The GPU.
        uuid: String,
        /// Since the driver was loaded.
        count: u64,
        /// Unix microseconds.
        at_us: i64,
    },
}

/// The newest readings, and what is told once.
#[derive(Debug)]
pub struct Reader {
    board: Arc<Mutex<Board>>,
    news: watch::Receiver<u64>,
    observations: Mutex<Option<tokio_mpsc::Receiver<Observation>>>,
    cards: Arc<Cards>,
}

impl Reader {
    /// The GPUs with what each is cut into now.
    pub fn cards(&self) -> Arc<Cards> {
        self.cards.clone()
    }

    /// The newest look at every GPU; with `error` and `fault` set where the driver has fallen silent.
    pub fn latest(&self) -> Vec<Seen> {
        lock(&self.board).latest(Instant::now())
    }

    /// Changes whenever readings have something that is not to wait for the next heartbeat.
    pub fn news(&self) -> watch::Receiver<u64> {
        let mut news = self.news.clone();
        // What there was before is in the first heartbeat.
        news.mark_unchanged();
        news
    }

    /// What is told once, in order; for the first who asks.
    pub fn observations(&self) -> Option<tokio_mpsc::Receiver<Observation>> {
        self.observations.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Asks the driver, if its library is there. `None`: no library, no driver, or no answer worth having.
pub fn start(plan: &InventoryPlan) -> Result<Option<(Found, Reader)>, InventoryError> {
    let (answer, answered) = mpsc::sync_channel(1);
    let patience = plan.reading_interval + plan.reading_timeout;
    let board = Arc::new(Mutex::new(Board::new(&[], patience, Instant::now())));
    let (news_sender, news) = watch::channel(0);
    let (observe, observations) = tokio_mpsc::channel(OBSERVATIONS);
    let cards = Arc::new(Cards::new(Some(plan.permissions.clone())));
    let (plan_of_thread, shared) = (plan.clone(), (board.clone(), cards.clone()));
    let keep = move || {
        Keeper::new(plan_of_thread, shared, news_sender, observe).run(&answer);
    };
    std::thread::Builder::new().name("gpu-keeper".into()).spawn(keep).map_err(begin_error)?;
    // A little longer than the thread itself waits.
    let found = answered
        .recv_timeout(FIRST_ANSWER_MAX + FIRST_READINGS_MAX * 2)
        .map_err(|_| InventoryError::DriverSilent(FIRST_ANSWER_MAX))??;
    let observations = Mutex::new(Some(observations));
    Ok(found.map(|found| (found, Reader { board, news, observations, cards })))
}

fn begin_error(source: io::Error) -> InventoryError {
    InventoryError::Reader(source.to_string())
}

fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a process that reads, with its input and output.
pub fn spawn(plan: &InventoryPlan, known: &[String]) -> io::Result<Child> {
    let mut command = Command::new(OWN_PROGRAM);
    command.arg0("gotgan-worker").arg("nvml-reader").env_clear();
    command.args(["--interval-ms", &plan.reading_interval.as_millis().to_string()]);
    if let Some(library) = &plan.nvml_library {
        command.args(["--library", library]);
    }
    for uuid in known {
        command.args(["--gpu", uuid]);
    }
    let passed_on = PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    command.envs(passed_on);
    // A Ctrl-C for the daemon is not for it: it ends with its input.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
}

enum Told {
    Said(Said),
    /// Its output has ended, and why.
    Gone(String),
}

struct Running {
    number: u64,
    child: Child,
    /// It ends when this is closed.
    _input: Option<ChildStdin>,
    began: Instant,
    heard_at: Instant,
}

type Answer = SyncSender<Result<Option<Found>, InventoryError>>;

struct Keeper {
    plan: InventoryPlan,
    board: Arc<Mutex<Board>>,
    cards: Arc<Cards>,
    news: watch::Sender<u64>,
    observe: tokio_mpsc::Sender<Observation>,
    tell: SyncSender<(u64, Told)>,
    told: Receiver<(u64, Told)>,
    uuids: Vec<String>,
    running: Option<Running>,
    /// How many were started.
    started: u64,
    undead: Vec<Child>,
    pause: Duration,
    start_at: Instant,
    positions: BTreeMap<String, u32>,
    /// Why events of a GPU are not waited for; empty where they are.
    unwatched: BTreeMap<String, String>,
}

impl Keeper {
    fn new(
        plan: InventoryPlan,
        (board, cards): (Arc<Mutex<Board>>, Arc<Cards>),
        news: watch::Sender<u64>,
        observe: tokio_mpsc::Sender<Observation>,
    ) -> Self {
        let (tell, told) = mpsc::sync_channel(TOLD_QUEUE);
        Self {
            plan,
            board,
            cards,
            news,
            observe,
            tell,
            told,
            uuids: Vec::new(),
            running: None,
            started: 0,
            undead: Vec::new(),
            pause: PAUSE_MIN,
            start_at: Instant::now(),
            positions: BTreeMap::new(),
            unwatched: BTreeMap::new(),
        }
    }

    fn run(mut self, answer: &Answer) {
        let found = self.first_answer();
        let go_on = matches!(&found, Ok(Some(found)) if !found.gpus.is_empty());
        // Whoever asked waits for exactly this.
        if answer.send(found).is_err() || !go_on {
            return self.end();
        }
        loop {
            self.step(LOOK);
        }
    }

    /// There is nothing to read. This thread may wait.
    fn end(mut self) {
        self.give_up_running();
        // It may hang; then so does this thread, which nobody needs.
        self.undead.iter_mut().for_each(|child| drop(child.wait()));
    }

    /// What the driver is, once each of its GPUs has been read or has had the time for it.
    fn first_answer(&mut self) -> Result<Option<Found>, InventoryError> {
        self.spawn().map_err(begin_error)?;
        let opened = match self.opened()? {
            Ok(opened) => opened,
            Err(why) => {
                tracing::info!(why, "no NVIDIA driver: this node has no GPUs");
                return Ok(None);
            }
        };
        let found = found(opened, &self.plan.gpu_classes);
        self.uuids = found.gpus.iter().map(|gpu| gpu.uuid.clone()).collect();
        self.cards.know(&found.gpus, |uuid| found.minors.get(uuid).copied());
        self.positions = found.gpus.iter().map(|gpu| (gpu.uuid.clone(), gpu.index)).collect();
        let patience = self.plan.reading_interval + self.plan.reading_timeout;
        *lock(&self.board) = Board::new(&self.uuids, patience, Instant::now());
        let until = Instant::now() + patience.min(FIRST_READINGS_MAX);
        while !lock(&self.board).is_full() && Instant::now() < until {
            self.step(until - Instant::now().min(until));
        }
        Ok(Some(found))
    }

    /// The first word of the first process: what the driver is, or why there is none.
    fn opened(&mut self) -> Result<Result<Opened, String>, InventoryError> {
        let until = Instant::now() + FIRST_ANSWER_MAX;
        loop {
            let left = until - Instant::now().min(until);
            match self.told.recv_timeout(left) {
                Ok((_, Told::Said(Said::Opened(opened)))) => return Ok(Ok(opened)),
                Ok((_, Told::Said(Said::NoDriver(why)))) => return Ok(Err(why)),
                Ok((_, Told::Said(_))) => {}
                Ok((_, Told::Gone(why))) => return Err(InventoryError::Reader(why)),
                Err(_) => {
                    self.give_up_running();
                    return Err(InventoryError::DriverSilent(FIRST_ANSWER_MAX));
                }
            }
        }
    }

    /// Takes what is told within some time, and looks after the process.
    fn step(&mut self, patience: Duration) {
        match self.told.recv_timeout(patience) {
            Ok((number, told)) if self.is_running(number) => self.take(told),
            // The last words of one that was given up.
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            // Not while this has a sender itself.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(patience),
        }
        self.look_after(Instant::now());
    }

    fn is_running(&self, number: u64) -> bool {
        self.running.as_ref().is_some_and(|running| running.number == number)
    }

    fn take(&mut self, told: Told) {
        let said = match told {
            Told::Said(said) => said,
            Told::Gone(why) => return self.lost(&why),
        };
        if let Some(running) = &mut self.running {
            running.heard_at = Instant::now();
        }
        match said {
            Said::NoDriver(why) => self.lost(&format!("there is no driver any more: {why}")),
            Said::Seen(look) => self.seen(look),
            Said::Happened(happened) => self.observe(Observation::Event(happened)),
            Said::Watching(watching) => self.watched(watching),
            Said::Opened(_) | Said::Alive(_) => {}
        }
    }

    /// Says once why events of a GPU are not waited for, though that is tried again and again.
    fn watched(&mut self, watching: Watching) {
        let Watching { uuid, failure } = watching;
        let before = self.unwatched.insert(uuid.clone(), failure.clone());
        match (failure.is_empty(), before.is_none_or(|before| before.is_empty())) {
            (true, true) => {}
            (true, false) => tracing::info!(gpu = uuid, "events of a GPU are waited for again"),
            (false, true) => {
                tracing::warn!(gpu = uuid, failure, "events of a GPU are not waited for");
            }
            (false, false) => {}
        }
    }

    fn seen(&mut self, look: Look) {
        self.tell_of_position(&look);
        let uuid = look.reading.uuid.clone();
        if let Some(seen) = &look.cut {
            self.cards.take(&uuid, seen);
        }
        let brought = lock(&self.board).take(look, Instant::now());
        if let Some(count) = brought.uncorrected {
            self.observe(Observation::Uncorrected { uuid, count, at_us: now_us() });
        }
        if brought.news {
            self.send_news();
        }
    }

    /// Waits while the daemon has not taken what was observed before; whoever asked may be gone.
    fn observe(&self, observation: Observation) {
        let _ = self.observe.blocking_send(observation);
    }

    fn send_news(&self) {
        self.news.send_modify(|count| *count += 1);
    }

    /// Says once of each change that a GPU is elsewhere now. Nothing rests on positions, but people use them.
    fn tell_of_position(&mut self, look: &Look) {
        let Some(now) = look.reading.index else {
            return;
        };
        let uuid = &look.reading.uuid;
        let before = self.positions.insert(uuid.clone(), now);
        if before.is_some_and(|before| before != now) {
            tracing::warn!(gpu = uuid, before, now, "the driver has a GPU elsewhere now");
        }
    }

    fn look_after(&mut self, now: Instant) {
        self.undead.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        if lock(&self.board).falls_silent(now) {
            self.send_news();
        }
        let silence_max =
            SILENCE_MIN.max(3 * (self.plan.reading_interval + self.plan.reading_timeout));
        match &self.running {
            Some(running) if now.duration_since(running.heard_at) > silence_max => {
                self.lost("the process that asks it hangs");
            }
            Some(_) => {}
            None if now >= self.start_at && self.undead.len() < UNDEAD_MAX => self.start_again(),
            None => {}
        }
    }

    /// Its process is gone or of no use; another one is started after a pause.
    fn lost(&mut self, why: &str) {
        let lived = self.running.as_ref().map_or(Duration::ZERO, |it| it.began.elapsed());
        self.give_up_running();
        if lived >= GOOD_LIFE {
            self.pause = PAUSE_MIN;
        }
        tracing::error!(why, pause = ?self.pause, "GPUs are not read; the process for it is started again");
        self.start_at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        lock(&self.board).unread(why);
    }

    /// Kills it and waits for nothing: it may hang where no signal reaches it.
    fn give_up_running(&mut self) {
        if let Some(mut running) = self.running.take() {
            // It may be dead already.
            let _ = running.child.kill();
            self.undead.push(running.child);
        }
    }

    fn start_again(&mut self) {
        if let Err(error) = self.spawn() {
            self.lost(&format!("the process that asks it cannot be started: {error}"));
        }
    }

    fn spawn(&mut self) -> io::Result<()> {
        let mut child = spawn(&self.plan, &self.uuids)?;
        self.started += 1;
        let (number, tell) = (self.started, self.tell.clone());
        let output = child.stdout.take().ok_or_else(|| io::Error::other("it has no output"))?;
        let hear = move || hear(number, BufReader::new(output), &tell);
        std::thread::Builder::new().name("gpu-reader".into()).spawn(hear)?;
        let input = child.stdin.take();
        let now = Instant::now();
        self.running = Some(Running { number, child, _input: input, began: now, heard_at: now });
        Ok(())
    }
}

/// Passes on what a process says until its output ends, which it never does if the process cannot be killed.
fn hear(number: u64, mut output: impl io::Read, tell: &SyncSender<(u64, Told)>) {
    loop {
        let told = match frames::read(&mut output) {
            Ok(Some(said)) => Told::Said(said),
            Ok(None) => Told::Gone("the process that asks it has ended".into()),
            Err(error) => Told::Gone(format!("the process that asks it has ended: {error}")),
        };
        let last = matches!(told, Told::Gone(_));
        // The daemon ends: nobody needs to know.
        if tell.send((number, told)).is_err() || last {
            return;
        }
    }
}

fn found(opened: Opened, classes: &BTreeMap<String, String>) -> Found {
    let Opened { gpus, driver_version, cuda_version, double } = opened;
    let minor = |gpu: &Described| Some((gpu.device.uuid.clone(), gpu.minor?));
    let minors = gpus.iter().filter_map(minor).collect();
    let classed = |gpu: Described| {
        let gpu_class = gpu_class(&gpu.device.name, classes);
        GpuDevice { gpu_class, ..gpu.device }
    };
    let gpus = gpus.into_iter().map(classed).collect();
    Found { gpus, minors, driver_version, cuda_version, double }
}
