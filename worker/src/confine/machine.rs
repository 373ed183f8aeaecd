//! What a machine can, as found once by [`super::probe`].

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The word of a machine: it can, or why it cannot, as a fragment for a person.
pub type Can<T = ()> = Result<T, String>;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The worker is root.
    pub root: bool,
    /// Where attempts can have cgroups.
    pub cgroup: Can<CgroupPlace>,
    /// Namespaces of processes, mounts and memory shared between processes.
    pub namespaces: Can,
    /// A program on the devices of a cgroup.
    pub device_filter: Can,
}

/// Where cgroups of attempts are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupPlace {
    /// The directory around them.
    pub root: PathBuf,
    /// The worker chose it, and makes and removes it.
    pub own: bool,
    /// Kinds of limits that there are.
    pub controllers: BTreeSet<String>,
    /// Processes can be born in one.
    pub born_inside: bool,
}

impl Machine {
    /// One that can nothing, for this reason.
    pub fn unable(reason: &str) -> Self {
        let no = || reason.to_owned();
        Self { root: false, cgroup: Err(no()), namespaces: Err(no()), device_filter: Err(no()) }
    }
}
