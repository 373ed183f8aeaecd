//! Looking at the GPUs, in a process of its own.
//!
//! A call of the driver may block for ever, and a process that has such a call cannot always be killed. So the daemon makes
//! none: [`keeper`] starts a child of its own program ([`child`]), which asks and says what it sees in [`frames`]. Within
//! the child each GPU has a thread that reads it and a thread that waits for its events ([`watch`]), so that one that hangs
//! silences itself alone. [`board`] has the newest reading of each GPU and knows which have fallen silent.
//!
//! Nothing here judges what is seen.

pub mod board;
pub mod child;
mod cut;
mod describe;
pub mod frames;
pub mod keeper;
mod reading;
mod watch;
