//! What a worker can see of a GPU that is not well.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::GpuUuid;

/// One sign of a GPU that is not well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Signal {
    /// The driver told of an error, by NVIDIA's number.
    Xid(u32),
    /// Errors of its memory that cannot be repaired rose in number.
    UncorrectedErrors,
    /// Something that lasts.
    Condition(Condition),
    /// GPUs that the node had are no longer there.
    MissingGpus,
    /// Jobs of several users failed on the node, and not elsewhere.
    Lemon,
}

/// Defines the conditions with their words and what they mean to a person.
macro_rules! conditions {
    ($($(#[$doc:meta])* $name:ident => $word:literal, $text:literal;)*) => {
        /// Something that lasts, as the readings of a GPU tell.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Condition {
            $($(#[$doc])* $name,)*
        }

        impl Condition {
            /// All of them.
            pub const ALL: &'static [Condition] = &[$(Condition::$name,)*];

            /// The word in rules and listings.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Condition::$name => $word,)* }
            }

            /// What it means, to a person.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Condition::$name => $text,)* }
            }
        }
    };
}

conditions! {
    /// Its driver has lost it, or does not list it any more.
    Lost => "lost", "the driver has lost it";
    /// It does nothing before it is reset.
    ResetRequired => "reset_required", "it does nothing before it is reset";
    /// Its driver does not answer for it.
    Unresponsive => "driver_unresponsive", "the driver does not answer for it";
    /// The driver wants it reset.
    RecoverByReset => "recovery_reset_gpu", "the driver wants it reset";
    /// The driver wants the node rebooted.
    RecoverByReboot => "recovery_reboot_node", "the driver wants the node rebooted";
    /// The driver wants jobs to end that use its links.
    RecoverLinks => "recovery_drain_links", "the driver wants jobs off its NVLinks";
    /// The driver wants jobs on it to end, and a reset then.
    RecoverByDrain => "recovery_drain_and_reset", "the driver wants it reset once its jobs have ended";
    /// The driver wants the channels of its NVLink domain recovered.
    RecoverDomain => "recovery_recover_domain", "the driver wants its NVLink domain recovered";
    /// The driver wants its bus reset.
    RecoverBus => "recovery_reset_bus", "the driver wants its bus reset";
    /// The driver wants the machine power-cycled.
    RecoverByPowerCycle => "recovery_reboot_system", "the driver wants the machine power-cycled";
    /// The driver wants something that this version does not know.
    RecoverUnknown => "recovery_other", "the driver wants something newer than this worker";
    /// A row could not be replaced.
    RemapFailed => "remap_failed", "a bad row of its memory could not be replaced";
    /// Rows are replaced at the next reset.
    RemapPending => "remap_pending", "bad rows of its memory are replaced at the next reset";
    /// Not all of its NVLinks are up.
    LinksDown => "nvlinks_down", "some of its NVLinks are down";
    /// It has not joined its fabric.
    FabricNotJoined => "fabric_not_joined", "it has not joined its NVLink fabric";
    /// Its fabric is not healthy.
    FabricUnhealthy => "fabric_unhealthy", "its NVLink fabric is not healthy";
    /// Too warm: the hardware slows it down.
    ThermalSlowdown => "thermal_slowdown", "it is too warm and the hardware slows it down";
    /// The power supply slows it down.
    PowerBrake => "power_brake", "the power supply slows it down";
    /// Processes are on it though no attempt has it.
    LeftoverProcesses => "leftover_processes", "processes are on it though no job has it";
}

impl Condition {
    /// Whether nothing at all can be computed on the GPU, so that giving it out would only lose jobs.
    #[must_use]
    pub fn is_dead(self) -> bool {
        matches!(self, Condition::Lost | Condition::ResetRequired)
    }

    /// Whether it is the room's or the power's doing rather than the GPU's, where many have it at once.
    #[must_use]
    pub fn is_of_the_facility(self) -> bool {
        matches!(self, Condition::ThermalSlowdown | Condition::PowerBrake)
    }

    /// Whether it is what the driver wants done: NVML's field 230.
    #[must_use]
    pub fn is_recovery(self) -> bool {
        self.word().starts_with("recovery_")
    }

    fn of_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|condition| condition.word() == word)
    }
}

/// What lasts on one GPU, as one look at it found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuLook {
    /// Which GPU.
    pub uuid: GpuUuid,
    /// Everything that is not as it should be.
    pub conditions: BTreeSet<Condition>,
}

impl Signal {
    /// The sign that a rule or a stored word names.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        match word {
            "uncorrected_errors" => Some(Signal::UncorrectedErrors),
            "missing_gpus" => Some(Signal::MissingGpus),
            "lemon" => Some(Signal::Lemon),
            _ => match word.strip_prefix("xid ") {
                Some(number) => number.parse().ok().map(Signal::Xid),
                None => Condition::of_word(word).map(Signal::Condition),
            },
        }
    }

    /// Whether nothing can be computed on the GPU any more.
    #[must_use]
    pub fn is_dead(self) -> bool {
        matches!(self, Signal::Condition(condition) if condition.is_dead())
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Signal::Xid(number) => write!(f, "xid {number}"),
            Signal::UncorrectedErrors => f.write_str("uncorrected_errors"),
            Signal::Condition(condition) => f.write_str(condition.word()),
            Signal::MissingGpus => f.write_str("missing_gpus"),
            Signal::Lemon => f.write_str("lemon"),
        }
    }
}

impl From<Signal> for String {
    fn from(signal: Signal) -> Self {
        signal.to_string()
    }
}

impl TryFrom<String> for Signal {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        Signal::of_word(&word).ok_or_else(|| format!("{word:?} is no sign of a GPU's health"))
    }
}

impl Serialize for Condition {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Condition::of_word(&word)
            .ok_or_else(|| serde::de::Error::custom(format!("{word:?} is no condition of a GPU")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sign_is_found_by_its_word() {
        let conditions = Condition::ALL.iter().copied().map(Signal::Condition);
        let others =
            [Signal::Xid(79), Signal::UncorrectedErrors, Signal::MissingGpus, Signal::Lemon];
        for signal in conditions.chain(others) {
            assert_eq!(Signal::of_word(&signal.to_string()), Some(signal));
        }
        assert_eq!(Signal::of_word("xid many"), None);
    }
}
