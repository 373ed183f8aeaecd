//! What becomes of a job whose attempt has ended: by cause, and by how often it happened.

use crate::amount::UnixMicros;
use crate::attempt::{Cause, ExitStatus, Outcome};
use crate::job::JobStatus;
use crate::policy::Policy;
use crate::spec::JobSpec;

/// What becomes of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Completed,
    /// It failed for good.
    Failed,
    /// It reached its time limit.
    TimedOut,
    /// It is tried again, not before this moment.
    Retry {
        /// Earliest next attempt.
        not_before: UnixMicros,
        /// Counts against the user's retries.
        by_own_doing: bool,
    },
    /// It was lost too often; a person should look.
    Hold,
}

/// Decides by the cause of the end. A user's cancel or requeue is decided before this is asked.
#[must_use]
pub fn verdict(
    spec: &JobSpec,
    status: &JobStatus,
    outcome: &Outcome,
    policy: &Policy,
    now: UnixMicros,
) -> Verdict {
    match outcome.cause {
        Cause::User if outcome.exit.is_none_or(ExitStatus::is_success) => Verdict::Completed,
        Cause::User | Cause::OutOfMemory if status.failures < spec.max_retries => Verdict::Retry {
            not_before: now.plus_millis(delay_ms(policy, status.failures)),
            by_own_doing: true,
        },
        Cause::User | Cause::OutOfMemory => Verdict::Failed,
        Cause::Limit => Verdict::TimedOut,
        _ if !spec.requeue => Verdict::Failed,
        Cause::Preempted => Verdict::Retry { not_before: now, by_own_doing: false },
        Cause::Hardware | Cause::Node | Cause::Network | Cause::Site
            if status.losses.saturating_add(1) >= policy.max_losses =>
        {
            Verdict::Hold
        }
        Cause::Hardware | Cause::Node | Cause::Network | Cause::Site => {
            // The first loss is tried elsewhere at once; where there is no elsewhere, the tries are spread out.
            let wait_ms = status.losses.checked_sub(1).map_or(0, |before| delay_ms(policy, before));
            Verdict::Retry { not_before: now.plus_millis(wait_ms), by_own_doing: false }
        }
    }
}

/// Doubles from the first delay up to the longest.
fn delay_ms(policy: &Policy, tries: u32) -> i64 {
    let doubled = policy.retry_delay_ms.saturating_mul(1_i64 << tries.min(30));
    doubled.min(policy.retry_delay_max_ms)
}
