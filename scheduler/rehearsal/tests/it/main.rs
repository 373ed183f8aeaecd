//! Plays, and what is tried beside them on the same store in memory.

#![allow(clippy::unwrap_used)]

mod aside;
mod plays;
