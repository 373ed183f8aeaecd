//! The configuration file: every key has a default, an unknown key is refused. `docs/operations/scheduler.toml`
//! documents each; a test compares the two.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gotgan_core::fairshare::HalfLife;
use gotgan_core::health::Rules;
use gotgan_core::policy::Policy;
use serde::{Deserialize, Serialize};

use crate::limits::Limits;

/// Everything that can be set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where it listens and keeps things.
    pub server: Server,
    /// Certificates.
    pub tls: Tls,
    /// Beats and patience.
    pub timing: Timing,
    /// What one caller may have at once.
    pub limits: Limits,
    /// Limits and defaults for jobs, and about the health of hardware.
    pub policy: Policy,
    /// Rules and repairs of hardware that is not well.
    pub health: Health,
}

/// Where it listens and keeps things.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// gRPC, for clients and workers.
    pub listen: SocketAddr,
    /// HTTP, for metrics and health; "off" for none.
    pub http_listen: String,
    /// Host names and addresses clients use, for the certificate; the first is announced.
    pub names: Vec<String>,
    /// Where certificates, the administrator's token and the embedded database are kept.
    pub data_dir: PathBuf,
    /// `sqlite://PATH` or `postgres://…`; empty: SQLite in the data directory.
    pub database: String,
    /// How long a start waits for a database that does not answer, in seconds; 0: not at all.
    pub database_wait_s: u64,
    /// Whether a standby takes over at once when the leader's session with PostgreSQL has ended, and not after its lease.
    pub watch_leader_session: bool,
}

impl Default for Server {
    fn default() -> Self {
        Server {
            listen: SocketAddr::from(([0, 0, 0, 0], 7440)),
            http_listen: "127.0.0.1:7441".to_owned(),
            names: Vec::new(),
            data_dir: PathBuf::from("/var/lib/gotgan"),
            database: String::new(),
            database_wait_s: 60,
            watch_leader_session: true,
        }
    }
}

/// Certificates of the site; all empty: made at the first start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Certificate authority that clients trust and workers' certificates are signed by, PEM.
    pub ca: Option<PathBuf>,
    /// Its key; without it no worker can join.
    pub ca_key: Option<PathBuf>,
    /// The server's certificate, PEM.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// Beats and patience.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// How often workers beat.
    pub heartbeat_ms: u32,
    /// A node not heard for this long gets no new work: three beats.
    pub suspect_after_ms: u64,
    /// A node not heard for this long is given up and its attempts end with cause node.
    pub lost_after_ms: u64,
    /// A worker that is heard must confirm an attempt within this.
    pub confirm_within_ms: i64,
    /// How long the lease of the leader runs; renewed three times in it.
    pub leader_lease_ms: i64,
    /// After a start or a take-over no job starts until this part of the nodes in service has reported, in hundredths.
    pub quorum_percent: u32,
    /// Nodes that have not reported by then are awaited no longer.
    pub quorum_grace_ms: u32,
    /// How often the repair loops look.
    pub repair_every_ms: u64,
    /// Once a full pass of the planner takes this long, passes that only ask who starts in what was freed go between.
    pub event_passes_beyond_ms: u64,
    /// How often one of these is held against the same pass over everybody that waits; 0: never.
    pub cross_check_every_s: u64,
    /// At shutdown, how long open calls may take to end.
    pub shutdown_grace_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            heartbeat_ms: 5_000,
            suspect_after_ms: 15_000,
            lost_after_ms: 120_000,
            confirm_within_ms: 60_000,
            leader_lease_ms: 3_000,
            quorum_percent: 50,
            quorum_grace_ms: 5_000,
            repair_every_ms: 500,
            event_passes_beyond_ms: 5,
            cross_check_every_s: 60,
            shutdown_grace_ms: 5_000,
        }
    }
}

/// Rules and repairs of hardware that is not well. Numbers about it are in `policy.health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// The site's own rules, which come after those that Gotgan has; empty: none.
    pub rules: PathBuf,
    /// The site's own program that resets GPUs and reboots nodes, with its first arguments; empty: people do.
    pub repair_command: Vec<String>,
    /// When it is given up, seconds.
    pub repair_timeout_s: u64,
    /// How many repairs go on at once.
    pub repairs_at_once: usize,
}

impl Default for Health {
    fn default() -> Self {
        let (rules, repair_command) = Default::default();
        Health { rules, repair_command, repair_timeout_s: 900, repairs_at_once: 4 }
    }
}

impl Health {
    /// The rules: Gotgan's own, changed by those of the site.
    ///
    /// # Errors
    /// [`ConfigError`] if the site's file cannot be read or has a rule that cannot be.
    pub fn rules(&self) -> Result<Rules, ConfigError> {
        if self.rules.as_os_str().is_empty() {
            return Ok(Rules::default());
        }
        let path = self.rules.clone();
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        Rules::default()
            .changed_by(&text)
            .map_err(|error| ConfigError::Parse { path, message: error.to_string() })
    }
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file cannot be understood.
    #[error("{}: {message}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What and where.
        message: String,
    },
    /// A value makes no sense.
    #[error("{key}: {message}")]
    Value {
        /// Which key.
        key: &'static str,
        /// What is wrong and how to mend it.
        message: String,
    },
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// Reads the text of a file; `path` is for the error.
    ///
    /// # Errors
    /// [`ConfigError::Parse`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            message: error.to_string(),
        })
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// [`ConfigError::Value`] with the first key that makes no sense.
    pub fn check(&self) -> Result<(), ConfigError> {
        let Timing { heartbeat_ms, suspect_after_ms, lost_after_ms, .. } = self.timing;
        let value =
            |key, message: &str| Err(ConfigError::Value { key, message: message.to_owned() });
        if heartbeat_ms == 0 {
            return value("timing.heartbeat_ms", "must be above 0");
        }
        if suspect_after_ms <= u64::from(heartbeat_ms) {
            return value("timing.suspect_after_ms", "must be more than timing.heartbeat_ms");
        }
        if lost_after_ms < suspect_after_ms {
            return value("timing.lost_after_ms", "must be at least timing.suspect_after_ms");
        }
        if self.timing.leader_lease_ms < 300 || self.timing.repair_every_ms == 0 {
            return value(
                "timing.leader_lease_ms",
                "must be at least 300, and timing.repair_every_ms above 0",
            );
        }
        if self.timing.quorum_percent > 100 {
            return value("timing.quorum_percent", "must be 0 up to 100");
        }
        let policy = &self.policy;
        if policy.default_time_limit_s < 1 || policy.default_time_limit_s > policy.max_time_limit_s
        {
            return value("policy.default_time_limit_s", "must be 1 up to policy.max_time_limit_s");
        }
        if HalfLife::from_minutes(policy.fair_share_half_life_minutes).is_none() {
            return value("policy.fair_share_half_life_minutes", "must be 60 up to 5270400");
        }
        if policy.max_starts_per_pass == 0 {
            return value(
                "policy.max_starts_per_pass",
                "must be above 0, or nothing would ever start",
            );
        }
        self.check_health()
    }

    fn check_health(&self) -> Result<(), ConfigError> {
        let value =
            |key, message: &str| Err(ConfigError::Value { key, message: message.to_owned() });
        let terms = &self.policy.health;
        if terms.verify_s < 0 {
            return value("policy.health.verify_s", "must be 0 or more");
        }
        if terms.reset_within_s < 0 {
            return value("policy.health.reset_within_s", "must be 0 or more");
        }
        if terms.lemon_half_life_s < 1 {
            return value("policy.health.lemon_half_life_s", "must be above 0");
        }
        if terms.breaker_percent > 100 {
            return value("policy.health.breaker_percent", "must be 0 up to 100");
        }
        if terms.facility_percent > 100 {
            return value("policy.health.facility_percent", "must be 0 up to 100");
        }
        if let Err(bad) = self.policy.power.check() {
            return value("policy.power", &bad.to_string());
        }
        if self.health.repair_timeout_s == 0 {
            return value("health.repair_timeout_s", "must be above 0");
        }
        if self.health.repairs_at_once == 0 {
            return value("health.repairs_at_once", "must be above 0");
        }
        Ok(())
    }

    /// With the site's rules for signs of bad health read from their file.
    ///
    /// # Errors
    /// [`ConfigError`] if that cannot be read, or has a rule that cannot be.
    pub fn with_rules(mut self) -> Result<Self, ConfigError> {
        self.policy.health.rules = Arc::new(self.health.rules()?);
        Ok(self)
    }

    /// The database's URL.
    #[must_use]
    pub fn database_url(&self) -> String {
        if self.server.database.is_empty() {
            format!("sqlite://{}", self.server.data_dir.join("gotgan.db").display())
        } else {
            self.server.database.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DOCUMENTED: &str = include_str!("../../docs/operations/scheduler.toml");

    #[test]
    fn the_documented_file_is_the_default() {
        let documented: Config = toml::from_str(DOCUMENTED).unwrap();
        assert_eq!(documented, Config::default());
    }

    #[test]
    fn every_key_is_documented() {
        let keys = |text: &str| toml::from_str::<toml::Table>(text).unwrap();
        let documented = keys(DOCUMENTED);
        let all = keys(&toml::to_string(&Config::default()).unwrap());
        for (section, values) in all {
            let documented = documented.get(&section).unwrap().as_table().unwrap();
            for key in values.as_table().unwrap().keys() {
                assert!(documented.contains_key(key), "{section}.{key} is not documented");
            }
        }
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = toml::from_str::<Config>("[timing]\nhartbeat_ms = 1\n").unwrap_err();
        assert!(error.to_string().contains("hartbeat_ms"));
    }

    #[test]
    fn a_half_life_out_of_bounds_is_refused_with_them() {
        let bounds =
            format!("must be {} up to {}", HalfLife::SHORTEST_MINUTES, HalfLife::LONGEST_MINUTES);
        for minutes in [0, HalfLife::SHORTEST_MINUTES - 1, HalfLife::LONGEST_MINUTES + 1] {
            let mut config = Config::default();
            config.policy.fair_share_half_life_minutes = minutes;
            let error = config.check().unwrap_err().to_string();
            assert!(error.ends_with(&bounds) && error.starts_with("policy.fair_share"), "{error}");
        }
    }

    #[test]
    fn more_than_all_nodes_cannot_be_awaited() {
        let mut config = Config::default();
        config.timing.quorum_percent = 101;
        let error = config.check().unwrap_err().to_string();
        assert_eq!(error, "timing.quorum_percent: must be 0 up to 100");
    }

    #[test]
    fn a_site_rule_that_cannot_be_is_refused_with_its_file_its_number_and_its_field() {
        let directory = tempfile::tempdir().unwrap();
        let rules = directory.path().join("rules.toml");
        std::fs::write(
            &rules,
            "version = \"1\"\n[[rule]]\non = []\nresponse = \"log\"\nwhy = \"\"",
        )
        .unwrap();
        let health = Health { rules: rules.clone(), ..Health::default() };
        let config = Config { health, ..Config::default() };
        let error = config.with_rules().unwrap_err().to_string();
        assert_eq!(error, format!("{}: rule 1: on: names no sign", rules.display()));
    }

    #[test]
    fn the_defaults_make_sense() {
        Config::default().check().unwrap();
    }
}
