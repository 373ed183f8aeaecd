//! A double of NVML, the NVIDIA driver's library, for tests: a shared library of the same name with the same functions,
//! whose GPUs are described by a file.
//!
//! It reads `nvml.json` in its own directory ([`state::State`] is its form) and looks whether that file changed at every
//! call; one that cannot be read whole leaves what was read before. A byte copy of the library in another directory is
//! another machine, also within one process. With `count_calls` it writes how often each function was called to
//! `nvml-calls.PID.json` beside it, a file for each process.
//!
//! Events are delivered to each set in the order of their numbers; with `repeat` one comes again and again. A counter goes
//! backwards, a GPU moves or vanishes, as the file is rewritten.
//!
//! What calls change about what GPUs are cut into is kept in `nvml-mig.json` beside it ([`cutting`]).
//!
//! It shows layouts, codes, delays and hangs as a test wants them. It does not show what a real driver does: how long
//! its calls take, which of them block, what it answers for a given board. Every version it tells ends with
//! `nvml-double`, and its GPUs say so in their names.
#![expect(unsafe_code, reason = "functions that C programs call")]

mod cutting;
mod device;
mod events;
mod instance;
mod links;
mod mig;
mod power;
mod state;
mod system;
