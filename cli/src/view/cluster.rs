//! The cluster as a whole, tokens, and who the caller is.

use gotgan_proto::v1;
use serde::Serialize;

use crate::{output::time, view::word};

/// The state of the whole.
#[derive(Clone, Debug, Serialize)]
pub struct ClusterView {
    pub version: String,
    pub database: String,
    pub leader: String,
    pub epoch: u64,
    pub started_us: Option<i64>,
    pub started: Option<String>,
    pub any_simulated: bool,
    pub nodes_ready: u64,
    pub nodes_unavailable: u64,
    pub jobs_held: u64,
    pub jobs_pending: u64,
    pub jobs_starting: u64,
    pub jobs_running: u64,
    pub passes: u64,
    pub last_pass_us: u64,
    pub event_seq: u64,
    pub classes: Vec<CapacityView>,
    /// GPUs that are out for their health or are verified.
    pub gpus_out: u64,
    /// GPUs that are watched.
    pub gpus_suspect: u64,
    /// Halls in which nothing is taken out by itself any more.
    pub broken_breakers: Vec<BreakerView>,
    /// Racks and halls that are slowed down by heat or by their power, a line each.
    pub facility_alarms: Vec<String>,
    /// Version of the rules for signs of bad health.
    pub health_rules: String,
    /// What of power limits is reserved; empty where nothing is limited.
    pub power: Vec<PowerView>,
}

/// What of a power limit is reserved.
#[derive(Clone, Debug, Serialize)]
pub struct PowerView {
    /// `site`, `hall`, `rack` or `node`.
    pub level: String,
    /// Of the hall, rack or node; empty for the site.
    pub name: String,
    pub limit_watts: u64,
    pub reserved_watts: u64,
    pub nodes: u32,
}

impl PowerView {
    fn of(reserved: v1::PowerReserved) -> Self {
        let v1::PowerReserved { level, name, limit_watts, reserved_watts, nodes } = reserved;
        Self { level, name, limit_watts, reserved_watts, nodes }
    }
}

/// A circuit breaker that is broken.
#[derive(Clone, Debug, Serialize)]
pub struct BreakerView {
    /// Of what, as in "hall h2".
    pub scope: String,
    pub since_us: Option<i64>,
    pub since: Option<String>,
    pub reason: String,
}

/// GPUs of one class; free, allocated and down add up to the capacity.
#[derive(Clone, Debug, Serialize)]
pub struct CapacityView {
    pub gpu_class: String,
    pub simulated: bool,
    pub capacity_gpu_milli: u64,
    pub free_gpu_milli: u64,
    pub allocated_gpu_milli: u64,
    pub down_gpu_milli: u64,
}

impl ClusterView {
    /// As the API has it.
    #[must_use]
    pub fn of(status: v1::ClusterStatus) -> Self {
        let class = |found: v1::ClassCapacity| CapacityView {
            gpu_class: found.gpu_class,
            simulated: found.simulated,
            capacity_gpu_milli: found.capacity_gpu_milli,
            free_gpu_milli: found.free_gpu_milli,
            allocated_gpu_milli: found.allocated_gpu_milli,
            down_gpu_milli: found.down_gpu_milli,
        };
        Self {
            version: status.version,
            database: status.database,
            leader: status.leader,
            epoch: status.epoch,
            started_us: time::set(status.started_us),
            started: time::rfc3339(status.started_us),
            any_simulated: status.any_simulated,
            nodes_ready: status.nodes_ready,
            nodes_unavailable: status.nodes_unavailable,
            jobs_held: status.jobs_held,
            jobs_pending: status.jobs_pending,
            jobs_starting: status.jobs_starting,
            jobs_running: status.jobs_running,
            passes: status.passes,
            last_pass_us: status.last_pass_us,
            event_seq: status.event_seq,
            classes: status.classes.into_iter().map(class).collect(),
            gpus_out: status.gpus_out,
            gpus_suspect: status.gpus_suspect,
            broken_breakers: status.broken_breakers.into_iter().map(breaker).collect(),
            facility_alarms: status.facility_alarms,
            health_rules: status.health_rules,
            power: status.power.into_iter().map(PowerView::of).collect(),
        }
    }
}

fn breaker(broken: v1::BrokenBreaker) -> BreakerView {
    let v1::BrokenBreaker { scope, since_us, reason } = broken;
    BreakerView { scope, since_us: time::set(since_us), since: time::rfc3339(since_us), reason }
}

/// A token without its secret.
#[derive(Clone, Debug, Serialize)]
pub struct TokenView {
    pub token_id: String,
    pub subject: String,
    pub role: String,
    pub projects: Vec<String>,
    pub created_us: Option<i64>,
    pub created: Option<String>,
    pub expires_us: Option<i64>,
    pub expires: Option<String>,
    pub revoked_us: Option<i64>,
    pub revoked: Option<String>,
}

impl TokenView {
    /// As the API has it.
    #[must_use]
    pub fn of(token: v1::TokenInfo) -> Self {
        Self {
            token_id: token.token_id,
            subject: token.subject,
            role: word::role(token.role),
            projects: token.projects,
            created_us: time::set(token.created_us),
            created: time::rfc3339(token.created_us),
            expires_us: time::set(token.expires_us),
            expires: time::rfc3339(token.expires_us),
            revoked_us: time::set(token.revoked_us),
            revoked: time::rfc3339(token.revoked_us),
        }
    }
}

/// Who the caller is.
#[derive(Clone, Debug, Serialize)]
pub struct WhoAmIView {
    pub subject: String,
    pub role: String,
    pub projects: Vec<String>,
    pub expires_us: Option<i64>,
    pub expires: Option<String>,
}

impl WhoAmIView {
    /// As the API has it.
    #[must_use]
    pub fn of(answer: v1::WhoAmIResponse) -> Self {
        Self {
            subject: answer.subject,
            role: word::role(answer.role),
            projects: answer.projects,
            expires_us: time::set(answer.expires_us),
            expires: time::rfc3339(answer.expires_us),
        }
    }
}
