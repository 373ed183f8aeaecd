//! What is wrong with a request: where, why, and how to put it right.

use std::fmt;

/// One thing wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Path of the field in the API, as in `spec.resources.nodes`.
    pub field: String,
    /// For programs.
    pub reason: FaultReason,
    /// For people: what is wrong and how to put it right.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Defines the reasons with their words.
macro_rules! fault_reasons {
    ($($(#[$doc:meta])* $name:ident => $word:literal,)*) => {
        /// Why a field was refused, for programs; `docs/errors.md` lists them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum FaultReason {
            $($(#[$doc])* $name,)*
        }

        impl FaultReason {
            /// All reasons.
            pub const ALL: &'static [FaultReason] = &[$(FaultReason::$name,)*];

            /// The word in the API.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(FaultReason::$name => $word,)* }
            }
        }
    };
}

fault_reasons! {
    /// Something that must be there is not.
    Missing => "MISSING",
    /// Not of the form it must have.
    Malformed => "MALFORMED",
    /// A number outside its limits.
    OutOfRange => "OUT_OF_RANGE",
    /// A text or a list over its limit.
    TooLong => "TOO_LONG",
    /// Two fields exclude each other.
    Conflict => "CONFLICT",
    /// No such project in the quota tree.
    UnknownProject => "UNKNOWN_PROJECT",
    /// The project has others below it; only the lowest can have jobs.
    ProjectNotALeaf => "PROJECT_NOT_A_LEAF",
    /// No node has GPUs of this class.
    UnknownClass => "UNKNOWN_CLASS",
    /// No GPU is cut into instances of this profile.
    UnknownProfile => "UNKNOWN_PROFILE",
    /// No such node.
    UnknownNode => "UNKNOWN_NODE",
    /// No node carries this label.
    UnknownLabel => "UNKNOWN_LABEL",
    /// The array depended on has no such task.
    UnknownTask => "UNKNOWN_TASK",
    /// No such level of blocks.
    UnknownLevel => "UNKNOWN_LEVEL",
    /// More than the whole machine could give, even if it were empty.
    LargerThanMachine => "LARGER_THAN_MACHINE",
    /// More than a node of the quota tree allows any job of the project.
    BeyondTerm => "BEYOND_TERM",
}

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Faults, in the order of the fields.
    pub faults: Vec<Fault>,
    /// Things that deserve a look.
    pub warnings: Vec<String>,
}

impl Findings {
    /// Adds a fault of a field below `spec`.
    pub fn fault(&mut self, field: &str, reason: FaultReason, message: impl Into<String>) {
        let field = format!("spec.{field}");
        self.faults.push(Fault { field, reason, message: message.into() });
    }

    /// Adds a warning.
    pub fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    /// Adds a fault unless `value` lies between `least` and `most`.
    pub fn require_range(&mut self, field: &str, value: i64, least: i64, most: i64, unit: &str) {
        if !(least..=most).contains(&value) {
            let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
            let message = format!("is {value}; give {least} to {most}{unit}");
            self.fault(field, FaultReason::OutOfRange, message);
        }
    }

    /// Adds a fault if there are more than `most`.
    pub fn require_at_most(&mut self, field: &str, value: usize, most: usize, unit: &str) {
        if value > most {
            let message = format!("has {value} {unit}; give at most {most}");
            self.fault(field, FaultReason::TooLong, message);
        }
    }

    /// Adds a fault if the text has a NUL, which no process can be given.
    pub fn require_no_nul(&mut self, field: &str, text: &str) {
        if text.contains('\0') {
            self.fault(field, FaultReason::Malformed, "has a NUL character; remove it");
        }
    }
}
