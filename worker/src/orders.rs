//! The scheduler's orders as events of attempts, and what must be durable. Pure.

use gotgan_proto::v1::scheduler_message::Message as Order;

use crate::attempt::Event;
use crate::held::{AttemptKey, Entry};

/// Acknowledgements and forgetting may be lost: they come again. Of what was measured the last minute may be lost.
pub fn needs_sync(entry: &Entry) -> bool {
    match entry {
        Entry::Acked(_)
        | Entry::Forgotten(_)
        | Entry::Epoch(_)
        | Entry::FindingsAcked(_)
        | Entry::Uncorrected(_)
        | Entry::LogRead(_)
        | Entry::Measured(_) => false,
        Entry::Snapshot(_)
        | Entry::Ordered(_)
        | Entry::StartOrdered(_)
        | Entry::StopOrdered(_)
        | Entry::TasksOrdered(_)
        | Entry::Reported(_)
        | Entry::Boot(_)
        | Entry::FindingsBegun(_)
        | Entry::Found(_) => true,
    }
}

/// The leader's epoch an order carries, if it carries one.
pub fn epoch_of(order: &Order) -> Option<u64> {
    match order {
        Order::Registered(order) => Some(order.epoch),
        Order::RunAttempt(order) => Some(order.epoch),
        Order::StartAttempt(order) => Some(order.epoch),
        Order::StopAttempt(order) => Some(order.epoch),
        Order::StartTasks(order) => Some(order.epoch),
        Order::ForgetAttempt(order) => Some(order.epoch),
        Order::CutGpu(order) => Some(order.epoch),
        Order::CheckHardware(order) => Some(order.epoch),
        Order::ReportAck(_) | Order::FindingAck(_) | Order::ReadLog(_) => None,
    }
}

/// What an order means to which attempt; `None` for orders that are about none.
pub fn event_of(order: Order) -> Option<(AttemptKey, Event)> {
    Some(match order {
        Order::RunAttempt(order) => {
            (AttemptKey::new(order.job_id, order.attempt), Event::Ordered(Box::new(order)))
        }
        Order::StartAttempt(order) => {
            (AttemptKey::new(order.job_id, order.attempt), Event::StartOrdered)
        }
        Order::StopAttempt(order) => {
            (AttemptKey::new(order.job_id, order.attempt), Event::StopOrdered(order))
        }
        Order::StartTasks(order) => {
            (AttemptKey::new(order.job_id, order.attempt), Event::TasksOrdered(order))
        }
        Order::ReportAck(ack) => (AttemptKey::new(ack.job_id, ack.attempt), Event::Acked(ack.seq)),
        Order::ForgetAttempt(order) => {
            (AttemptKey::new(order.job_id, order.attempt), Event::ForgetOrdered)
        }
        Order::Registered(_)
        | Order::FindingAck(_)
        | Order::ReadLog(_)
        | Order::CutGpu(_)
        | Order::CheckHardware(_) => return None,
    })
}
