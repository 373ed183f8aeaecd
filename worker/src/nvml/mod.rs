//! NVML, the driver's own library, as it is: opened when the program runs, asked function by function.
//!
//! This is the only place that calls it. Every reading is a value or one of three reasons why there is none
//! ([`Missing`]): the driver has no such function, the GPU has no such reading, the call failed. So an older driver
//! costs the readings it lacks and nothing else, and a newer one's codes are numbers and never a panic.
//!
//! Nothing here decides, waits or remembers. A call may block for ever in the driver: who calls does so on a thread
//! that nothing else depends on.
#![expect(unsafe_code, reason = "calls of a C library; every one goes through a few typed forms")]

mod answer;
mod calls;
mod cutting;
mod driver;
mod events;
mod fabric;
mod fields;
mod health;
mod identity;
mod links;
mod load;
mod mig;
mod power;
mod probes;
mod processes;

pub use answer::{Code, Missing, Reading};
pub use cutting::CutError;
pub use driver::{Driver, Gpu, OpenError};
pub use events::{Event, EventSet, event_kind};
pub use fabric::{Fabric, FabricHealth, FabricState};
pub use health::{EccCounts, EccSpan, RecoveryAction, RemappedRows, RowHistogram};
pub use identity::{ComputeMode, CpuSet, Memory, Switch};
pub use links::{NvLink, NvLinkErrors, PcieLink};
pub use load::{ClockReasons, Utilisation};
pub use mig::{MigDevice, MigMode};
pub use power::PowerRange;
pub use probes::{PROBES, Probe};
pub use processes::{Process, ProcessKind};
