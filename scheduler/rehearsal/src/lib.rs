//! The scheduler's own flow on one thread, with clock, database, links, nodes and people that are played, from one seed.
//!
//! What runs is what a leader runs: writer, planner, dispatcher, sessions of workers, loops, calls of the API. See
//! `docs/simulation.md`. [`play`] is where to begin: [`stage`] has the hosts, [`daemon`] and [`node`] the nodes, [`people`]
//! who wants things, [`database`] what may happen to a write, [`judge`] what must hold.

pub mod daemon;
pub mod database;
pub mod draw;
pub mod executor;
pub mod judge;
pub mod node;
pub mod people;
pub mod play;
pub mod stage;
pub mod weather;
pub mod wire;
