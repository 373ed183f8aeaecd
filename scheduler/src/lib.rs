//! The scheduler daemon: takes jobs, plans them, sends them to workers, and keeps the account of it all.

pub mod auth;
pub mod metrics;
