//! The doors through which bytes of others come in, each as a function of any bytes.
//!
//! A fuzzer of `fuzz/` feeds each of them, and so does a test of this crate, with the seeds and what was found. A door
//! stands for its module's real functions, which are called here as the programs call them. None may panic, take memory
//! that its input does not explain, or break what is said of it beside its function. docs/fuzzing.md says how they are run.

mod config;
mod container;
mod edge;
mod heap;
mod import;
mod journal;
pub mod mutate;
mod quota;
mod script;
mod session;
mod trace;
mod units;

/// A door.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, which its seeds are kept under.
    pub name: &'static str,
    /// Takes anything; panics where something does not hold.
    pub take: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 11] = [
    Target { name: "config", take: config::take },
    Target { name: "container", take: container::take },
    Target { name: "import", take: import::take },
    Target { name: "journal", take: journal::take },
    Target { name: "kernel_log", take: units::take_kernel_log },
    Target { name: "quota", take: quota::take },
    Target { name: "request", take: edge::take },
    Target { name: "script", take: script::take },
    Target { name: "session", take: session::take },
    Target { name: "trace", take: trace::take },
    Target { name: "units", take: units::take },
];

pub use edge::{CALLS, refusal};
pub use heap::Heap;

/// Lets a door take these bytes, and looks at what memory that took.
///
/// # Panics
/// If there is no such door, or something does not hold.
pub fn play(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.unwrap_or_else(|| panic!("there is no target {name}"));
    heap::watch(bytes.len(), || (target.take)(bytes));
}

/// The text that bytes are, whatever they are: what is not UTF-8 is left out.
fn text_of(bytes: &[u8]) -> String {
    bytes.utf8_chunks().map(|chunk| chunk.valid()).collect()
}
