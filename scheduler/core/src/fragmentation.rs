//! Fragmentation: free GPUs of a node that jobs as they typically come cannot use, and by how much a placement makes
//! that more.
//!
//! A node is looked at as [`Room`], jobs by their [`Shape`], and how often each shape comes is a [`Mix`]. What a node has
//! lost to a shape is its free GPUs less those that jobs of that shape alone could fill, which end at the CPUs and the
//! memory that are left as well as at the GPUs. The expected fragmentation is the mean over the mix. It follows the
//! measure of Weng et al., *Beware of Fragmentation* (USENIX ATC 2023), and goes beyond it in one thing: there a shape
//! can use all that it fits once; here, no more than it fits often.
//!
//! Integers throughout. The same rooms, mix and shape give the same place everywhere.

mod class;
mod growth;
mod mix;
mod room;

pub use class::{ClassNumber, ClassSet};
pub use growth::{Choice, GrowthSteps};
pub use mix::{Counts, Fragments, MIX_SHAPES_MAX, Mix};
pub use room::{GpuShape, Room, Shape};
