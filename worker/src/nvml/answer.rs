//! What a call of the driver answers: a value, or why there is none.
//!
//! Codes stay numbers: a driver newer than this program may answer with one that nobody here has heard of.

use std::fmt;

use nvml_wrapper::error::NvmlError;
use serde::{Serialize, Serializer};

/// Codes that mean something to this program, and what the driver's makers call the others.
const WORDS: [(u32, &str); 30] = [
    (1, "library not initialised"),
    (2, "invalid argument"),
    (3, "not supported"),
    (4, "no permission"),
    (5, "already initialised"),
    (6, "not found"),
    (7, "buffer too small"),
    (8, "power cables not attached"),
    (9, "driver not loaded"),
    (10, "timeout"),
    (11, "interrupt not received"),
    (12, "library not found"),
    (13, "function not found"),
    (14, "inforom is corrupted"),
    (15, "GPU is lost"),
    (16, "GPU must be reset"),
    (17, "blocked by the operating system"),
    (18, "driver and library of different versions"),
    (19, "in use"),
    (20, "out of memory"),
    (21, "no data"),
    (22, "no ECC in a virtual GPU"),
    (23, "out of resources"),
    (24, "frequency not supported"),
    (25, "version of an argument not supported"),
    (26, "deprecated"),
    (27, "not ready"),
    (28, "GPU not found"),
    (29, "invalid state"),
    (999, "unknown error"),
];

/// A return code of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Code(pub u32);

impl Code {
    /// All is well.
    pub const SUCCESS: Self = Self(0);
    /// An argument that is not what the driver takes.
    pub const INVALID_ARGUMENT: Self = Self(2);
    /// This GPU has no such thing.
    pub const NOT_SUPPORTED: Self = Self(3);
    /// Only root may.
    pub const NO_PERMISSION: Self = Self(4);
    /// Nothing of that name or number.
    pub const NOT_FOUND: Self = Self(6);
    /// The list is longer than the room for it.
    pub const INSUFFICIENT_SIZE: Self = Self(7);
    /// Nothing happened in time.
    pub const TIMEOUT: Self = Self(10);
    /// The driver has no such function.
    pub const FUNCTION_NOT_FOUND: Self = Self(13);
    /// The GPU fell off the bus.
    pub const GPU_IS_LOST: Self = Self(15);
    /// It does nothing before it is reset.
    pub const RESET_REQUIRED: Self = Self(16);
    /// There is no such GPU any more.
    pub const GPU_NOT_FOUND: Self = Self(28);
    /// The version of a structure is not one that the driver knows.
    pub const VERSION_MISMATCH: Self = Self(25);

    /// The value that the driver wrote, if the call went well.
    pub fn gives<T>(self, value: T) -> Reading<T> {
        match self {
            Self::SUCCESS => Ok(value),
            Self::NOT_SUPPORTED => Err(Missing::NotSupported),
            Self::FUNCTION_NOT_FOUND => Err(Missing::Absent),
            code => Err(Missing::Failed(code)),
        }
    }
}

/// What the safe layer tells of a call that failed. It has names for the codes that it knows.
impl From<NvmlError> for Missing {
    fn from(error: NvmlError) -> Self {
        let code = match error {
            NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound => return Self::Absent,
            NvmlError::NotSupported => return Self::NotSupported,
            NvmlError::UnexpectedVariant(code) => code,
            NvmlError::Uninitialized => 1,
            NvmlError::InvalidArg => 2,
            NvmlError::NoPermission => 4,
            NvmlError::NotFound => 6,
            NvmlError::InsufficientSize(_) => 7,
            NvmlError::InsufficientPower => 8,
            NvmlError::DriverNotLoaded => 9,
            NvmlError::Timeout => 10,
            NvmlError::IrqIssue => 11,
            NvmlError::LibraryNotFound => 12,
            NvmlError::CorruptedInfoROM => 14,
            NvmlError::GpuLost => 15,
            NvmlError::ResetRequired => 16,
            NvmlError::OperatingSystem => 17,
            NvmlError::LibRmVersionMismatch => 18,
            NvmlError::InUse => 19,
            NvmlError::InsufficientMemory => 20,
            NvmlError::NoData => 21,
            _ => 999,
        };
        Self::Failed(Code(code))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match WORDS.iter().find(|(code, _)| *code == self.0) {
            Some((code, words)) => write!(out, "{words} (code {code})"),
            None => write!(out, "code {}", self.0),
        }
    }
}

/// Why a reading is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The driver is too old (or too new) to have the function.
    #[error("this driver has no such function")]
    Absent,
    /// The driver has the function, this GPU has no such reading.
    #[error("not supported by this GPU")]
    NotSupported,
    /// The call failed.
    #[error("{0}")]
    Failed(Code),
    /// The driver answered in a form that this version does not know.
    #[error("an answer of a form that this version does not know")]
    Unreadable,
}

impl Missing {
    /// Whether something is wrong, and not merely this reading not to be had here.
    pub fn is_fault(self) -> bool {
        match self {
            Self::Absent | Self::NotSupported => false,
            Self::Failed(_) | Self::Unreadable => true,
        }
    }
}

impl Serialize for Missing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A value, or why there is none.
pub type Reading<T> = Result<T, Missing>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_nobody_has_heard_of_is_shown_as_its_number() {
        assert_eq!(Code(15).to_string(), "GPU is lost (code 15)");
        assert_eq!(Code(4711).to_string(), "code 4711");
        assert_eq!(Code(4711).gives(1), Err(Missing::Failed(Code(4711))));
    }

    #[test]
    fn what_is_not_to_be_had_is_told_apart_from_what_failed() {
        assert_eq!(Code(0).gives(1), Ok(1));
        assert_eq!(Code(3).gives(1), Err(Missing::NotSupported));
        assert_eq!(Code(13).gives(1), Err(Missing::Absent));
        assert!(!Missing::NotSupported.is_fault() && !Missing::Absent.is_fault());
        assert!(Missing::Failed(Code::GPU_IS_LOST).is_fault());
    }
}
