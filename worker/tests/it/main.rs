//! The daemon and its shims with real processes, driven by a fake scheduler.
#![allow(clippy::unwrap_used, missing_docs)]

mod attempts;
mod cluster;
mod confine;
mod containers;
mod double;
mod files;
mod findings;
mod gpus;
mod grip;
mod hooks;
mod imex;
mod joining;
mod logs;
mod measure;
mod nvml;
mod power;
mod reader;
mod releases;
mod restart;
mod smoke;
