//! Power: what GPUs may draw, and what a site, its halls, racks and nodes may draw together.
//!
//! A **cap** is the most that a GPU may draw while an attempt holds it: the lower of what its job asks for and what the site
//! orders for its class. Workers set it ([`caps`] says which can). What is reserved is counted in caps and never in what
//! is drawn ([`budget`]), since a GPU that idles now may draw all of it in a second.

pub mod budget;
pub mod caps;
mod terms;

pub use terms::{BadPower, PowerLevel, PowerLimits, PowerTerms};
