//! Whether GPUs and nodes are sound, and what follows when they are not.
//!
//! Workers say what they see: [`Signal`]s. The site's [`Rules`] say what each calls for: a [`Response`]. A GPU, and a node
//! as a whole, stands somewhere ([`State`]) with the reason and since when. One that is out takes no new work; only
//! verifying brings it back. What of that is done to attempts is in [`crate::lifecycle`].

pub mod alarm;
pub mod breaker;
mod damped;
pub mod lemon;
mod response;
mod rules;
mod signal;
mod standing;
mod terms;

pub use breaker::Breaker;
pub use damped::Damped;
pub use response::{Repair, Response};
pub use rules::{Rule, Rules, RulesError};
pub use signal::{Condition, GpuLook, Signal};
pub use standing::{Blame, Complaint, GpuHealth, Journal, NodeHealth, Standing, State};
pub use terms::Terms;
