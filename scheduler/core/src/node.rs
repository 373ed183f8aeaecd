//! Nodes: what their workers report, what people decided for them, and what is heard of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::amount::{CpuMilli, GpuMilli, MemoryMib, UnixMicros};
use crate::ids::{GpuClass, GpuUuid, NodeName};
use crate::image::Images;
use crate::imex::Imex;
use crate::mig::{Mig, MigInstance, MigKind, MigPart};
use crate::power::caps::{CapRange, Caps};

/// A node as its worker registered it; kept in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Its name.
    pub node: NodeName,
    /// Where other nodes of a gang reach it.
    pub address: String,
    /// Of the running kernel.
    pub boot_id: String,
    /// Name of its worker's journal: with another one it has forgotten what it ran. Empty if the worker does not tell.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub journal_id: String,
    /// Version of the worker.
    pub worker_version: String,
    /// Operating system.
    pub os: String,
    /// Kernel release.
    pub kernel: String,
    /// GPU driver; empty if none.
    pub driver_version: String,
    /// Newest CUDA the driver serves; empty if none.
    pub cuda_version: String,
    /// CPUs to give out.
    pub cpu_milli: CpuMilli,
    /// Memory to give out.
    pub memory_mib: MemoryMib,
    /// GPUs to give out, by index.
    pub gpus: Vec<Gpu>,
    /// For constraints.
    pub labels: BTreeMap<String, String>,
    /// Invented by the worker on request.
    pub simulated: bool,
    /// What attempts there are confined by; absent if the worker does not know of it.
    #[serde(default)]
    pub confinement: Option<Confinement>,
    /// Whether jobs with an image can run there; absent if the worker does not know of images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<Images>,
    /// Whether its worker can cap GPUs; absent if it does not know of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caps: Option<Caps>,
    /// Whether its worker has a program of the site that checks hardware before it comes back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub checks_hardware: bool,
    /// Whether attempts there can have IMEX channels; absent if the worker does not know of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imex: Option<Imex>,
}

/// What keeps attempts on a node from what is not their own, as its worker tells. Nothing is decided by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// How much the site asks for.
    pub mode: ConfinementMode,
    /// Applied to every attempt, a word each.
    pub applied: Vec<String>,
    /// Asked for and not to be had there, in words.
    pub missing: Vec<String>,
}

/// How much confinement a site asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfinementMode {
    /// None.
    Off,
    /// What the machine can.
    BestEffort,
    /// All, or the worker does not register.
    Required,
}

/// A GPU of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// As its driver names it.
    pub uuid: GpuUuid,
    /// Position on the node; may change over reboots, the UUID does not.
    pub index: u32,
    /// Product name.
    pub name: String,
    /// For requests and limits.
    pub class: GpuClass,
    /// Address on the bus.
    pub pci_bus_id: String,
    /// Its memory.
    pub memory_mib: MemoryMib,
    /// Printed on the board; empty if its driver does not tell.
    #[serde(default)]
    pub serial: String,
    /// NVLink domain beyond the node that its driver names; empty if it is of none.
    #[serde(default)]
    pub nvlink_domain: String,
    /// Between which it can be capped; `None` if its driver does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap_range: Option<CapRange>,
    /// Whether it is cut into instances, or one of those.
    #[serde(default, skip_serializing_if = "Mig::is_off")]
    pub mig: Mig,
}

impl Gpu {
    /// What it counts: a whole GPU, or of an instance its part of one.
    #[must_use]
    pub fn amount(&self) -> GpuMilli {
        match &self.mig {
            Mig::Off | Mig::Cut(_) => GpuMilli::WHOLE,
            Mig::Instance(part) => part.kind.amount(),
        }
    }

    /// Its kind, if it is an instance.
    #[must_use]
    pub fn kind(&self) -> Option<MigKind> {
        match &self.mig {
            Mig::Off | Mig::Cut(_) => None,
            Mig::Instance(part) => Some(part.kind),
        }
    }

    /// The GPU that it is, or that it is cut from.
    #[must_use]
    pub fn card(&self) -> &GpuUuid {
        match &self.mig {
            Mig::Off | Mig::Cut(_) => &self.uuid,
            Mig::Instance(part) => &part.card,
        }
    }

    /// What of it may be given out: itself, or its instances.
    #[must_use]
    pub fn given_out(&self) -> Vec<Gpu> {
        let Mig::Cut(cut) = &self.mig else { return vec![self.clone()] };
        let instance = |one: &MigInstance| Gpu {
            uuid: one.uuid.clone(),
            name: format!("{} MIG {}", self.name, one.profile),
            memory_mib: one.memory_mib,
            mig: Mig::Instance(MigPart { kind: cut.kind(one), card: self.uuid.clone() }),
            ..self.clone()
        };
        cut.instances().iter().map(instance).collect()
    }
}

/// What people decided for a node; kept in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admin {
    /// Takes work.
    Active,
    /// Takes no new work. Shown as `draining` while something runs there and as `drained` after.
    Drain {
        /// Who ordered it.
        by: String,
        /// Why.
        reason: String,
        /// When.
        since: UnixMicros,
    },
}

/// What is heard of a node; not kept in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Liveness {
    /// Not heard since this scheduler started.
    Unknown,
    /// Beats arrive.
    Ready,
    /// Beats are missing; no new work.
    Suspect,
    /// Given up.
    Lost,
}

impl Liveness {
    /// All states.
    pub const ALL: [Liveness; 4] =
        [Liveness::Unknown, Liveness::Ready, Liveness::Suspect, Liveness::Lost];

    /// The word in listings.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Liveness::Unknown => "unknown",
            Liveness::Ready => "ready",
            Liveness::Suspect => "suspect",
            Liveness::Lost => "lost",
        }
    }
}

/// What can happen to the liveness of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LivenessEvent {
    /// A worker registered or a beat came.
    Heard,
    /// A few beats are missing, or its stream broke.
    Missed,
    /// Nothing for so long that its attempts are decided.
    GivenUp,
}

impl LivenessEvent {
    /// All events.
    pub const ALL: [LivenessEvent; 3] =
        [LivenessEvent::Heard, LivenessEvent::Missed, LivenessEvent::GivenUp];
}

/// The liveness after `event`; every event makes sense in every state.
#[must_use]
pub fn transition(state: Liveness, event: LivenessEvent) -> Liveness {
    match (state, event) {
        (_, LivenessEvent::Heard) => Liveness::Ready,
        (Liveness::Ready, LivenessEvent::Missed) => Liveness::Suspect,
        (Liveness::Unknown | Liveness::Suspect | Liveness::Lost, LivenessEvent::Missed) => state,
        (Liveness::Unknown | Liveness::Suspect | Liveness::Lost, LivenessEvent::GivenUp) => {
            Liveness::Lost
        }
        // A node that beats is not given up; the caller looked at an old beat.
        (Liveness::Ready, LivenessEvent::GivenUp) => Liveness::Ready,
    }
}
