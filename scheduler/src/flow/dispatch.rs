//! Dispatch: one bounded outbox a worker, filled from what the state says the worker must be told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use gotgan_core::attempt::{Attempt, AttemptState};
use gotgan_core::change::Change;
use gotgan_core::ids::{AttemptId, Epoch, GpuUuid, NodeName};
use gotgan_core::lifecycle::orders::{self, Order};
use gotgan_core::lifecycle::{self, Check};
use gotgan_core::world::World;
use gotgan_proto::v1::SchedulerMessage;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::orders::{OrderWriter, Source};
use crate::planted;

/// Messages that may wait for one worker. A worker that reads so slowly is cut off; when it comes back, its orders
/// are derived again.
pub const OUTBOX_MAX: usize = 4_096;

/// Tells workers what they must be told.
#[derive(Debug)]
pub struct Dispatcher {
    outboxes: Mutex<BTreeMap<NodeName, Outbox>>,
    /// Attempts that have not ended; their processes may call back.
    live: RwLock<BTreeSet<AttemptId>>,
    /// Nodes the world has, whether or not they are connected.
    nodes: AtomicUsize,
    writer: OrderWriter,
}

/// What a worker is to be told. Boxed: a queue has room for 32 before anything is in it, which would be 27 KiB for each of
/// thousands of workers.
pub type OrderSender = mpsc::Sender<Box<SchedulerMessage>>;

/// The way to one worker.
#[derive(Debug)]
struct Outbox {
    /// Number of the session, so that an old one cannot close a new one.
    session: u64,
    messages: OrderSender,
    /// Orders sent in this session; each is sent once.
    sent: BTreeSet<(AttemptId, OrderKey)>,
    /// Orders to cut GPUs sent in this session, by the moment of their plan.
    cuts: BTreeSet<(GpuUuid, i64)>,
    /// Order to check hardware that was sent last in this session.
    check: Option<Check>,
}

/// Which order about an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum OrderKey {
    Run,
    Start,
    Step(u32),
    Stop,
    Forget,
}

impl Dispatcher {
    /// A dispatcher without workers.
    #[must_use]
    pub fn new(writer: OrderWriter) -> Self {
        let (outboxes, live, nodes) = Default::default();
        Dispatcher { outboxes, live, nodes, writer }
    }

    /// Takes the attempts and the number of nodes of a world that was loaded.
    pub fn reset(&self, world: &World) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        *live = world.attempts.keys().copied().collect();
        self.nodes.store(world.nodes.len(), Ordering::Relaxed);
    }

    /// Nodes there are, whether or not they are connected.
    #[must_use]
    pub fn known_nodes(&self) -> usize {
        self.nodes.load(Ordering::Relaxed)
    }

    /// Whether the attempt has not ended.
    #[must_use]
    pub fn is_live(&self, attempt: AttemptId) -> bool {
        self.live.read().unwrap_or_else(PoisonError::into_inner).contains(&attempt)
    }

    /// A worker's stream is there; an older session of the node is cut off.
    pub fn attach(&self, node: &NodeName, session: u64, messages: OrderSender) {
        let mut outboxes = self.lock();
        let newer = outboxes.get(node).is_some_and(|present| present.session > session);
        if !newer {
            let (sent, cuts) = (BTreeSet::new(), BTreeSet::new());
            let outbox = Outbox { session, messages, sent, cuts, check: None };
            outboxes.insert(node.clone(), outbox);
        }
    }

    /// Ends the node's stream; its worker opens another, registers again, and is told everything anew.
    pub fn cut(&self, node: &NodeName) {
        self.lock().remove(node);
    }

    /// Ends every stream.
    pub fn close(&self) {
        self.lock().clear();
    }

    /// Tells every worker everything again; after a round of which it is not known what was sent.
    pub fn redrive(&self, world: &World, epoch: Epoch) {
        let (mut outboxes, mut source) = (self.lock(), Source::new(world, epoch));
        let nodes: Vec<NodeName> = outboxes.keys().cloned().collect();
        for node in nodes {
            if let Some(outbox) = outboxes.get_mut(&node) {
                outbox.sent.clear();
                outbox.cuts.clear();
                outbox.check = None;
            }
            for order in orders::for_node(world, &node, &[]) {
                self.send_order(&mut outboxes, &mut source, &node, order);
            }
            send_for_hardware(&mut outboxes, world, epoch, &node);
        }
    }

    /// A worker's stream is gone. Returns whether it was the node's present one.
    pub fn detach(&self, node: &NodeName, session: u64) -> bool {
        let mut outboxes = self.lock();
        let present = outboxes.get(node).is_some_and(|outbox| outbox.session == session);
        if present {
            outboxes.remove(node);
        }
        present
    }

    /// Whether `session` is the node's present one.
    #[must_use]
    pub fn is_present(&self, node: &NodeName, session: u64) -> bool {
        self.lock().get(node).is_some_and(|outbox| outbox.session == session)
    }

    /// Whether the node has a stream.
    #[must_use]
    pub fn is_connected(&self, node: &NodeName) -> bool {
        self.lock().contains_key(node)
    }

    /// Streams there are.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.lock().len()
    }

    /// Sends one message that is no order. False if the node has no stream or does not read.
    pub fn send(&self, node: &NodeName, message: SchedulerMessage) -> bool {
        let mut outboxes = self.lock();
        put(&mut outboxes, node, message)
    }

    /// Tells a node that has just registered everything it must be told.
    pub fn catch_up(
        &self,
        world: &World,
        epoch: Epoch,
        node: &NodeName,
        held: &[(AttemptId, bool)],
    ) {
        let orders = orders::for_node(world, node, held);
        let (mut outboxes, mut source) = (self.lock(), Source::new(world, epoch));
        for order in orders {
            self.send_order(&mut outboxes, &mut source, node, order);
        }
        send_for_hardware(&mut outboxes, world, epoch, node);
    }

    /// Tells every worker what follows from the changes just committed.
    pub fn after_commit(&self, world: &World, epoch: Epoch, changes: &[Change]) {
        self.nodes.store(world.nodes.len(), Ordering::Relaxed);
        let touched: BTreeSet<AttemptId> = changes.iter().filter_map(attempt_of).collect();
        let ended = changes.iter().filter_map(|change| match change {
            Change::AttemptMoved(attempt) if attempt.state == AttemptState::Ended => Some(attempt),
            _ => None,
        });
        let ended: BTreeMap<AttemptId, &Arc<Attempt>> =
            ended.map(|attempt| (attempt.id, attempt)).collect();
        self.order_for_hardware(world, epoch, changes);
        if touched.is_empty() {
            return;
        }
        self.note_live(changes);
        let (mut outboxes, mut source) = (self.lock(), Source::new(world, epoch));
        for id in touched {
            if let Some(attempt) = world.attempts.get(&id) {
                for (node, order) in orders::for_attempt(world, attempt) {
                    self.send_order(&mut outboxes, &mut source, &node, order);
                }
            } else if let Some(attempt) = ended.get(&id) {
                for allocation in &attempt.placement.nodes {
                    let order = Order::Forget(id);
                    self.send_order(&mut outboxes, &mut source, &allocation.node, order);
                }
            }
        }
    }

    /// Tells workers which GPUs to cut and what to check, where that is due since then or something has let go of GPUs.
    fn order_for_hardware(&self, world: &World, epoch: Epoch, changes: &[Change]) {
        let mut nodes: BTreeSet<&NodeName> = BTreeSet::new();
        for change in changes {
            match change {
                Change::NodeHealth { node, .. } | Change::NodeLeftovers { node, .. } => {
                    nodes.insert(node);
                }
                Change::AttemptMoved(attempt) if attempt.state == AttemptState::Ended => {
                    nodes.extend(attempt.placement.nodes.iter().map(|place| &place.node));
                }
                _ => {}
            }
        }
        let has_any = |node: &&NodeName| {
            let health = world.nodes.get(*node).map(|known| &known.health);
            health.is_some_and(|health| !health.cuts.is_empty() || health.is_verifying())
        };
        for node in nodes.into_iter().filter(has_any) {
            send_for_hardware(&mut self.lock(), world, epoch, node);
        }
    }

    fn note_live(&self, changes: &[Change]) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            match change {
                Change::AttemptLeased(attempt) => {
                    live.insert(attempt.id);
                }
                Change::AttemptMoved(attempt) if attempt.state == AttemptState::Ended => {
                    live.remove(&attempt.id);
                }
                _ => {}
            }
        }
    }

    /// Sends an order unless it was sent in this session.
    fn send_order(
        &self,
        outboxes: &mut BTreeMap<NodeName, Outbox>,
        source: &mut Source<'_>,
        node: &NodeName,
        order: Order,
    ) {
        let key = key_of(&order);
        let Some(outbox) = outboxes.get_mut(node) else {
            return;
        };
        if key.1 == OrderKey::Forget {
            outbox.sent.retain(|(attempt, _)| *attempt != key.0);
        } else if !outbox.sent.insert(key) {
            return;
        }
        if let Some(message) = self.writer.message(source, node, order).and_then(planted::order) {
            if let Some(other) = planted::also(&message, node, outboxes.keys()) {
                put(outboxes, &other, message.clone());
            }
            put(outboxes, node, message);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeName, Outbox>> {
        self.outboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Orders the cuts and the check that are due on the node, each once in a session.
fn send_for_hardware(
    outboxes: &mut BTreeMap<NodeName, Outbox>,
    world: &World,
    epoch: Epoch,
    node: &NodeName,
) {
    for (gpu, plan) in lifecycle::cuts_due(world, node) {
        let Some(outbox) = outboxes.get_mut(node) else { return };
        if outbox.cuts.insert((gpu.clone(), plan.since.0)) {
            put(outboxes, node, super::orders::cut(epoch, &gpu, &plan));
        }
    }
    let Some(outbox) = outboxes.get_mut(node) else { return };
    let due = lifecycle::check_due(world, node).filter(|due| outbox.check.as_ref() != Some(due));
    if let Some(due) = due {
        let message = super::orders::check(epoch, &due);
        outbox.check = Some(due);
        put(outboxes, node, message);
    }
}

/// Puts a message into the node's outbox; a full one is closed, and one that nobody reads any more is removed.
fn put(
    outboxes: &mut BTreeMap<NodeName, Outbox>,
    node: &NodeName,
    message: SchedulerMessage,
) -> bool {
    let Some(outbox) = outboxes.get(node) else {
        return false;
    };
    match outbox.messages.try_send(Box::new(message)) {
        Ok(()) => return true,
        Err(TrySendError::Full(_)) => {
            tracing::warn!(%node, "the worker does not read its orders; its stream is closed");
        }
        // The stream has just ended; who listens to it says so.
        Err(TrySendError::Closed(_)) => {}
    }
    outboxes.remove(node);
    false
}

fn key_of(order: &Order) -> (AttemptId, OrderKey) {
    match order {
        Order::Run { attempt, .. } => (attempt.id, OrderKey::Run),
        Order::Start(id) => (*id, OrderKey::Start),
        Order::StartTasks(step) => (step.attempt, OrderKey::Step(step.number)),
        Order::Stop(id, _) => (*id, OrderKey::Stop),
        Order::Forget(id) => (*id, OrderKey::Forget),
    }
}

fn attempt_of(change: &Change) -> Option<AttemptId> {
    match change {
        Change::AttemptLeased(attempt) | Change::AttemptMoved(attempt) => Some(attempt.id),
        Change::StepCreated(step) => Some(step.attempt),
        Change::JobSubmitted(_)
        | Change::JobMoved { .. }
        | Change::TaskMoved { .. }
        | Change::Booked(_)
        | Change::NodeRegistered(_)
        | Change::NodeAdministered { .. }
        | Change::NodeHealth { .. }
        | Change::BreakerMoved(_)
        | Change::PassRecorded(_)
        | Change::WindowMoved(_)
        | Change::NodeHeard { .. }
        | Change::NodeLeftovers { .. }
        | Change::QuotaApplied { .. }
        | Change::QuotaAudited(_)
        | Change::QuotaApproved(_)
        | Change::QuotaAlerted(_)
        | Change::QuotaTurned { .. }
        | Change::Happened(_) => None,
    }
}
