//! One try of a job, and how far each node of its gang has come.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::amount::{CpuMilli, GpuMilli, MemoryMib, UnixMicros};
use crate::ids::{AttemptId, Epoch, GpuClass, GpuUuid, NodeName, ProjectPath};
use crate::imex::ImexLease;
use crate::measured::MeasuredUse;
use crate::meter::{Footing, Meter};

/// An attempt with everything that changes about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Job and number.
    pub id: AttemptId,
    /// Who pays.
    pub project: ProjectPath,
    /// What it holds.
    pub placement: Arc<Placement>,
    /// Leadership that leased it.
    pub epoch: Epoch,
    /// When it was given its resources; charged from here.
    pub leased: UnixMicros,
    /// Set aside in the ledger for the slice that it runs in.
    pub hold: crate::amount::GpuMilliSeconds,
    /// How far it is paid.
    pub meter: Meter,
    /// State as a machine sees it.
    pub state: AttemptState,
    /// When its first process was there.
    pub started: Option<UnixMicros>,
    /// When nothing of it was left; charged up to here.
    pub ended: Option<UnixMicros>,
    /// How far each node has come, in rank order.
    pub members: Vec<Member>,
    /// It has been told to stop, and why.
    pub stop: Option<Stop>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Number the next `gotgan run` step gets; 0 is the script or the command.
    pub next_step: u32,
    /// What its GPUs did, of the nodes on which it has ended; `None` if they told nothing.
    pub measured: Option<MeasuredUse>,
    /// When its owner was told that its GPUs do nothing.
    pub idle_told: Option<UnixMicros>,
}

impl Attempt {
    /// GPUs it holds over all nodes.
    #[must_use]
    pub fn gpus(&self) -> GpuMilli {
        self.placement.gpus()
    }

    /// Its place among the attempts of its project, of which the last are stopped first: by the lease, those beyond a
    /// budget after all others, and scavengers after those.
    #[must_use]
    pub fn place_in_line(&self) -> (Footing, UnixMicros, AttemptId) {
        (self.meter.footing, self.leased, self.id)
    }

    /// Place of `node` in the gang.
    #[must_use]
    pub fn rank_of(&self, node: &NodeName) -> Option<usize> {
        self.placement.nodes.iter().position(|allocation| allocation.node == *node)
    }

    /// Whether every node of the gang has nothing of it left.
    #[must_use]
    pub fn all_members_ended(&self) -> bool {
        self.members.iter().all(|member| matches!(member.progress, Progress::Ended(_)))
    }
}

/// Nodes and GPUs given to an attempt; immutable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Class of its GPUs; `None` if it has none.
    pub class: Option<GpuClass>,
    /// In rank order.
    pub nodes: Vec<NodeAllocation>,
    /// The most that each of its GPUs may draw while it holds them, watts; `None`: they are not capped. Set when it started, and
    /// the same until it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_cap_watts: Option<u32>,
}

impl Placement {
    /// GPUs over all nodes.
    #[must_use]
    pub fn gpus(&self) -> GpuMilli {
        self.nodes.iter().map(NodeAllocation::gpus_held).sum()
    }
}

/// What an attempt holds on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAllocation {
    /// Which node.
    pub node: NodeName,
    /// GPUs, by index.
    pub gpus: Vec<GpuAllocation>,
    /// CPUs.
    pub cpu_milli: CpuMilli,
    /// Memory.
    pub memory_mib: MemoryMib,
    /// Channel through which it shares memory of its GPUs with its other nodes of the NVLink domain; `None`: it has none. Leased
    /// when it started, and the same until it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imex: Option<ImexLease>,
}

impl NodeAllocation {
    /// GPUs held on the node.
    #[must_use]
    pub fn gpus_held(&self) -> GpuMilli {
        self.gpus.iter().map(|gpu| gpu.milli).sum()
    }
}

/// One GPU, or a share of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuAllocation {
    /// As its driver names it.
    pub uuid: GpuUuid,
    /// 1000 for a whole one.
    pub milli: GpuMilli,
}

/// How far one node of the gang has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Number of the newest report of this node folded in; older ones are repetitions.
    pub last_seq: u64,
    /// How far.
    pub progress: Progress,
}

/// How far one node has come with its part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// Not confirmed yet.
    Leased,
    /// In the worker's journal, node prepared.
    Accepted,
    /// Has living processes (or stands by for steps).
    Running,
    /// Nothing is left there.
    Ended(MemberEnd),
}

/// How the part of one node ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberEnd {
    /// Why.
    pub cause: Cause,
    /// Of its script or its worst task, if one ran there.
    pub exit: Option<ExitStatus>,
    /// One line.
    pub detail: String,
    /// When, by the worker's clock but never before the lease nor after the scheduler's present.
    pub at: UnixMicros,
    /// It ended by what happened there, not because the attempt was being stopped.
    pub own: bool,
}

/// An order to stop, decided once and repeated until obeyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Becomes the attempt's cause.
    pub cause: Cause,
    /// Shown to the user.
    pub reason: String,
    /// Exit of the task that brought it down, if one did.
    pub exit: Option<ExitStatus>,
    /// Between SIGTERM and SIGKILL, seconds.
    pub grace_s: u32,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Decides retry and payer.
    pub cause: Cause,
    /// Of the deciding task.
    pub exit: Option<ExitStatus>,
    /// One line: which rank, node or rule.
    pub detail: String,
}

/// Why an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The job's own doing.
    User,
    /// A GPU or another part of the machine.
    Hardware,
    /// The node or its daemon.
    Node,
    /// The network between nodes.
    Network,
    /// The site.
    Site,
    /// A job with a better claim.
    Preempted,
    /// The time limit.
    Limit,
    /// More memory than it had asked for, by the word of the node's kernel.
    OutOfMemory,
}

impl Cause {
    /// All causes.
    pub const ALL: [Cause; 8] = [
        Cause::User,
        Cause::Hardware,
        Cause::Node,
        Cause::Network,
        Cause::Site,
        Cause::Preempted,
        Cause::Limit,
        Cause::OutOfMemory,
    ];

    /// The word in listings, in the store and in the ledger's accounts.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Cause::User => "user",
            Cause::Hardware => "hardware",
            Cause::Node => "node",
            Cause::Network => "network",
            Cause::Site => "site",
            Cause::Preempted => "preempted",
            Cause::Limit => "limit",
            Cause::OutOfMemory => "out_of_memory",
        }
    }

    /// The cause of that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.word() == word)
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl ExitStatus {
    /// Whether it ended with code 0.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == ExitStatus::Code(0)
    }
}

impl std::fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ExitStatus::Code(code) => write!(f, "exit code {code}"),
            ExitStatus::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// State of an attempt as a machine sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// Holds resources; not every worker has confirmed.
    Leased,
    /// Every worker has it in its journal.
    Accepted,
    /// Nodes are being prepared.
    Prolog,
    /// Processes run.
    Running,
    /// Told to stop; something is left.
    Stopping,
    /// Nothing is left; resources are free again.
    Ended,
}

impl AttemptState {
    /// All states, in the order of life.
    pub const ALL: [AttemptState; 6] = [
        AttemptState::Leased,
        AttemptState::Accepted,
        AttemptState::Prolog,
        AttemptState::Running,
        AttemptState::Stopping,
        AttemptState::Ended,
    ];

    /// The word in listings and in the store.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            AttemptState::Leased => "leased",
            AttemptState::Accepted => "accepted",
            AttemptState::Prolog => "prolog",
            AttemptState::Running => "running",
            AttemptState::Stopping => "stopping",
            AttemptState::Ended => "ended",
        }
    }

    /// The state of that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }
}

/// What can happen to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEvent {
    /// Every worker has it in its journal.
    AllAccepted,
    /// Preparation began on its nodes.
    PrologBegan,
    /// Its first process is there.
    Started,
    /// It was told to stop.
    StopOrdered,
    /// Nothing is left on any node.
    AllEnded,
}

impl AttemptEvent {
    /// All events.
    pub const ALL: [AttemptEvent; 5] = [
        AttemptEvent::AllAccepted,
        AttemptEvent::PrologBegan,
        AttemptEvent::Started,
        AttemptEvent::StopOrdered,
        AttemptEvent::AllEnded,
    ];
}

/// A move that the state machine does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an attempt in state {} cannot take the event {event:?}", state.word())]
pub struct IllegalAttemptMove {
    /// Where it stood.
    pub state: AttemptState,
    /// What was to happen.
    pub event: AttemptEvent,
}

/// The state after `event`.
///
/// # Errors
/// [`IllegalAttemptMove`] if the machine has no such move.
pub fn transition(
    state: AttemptState,
    event: AttemptEvent,
) -> Result<AttemptState, IllegalAttemptMove> {
    use AttemptEvent as E;
    use AttemptState as S;
    match (state, event) {
        (S::Leased, E::AllAccepted) => Ok(S::Accepted),
        (S::Accepted, E::PrologBegan) => Ok(S::Prolog),
        // A worker that accepts has prepared its node already, so a start may follow at once; a report of the
        // start may also overtake the other members' acceptances when a stream was cut.
        (S::Leased | S::Accepted | S::Prolog, E::Started) => Ok(S::Running),
        (S::Leased | S::Accepted | S::Prolog | S::Running, E::StopOrdered) => Ok(S::Stopping),
        (S::Leased | S::Accepted | S::Prolog | S::Running | S::Stopping, E::AllEnded) => {
            Ok(S::Ended)
        }
        (state, event) => Err(IllegalAttemptMove { state, event }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_attempt_takes_no_event_at_all() {
        for event in AttemptEvent::ALL {
            assert!(transition(AttemptState::Ended, event).is_err(), "{event:?}");
        }
    }

    #[test]
    fn an_attempt_never_moves_back() {
        for state in AttemptState::ALL {
            for event in AttemptEvent::ALL {
                if let Ok(next) = transition(state, event) {
                    assert!(next > state, "{state:?} {event:?} -> {next:?}");
                }
            }
        }
    }
}
