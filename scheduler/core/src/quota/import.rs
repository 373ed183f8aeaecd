//! Moving in: quota files from the association tree of Slurm, and what its jobs used.
//!
//! Every association gets a verdict; nothing is dropped in silence. The same dump always gives the same files.

mod dump;
mod tree;
mod usage;

pub use dump::{Association, DumpFault, read as read_dump};
pub use tree::{Imported, Verdict, VerdictKind, import};
pub use usage::{UsageFault, UsageTotals, read as read_usage};
