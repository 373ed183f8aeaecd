//! The daemon and its shims with real processes, driven by a fake scheduler.
#![allow(clippy::unwrap_used, missing_docs)]

mod attempts;
mod cluster;
mod files;
mod joining;
mod logs;
mod restart;
