//! Every way the world can change.
//!
//! The scheduler decides by turning commands, reports and plans into lists of changes. A list is applied to the
//! world, written to the store in one transaction, and then applied to every replica. So the same list, replayed,
//! gives the same state. A change carries the new value whole, never a difference, so writing the last one of a
//! round for each object is enough.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::alert::Alert;
use crate::amount::UnixMicros;
use crate::attempt::Attempt;
use crate::health::{Breaker, NodeHealth};
use crate::ids::{AttemptId, Epoch, JobId, NodeName};
use crate::job::{Job, JobState, JobStatus};
use crate::ledger::LedgerEntry;
use crate::node::{Admin, Inventory, Liveness};
use crate::precedence::{PassSheet, StartTurn};
use crate::quota::audit::AuditEntry;
use crate::quota::{Approval, QuotaBook};
use crate::step::{Step, Task};
use crate::window::Window;

/// One change of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A job came into being.
    JobSubmitted(Arc<Job>),
    /// A job stands differently.
    JobMoved {
        /// Which job.
        id: JobId,
        /// How it stands now.
        status: Arc<JobStatus>,
    },
    /// An attempt came into being and holds its placement.
    AttemptLeased(Arc<Attempt>),
    /// An attempt stands differently; one that has ended holds nothing any more.
    AttemptMoved(Arc<Attempt>),
    /// A step came into being.
    StepCreated(Arc<Step>),
    /// A task of a step stands differently.
    TaskMoved {
        /// In which attempt.
        attempt: AttemptId,
        /// In which step.
        step: u32,
        /// How it stands now.
        task: Arc<Task>,
    },
    /// A pass started something: by what order it did.
    PassRecorded(Arc<PassRecord>),
    /// A line of the ledger was written.
    Booked(LedgerEntry),
    /// A node registered, for the first time or again.
    NodeRegistered(Arc<Inventory>),
    /// People decided something for a node.
    NodeAdministered {
        /// Which node.
        node: NodeName,
        /// What they decided.
        admin: Admin,
    },
    /// The hardware of a node stands differently.
    NodeHealth {
        /// Which node.
        node: NodeName,
        /// How it stands now.
        health: Arc<NodeHealth>,
        /// Whether what may be given out there is another: signs alone change nothing for jobs that wait.
        changes_room: bool,
    },
    /// The circuit breaker of a hall broke or was reset.
    BreakerMoved(Arc<Breaker>),
    /// A window in which nodes take no jobs was planned, or stands differently.
    WindowMoved(Arc<Window>),
    /// Something was heard of a node, or was not. Not stored.
    NodeHeard {
        /// Which node.
        node: NodeName,
        /// How it stands now.
        liveness: Liveness,
        /// Since when.
        at: UnixMicros,
    },
    /// The worker of a node still has processes of attempts that have ended in the books. Not stored.
    NodeLeftovers {
        /// Which node.
        node: NodeName,
        /// All of them; empty once they are gone.
        attempts: Vec<AttemptId>,
    },
    /// The quota book was replaced; from then on, what it says for that moment is in force.
    QuotaApplied {
        /// All of it.
        book: Arc<QuotaBook>,
        /// When.
        at: UnixMicros,
    },
    /// A change of the quota book was entered into the audit chain.
    QuotaAudited(Arc<AuditEntry>),
    /// Somebody stands for a plan of another quota book.
    QuotaApproved(Arc<Approval>),
    /// A part of a budget is used, or is not any more.
    QuotaAlerted(Arc<Alert>),
    /// A date of the quota book has come: what it says for that moment is in force. Not stored, as it follows from the
    /// quota book and the clock.
    QuotaTurned {
        /// When.
        at: UnixMicros,
    },
    /// Something to tell those who watch.
    Happened(Arc<Event>),
}

/// By what order a pass started what was committed of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassRecord {
    /// Number of the record; passes that start nothing have none.
    pub number: u64,
    /// Leadership under which it was committed.
    pub epoch: Epoch,
    /// What the pass knew.
    pub sheet: PassSheet,
    /// What it started.
    pub starts: Vec<(AttemptId, StartTurn)>,
}

/// Something that happened, for those who watch and for the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Position, in the order of commits.
    pub seq: u64,
    /// When.
    pub at: UnixMicros,
    /// What it is about.
    pub subject: Subject,
    /// What kind of thing.
    pub kind: EventKind,
    /// One line for a person.
    pub text: String,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A job, in one of its attempts (0: none yet).
    Job {
        /// Which.
        id: JobId,
        /// Number of the attempt.
        attempt: u32,
        /// State of the job after the event.
        state: JobState,
    },
    /// A node.
    Node(NodeName),
    /// The quota tree.
    Quota,
}

/// Defines the event kinds with their words.
macro_rules! event_kinds {
    ($($(#[$doc:meta])* $name:ident => $word:literal,)*) => {
        /// What kind of thing happened.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum EventKind {
            $($(#[$doc])* $name,)*
        }

        impl EventKind {
            /// The word in streams and in the store.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(EventKind::$name => $word,)* }
            }

            /// The kind of that word.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(EventKind::$name),)* _ => None }
            }
        }
    };
}

event_kinds! {
    /// A job was stored.
    Submitted => "submitted",
    /// A job is kept from starting.
    Held => "held",
    /// A job may start again.
    Released => "released",
    /// A dependency was fulfilled.
    DependencyMet => "dependency_met",
    /// An attempt was given resources.
    Leased => "leased",
    /// Every node has it in its journal.
    Accepted => "accepted",
    /// Its first process is there.
    Started => "started",
    /// A step began.
    StepStarted => "step_started",
    /// All tasks of a step have ended.
    StepEnded => "step_ended",
    /// The GPUs of an attempt do nothing.
    GpusIdle => "gpus_idle",
    /// An attempt was told to stop.
    Stopping => "stopping",
    /// Nothing of an attempt is left.
    AttemptEnded => "attempt_ended",
    /// A job goes back to the queue.
    Requeued => "requeued",
    /// A job ended with success.
    Completed => "completed",
    /// A job ended without success.
    Failed => "failed",
    /// A job was cancelled.
    Cancelled => "cancelled",
    /// Tasks of an array were cancelled before they started.
    TasksCancelled => "tasks_cancelled",
    /// A job reached its time limit.
    TimedOut => "timed_out",
    /// A node registered.
    NodeRegistered => "node_registered",
    /// A node stopped beating.
    NodeSuspect => "node_suspect",
    /// A node was given up.
    NodeLost => "node_lost",
    /// A node takes no new work.
    NodeDrained => "node_drained",
    /// A node takes work again.
    NodeResumed => "node_resumed",
    /// A worker told of a sign of bad health.
    HardwareSign => "hardware_sign",
    /// Hardware is watched.
    HardwareSuspect => "hardware_suspect",
    /// Hardware takes no new work.
    HardwareOut => "hardware_out",
    /// Hardware that was out is watched before it takes work again.
    HardwareVerifying => "hardware_verifying",
    /// Hardware is sound again.
    HardwareOk => "hardware_ok",
    /// A GPU is to be cut anew, and takes no new work until it is.
    GpuCutPlanned => "gpu_cut_planned",
    /// It is as it was to be.
    GpuCutDone => "gpu_cut_done",
    /// It could not be cut so.
    GpuCutFailed => "gpu_cut_failed",
    /// Too much of a hall would be out: no more is taken out by itself.
    BreakerBroke => "breaker_broke",
    /// It may be taken out again.
    BreakerReset => "breaker_reset",
    /// Many nodes of a rack or hall are slowed down at once.
    FacilityAlarm => "facility_alarm",
    /// A node is to take no work from one moment until another.
    MaintenancePlanned => "maintenance_planned",
    /// A node takes no work until a moment.
    MaintenanceBegan => "maintenance_began",
    /// That moment has come.
    MaintenanceEnded => "maintenance_ended",
    /// Maintenance of a node was taken back.
    MaintenanceCancelled => "maintenance_cancelled",
    /// A node is to be for some projects alone from one moment until another.
    ReservationPlanned => "reservation_planned",
    /// A node is for some projects alone until a moment.
    ReservationBegan => "reservation_began",
    /// That moment was put off.
    ReservationExtended => "reservation_extended",
    /// It has come.
    ReservationEnded => "reservation_ended",
    /// A reservation of a node was taken back.
    ReservationCancelled => "reservation_cancelled",
    /// The quota tree was replaced.
    QuotaApplied => "quota_applied",
    /// Somebody approved a plan of the quota tree.
    QuotaApproved => "quota_approved",
    /// The quota tree changed by its dates.
    QuotaTurned => "quota_turned",
    /// A part of a budget is used, or is not any more.
    QuotaAlert => "quota_alert",
}
