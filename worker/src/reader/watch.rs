//! The two threads of each GPU: one reads it at the interval, one waits for its events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use super::child::Output;
use super::frames::{Happened, Said, Watching};
use super::reading;
use crate::clock::now_us;
use crate::nvml::{Code, Driver, Event, EventSet, Gpu, Missing, Reading, event_kind};

/// How long one wait for events lasts.
const WAIT: Duration = Duration::from_secs(5);
/// Before events are registered for again that could not be waited for.
const RETRY_PAUSE: Duration = Duration::from_secs(10);
/// A storm of events makes no storm of readings.
const READ_GAP: Duration = Duration::from_millis(100);

/// Kinds of events that are waited for, where the GPU has them. The rest comes often and is in readings.
const WANTED: u64 = event_kind::XID
    | event_kind::DOUBLE_BIT_ECC
    | event_kind::MEMORY_RETIREMENT
    | event_kind::MEMORY_RETIREMENT_FAILED
    | event_kind::POISON
    | event_kind::FATAL_POISON
    | event_kind::GPU_UNAVAILABLE
    | event_kind::RECOVERY_ACTION;

struct Watched {
    driver: &'static Driver,
    uuid: String,
    interval: Duration,
    output: Arc<Output>,
    /// Waiting for events has said that it is lost.
    lost: AtomicBool,
}

/// Starts both threads of a GPU.
pub(super) fn start(
    driver: &'static Driver,
    uuid: String,
    interval: Duration,
    output: &Arc<Output>,
) {
    let (poke, pokes) = mpsc::sync_channel(1);
    let lost = AtomicBool::new(false);
    let watched = Arc::new(Watched { driver, uuid, interval, output: output.clone(), lost });
    let reading = watched.clone();
    spawn("gpu-reading", move || reading.read_for_ever(&pokes));
    spawn("gpu-events", move || watched.wait_for_ever(&poke));
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) {
    if let Err(error) = std::thread::Builder::new().name(name.into()).spawn(body) {
        // The GPU is then unresponsive, which is what the daemon says of one that nobody reads.
        tracing::error!(%error, name, "cannot start a thread");
    }
}

impl Watched {
    fn read_for_ever(&self, pokes: &Receiver<()>) {
        loop {
            let began = Instant::now();
            let lost = self.lost.load(Ordering::Relaxed);
            self.output.say(Said::Seen(reading::look(self.driver, &self.uuid, lost)));
            match pokes.recv_timeout(self.interval) {
                Ok(()) => std::thread::sleep(READ_GAP.saturating_sub(began.elapsed())),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(self.interval),
            }
        }
    }

    /// Ends only where the GPU has no events.
    fn wait_for_ever(&self, poke: &SyncSender<()>) {
        loop {
            let missing = match self.register() {
                Ok(set) => {
                    self.lost.store(false, Ordering::Relaxed);
                    self.tell(String::new());
                    self.pass_on(&set, poke)
                }
                Err(missing) => missing,
            };
            self.tell(missing.to_string());
            if !missing.is_fault() {
                return;
            }
            self.lost.store(missing == Missing::Failed(Code::GPU_IS_LOST), Ordering::Relaxed);
            read_now(poke);
            std::thread::sleep(RETRY_PAUSE);
        }
    }

    fn register(&self) -> Reading<EventSet<'static>> {
        let gpu = self.driver.gpu(&self.uuid)?;
        let kinds = gpu.event_kinds()? & WANTED;
        if kinds == 0 {
            return Err(Missing::NotSupported);
        }
        let set = EventSet::create(self.driver)?;
        self.register_for(&set, &gpu, kinds)?;
        Ok(set)
    }

    /// A driver may name kinds that it then does not take.
    fn register_for(&self, set: &EventSet<'_>, gpu: &Gpu<'_>, kinds: u64) -> Reading<()> {
        match set.register(gpu, kinds) {
            Err(Missing::NotSupported) => set.register(gpu, kinds & event_kind::XID),
            other => other,
        }
    }

    /// Tells of events until waiting for them fails.
    fn pass_on(&self, set: &EventSet<'_>, poke: &SyncSender<()>) -> Missing {
        loop {
            match set.wait(WAIT) {
                Ok(None) => {}
                Ok(Some(Event { kind, data })) => {
                    let happened =
                        Happened { uuid: self.uuid.clone(), kind, data, at_us: now_us() };
                    self.output.say(Said::Happened(happened));
                    // What it changed lasts, and is in readings.
                    read_now(poke);
                }
                Err(missing) => return missing,
            }
        }
    }

    fn tell(&self, failure: String) {
        self.output.say(Said::Watching(Watching { uuid: self.uuid.clone(), failure }));
    }
}

/// Makes the other thread read at once. One that is about to needs no second word.
fn read_now(poke: &SyncSender<()>) {
    let _ = poke.try_send(());
}
