//! Looks at the world: what they are taken at, and how.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use gotgan_core::policy::Policy;
use gotgan_core::world::{Snapshot, World};
use gotgan_store::{Store, StoreError};

use super::command::Read;
use super::quarantine;
use crate::clock;
use crate::metrics::Metrics;

/// The world as the store knows it.
///
/// # Errors
/// [`StoreError`] if it cannot be loaded.
pub async fn load(store: &dyn Store, policy: &Policy) -> Result<World, StoreError> {
    let now = clock::now();
    let power = Arc::new(policy.power.clone());
    let snapshot = Snapshot { power, ..store.load(policy.half_life(), now).await? };
    Ok(World::restore(snapshot, now))
}

/// Takes one; one that panics is counted and told, and ends nothing.
pub(super) fn take(look: Read, world: &World, metrics: &Metrics) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| look(world))) {
        metrics.assertions.inc();
        let words = quarantine::words(panic.as_ref());
        tracing::error!(words, "a look at the world panicked; whoever asked gets no answer");
    }
}
