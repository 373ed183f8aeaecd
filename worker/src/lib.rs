//! The daemon of a Gotgan node, as a library: what `gotgan-worker` and `gotgan-shim` are made of.
//!
//! The worker keeps one stream to the scheduler ([`session`]), remembers what it was told in a journal
//! ([`journal`]), decides by a pure state machine ([`attempt`]) and acts through [`exec`], where every running
//! attempt has a small process of its own ([`shim`]) that outlives the daemon.
//!
//! The GPU driver is asked by a process of its own ([`reader`]): a call of it may never come back.
//!
//! What keeps an attempt from what is not its own is [`confine`]: what the site asks for and the machine can. What is
//! asked for and missing is said, or the worker does not start.

pub mod attempt;
pub mod clock;
pub mod config;
pub mod confine;
pub mod container;
pub mod cutting;
pub mod exec;
pub mod handle;
pub mod health;
pub mod held;
pub mod hooks;
pub mod imex;
pub mod inventory;
pub mod join;
pub mod journal;
pub mod limits;
pub mod lines;
pub mod logs;
pub mod measure;
pub mod metrics;
pub mod nvml;
pub mod orders;
pub mod power;
pub mod reader;
pub mod renewal;
pub mod retention;
pub mod route;
pub mod run;
pub mod session;
pub mod shim;
pub mod smoke;
pub mod supervisor;
