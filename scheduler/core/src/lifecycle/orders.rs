//! What a worker must be told now, derived from the state alone.
//!
//! An order that was lost, or sent by a leader that is gone, is derived again when the worker reconnects or the
//! repair loop looks; workers treat a repeated order as done.

use std::sync::Arc;

use crate::attempt::{Attempt, AttemptState, Progress, Stop};
use crate::ids::{AttemptId, NodeName};
use crate::step::{Step, TaskState};
use crate::world::World;

use super::node::is_live_on;

/// One thing a worker is told about one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Take it in and prepare; with `start_now` also start.
    Run {
        /// Which attempt, with its placement.
        attempt: Arc<Attempt>,
        /// Step 0 with the tasks of all nodes.
        step: Arc<Step>,
        /// There is nobody to wait for.
        start_now: bool,
    },
    /// Every node has it: begin.
    Start(AttemptId),
    /// Start the node's tasks of a further step.
    StartTasks(Arc<Step>),
    /// End it.
    Stop(AttemptId, Stop),
    /// It is settled; drop it from the journal.
    Forget(AttemptId),
}

/// Orders for the part of `attempt` on the node of that rank.
#[must_use]
pub fn for_member(world: &World, attempt: &Arc<Attempt>, rank: usize) -> Vec<Order> {
    let Some(member) = attempt.members.get(rank) else {
        return Vec::new();
    };
    let node = attempt.placement.nodes.get(rank).map(|allocation| &allocation.node);
    match (&member.progress, &attempt.stop) {
        (Progress::Ended(_), _) => Vec::new(),
        (_, Some(stop)) => vec![Order::Stop(attempt.id, stop.clone())],
        (Progress::Leased, None) => run_order(world, attempt).into_iter().collect(),
        (Progress::Accepted, None) if may_start(attempt) => vec![Order::Start(attempt.id)],
        (Progress::Accepted, None) => Vec::new(),
        (Progress::Running, None) => {
            node.map(|node| step_orders(world, attempt.id, node)).unwrap_or_default()
        }
    }
}

fn run_order(world: &World, attempt: &Arc<Attempt>) -> Option<Order> {
    let step = world.steps.get(&(attempt.id, 0))?;
    Some(Order::Run {
        attempt: Arc::clone(attempt),
        step: Arc::clone(step),
        start_now: attempt.members.len() == 1,
    })
}

/// A gang starts once every member has accepted; a lone node starts by itself.
fn may_start(attempt: &Attempt) -> bool {
    match attempt.state {
        AttemptState::Accepted | AttemptState::Prolog | AttemptState::Running => {
            attempt.members.len() > 1
        }
        AttemptState::Leased | AttemptState::Stopping | AttemptState::Ended => false,
    }
}

/// Further steps that have tasks on the node nobody has reported on yet.
fn step_orders(world: &World, attempt: AttemptId, node: &NodeName) -> Vec<Order> {
    let waits = |step: &Step| {
        step.tasks.iter().any(|task| task.node == *node && task.state == TaskState::Pending)
    };
    world
        .steps
        .range((attempt, 1)..=(attempt, u32::MAX))
        .filter(|(_, step)| waits(step))
        .map(|(_, step)| Order::StartTasks(Arc::clone(step)))
        .collect()
}

/// Orders for every node of an attempt.
#[must_use]
pub fn for_attempt(world: &World, attempt: &Arc<Attempt>) -> Vec<(NodeName, Order)> {
    let nodes = attempt.placement.nodes.iter().enumerate();
    nodes
        .flat_map(|(rank, allocation)| {
            let orders = for_member(world, attempt, rank).into_iter();
            orders.map(|order| (allocation.node.clone(), order))
        })
        .collect()
}

/// Everything a node must be told that holds these attempts in its journal (true: ended there).
#[must_use]
pub fn for_node(world: &World, node: &NodeName, held: &[(AttemptId, bool)]) -> Vec<Order> {
    let Some(known) = world.nodes.get(node) else {
        return Vec::new();
    };
    let live = known.attempts.iter().filter_map(|id| world.attempts.get(id));
    let mut orders: Vec<Order> = live
        .filter_map(|attempt| Some(for_member(world, attempt, attempt.rank_of(node)?)))
        .flatten()
        .collect();
    for (id, ended) in held {
        if is_live_on(world, *id, node) {
            continue;
        }
        orders.push(if *ended { Order::Forget(*id) } else { stop_leftover(*id) });
    }
    orders
}

/// Ends what still runs of an attempt that has ended in the books; nobody is there to be warned.
#[must_use]
pub fn stop_leftover(id: AttemptId) -> Order {
    let stop = Stop {
        cause: crate::attempt::Cause::Site,
        reason: "the attempt has ended in the books".to_owned(),
        exit: None,
        grace_s: 0,
    };
    Order::Stop(id, stop)
}
