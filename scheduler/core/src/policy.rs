//! Numbers the site sets; arguments to the decisions.

use serde::{Deserialize, Serialize};

use crate::amount::{CpuMilli, MemoryMib};
use crate::fairshare::{HalfLife, OrderRule};
use crate::health;
use crate::power::PowerTerms;

/// Limits and defaults of the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Longest time limit a job may ask for, seconds.
    pub max_time_limit_s: i64,
    /// For jobs that ask for none, seconds.
    pub default_time_limit_s: i64,
    /// Jobs one project may have waiting.
    pub max_pending_per_project: u64,
    /// Jobs that may wait in all.
    pub max_pending: u64,
    /// Tasks one array may have; at most 1,000,000.
    pub max_array_tasks: u32,
    /// CPUs given with each whole GPU when a job asks for none.
    pub default_cpu_per_gpu: CpuMilli,
    /// Memory given with each whole GPU when a job asks for none.
    pub default_memory_per_gpu: MemoryMib,
    /// CPUs of a node without GPUs when a job asks for none.
    pub default_cpu: CpuMilli,
    /// Memory on a node without GPUs when a job asks for none.
    pub default_memory: MemoryMib,
    /// Between SIGTERM and SIGKILL when a job says nothing, seconds.
    pub default_grace_s: u32,
    /// Tries lost to hardware, node, network or site before the job is held for a person to look.
    pub max_losses: u32,
    /// Wait before the next try after the first failure, doubled each time, milliseconds.
    pub retry_delay_ms: i64,
    /// Longest such wait, milliseconds.
    pub retry_delay_max_ms: i64,
    /// Starts decided in one pass; the rest waits for the next one, so that a commit stays small.
    pub max_starts_per_pass: usize,
    /// Gangs of several nodes of one project for which a start is planned at a time. 0: nothing is planned at all, and
    /// whatever fits may pass what waits.
    pub planned_gangs_per_project: u32,
    /// A start is planned for a gang once it has waited this long, seconds: in a busy machine many find room before.
    pub planned_gangs_after_s: i64,
    /// Other jobs of one project for which a start is planned at a time.
    pub planned_jobs_per_project: u32,
    /// A start is planned for a job that takes all GPUs of a node once it has waited this long, seconds; for one that
    /// takes a part of them after as many times longer as it is smaller.
    pub planned_after_s: i64,
    /// Jobs for which a start is planned, of all projects together.
    pub planned_starts_max: u32,
    /// Of the GPUs of a class, at most this part is planned for at a time, percent; the first is planned whatever it needs.
    pub planned_percent_max: u32,
    /// An attempt that borrows is safe for this long from its lease, however much others are guaranteed.
    pub min_runtime_before_preemption_s: i64,
    /// An owner is told once of an attempt whose GPUs have all done nothing for this long, seconds; 0: never.
    pub idle_warning_s: u32,
    /// Longest maintenance that can be planned at once, seconds.
    pub max_window_s: i64,
    /// Who has the next turn among projects that compete alike.
    pub fair_share_rule: OrderRule,
    /// After this long what a project used counts half for its turn, minutes. What it is charged never fades.
    pub fair_share_half_life_minutes: u32,
    /// When hardware goes out of service by itself, and how it comes back.
    pub health: health::Terms,
    /// What GPUs draw, may draw, and may draw together.
    pub power: PowerTerms,
}

impl Policy {
    /// How fast use fades; what the site set is checked before it gets here.
    #[must_use]
    pub fn half_life(&self) -> HalfLife {
        HalfLife::from_minutes(self.fair_share_half_life_minutes).unwrap_or_default()
    }
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            max_time_limit_s: 7 * 24 * 3600,
            default_time_limit_s: 3600,
            max_pending_per_project: 100_000,
            max_pending: 1_000_000,
            max_array_tasks: 100_000,
            default_cpu_per_gpu: CpuMilli(4_000),
            default_memory_per_gpu: MemoryMib(16 * 1024),
            default_cpu: CpuMilli(1_000),
            default_memory: MemoryMib(1024),
            default_grace_s: 30,
            max_losses: 5,
            retry_delay_ms: 1_000,
            retry_delay_max_ms: 300_000,
            max_starts_per_pass: 1_000,
            planned_gangs_per_project: 2,
            planned_gangs_after_s: 900,
            planned_jobs_per_project: 1,
            planned_after_s: 24 * 3600,
            planned_starts_max: 1_000,
            planned_percent_max: 50,
            min_runtime_before_preemption_s: 60,
            idle_warning_s: 3600,
            max_window_s: 30 * 24 * 3600,
            fair_share_rule: OrderRule::default(),
            fair_share_half_life_minutes: HalfLife::default().minutes(),
            health: health::Terms::default(),
            power: PowerTerms::default(),
        }
    }
}
