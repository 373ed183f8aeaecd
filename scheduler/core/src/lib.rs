//! The decisions of Gotgan.
//!
//! Everything here is a function of its arguments: no clock, no IO, no randomness, no threads, no unordered maps
//! (`clippy.toml` beside this crate's manifest enforces it). The time, new ids and policies are passed in. The
//! scheduler, the tests and any what-if question call the very same functions.
//!
//! Reading order: [`spec`] (what is asked), [`job`] and [`attempt`] (the two state machines), [`change`] (every
//! way the world can change), [`world`] (the state those changes add up to), [`lifecycle`] (commands and reports
//! in, changes out), [`planner`] (world in, plan out), [`fragmentation`] (which place costs others least?), [`check`]
//! (is this plan allowed?), [`precedence`] (why did this one come before that one?), [`ledger`], [`meter`] and [`account`] (who has used how much?), [`fairshare`] (whose turn is
//! it?).

pub mod account;
pub mod admit;
pub mod alert;
pub mod amount;
pub mod array;
pub mod attempt;
pub mod backfill;
pub mod change;
pub mod check;
pub mod crowded;
pub mod derate;
pub mod diagram;
pub mod digest;
pub mod estimate;
pub mod explain;
pub mod fabric;
pub mod fairshare;
pub mod forecast;
pub mod fragmentation;
pub mod health;
pub mod ids;
pub mod image;
pub mod imex;
pub mod job;
pub mod ledger;
pub mod lifecycle;
pub mod measured;
pub mod meter;
pub mod mig;
pub mod muster;
pub mod node;
pub mod nvlink;
pub mod overview;
pub mod plan;
pub mod planned;
pub mod planner;
pub mod policy;
pub mod power;
pub mod precedence;
pub mod profile;
pub mod quota;
pub mod reservation;
pub mod retry;
pub mod spec;
pub mod statement;
pub mod step;
pub mod topology;
pub mod window;
pub mod world;
