//! What confines one attempt, as the shim is told.

use serde::{Deserialize, Serialize};

use super::cgroup::CgroupSpec;
use super::devices::DeviceRules;

/// All that is applied to one attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// The cgroup of all its processes.
    pub cgroup: Option<CgroupSpec>,
    /// What it sees of the machine.
    pub namespaces: Option<Namespaces>,
    /// Which devices it may use; needs the cgroup.
    pub devices: Option<DeviceRules>,
    /// No program makes its user more than they are.
    pub no_new_privileges: bool,
    /// Who its tasks run as; absent: as the worker.
    pub user: Option<UnixUser>,
    /// After the last KILL, how long until what does not die is given up.
    pub give_up_ms: u64,
}

/// Its own processes, mounts and memory shared between processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// What `/tmp` is in there.
    pub tmp: PrivateTmp,
}

/// What `/tmp` is to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrivateTmp {
    /// A directory in the attempt's own, on disk.
    Disk,
    /// In memory.
    Memory,
    /// The machine's.
    Shared,
}

/// A user of the system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnixUser {
    /// For `USER` and the like.
    pub name: String,
    /// Never 0.
    pub uid: u32,
    /// Never 0.
    pub gid: u32,
    /// All groups, the first one among them.
    pub groups: Vec<u32>,
    /// For `HOME`.
    pub home: String,
    /// For `SHELL`.
    pub shell: String,
}
