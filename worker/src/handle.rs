//! How the rest of the daemon talks to the supervisor of attempts.

use std::collections::BTreeSet;

use gotgan_proto::v1::{
    AttemptUse, CheckHardware, CheckOutcome, CutFailure, CutGpu, GpuReading, HeldAttempt,
    WorkerMessage, scheduler_message::Message as Order,
};
use tokio::sync::{mpsc, oneshot};

use crate::attempt::Event;
use crate::health::findings::Observed;
use crate::health::leftover::Unused;
use crate::held::AttemptKey;
use crate::metrics::Using;

/// What the supervisor is told or asked.
#[derive(Debug)]
pub enum Input {
    /// An order of the scheduler.
    Order(Order),
    /// Something happened to an attempt.
    Event(AttemptKey, Box<Event>),
    /// The epilog of an attempt has ended, or says why the node is not fit.
    CleanedUp(AttemptKey, Result<(), String>),
    /// A stream was opened: answer with what it has to say first.
    Attach(oneshot::Sender<Attached>),
    /// Something was found of the node's hardware.
    Found(Observed),
    /// A GPU counts so many uncorrectable errors.
    Uncorrected {
        /// The GPU.
        uuid: String,
        /// Since the driver was loaded.
        count: u64,
        /// Unix microseconds.
        at_us: i64,
    },
    /// An order to cut a GPU was obeyed, or could not be.
    CutEnded(CutGpu, Result<(), String>),
    /// A check of hardware has ended, and says why it failed if it did.
    CheckEnded(CheckHardware, Result<(), String>),
    /// The kernel's log was read up to a record.
    LogRead(u64),
    /// GPUs were looked at, each then, by the clock of [`crate::clock::boot_ms`].
    Looked(Vec<(u64, GpuReading)>),
    /// Which attempts have living processes?
    Running(oneshot::Sender<Running>),
    /// Who has which GPUs, and what did the driver tell of these?
    Using(oneshot::Sender<Using>),
    /// Which attempts are not forgotten?
    Held(oneshot::Sender<BTreeSet<AttemptKey>>),
    /// May this attempt still write output?
    IsLive(AttemptKey, oneshot::Sender<bool>),
}

/// What goes on now.
#[derive(Debug)]
pub struct Running {
    /// Attempts with living processes.
    pub attempts: Vec<HeldAttempt>,
    /// What the GPUs of attempts that have not ended did so far.
    pub uses: Vec<AttemptUse>,
    /// GPUs that no attempt has.
    pub unused: Unused,
    /// GPUs that could not be cut as ordered.
    pub cut_failures: Vec<CutFailure>,
    /// How checks of hardware ended.
    pub check_outcomes: Vec<CheckOutcome>,
}

/// What a new stream to the scheduler begins with.
#[derive(Debug)]
pub struct Attached {
    /// Largest epoch seen.
    pub epoch: u64,
    /// Attempts not forgotten.
    pub held: Vec<HeldAttempt>,
    /// Name of the journal that remembers them.
    pub journal_id: String,
    /// Findings and reports as they come, beginning with all that are not acknowledged.
    pub reports: mpsc::Receiver<WorkerMessage>,
}

/// Handle to the supervisor.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(crate) inbox: mpsc::Sender<Input>,
}

/// The supervisor has ended; the daemon is about to.
#[derive(Debug, thiserror::Error)]
#[error("the supervisor of attempts has stopped")]
pub struct Stopped;

impl Handle {
    /// Tells something; waits while the inbox is full.
    pub async fn tell(&self, input: Input) -> Result<(), Stopped> {
        self.inbox.send(input).await.map_err(|_| Stopped)
    }

    /// Asks something.
    pub async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Input,
    ) -> Result<T, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.tell(question(answer)).await?;
        answered.await.map_err(|_| Stopped)
    }
}
