//! What the writer can be asked, and the handle that asks it.

use std::sync::Arc;

use gotgan_core::change::Event;
use gotgan_core::ids::JobId;
use gotgan_core::lifecycle::{Submission, SubmitRefusal};
use gotgan_core::world::World;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::quarantine::Origin;
use super::round::RoundDraft;

/// Why a command was not carried out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FlowError {
    /// The store did not take the round. Nothing of it happened.
    #[error("the store did not take the change; try again with the same idempotency key")]
    NotCommitted,
    /// This scheduler no longer leads.
    #[error("this scheduler does not lead")]
    NotLeader,
    /// The scheduler is shutting down.
    #[error("the scheduler is shutting down")]
    Stopping,
}

/// A submission's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submitted {
    /// Its number.
    pub job: JobId,
    /// It was there already.
    pub repeated: bool,
}

/// Why submissions were not stored; `usize` is the place in the list.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SubmitError {
    /// The flow failed.
    #[error(transparent)]
    Flow(#[from] FlowError),
    /// One of them is refused.
    #[error("{1}")]
    Refused(usize, SubmitRefusal),
    /// A key was used before for another body.
    #[error("the idempotency key was used before for another request, which became job {1}")]
    KeyReused(usize, JobId),
    /// Two of the list have one key.
    #[error("the idempotency key stands twice in this request; give each job one of its own")]
    KeyTwice(usize),
}

/// Called with the outcome of the round, once.
pub(super) type Acknowledge = Box<dyn FnOnce(Result<(), FlowError>) + Send>;
/// Drafts something, and says what to do when it is durable.
pub(super) type Write = Box<dyn FnOnce(&mut RoundDraft<'_>) -> Acknowledge + Send>;
/// Looks at the world after the round.
pub(super) type Read = Box<dyn FnOnce(&World) + Send>;

/// What the writer is asked to do.
pub(super) enum Command {
    /// Store jobs, all or none.
    Submit {
        submissions: Vec<Submission>,
        reply: oneshot::Sender<Result<Vec<Submitted>, SubmitError>>,
    },
    /// Change something.
    Write { write: Write, origin: Origin },
    /// Look at something.
    Read(Read),
}

/// Hands commands to the writer.
#[derive(Debug, Clone)]
pub struct WriterHandle {
    commands: mpsc::Sender<Command>,
    events: broadcast::Sender<EventRound>,
}

/// Events of one round, in order.
pub type EventRound = Arc<Vec<Arc<Event>>>;

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Command::Submit { .. } => "Submit",
            Command::Write { .. } => "Write",
            Command::Read(_) => "Read",
        })
    }
}

impl WriterHandle {
    pub(super) fn new(
        commands: mpsc::Sender<Command>,
        events: broadcast::Sender<EventRound>,
    ) -> Self {
        WriterHandle { commands, events }
    }

    /// Stores jobs, all or none; answers after they are durable.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn submit(
        &self,
        submissions: Vec<Submission>,
    ) -> Result<Vec<Submitted>, SubmitError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Submit { submissions, reply }).await?;
        answer.await.unwrap_or(Err(FlowError::NotCommitted.into()))
    }

    /// Runs `change` in the writer; answers what it returned after everything it drafted is durable.
    ///
    /// # Errors
    /// [`FlowError`]; then nothing of it happened.
    pub async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut RoundDraft<'_>) -> T + Send + 'static,
    ) -> Result<T, FlowError> {
        self.hear(Origin::Own, change).await
    }

    /// Like [`Self::write`], but does not wait: `then` is called with the result once it is durable.
    ///
    /// # Errors
    /// [`FlowError::Stopping`] if the writer is gone.
    pub async fn write_then<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut RoundDraft<'_>) -> T + Send + 'static,
        then: impl FnOnce(Result<T, FlowError>) + Send + 'static,
    ) -> Result<(), FlowError> {
        self.hear_then(Origin::Own, change, then).await
    }

    /// Like [`Self::write`], for what somebody else has said: if it makes the writer fail, that is laid aside.
    ///
    /// # Errors
    /// [`FlowError`]; then nothing of it happened.
    pub async fn hear<T: Send + 'static>(
        &self,
        origin: Origin,
        change: impl FnOnce(&mut RoundDraft<'_>) -> T + Send + 'static,
    ) -> Result<T, FlowError> {
        let (reply, answer) = oneshot::channel();
        let then = move |outcome| {
            // A caller that went away needs no answer.
            let _ = reply.send(outcome);
        };
        self.hear_then(origin, change, then).await?;
        answer.await.unwrap_or(Err(FlowError::NotCommitted))
    }

    /// Like [`Self::hear`], but does not wait, as [`Self::write_then`].
    ///
    /// # Errors
    /// [`FlowError::Stopping`] if the writer is gone.
    pub async fn hear_then<T: Send + 'static>(
        &self,
        origin: Origin,
        change: impl FnOnce(&mut RoundDraft<'_>) -> T + Send + 'static,
        then: impl FnOnce(Result<T, FlowError>) + Send + 'static,
    ) -> Result<(), FlowError> {
        let write: Write = Box::new(move |round| {
            let value = change(round);
            Box::new(move |outcome| then(outcome.map(|()| value)))
        });
        self.send(Command::Write { write, origin }).await
    }

    /// Looks at the world between two rounds.
    ///
    /// # Errors
    /// [`FlowError::Stopping`] if the writer is gone.
    pub async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&World) -> T + Send + 'static,
    ) -> Result<T, FlowError> {
        let (reply, answer) = oneshot::channel();
        let read: Read = Box::new(move |world| {
            // A caller that went away needs no answer.
            let _ = reply.send(look(world));
        });
        self.send(Command::Read(read)).await?;
        answer.await.map_err(|_| FlowError::NotCommitted)
    }

    /// Events as they are committed.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<EventRound> {
        self.events.subscribe()
    }

    async fn send(&self, command: Command) -> Result<(), FlowError> {
        self.commands.send(command).await.map_err(|_| FlowError::Stopping)
    }
}
