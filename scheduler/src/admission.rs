//! What submissions are checked against, kept fresh for the handlers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use gotgan_core::admit::{AdmitContext, Fleet};
use gotgan_core::change::Change;
use gotgan_core::policy::Policy;
use gotgan_core::quota::QuotaTree;

use crate::flow::command::{FlowError, WriterHandle};

/// The context of admission, recomputed from the world when nodes or quotas have changed.
#[derive(Debug, Clone)]
pub struct Admission {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    policy: Arc<Policy>,
    /// Counts commits that matter.
    wanted: AtomicU64,
    /// The context, and which count it includes.
    context: RwLock<(u64, AdmitContext)>,
}

impl Admission {
    /// A context that is computed at its first use.
    #[must_use]
    pub fn new(policy: Arc<Policy>) -> Self {
        let context = AdmitContext {
            quota: Arc::new(QuotaTree::default()),
            fleet: Arc::new(Fleet::default()),
            policy: Arc::clone(&policy),
        };
        let inner = Inner { policy, wanted: AtomicU64::new(1), context: RwLock::new((0, context)) };
        Admission { inner: Arc::new(inner) }
    }

    /// Notes that these were committed; called before the round is acknowledged, so that whoever saw the answer
    /// is checked against what it says.
    pub fn note(&self, changes: &[Change]) {
        let matters = |change: &Change| {
            matches!(
                change,
                Change::NodeRegistered(_)
                    | Change::QuotaApplied { .. }
                    | Change::QuotaTurned { .. }
            )
        };
        if changes.iter().any(matters) {
            self.inner.wanted.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Notes that anything may have been committed.
    pub fn note_all(&self) {
        self.inner.wanted.fetch_add(1, Ordering::SeqCst);
    }

    /// The context in force.
    ///
    /// # Errors
    /// [`FlowError`] if the writer is gone.
    pub async fn context(&self, writer: &WriterHandle) -> Result<AdmitContext, FlowError> {
        let wanted = self.inner.wanted.load(Ordering::SeqCst);
        {
            let present = self.inner.context.read().unwrap_or_else(PoisonError::into_inner);
            if present.0 >= wanted {
                return Ok(present.1.clone());
            }
        }
        let (quota, fleet) =
            writer.read(|world| (Arc::clone(&world.quota), Arc::new(Fleet::of(world)))).await?;
        let fresh = AdmitContext { quota, fleet, policy: Arc::clone(&self.inner.policy) };
        let mut present = self.inner.context.write().unwrap_or_else(PoisonError::into_inner);
        if present.0 < wanted {
            *present = (wanted, fresh.clone());
        }
        Ok(fresh)
    }
}
