//! Holds attempts until their GPUs are as ordered and the site's programs have ended: the answer to an order until the prolog has,
//! the last event until the epilog has. So no GPU is given to others before it is clean.
//!
//! An epilog runs for every attempt whose prolog was begun, whatever came of it, and for every attempt that was accepted.

use gotgan_proto::v1::RunAttempt;

use super::Supervisor;
use crate::attempt::{Event, Phase, Refusal};
use crate::exec::NodeContext;
use crate::handle::{Handle, Input};
use crate::held::AttemptKey;
use crate::hooks::{Kind, about};
use crate::journal::JournalError;
use crate::shim::protocol::ShimEvent;

/// What is held of an attempt while a hook runs.
#[derive(Debug)]
pub(super) enum Hooking {
    /// The prolog runs; an order to stop came meanwhile, perhaps.
    Prolog {
        /// That order.
        stop: Option<Event>,
    },
    /// The epilog runs, and this happens after it.
    Epilog {
        /// The attempt's last event.
        last: Event,
    },
}

impl Supervisor {
    /// Lets something happen to an attempt, after the hook that has to come before it.
    pub(super) async fn occur(
        &mut self,
        key: AttemptKey,
        event: Event,
    ) -> Result<(), JournalError> {
        match self.hold_for_hooks(key, event) {
            Some(event) => self.happen(key, event).await,
            None => Ok(()),
        }
    }

    fn hold_for_hooks(&mut self, key: AttemptKey, event: Event) -> Option<Event> {
        let Some(phase) = self.attempts.get(&key).map(|attempt| attempt.phase) else {
            return Some(event);
        };
        match (self.hooking.get_mut(&key), event) {
            (Some(Hooking::Prolog { stop }), order @ Event::StopOrdered(_)) => {
                stop.get_or_insert(order);
                None
            }
            // Of what does not run yet there is nothing to stop but what is being cleaned up.
            (Some(Hooking::Epilog { .. }), Event::StopOrdered(_)) if phase != Phase::Active => None,
            (Some(Hooking::Prolog { stop }), Event::Prepared(result)) => {
                let (stop, failed) = (stop.take(), result.is_err());
                self.hooking.remove(&key);
                match stop {
                    Some(stop) => self.clean_up(key, stop),
                    None if failed => self.clean_up(key, Event::Prepared(result)),
                    None => Some(Event::Prepared(result)),
                }
            }
            (None, stop @ Event::StopOrdered(_)) if phase == Phase::Waiting => {
                self.clean_up(key, stop)
            }
            (None, last) if phase == Phase::Active && is_last(&last) => self.clean_up(key, last),
            (_, event) => Some(event),
        }
    }

    /// The prolog is about to run.
    pub(super) fn begin_prolog(&mut self, key: AttemptKey) {
        if self.context.hooks.has(Kind::Prolog) || self.needs_hardware(key) {
            self.hooking.entry(key).or_insert(Hooking::Prolog { stop: None });
        }
    }

    /// Whether GPUs of the attempt are capped or share memory across nodes.
    fn needs_hardware(&self, key: AttemptKey) -> bool {
        self.order(key).is_some_and(|order| order.gpu_cap_watts > 0 || order.imex_channel > 0)
    }

    /// Runs the epilog and takes caps and the channel back before an attempt's last event; gives it back at once where there is none.
    fn clean_up(&mut self, key: AttemptKey, last: Event) -> Option<Event> {
        let cleans = self.context.hooks.has(Kind::Epilog) || self.needs_hardware(key);
        let order = self.order(key).filter(|_| cleans);
        let Some(order) = order else { return Some(last) };
        let about = about(&self.context.node, &self.context.attempts, order);
        let channel = order.imex_channel;
        let (context, handle) = (self.context.clone(), self.handle.clone());
        self.hooking.insert(key, Hooking::Epilog { last });
        tokio::spawn(async move {
            let outcome = context.hooks.run(Kind::Epilog, about).await;
            // Also after an epilog that failed: a person takes the node back, and nobody would think of this.
            let outcome = outcome.and(context.power.release(key).await);
            let outcome = outcome.and(context.imex.close(channel));
            // Fails only when the daemon ends; the next one cleans up again.
            let _ = handle.tell(Input::CleanedUp(key, outcome)).await;
        });
        None
    }

    /// The epilog has ended: what was held for it happens.
    pub(super) async fn cleaned_up(
        &mut self,
        key: AttemptKey,
        outcome: Result<(), String>,
    ) -> Result<(), JournalError> {
        let Some(Hooking::Epilog { last }) = self.hooking.remove(&key) else {
            return Ok(());
        };
        if let Err(reason) = outcome {
            tracing::error!(?key, reason, "not clean after an attempt: this node is to be drained");
            self.happen(key, Event::Unfit(reason)).await?;
        }
        self.happen(key, last).await
    }
}

/// A node whose prolog fails, whose GPUs are not capped or whose IMEX channel is not to be had, is to be drained; the attempt
/// goes back to the queue unharmed.
pub(super) async fn run_prolog(
    key: AttemptKey,
    context: &NodeContext,
    order: &RunAttempt,
    handle: &Handle,
) -> Result<(), Refusal> {
    let Err(reason) = prepare_hardware(context, order).await else { return Ok(()) };
    tracing::error!(?key, reason, "not ready for an attempt: this node is to be drained");
    // Fails only when the daemon ends.
    let _ = handle.tell(Input::Event(key, Box::new(Event::Unfit(reason.clone())))).await;
    Err(Refusal::of_node(reason))
}

/// The site's program looks at GPUs that are capped and have their channel.
async fn prepare_hardware(context: &NodeContext, order: &RunAttempt) -> Result<(), String> {
    context.power.cap(order).await?;
    open_channel(context, order).await?;
    let about = about(&context.node, &context.attempts, order);
    context.hooks.run(Kind::Prolog, about).await
}

async fn open_channel(context: &NodeContext, order: &RunAttempt) -> Result<(), String> {
    if order.imex_channel == 0 {
        return Ok(());
    }
    let (imex, confining) = (context.imex.clone(), context.confining.clone());
    let order = order.clone();
    // The system is asked for the user.
    let opening = move || imex.open(&order, confining.user_of(&order)?.as_ref());
    tokio::task::spawn_blocking(opening).await.map_err(|error| error.to_string())?
}

fn is_last(event: &Event) -> bool {
    match event {
        Event::Shim { event, .. } => matches!(event, ShimEvent::Ended { .. }),
        Event::ShimLost(_) => true,
        Event::Ordered(_)
        | Event::Prepared(_)
        | Event::StartOrdered
        | Event::StopOrdered(_)
        | Event::TasksOrdered(_)
        | Event::Unfit(_)
        | Event::Recovered { .. }
        | Event::Acked(_)
        | Event::ForgetOrdered => false,
    }
}
