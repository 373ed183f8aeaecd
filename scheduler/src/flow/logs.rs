//! Output of tasks, read from the worker that has it, chunk by chunk on demand.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gotgan_core::ids::NodeName;
use gotgan_proto::v1::scheduler_message::Message;
use gotgan_proto::v1::{LogData, ReadLog, SchedulerMessage};
use tokio::sync::oneshot;

use super::dispatch::Dispatcher;

/// Beyond the wait the worker was asked for, this long for its answer to arrive.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// Reads waiting for workers; past that a reader is told to try again.
const READS_MAX: usize = 10_000;

/// Why output could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The node has no stream.
    #[error("node {0} is not connected; its output can be read when it is back")]
    NotConnected(NodeName),
    /// The node did not answer.
    #[error("node {0} did not answer in time; try again")]
    NoAnswer(NodeName),
    /// Too many reads are waiting.
    #[error("too many log reads are waiting; try again")]
    Busy,
}

/// Carries reads to workers and their answers back.
#[derive(Debug)]
pub struct LogRelay {
    dispatcher: Arc<Dispatcher>,
    next: AtomicU64,
    waiting: Mutex<BTreeMap<u64, Waiting>>,
}

/// A read that waits, and the node it was sent to.
#[derive(Debug)]
struct Waiting {
    node: NodeName,
    reply: oneshot::Sender<LogData>,
}

impl LogRelay {
    /// A relay over the workers' streams.
    #[must_use]
    pub fn new(dispatcher: Arc<Dispatcher>) -> Self {
        LogRelay { dispatcher, next: AtomicU64::new(1), waiting: Mutex::default() }
    }

    /// Reads once; `read.request` is filled in here.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn read(&self, node: &NodeName, mut read: ReadLog) -> Result<LogData, LogError> {
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        read.request = request;
        let patience = ANSWER_PATIENCE + Duration::from_millis(u64::from(read.wait_ms));
        let (reply, answer) = oneshot::channel();
        if !self.expect(request, Waiting { node: node.clone(), reply }) {
            return Err(LogError::Busy);
        }
        let message = SchedulerMessage { message: Some(Message::ReadLog(read)) };
        if !self.dispatcher.send(node, message) {
            self.give_up(request);
            return Err(LogError::NotConnected(node.clone()));
        }
        let outcome = tokio::time::timeout(patience, answer).await;
        self.give_up(request);
        outcome.ok().and_then(Result::ok).ok_or_else(|| LogError::NoAnswer(node.clone()))
    }

    /// The worker of a node answered. An answer from another node than the one asked is ignored.
    pub fn answered(&self, node: &NodeName, data: LogData) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.get(&data.request).is_none_or(|waits| waits.node != *node) {
            return;
        }
        if let Some(waits) = waiting.remove(&data.request) {
            // A reader that went away needs no answer.
            let _ = waits.reply.send(data);
        }
    }

    fn expect(&self, request: u64, waits: Waiting) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= READS_MAX {
            return false;
        }
        waiting.insert(request, waits);
        true
    }

    fn give_up(&self, request: u64) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&request);
    }
}
