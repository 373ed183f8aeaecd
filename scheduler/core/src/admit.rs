//! From what a client sends to a job that can be stored: checks everything, fills in every default.
//!
//! All faults are found at once, not the first alone. Who may submit for which project, how many jobs may wait and
//! whether the jobs named as dependencies exist is decided by the caller, who knows the principal and the store.

mod fault;
mod fleet;
mod request;

use std::sync::Arc;

use crate::policy::Policy;
use crate::quota::QuotaTree;
use crate::spec::JobSpec;

pub use fault::{Fault, FaultReason};
pub use fleet::Fleet;
pub use request::{
    CommandRequest, ConstraintsRequest, DependencyRequest, JobRequest, ResourcesRequest,
    ScriptRequest, WarningSignalRequest, WorkRequest,
};

/// What a request is checked against.
#[derive(Debug, Clone)]
pub struct AdmitContext {
    /// The quota tree in force.
    pub quota: Arc<QuotaTree>,
    /// What the machine has.
    pub fleet: Arc<Fleet>,
    /// Limits and defaults of the site.
    pub policy: Arc<Policy>,
}

/// A request that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// What is stored.
    pub spec: JobSpec,
    /// What was understood but deserves a look.
    pub warnings: Vec<String>,
}

/// Checks a request and fills in its defaults.
///
/// # Errors
/// Every [`Fault`] of the request, in the order of the fields.
pub fn admit(request: JobRequest, context: &AdmitContext) -> Result<Admitted, Vec<Fault>> {
    let _ = (request, context);
    Err(Vec::new())
}
