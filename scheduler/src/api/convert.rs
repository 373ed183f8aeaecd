//! Between the API's messages and the core's types.

mod blocker;
mod health;
mod job;
mod measured;
mod node;
mod order;
mod report;
mod spec;

use gotgan_core::attempt::{Cause, ExitStatus, NodeAllocation};
use gotgan_core::job::JobState;
use gotgan_proto::v1;

pub use blocker::blocker;
pub use health::{check_outcome, finding, looks};
pub use job::{event, job, job_brief};
pub use measured::{measured, measured_from, uses};
pub use node::{NodeView, admin, inventory_from, node, node_view};
pub use order::{fair_share_rule, order_rank, order_rule, order_verdict};
pub use report::{held_attempts, report_from};
pub use spec::{job_request, job_spec, job_spec_brief};

/// A cause as the API's.
#[must_use]
pub fn cause(cause: Cause) -> v1::Cause {
    match cause {
        Cause::User => v1::Cause::User,
        Cause::Hardware => v1::Cause::Hardware,
        Cause::Node => v1::Cause::Node,
        Cause::Network => v1::Cause::Network,
        Cause::Site => v1::Cause::Site,
        Cause::Preempted => v1::Cause::Preempted,
        Cause::Limit => v1::Cause::Limit,
        Cause::OutOfMemory => v1::Cause::OutOfMemory,
    }
}

/// A cause from a worker; one without meaning is the node's fault, since the node sent it.
#[must_use]
pub fn cause_from(cause: v1::Cause) -> Cause {
    match cause {
        v1::Cause::User => Cause::User,
        v1::Cause::Hardware => Cause::Hardware,
        v1::Cause::Unspecified | v1::Cause::Node => Cause::Node,
        v1::Cause::Network => Cause::Network,
        v1::Cause::Site => Cause::Site,
        v1::Cause::Preempted => Cause::Preempted,
        v1::Cause::Limit => Cause::Limit,
        v1::Cause::OutOfMemory => Cause::OutOfMemory,
    }
}

/// An exit as the API's.
#[must_use]
pub fn exit(exit: ExitStatus) -> v1::ExitStatus {
    match exit {
        ExitStatus::Code(code) => v1::ExitStatus { code, signal: 0 },
        ExitStatus::Signal(signal) => v1::ExitStatus { code: 0, signal },
    }
}

/// An exit from the API's.
#[must_use]
pub fn exit_from(exit: v1::ExitStatus) -> ExitStatus {
    if exit.signal == 0 { ExitStatus::Code(exit.code) } else { ExitStatus::Signal(exit.signal) }
}

/// A job's state as the API's.
#[must_use]
pub fn job_state(state: JobState) -> v1::JobState {
    match state {
        JobState::Held => v1::JobState::Held,
        JobState::Pending => v1::JobState::Pending,
        JobState::Starting => v1::JobState::Starting,
        JobState::Running => v1::JobState::Running,
        JobState::Completed => v1::JobState::Completed,
        JobState::Failed => v1::JobState::Failed,
        JobState::Cancelled => v1::JobState::Cancelled,
        JobState::TimedOut => v1::JobState::TimedOut,
    }
}

/// A job's state from the API's; `None` for one without meaning.
#[must_use]
pub fn job_state_from(state: v1::JobState) -> Option<JobState> {
    match state {
        v1::JobState::Unspecified => None,
        v1::JobState::Held => Some(JobState::Held),
        v1::JobState::Pending => Some(JobState::Pending),
        v1::JobState::Starting => Some(JobState::Starting),
        v1::JobState::Running => Some(JobState::Running),
        v1::JobState::Completed => Some(JobState::Completed),
        v1::JobState::Failed => Some(JobState::Failed),
        v1::JobState::Cancelled => Some(JobState::Cancelled),
        v1::JobState::TimedOut => Some(JobState::TimedOut),
    }
}

/// GPUs of an allocation.
#[must_use]
pub fn gpu_allocations(allocation: &NodeAllocation) -> Vec<v1::GpuAllocation> {
    let gpus = allocation.gpus.iter();
    gpus.map(|gpu| v1::GpuAllocation {
        uuid: gpu.uuid.to_string(),
        milli: u32::try_from(gpu.milli.0).unwrap_or(u32::MAX),
    })
    .collect()
}
