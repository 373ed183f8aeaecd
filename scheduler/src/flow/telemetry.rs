//! What is heard of nodes: when they last beat, what they read and what GPUs of attempts did. Kept in memory only.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use gotgan_core::amount::UnixMicros;
use gotgan_core::attempt::{Attempt, Progress};
use gotgan_core::ids::{AttemptId, NodeName};
use gotgan_core::measured::{self, IdleBeats, MeasuredUse};
use gotgan_proto::v1::GpuReading;

use crate::clock;

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
    /// What GPUs of attempts there did.
    pub uses: BTreeMap<AttemptId, LiveUse>,
}

/// What a beat tells beside that the node lives.
#[derive(Debug, Clone, Default)]
pub struct Beat {
    /// What it read.
    pub readings: Vec<GpuReading>,
    /// What GPUs of attempts there did.
    pub uses: BTreeMap<AttemptId, LiveUse>,
}

/// What GPUs of an attempt did so far, on a node or on all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LiveUse {
    /// `None` if nothing is known.
    pub measured: Option<MeasuredUse>,
    /// Since how long all of them have done nothing, in milliseconds; 0 if one does something, or it is not known.
    pub idle_ms: u64,
}

impl Telemetry {
    /// A beat came, or a registration, which tells nothing more.
    pub fn heard(&self, node: &NodeName, at: UnixMicros, beat: Option<Beat>) {
        let mut nodes = self.lock();
        let when = clock::instant();
        let Some(heard) = nodes.get_mut(node) else {
            let Beat { readings, uses } = beat.unwrap_or_default();
            nodes.insert(node.clone(), Heard { when, at, readings, uses });
            return;
        };
        (heard.when, heard.at) = (when, at);
        if let Some(Beat { readings, uses }) = beat {
            (heard.readings, heard.uses) = (readings, uses);
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

    /// What the GPUs of an attempt did so far: on nodes where it has ended by its record, on the others by their beats.
    #[must_use]
    pub fn use_of(&self, attempt: &Attempt) -> LiveUse {
        let nodes = self.lock();
        let living = attempt.placement.nodes.iter().zip(&attempt.members);
        let living = living.filter(|(_, member)| !matches!(member.progress, Progress::Ended(_)));
        let told: Vec<(&NodeName, LiveUse)> = living
            .filter_map(|(place, _)| {
                Some((&place.node, *nodes.get(&place.node)?.uses.get(&attempt.id)?))
            })
            .collect();
        let measured = told.iter().map(|(_, told)| told.measured);
        let measured = MeasuredUse::sum([attempt.measured].into_iter().chain(measured));
        let idle = told.iter().map(|(node, told)| ((*node).clone(), told.idle_ms)).collect();
        LiveUse { measured, idle_ms: measured::idle_ms(attempt, &idle).unwrap_or(0) }
    }

    /// Nodes of which a beat tells that GPUs of an attempt have done nothing for so long.
    #[must_use]
    pub fn idle_for(&self, least_ms: u64) -> IdleBeats {
        let mut beats = IdleBeats::new();
        for (node, heard) in self.lock().iter() {
            for (id, told) in heard.uses.iter().filter(|(_, told)| told.idle_ms >= least_ms) {
                beats.entry(*id).or_default().insert(node.clone(), told.idle_ms);
            }
        }
        beats
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeName, Heard>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
