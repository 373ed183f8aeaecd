//! What this machine can, found by doing it once: run by the shim's program, which has one thread and may fork.
//!
//! Whatever is made here is gone when it ends.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, geteuid};
use serde::{Deserialize, Serialize};

use super::cgroup::{self, Cgroup, CgroupSpec, OWN_ROOT};
use super::devices::{self, DeviceRules};
use super::kernel;
use super::machine::{Can, CgroupPlace, Machine};
use super::spec::{Confinement, Namespaces, PrivateTmp};
use crate::shim::grip::Grip;

/// Where processes go that are found in the root itself: the kernel gives limits only to cgroups beside processes.
const HOLDER: &str = "holder";
/// Kinds of limits that are looked for.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];

/// What is asked of the probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The configured directory for cgroups; empty: to be found.
    pub cgroup_root: PathBuf,
    /// Name for the cgroup that is made and removed: no attempt's.
    pub name: String,
}

/// Looks at everything.
pub fn look(question: &Question) -> Machine {
    let cgroup = cgroups(question);
    Machine {
        root: geteuid().is_root(),
        device_filter: device_filter(question, &cgroup),
        cgroup,
        namespaces: namespaces(),
    }
}

fn cgroups(question: &Question) -> Can<CgroupPlace> {
    let own = question.cgroup_root.as_os_str().is_empty();
    let root = match own {
        true => found_root()?,
        false => configured_root(&question.cgroup_root)?,
    };
    let mut place = CgroupPlace { root, own, controllers: BTreeSet::new(), born_inside: true };
    if !own {
        make_room(&place.root).map_err(|error| format!("{}: {error}", place.root.display()))?;
    }
    let (controllers, born_inside) = try_out(&place, &question.name)?;
    (place.controllers, place.born_inside) = (controllers, born_inside);
    Ok(place)
}

/// A directory of ours in the root of version 2, wherever it is mounted.
fn found_root() -> Can<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| error.to_string())?;
    let place = mount_of_version_2(&mounts).ok_or("cgroup version 2 is not mounted")?;
    Ok(Path::new(&place).join(OWN_ROOT))
}

fn mount_of_version_2(mounts: &str) -> Option<String> {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mut places = fields.filter(|fields| fields.get(2) == Some(&"cgroup2"));
    places.next()?.get(1).map(|place| (*place).to_owned())
}

fn configured_root(root: &Path) -> Can<PathBuf> {
    match root.join("cgroup.procs").exists() {
        true => Ok(root.to_owned()),
        false => Err(format!("cgroup_root {} is no cgroup of version 2", root.display())),
    }
}

/// Moves what holds a delegated root open into a place of its own.
fn make_room(root: &Path) -> io::Result<()> {
    let text = fs::read_to_string(root.join("cgroup.procs"))?;
    let inside: Vec<&str> = text.lines().collect();
    if inside.is_empty() {
        return Ok(());
    }
    let holder = root.join(HOLDER);
    fs::create_dir_all(&holder)?;
    inside.iter().try_for_each(|pid| cgroup::write(&holder, "cgroup.procs", pid))
}

/// Makes a cgroup, lets a process be born in it, and sees which limits it can have.
fn try_out(place: &CgroupPlace, name: &str) -> Can<(BTreeSet<String>, bool)> {
    let shown = |error: io::Error| format!("{}: {error}", place.root.display());
    let spec = CgroupSpec {
        path: place.root.join(name),
        born_inside: true,
        memory_max_bytes: None,
        cpu_milli: None,
        processes_max: None,
        own_root: place.own,
    };
    let made = Cgroup::make(&spec).map_err(shown)?;
    let controllers = CONTROLLERS.into_iter().filter(|kind| has_controller(&spec.path, kind));
    let controllers = controllers.map(str::to_owned).collect();
    let born_inside = kernel::fork_into(made.born_inside()).map(end_at_once).is_ok_and(|ok| ok);
    let entered = born_inside || enters(&made);
    made.kill();
    made.remove();
    match entered {
        true => Ok((controllers, born_inside)),
        false => Err(format!("{}: no process may be moved there", place.root.display())),
    }
}

fn has_controller(cgroup: &Path, kind: &str) -> bool {
    let file = match kind {
        "memory" => "memory.max",
        "cpu" => "cpu.max",
        _ => "pids.max",
    };
    let root = cgroup.parent().unwrap_or(cgroup);
    cgroup.join(file).exists()
        || above_allows(root, kind)
            && cgroup::enable_controller(root, kind).is_ok()
            && cgroup.join(file).exists()
}

/// A directory of ours gets a controller only if the one around it hands it on.
fn above_allows(root: &Path, kind: &str) -> bool {
    let has = |file: &str| {
        let text = fs::read_to_string(root.join(file)).unwrap_or_default();
        text.split_whitespace().any(|word| word == kind)
    };
    has("cgroup.controllers")
        || root.parent().is_some_and(|above| cgroup::enable_controller(above, kind).is_ok())
            && has("cgroup.controllers")
}

/// Whether the child that was forked came and went.
fn end_at_once(forked: ForkResult) -> bool {
    match forked {
        ForkResult::Child => std::process::exit(0),
        ForkResult::Parent { child } => {
            matches!(waitpid(child, None), Ok(WaitStatus::Exited(_, 0)))
        }
    }
}

fn enters(cgroup: &Cgroup) -> bool {
    match kernel::fork_into(None) {
        Ok(ForkResult::Child) => std::process::exit(i32::from(cgroup.enter().is_err())),
        Ok(ForkResult::Parent { child }) => {
            matches!(waitpid(child, None), Ok(WaitStatus::Exited(_, 0)))
        }
        Err(_) => false,
    }
}

fn device_filter(question: &Question, place: &Can<CgroupPlace>) -> Can {
    let place = place.as_ref().map_err(Clone::clone)?;
    let spec = CgroupSpec {
        path: place.root.join(&question.name),
        born_inside: place.born_inside,
        memory_max_bytes: None,
        cpu_milli: None,
        processes_max: None,
        own_root: place.own,
    };
    let made = Cgroup::make(&spec).map_err(|error| error.to_string())?;
    let program = devices::program(&DeviceRules::default());
    let attached = kernel::attach_device_program(made.directory(), &program);
    made.remove();
    attached.map_err(|error| format!("the kernel takes no program for devices: {error}"))
}

/// In a fork: a process that has made a room once makes no other.
fn namespaces() -> Can {
    if !geteuid().is_root() {
        return Err("the worker is not root".into());
    }
    let tried = kernel::fork_into(None).map_err(|error| error.to_string())?;
    match tried {
        ForkResult::Child => std::process::exit(i32::from(try_room().is_err())),
        ForkResult::Parent { child } => match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, 0)) => Ok(()),
            Ok(_) | Err(_) => Err("the kernel makes no namespaces with mounts of their own".into()),
        },
    }
}

fn try_room() -> io::Result<()> {
    let namespaces = Some(Namespaces { tmp: PrivateTmp::Memory });
    let confinement = Confinement { namespaces, ..Confinement::default() };
    let grip = Grip::take(&confinement)?;
    let entered = match grip.fork()? {
        ForkResult::Child => std::process::exit(i32::from(grip.become_one_of_it().is_err())),
        ForkResult::Parent { child } => waitpid(child, None)?,
    };
    grip.kill();
    match entered {
        WaitStatus::Exited(_, 0) => Ok(()),
        _ => Err(io::ErrorKind::Other.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_is_found_wherever_it_is_mounted() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount_of_version_2(mounts).as_deref(), Some("/sys/fs/cgroup/unified"));
        assert_eq!(mount_of_version_2("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n"), None);
    }
}
