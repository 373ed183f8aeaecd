//! What is heard of nodes: when they last beat and what they read. Kept in memory only.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use gotgan_core::amount::UnixMicros;
use gotgan_core::ids::NodeName;
use gotgan_proto::v1::GpuReading;

/// The newest beat of every node.
#[derive(Debug, Default)]
pub struct Telemetry {
    nodes: Mutex<BTreeMap<NodeName, Heard>>,
}

/// The newest beat of one node.
#[derive(Debug, Clone)]
pub struct Heard {
    /// By the scheduler's monotonic clock, for deciding.
    pub when: Instant,
    /// By the scheduler's wall clock, for showing.
    pub at: UnixMicros,
    /// What it read.
    pub readings: Vec<GpuReading>,
}

impl Telemetry {
    /// A beat (or a registration) came.
    pub fn heard(&self, node: &NodeName, at: UnixMicros, readings: Option<Vec<GpuReading>>) {
        let mut nodes = self.lock();
        let when = Instant::now();
        match nodes.get_mut(node) {
            Some(heard) => {
                heard.when = when;
                heard.at = at;
                if let Some(readings) = readings {
                    heard.readings = readings;
                }
            }
            None => {
                let readings = readings.unwrap_or_default();
                nodes.insert(node.clone(), Heard { when, at, readings });
            }
        }
    }

    /// The newest beat of a node.
    #[must_use]
    pub fn of(&self, node: &NodeName) -> Option<Heard> {
        self.lock().get(node).cloned()
    }

    /// When each node was heard last.
    #[must_use]
    pub fn last_heard(&self) -> BTreeMap<NodeName, Instant> {
        self.lock().iter().map(|(node, heard)| (node.clone(), heard.when)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeName, Heard>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
