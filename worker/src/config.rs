//! Settings of the daemon: a TOML file, and flags that win over it.
//!
//! `docs/operations/worker.toml` documents every key with its default; a test keeps the two together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gotgan_core::topology::Level;
use serde::Deserialize;

use crate::confine::config::{ConfinementConfig, UsersConfig};
use crate::container::config::ContainersConfig;
use crate::health::config::{HealthConfig, SETTLE_MAX_MS};
use crate::hooks::HooksConfig;
use crate::imex::ImexConfig;
use crate::power::PowerConfig;
use crate::retention::Retention;

/// A shim that gives up later is taken to hang by its worker.
const GIVE_UP_MAX_S: u64 = 25;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, key and reason.
        source: Box<toml::de::Error>,
    },
    /// A value cannot be.
    #[error("{0}")]
    Value(String),
}

/// All settings, with their defaults.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Addresses of the schedulers, tried in turn.
    pub schedulers: Vec<String>,
    /// Where journal, certificates and output live.
    pub state_directory: PathBuf,
    /// Name of the node; empty: as joined, else the host's name.
    pub node: String,
    /// Where other nodes reach this one; empty: its address towards the scheduler.
    pub address: String,
    /// Plain HTTP without certificates; only for tests.
    pub insecure: bool,
    /// Authority to join with.
    pub ca: PathBuf,
    /// Token to join with if there is no certificate yet.
    pub join_token: String,
    /// Labels of the node.
    pub labels: BTreeMap<String, String>,
    /// Names of the blocks that the node belongs to: one cluster, rack, NVLink domain and so on.
    pub topology: BTreeMap<Level, String>,
    /// CPUs to offer; 0: all.
    pub cpus: u64,
    /// Memory to offer; 0: all.
    pub memory_mib: u64,
    /// Invented GPUs; empty: none.
    pub simulate: String,
    /// NVML's library; empty: where the system finds it.
    pub nvml_library: String,
    /// GPUs of a double of that library are shown as if they were real.
    pub nvml_double_as_real: bool,
    /// Where the driver lists the permissions to parts of GPUs that are cut.
    pub mig_permissions: PathBuf,
    /// Classes of GPUs by their full names.
    pub gpu_classes: BTreeMap<String, String>,
    /// How often GPUs are read.
    pub reading_interval_ms: u64,
    /// After this long without an answer a reading counts as failed.
    pub reading_timeout_ms: u64,
    /// Where the page for Prometheus is; empty: there is none.
    pub metrics_listen: String,
    /// Program of the shim; empty: beside the daemon.
    pub shim: PathBuf,
    /// How long output of attempts is kept.
    pub log_retention_s: u64,
    /// How much of it is kept at most.
    pub log_budget_mib: u64,
    /// Longest pause between two tries to reach a scheduler.
    pub reconnect_max_ms: u64,
    /// What attempts are confined by.
    pub confinement: ConfinementConfig,
    /// Who attempts run as.
    pub users: UsersConfig,
    /// Whether and how jobs run in images.
    pub containers: ContainersConfig,
    /// What is told of the hardware.
    pub health: HealthConfig,
    /// Programs of the site before and after attempts.
    pub hooks: HooksConfig,
    /// Whether GPUs are capped.
    pub power: PowerConfig,
    /// Where IMEX channels come from.
    pub imex: ImexConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            schedulers: Vec::new(),
            state_directory: "/var/lib/gotgan-worker".into(),
            node: String::new(),
            address: String::new(),
            insecure: false,
            ca: PathBuf::new(),
            join_token: String::new(),
            labels: BTreeMap::new(),
            topology: BTreeMap::new(),
            cpus: 0,
            memory_mib: 0,
            simulate: String::new(),
            nvml_library: String::new(),
            nvml_double_as_real: false,
            mig_permissions: "/proc/driver/nvidia/capabilities".into(),
            gpu_classes: BTreeMap::new(),
            reading_interval_ms: 5_000,
            reading_timeout_ms: 10_000,
            metrics_listen: String::new(),
            shim: PathBuf::new(),
            log_retention_s: 7 * 86_400,
            log_budget_mib: 64 << 10,
            reconnect_max_ms: 10_000,
            confinement: ConfinementConfig::default(),
            users: UsersConfig::default(),
            containers: ContainersConfig::default(),
            health: HealthConfig::default(),
            hooks: HooksConfig::default(),
            power: PowerConfig::default(),
            imex: ImexConfig::default(),
        }
    }
}

impl Config {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        Self::parse(path, &text)
    }

    /// Reads the text of a file; `path` is for the error.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text)
            .map_err(|source| ConfigError::Parse { path: path.into(), source: Box::new(source) })
    }

    /// Refuses what cannot work, naming what to change.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bad = |text: String| Err(ConfigError::Value(text));
        if self.schedulers.is_empty() {
            return bad("no scheduler given: use --scheduler https://HOST:PORT".into());
        }
        let scheme = if self.insecure { "http://" } else { "https://" };
        if let Some(other) = self.schedulers.iter().find(|address| !address.starts_with(scheme)) {
            return bad(format!("scheduler {other}: the address must begin with {scheme}"));
        }
        if self.reading_interval_ms == 0 {
            return bad("reading_interval_ms must be at least 1".into());
        }
        self.metrics_address()?;
        if self.state_directory.to_str().is_none() {
            return bad("state_directory must be UTF-8".into());
        }
        let root = &self.confinement.cgroup_root;
        if !root.as_os_str().is_empty() && !root.is_absolute() {
            return bad("confinement.cgroup_root must be an absolute path, or empty".into());
        }
        if !(1..=GIVE_UP_MAX_S).contains(&self.confinement.give_up_s) {
            return bad(format!("confinement.give_up_s must be from 1 to {GIVE_UP_MAX_S}"));
        }
        self.containers.check().map_err(ConfigError::Value)?;
        if self.health.settle_ms > SETTLE_MAX_MS {
            return bad(format!("health.settle_ms must be at most {SETTLE_MAX_MS}"));
        }
        if self.power.limit_timeout_s == 0 {
            return bad("power.limit_timeout_s must be at least 1".into());
        }
        Ok(())
    }

    /// Where the page for Prometheus is; `None`: there is none.
    pub fn metrics_address(&self) -> Result<Option<SocketAddr>, ConfigError> {
        if self.metrics_listen.is_empty() {
            return Ok(None);
        }
        self.metrics_listen.parse().map(Some).map_err(|_| {
            let given = &self.metrics_listen;
            ConfigError::Value(format!(
                "metrics_listen {given:?}: must be ADDRESS:PORT, as in \"127.0.0.1:7442\", or empty for no page"
            ))
        })
    }

    /// See [`Self::reading_interval_ms`].
    pub fn reading_interval(&self) -> Duration {
        Duration::from_millis(self.reading_interval_ms)
    }

    /// See [`Self::reading_timeout_ms`].
    pub fn reading_timeout(&self) -> Duration {
        Duration::from_millis(self.reading_timeout_ms)
    }

    /// Two looks at a GPU that are further apart have others missing between them: the second was late by more than one
    /// may be.
    pub fn reading_gap(&self) -> Duration {
        self.reading_interval() * 2 + self.reading_timeout()
    }

    /// Labels with the names of the node's blocks among them. A label of the same key wins: it may come from a flag.
    pub fn all_labels(&self) -> BTreeMap<String, String> {
        let blocks = self.topology.iter().filter(|(_, name)| !name.is_empty());
        let blocks = blocks.map(|(level, name)| (level.word().to_owned(), name.clone()));
        blocks.chain(self.labels.clone()).collect()
    }

    /// What is kept of the output of attempts that are over.
    pub fn retention(&self) -> Retention {
        Retention {
            keep: Duration::from_secs(self.log_retention_s),
            budget_bytes: self.log_budget_mib.saturating_mul(1 << 20),
        }
    }
}

/// Whether a word can be the name of a node: 1 to 63 of `[a-z0-9-]`.
pub fn is_node_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len()) && name.chars().all(fits)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DOCUMENTED: &str = include_str!("../../docs/operations/worker.toml");

    #[test]
    fn the_documented_file_shows_every_key_with_its_default() {
        let shown: String = DOCUMENTED
            .lines()
            .map(|line| line.strip_prefix("#: ").unwrap_or(line))
            .map(|line| format!("{line}\n"))
            .collect();
        let parsed: Config = toml::from_str(&shown).unwrap();
        assert_eq!(parsed, Config::default());
        let table: toml::Table = toml::from_str(&shown).unwrap();
        let debug = format!("{:#?}", Config::default());
        let keys = debug.lines().filter(|line| line.starts_with("    ") && line.contains(": "));
        let sections = ["confinement", "users", "containers", "health", "hooks", "power", "imex"];
        let sections = sections.map(|name| table[name].as_table().unwrap());
        for key in keys.filter_map(|line| line.trim().split_once(':')).map(|(key, _)| key) {
            let shown = [&table].into_iter().chain(sections).any(|it| it.contains_key(key));
            assert!(shown, "{key} is not documented");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = toml::from_str::<Config>("shedulers = []").unwrap_err().to_string();
        assert!(error.contains("shedulers"), "{error}");
    }

    #[test]
    fn blocks_are_labels_and_a_label_of_the_same_key_wins() {
        let text =
            "labels = { rack = \"9\" }\ntopology = { rack = \"7\", nvlink = \"7a\", hall = \"\" }";
        let labels = toml::from_str::<Config>(text).unwrap().all_labels();
        let found: Vec<_> = labels.iter().map(|(key, name)| format!("{key}={name}")).collect();
        assert_eq!(found, ["nvlink=7a", "rack=9"]);
        let error = toml::from_str::<Config>("topology = { row = \"1\" }").unwrap_err().to_string();
        assert!(error.contains("row") && error.contains("nvlink"), "{error}");
    }

    #[test]
    fn a_plain_address_is_refused_unless_insecure_is_asked_for() {
        let mut config = Config { schedulers: vec!["http://x:1".into()], ..Default::default() };
        assert!(config.check().unwrap_err().to_string().contains("https://"));
        config.insecure = true;
        config.check().unwrap();
    }

    #[test]
    fn a_place_for_metrics_is_an_address_with_a_port_or_nothing() {
        let at = |text: &str| {
            let metrics_listen = text.to_owned();
            Config { metrics_listen, ..Config::default() }.metrics_address()
        };
        assert_eq!(at("").unwrap(), None);
        assert_eq!(at("[::1]:7442").unwrap().unwrap().port(), 7442);
        for bad in ["7442", "localhost:7442", "off", "127.0.0.1"] {
            let error = at(bad).unwrap_err().to_string();
            assert!(error.starts_with("metrics_listen") && error.contains("7442"), "{error}");
        }
    }

    #[test]
    fn node_names_are_short_and_lower_case() {
        assert!(is_node_name("gpu-17"));
        for bad in ["", "Gpu", "a.b", "a_b", &"a".repeat(64)] {
            assert!(!is_node_name(bad), "{bad}");
        }
    }
}
