//! How hardware stands.

use gotgan_proto::v1;
use serde::Serialize;

use crate::output::time;

/// How a GPU, or a node as a whole, stands.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HealthView {
    /// "ok", "suspect", "draining", "out" or "verifying".
    pub state: String,
    pub since_us: Option<i64>,
    pub since: Option<String>,
    pub reason: String,
    /// What is to be done: "reset", "reboot" or "service"; empty: nothing.
    pub repair: String,
    /// The sign that brought it there, as rules name it.
    pub signal: String,
    /// It would be out if too much of its hall were not out already.
    pub held_back: bool,
    /// What lasts on it now, as rules name it.
    pub conditions: Vec<String>,
    /// It is being verified, its site has a check for that, and it has not passed it yet.
    pub check_awaited: bool,
}

impl HealthView {
    /// As the API has it; of a scheduler that does not tell, sound.
    #[must_use]
    pub fn of(health: Option<&v1::HardwareHealth>) -> Self {
        let Some(health) = health else {
            return Self { state: "ok".to_owned(), ..Self::default() };
        };
        let state = match health.state() {
            v1::HealthState::Unspecified | v1::HealthState::Ok => "ok",
            v1::HealthState::Suspect => "suspect",
            v1::HealthState::Draining => "draining",
            v1::HealthState::Out => "out",
            v1::HealthState::Verifying => "verifying",
        };
        Self {
            state: state.to_owned(),
            since_us: time::set(health.since_us),
            since: time::rfc3339(health.since_us),
            reason: health.reason.clone(),
            repair: health.repair.clone(),
            signal: health.signal.clone(),
            held_back: health.held_back,
            conditions: health.conditions.clone(),
            check_awaited: health.check_awaited,
        }
    }

    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.state == "ok" && self.conditions.is_empty()
    }

    /// Whether it takes no new work.
    #[must_use]
    pub fn is_out(&self) -> bool {
        !matches!(self.state.as_str(), "ok" | "suspect")
    }

    /// What is to be done, and what keeps it from that.
    #[must_use]
    pub fn to_do(&self) -> String {
        match (self.repair.as_str(), self.held_back) {
            ("", _) if self.check_awaited => "the site's check".to_owned(),
            ("", _) => String::new(),
            (repair, true) => format!("{repair} (held back by the breaker)"),
            (repair, false) if self.state == "suspect" => format!("{repair} when idle"),
            (repair, false) => repair.to_owned(),
        }
    }
}
