//! Enums of the API as lower-case words, the same in tables and in JSON.

use gotgan_proto::v1;

/// Makes the reader of one enum: the name in the .proto less its prefix, lower-cased; "unknown" for a number that
/// this version does not know.
macro_rules! words {
    ($($(#[$doc:meta])* $function:ident: $enumeration:ident, $prefix:literal;)*) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $function(value: i32) -> String {
                match v1::$enumeration::try_from(value) {
                    Ok(known) => lower(known.as_str_name(), $prefix),
                    Err(_) => "unknown".to_owned(),
                }
            }
        )*
    };
}

words! {
    /// As in "timed_out".
    job_state: JobState, "JOB_STATE_";
    /// As in "prolog".
    attempt_state: AttemptState, "ATTEMPT_STATE_";
    /// As in "ended".
    task_state: TaskState, "TASK_STATE_";
    /// As in "batch".
    step_kind: StepKind, "STEP_KIND_";
    /// As in "hardware"; "unspecified" while there is none.
    cause: Cause, "CAUSE_";
    /// As in "parent_limit".
    blocker_kind: BlockerKind, "BLOCKER_KIND_";
    /// As in "after_ok".
    dependency_kind: DependencyKind, "DEPENDENCY_KIND_";
    /// As in "suspect".
    liveness: NodeLiveness, "NODE_LIVENESS_";
    /// As in "best_effort".
    confinement_mode: ConfinementMode, "CONFINEMENT_MODE_";
    /// As in "draining".
    node_admin: NodeAdmin, "NODE_ADMIN_";
    /// As in "planned".
    maintenance_state: MaintenanceState, "MAINTENANCE_STATE_";
    /// As in "holds".
    reservation_state: ReservationState, "RESERVATION_STATE_";
    /// As in "passed_over".
    order_verdict: OrderVerdict, "ORDER_VERDICT_";
    /// As in "share".
    order_rule: OrderRule, "ORDER_RULE_";
    /// As in "borrowed".
    order_stage: OrderStage, "ORDER_STAGE_";
    /// As in "member".
    role: Role, "ROLE_";
    /// As in "reset_gpu".
    recovery_action: GpuRecoveryAction, "GPU_RECOVERY_ACTION_";
    /// As in "power_cap".
    clock_reason: GpuClockReason, "GPU_CLOCK_REASON_";
    /// As in "completed".
    fabric_state: GpuFabricState, "GPU_FABRIC_STATE_";
    /// As in "healthy"; "unspecified" if the driver does not say.
    fabric_health: GpuFabricHealth, "GPU_FABRIC_HEALTH_";
    /// As in "charge".
    ledger_kind: LedgerKind, "LEDGER_KIND_";
}

fn lower(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

/// The cause, if the thing has ended.
#[must_use]
pub fn cause_if_any(value: i32) -> Option<String> {
    (value != v1::Cause::Unspecified as i32).then(|| cause(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_names_of_the_api_in_lower_case() {
        assert_eq!(job_state(v1::JobState::TimedOut.into()), "timed_out");
        assert_eq!(dependency_kind(v1::DependencyKind::AfterNotOk.into()), "after_not_ok");
        assert_eq!(job_state(99), "unknown");
        assert_eq!(cause_if_any(0), None);
    }
}
