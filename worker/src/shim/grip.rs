//! What holds an attempt together: its cgroup, its room, and how its processes are born in them.
//!
//! Without confinement there is neither, and all is as the process tree has it.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{
    ForkResult, Gid, Uid, getgroups, setegid, seteuid, setgroups, setresgid, setresuid,
};

use super::room::{self, PRIVATE, Room};
use crate::confine::cgroup::Cgroup;
use crate::confine::devices;
use crate::confine::kernel;
use crate::confine::spec::{Confinement, PrivateTmp, UnixUser};
use crate::container::spec::ContainerSpec;

/// What files of tasks are open to unless their programs say otherwise.
const UMASK: u32 = 0o022;
const MIB: u64 = 1 << 20;

/// Confinement that is in force.
#[derive(Debug, Default)]
pub struct Grip {
    confinement: Confinement,
    cgroup: Option<Cgroup>,
    room: Option<Room>,
    container: Option<ContainerSpec>,
    /// Processes that only keep a container: no tasks, and not for signals.
    keepers: BTreeSet<i32>,
}

impl Grip {
    /// Puts it into force, for the attempt whose directory is the current one. All of it or none: an attempt that cannot
    /// be confined as it should be does not run.
    pub fn take(confinement: &Confinement) -> io::Result<Self> {
        let cgroup = confinement.cgroup.as_ref().map(Cgroup::make).transpose()?;
        let confinement = confinement.clone();
        let mut grip = Self { confinement, cgroup, ..Self::default() };
        let done = grip.fill();
        done.inspect_err(|_| grip.give_back())?;
        Ok(grip)
    }

    /// Of what was begun nothing is left.
    fn give_back(&self) {
        self.kill();
        self.let_go();
    }

    fn fill(&mut self) -> io::Result<()> {
        if let (Some(cgroup), Some(rules)) = (&self.cgroup, &self.confinement.devices) {
            kernel::attach_device_program(cgroup.directory(), &devices::program(rules))?;
        }
        if let Some(wanted) = self.confinement.namespaces {
            self.room = Some(Room::make(wanted, self.cgroup.as_ref())?);
        }
        Ok(())
    }

    /// Forks a process that is to become a task.
    pub fn fork(&self) -> nix::Result<ForkResult> {
        kernel::fork_into(self.cgroup.as_ref().and_then(Cgroup::born_inside))
    }

    /// Its tasks run in this image.
    pub fn contain(&mut self, container: Option<ContainerSpec>) {
        self.container = container;
    }

    /// What its tasks run in.
    pub fn container(&self) -> Option<&ContainerSpec> {
        self.container.as_ref()
    }

    /// A container's keeper has begun.
    pub fn begin_keeper(&mut self, pid: i32) {
        self.keepers.insert(pid);
    }

    /// It has ended. Whether it was one.
    pub fn end_keeper(&mut self, pid: i32) -> bool {
        self.keepers.remove(&pid)
    }

    /// Whether the process only keeps a container.
    pub fn is_keeper(&self, pid: i32) -> bool {
        self.keepers.contains(&pid)
    }

    /// In that process: goes where tasks are, and becomes who they are. The error is for a person.
    pub fn become_one_of_it(&self) -> Result<(), String> {
        self.go_there()?;
        if let Some(user) = &self.confinement.user {
            become_user(user).map_err(at(&user.name))?;
        }
        if self.confinement.no_new_privileges {
            prctl::set_no_new_privs().map_err(at("no new privileges"))?;
        }
        Ok(())
    }

    /// In that process: goes where tasks are, as who it is. The error is for a person.
    pub fn go_there(&self) -> Result<(), String> {
        if let Some(cgroup) = self.cgroup.as_ref().filter(|it| it.born_inside().is_none()) {
            cgroup.enter().map_err(|error| error.to_string())?;
        }
        if let Some(room) = &self.room {
            room.enter().map_err(at("namespaces"))?;
        }
        umask(Mode::from_bits_truncate(UMASK));
        Ok(())
    }

    /// In that process: does this with its user's rights, and is who it was again. Ends the process if it cannot be.
    pub fn as_user<T>(&self, work: impl FnOnce() -> T) -> nix::Result<T> {
        let Some(user) = self.user() else { return Ok(work()) };
        let own = getgroups()?;
        setgroups(&groups_of(user))?;
        setegid(Gid::from_raw(user.gid))?;
        seteuid(Uid::from_raw(user.uid))?;
        let done = work();
        let back = seteuid(Uid::from_raw(0));
        let back = back.and_then(|()| setegid(Gid::from_raw(0))).and_then(|()| setgroups(&own));
        match back {
            Ok(()) => Ok(done),
            Err(_) => std::process::exit(1),
        }
    }

    /// Whether `/tmp` is its own.
    pub fn has_own_tmp(&self) -> bool {
        self.hides(Path::new("/tmp"))
    }

    /// Who tasks run as, if not as this process.
    pub fn user(&self) -> Option<&UnixUser> {
        self.confinement.user.as_ref()
    }

    /// Makes the directory of a step's outputs; not for other users where tasks have users of their own.
    pub fn make_place(&self, place: &Path) -> io::Result<()> {
        let mode = if self.user().is_some() { 0o700 } else { 0o777 };
        DirBuilder::new().recursive(true).mode(mode).create(place)
    }

    /// What tasks find in their environment unless their job says otherwise.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let Some(user) = self.user() else { return Vec::new() };
        let UnixUser { name, home, shell, .. } = user;
        vec![
            ("HOME", home.clone()),
            ("USER", name.clone()),
            ("LOGNAME", name.clone()),
            ("SHELL", shell.clone()),
        ]
    }

    /// Whether this path means something else to tasks than to the worker.
    pub fn hides(&self, path: &Path) -> bool {
        let private = |it: crate::confine::spec::Namespaces| it.tmp != PrivateTmp::Shared;
        let tmp = self.confinement.namespaces.is_some_and(private) && path.starts_with("/tmp");
        tmp || self.room.is_some() && path.starts_with("/dev/shm")
    }

    /// No task runs, and none will: the first process of the room may end.
    pub fn leave(&mut self) {
        if let Some(room) = &mut self.room {
            room.leave();
        }
    }

    /// The first process of the room, which is no task.
    pub fn first(&self) -> Option<i32> {
        self.room.as_ref().map(Room::first)
    }

    /// Ends everything in it.
    pub fn kill(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        if let Some(room) = &self.room {
            room.kill();
        }
    }

    /// Whether nothing is left, as far as the kernel counts.
    pub fn is_empty(&self) -> bool {
        self.cgroup.as_ref().is_none_or(Cgroup::is_empty)
    }

    /// Its processes, by the kernel's own list; `None` where they are not born in a cgroup, and may be elsewhere for a moment.
    pub fn members(&self) -> Option<Vec<i32>> {
        let cgroup = self.cgroup.as_ref().filter(|cgroup| cgroup.born_inside().is_some());
        cgroup.map(Cgroup::processes)
    }

    /// What is left.
    pub fn leftovers(&self) -> Vec<i32> {
        self.cgroup.as_ref().map(Cgroup::processes).unwrap_or_default()
    }

    /// How long what does not die is waited for.
    pub fn patience(&self) -> Option<Duration> {
        let give_up_ms = self.confinement.give_up_ms;
        (give_up_ms > 0).then(|| Duration::from_millis(give_up_ms))
    }

    /// That memory ran out, by the kernel's own count.
    pub fn out_of_memory(&self) -> Option<String> {
        let cgroup = self.cgroup.as_ref()?;
        let killed = cgroup.counted().out_of_memory;
        let limit = cgroup.memory_max_bytes().map_or(String::new(), |bytes| {
            format!(": its processes together wanted more than its {} MiB", bytes / MIB)
        });
        (killed > 0).then(|| format!("out of memory{limit}"))
    }

    /// That processes were refused, by the kernel's own count.
    pub fn out_of_processes(&self) -> Option<String> {
        let cgroup = self.cgroup.as_ref()?;
        let limit = cgroup.processes_max()?;
        let refused = cgroup.counted().refused_processes;
        (refused > 0).then(|| format!("the limit of {limit} processes and threads was reached"))
    }

    /// Takes it back once nothing is left.
    pub fn let_go(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
    }

    /// Removes what its `/tmp` held.
    pub fn sweep(&self, attempt: &Path) {
        let tmp = self.confinement.namespaces.map(|it| it.tmp);
        // What cannot be removed now goes with the attempt's directory, and so does a place that was left empty.
        if tmp == Some(PrivateTmp::Disk) && room::holds_something(attempt) {
            let _ = std::fs::remove_dir_all(attempt.join(PRIVATE));
        }
    }
}

fn at(what: &str) -> impl Fn(Errno) -> String {
    move |error| format!("{what}: {error}")
}

fn groups_of(user: &UnixUser) -> Vec<Gid> {
    user.groups.iter().copied().map(Gid::from_raw).collect()
}

fn become_user(user: &UnixUser) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    setgroups(&groups_of(user))?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}
