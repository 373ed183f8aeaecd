//! The daemon and its shims with real processes, driven by a fake scheduler.
#![allow(clippy::unwrap_used, missing_docs)]

mod attempts;
mod cluster;
mod double;
mod files;
mod gpus;
mod joining;
mod logs;
mod nvml;
mod restart;
mod smoke;
