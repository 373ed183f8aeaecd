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
    /// No such node.
    UnknownNode => "UNKNOWN_NODE",
    /// No node carries this label.
    UnknownLabel => "UNKNOWN_LABEL",
    /// More than the whole machine could give, even if it were empty.
    LargerThanMachine => "LARGER_THAN_MACHINE",
}
