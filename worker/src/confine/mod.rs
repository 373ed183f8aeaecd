//! Confinement: what keeps an attempt from seeing, disturbing or outliving what is not its own.
//!
//! [`config`] is what the site asks for, [`machine`] what the machine can, [`plan`] what becomes of the two: which
//! measures are applied to every attempt, and which are missing, with a sentence each. All of that is pure; [`probe`]
//! finds out about the machine by doing everything once, in the shim's own program. The shim applies what
//! [`spec`] says, through [`cgroup`], [`devices`] and [`kernel`].

pub mod ask;
pub mod cgroup;
pub mod config;
pub mod devices;
pub mod gpus;
pub mod kernel;
pub mod machine;
pub mod plan;
pub mod probe;
pub mod spec;
pub mod users;
