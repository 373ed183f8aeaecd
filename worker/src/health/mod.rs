//! What a worker tells of its hardware beside readings: findings, each told once ([`findings`]), and processes that are left
//! on GPUs ([`leftover`]).
//!
//! Findings come from the driver's events and from the kernel's log ([`kernel_log`]); what both tell is one finding
//! ([`merge`]). Nothing here judges what is found: the scheduler does.

pub mod config;
pub mod findings;
pub mod kernel_log;
pub mod leftover;
pub mod merge;
pub mod remembered;
pub mod watch;
