//! What the site asks for: the sections `[confinement]` and `[users]` of the worker's settings.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

/// How much is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nothing: tasks run as they are started.
    Off,
    /// What the machine can; what it cannot is said.
    #[default]
    BestEffort,
    /// All that is switched on here, or the worker does not start.
    Required,
}

impl Mode {
    /// As in the settings.
    pub fn word(self) -> &'static str {
        match self {
            Mode::Off => "off",
            Mode::BestEffort => "best_effort",
            Mode::Required => "required",
        }
    }
}

/// What `/tmp` is to an attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tmp {
    /// A directory of its own on the disk of the state directory, removed at its end.
    #[default]
    Disk,
    /// Of its own in memory, counted as the attempt's.
    Memory,
    /// The machine's.
    Shared,
}

/// Section `[confinement]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConfinementConfig {
    /// How much is asked for.
    pub mode: Mode,
    /// Directory of cgroup version 2 in which every attempt gets one; empty: found.
    pub cgroup_root: PathBuf,
    /// Attempts get the memory they asked for and no more.
    pub memory_limit: bool,
    /// The same of CPU time.
    pub cpu_limit: bool,
    /// Processes and threads of an attempt at most; 0: no limit.
    pub processes_max: u64,
    /// Processes, mounts and memory shared between processes are each attempt's own.
    pub namespaces: bool,
    /// What `/tmp` is to an attempt.
    pub tmp: Tmp,
    /// GPUs that are not the attempt's own cannot be opened.
    pub device_filter: bool,
    /// No program makes its user more than they are.
    pub no_new_privileges: bool,
    /// After the last KILL, how long until a process that does not die is given up, and the node drained.
    pub give_up_s: u64,
}

impl Default for ConfinementConfig {
    fn default() -> Self {
        Self {
            mode: Mode::BestEffort,
            cgroup_root: PathBuf::new(),
            memory_limit: true,
            cpu_limit: true,
            processes_max: 32_768,
            namespaces: true,
            tmp: Tmp::Disk,
            device_filter: true,
            no_new_privileges: true,
            give_up_s: 20,
        }
    }
}

/// Section `[users]`: who an attempt runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UsersConfig {
    /// Of whom neither owner nor project says otherwise; empty: the worker's own user.
    pub default: String,
    /// The owner's name is the user's.
    pub same_name: bool,
    /// By the name of the job's owner.
    pub by_owner: BTreeMap<String, String>,
    /// By the job's project.
    pub by_project: BTreeMap<String, String>,
}

impl UsersConfig {
    /// Whether anybody runs as somebody else than the worker.
    pub fn is_set(&self) -> bool {
        let Self { default, same_name, by_owner, by_project } = self;
        !default.is_empty() || *same_name || !by_owner.is_empty() || !by_project.is_empty()
    }

    /// Whether everybody does.
    pub fn is_complete(&self) -> bool {
        !self.default.is_empty() || self.same_name
    }

    /// Name of the user that a job of this owner and project runs as; absent: the worker's own.
    pub fn name_of<'a>(&'a self, owner: &'a str, project: &str) -> Option<&'a str> {
        let given = self.by_owner.get(owner).or_else(|| self.by_project.get(project));
        let same = (self.same_name && !owner.is_empty()).then_some(owner);
        let default = (!self.default.is_empty()).then_some(self.default.as_str());
        given.map(String::as_str).or(same).or(default)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_owner_goes_before_a_project_and_both_before_the_rest() {
        let text =
            "default = \"jobs\"\nby_owner = { ada = \"u1\" }\nby_project = { \"lab/x\" = \"u2\" }";
        let mut users: UsersConfig = toml::from_str(text).unwrap();
        assert_eq!(users.name_of("ada", "lab/x"), Some("u1"));
        assert_eq!(users.name_of("bob", "lab/x"), Some("u2"));
        assert_eq!(users.name_of("bob", "lab/y"), Some("jobs"));
        users.same_name = true;
        assert_eq!(users.name_of("bob", "lab/y"), Some("bob"));
        assert_eq!(UsersConfig::default().name_of("bob", "lab/y"), None);
    }
}
