//! The room of an attempt: its own processes, mounts and memory shared between processes.
//!
//! The first process in it is a fork of the shim that does nothing but make the room ready and wait for orphans. All
//! tasks are born behind it and enter its mounts. When it ends, the kernel ends whatever else is in the room, and it
//! ends with the shim: so nothing of an attempt outlives its shim.

use std::convert::Infallible;
use std::ffi::CStr;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

use super::tree;
use crate::confine::cgroup::Cgroup;
use crate::confine::kernel;
use crate::confine::spec::{Namespaces, PrivateTmp};

/// Directory in the attempt's own, for the worker alone; anybody may write to what is in it, which is the attempt's
/// `/tmp`.
pub const PRIVATE: &str = "private";
const TMP: &str = "private/tmp";
/// What the first process is called in listings of processes: it is no shim.
const NAME: &CStr = c"gotgan-room";
/// What the first process says when the room is ready.
const READY: &[u8] = b"ready";
/// Longest word about what went wrong.
const WORD_MAX_BYTES: usize = 4096;

/// A room with its first process in it.
#[derive(Debug)]
pub struct Room {
    first: Pid,
    /// To the first process; its end is the first's end as well.
    line: UnixStream,
    mounts: File,
    shared_memory: File,
    left: bool,
}

impl Room {
    /// Makes it. From then on whatever this process starts is born in it.
    pub fn make(wanted: Namespaces, cgroup: Option<&Cgroup>) -> io::Result<Self> {
        unshare(CloneFlags::CLONE_NEWPID)?;
        let (line, line_of_first) = UnixStream::pair()?;
        match kernel::fork_into(cgroup.and_then(Cgroup::born_inside))? {
            ForkResult::Child => {
                let _ = be_first(wanted, cgroup, line_of_first);
                std::process::exit(1)
            }
            ForkResult::Parent { child } => {
                drop(line_of_first);
                Self::when_ready(child, line)
            }
        }
    }

    fn when_ready(first: Pid, mut line: UnixStream) -> io::Result<Self> {
        let mut word = vec![0; WORD_MAX_BYTES];
        let length = line.read(&mut word)?;
        if &word[..length] != READY {
            let _ = waitpid(first, None);
            let why = String::from_utf8_lossy(&word[..length]);
            return Err(io::Error::other(format!("cannot make its namespaces: {why}")));
        }
        let namespace = |kind: &str| File::open(format!("/proc/{first}/ns/{kind}"));
        let (mounts, shared_memory) = (namespace("mnt")?, namespace("ipc")?);
        Ok(Self { first, line, mounts, shared_memory, left: false })
    }

    /// The first process.
    pub fn first(&self) -> i32 {
        self.first.as_raw()
    }

    /// Enters it. For a fork of the shim that is to become a task; the current directory is the root then.
    pub fn enter(&self) -> nix::Result<()> {
        setns(self.shared_memory.as_fd(), CloneFlags::CLONE_NEWIPC)?;
        setns(self.mounts.as_fd(), CloneFlags::CLONE_NEWNS)
    }

    /// Tells the first process to end as soon as nobody else is left. Only when no task runs and none will.
    pub fn leave(&mut self) {
        if !self.left {
            self.left = true;
            // Its first process is gone already otherwise.
            let _ = self.line.write_all(b"leave");
        }
    }

    /// Ends everything in it.
    pub fn kill(&self) {
        tree::signal(self.first(), Signal::SIGKILL);
    }
}

/// The life of the first process. Returns only what kept it from beginning.
fn be_first(
    wanted: Namespaces,
    cgroup: Option<&Cgroup>,
    mut line: UnixStream,
) -> io::Result<Infallible> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    prctl::set_name(NAME)?;
    // An open listener would make a dead shim look alive.
    kernel::close_all_but(line.as_fd())?;
    if let Some(cgroup) = cgroup.filter(|cgroup| cgroup.born_inside().is_none()) {
        cgroup.enter()?;
    }
    if let Err(why) = furnish(wanted) {
        line.write_all(why.as_bytes())?;
        return Err(ErrorKind::Other.into());
    }
    let children = child_signals()?;
    line.write_all(READY)?;
    wait_for_orphans(&children, &mut line)
}

fn child_signals() -> io::Result<SignalFd> {
    let mask: SigSet = [Signal::SIGCHLD].into_iter().collect();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
    Ok(SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

/// Makes the room's mounts. The error is for a person.
fn furnish(wanted: Namespaces) -> Result<(), String> {
    let step = |what: &str, done: nix::Result<()>| done.map_err(|error| format!("{what}: {error}"));
    step("unshare", unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC))?;
    // What the machine mounts later is seen in here, and nothing of here outside.
    let inward = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    step("/", mount(NONE, "/", NONE, inward, NONE))?;
    match wanted.tmp {
        PrivateTmp::Shared => {}
        PrivateTmp::Memory => step("/tmp", mount_memory("/tmp"))?,
        PrivateTmp::Disk => {
            make_tmp().map_err(|error| format!("directory for /tmp: {error}"))?;
            step("/tmp", mount(Some(TMP), "/tmp", NONE, MsFlags::MS_BIND, NONE))?;
        }
    }
    step("/dev/shm", mount_memory("/dev/shm"))?;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    step("/proc", mount(Some("proc"), "/proc", Some("proc"), safe, NONE))
}

const NONE: Option<&str> = None;

fn mount_memory(place: &str) -> nix::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some("mode=1777"))
}

/// In the current directory, which is the attempt's.
fn make_tmp() -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(PRIVATE)?;
    fs::create_dir_all(TMP)?;
    fs::set_permissions(TMP, Permissions::from_mode(0o1777))
}

/// Whether tasks of this attempt have left anything in a `/tmp` of their own on the disk.
pub fn holds_something(attempt: &Path) -> bool {
    fs::read_dir(attempt.join(TMP)).is_ok_and(|mut entries| entries.next().is_some())
}

/// Until the shim says to leave and nobody else is here, or the shim is gone.
fn wait_for_orphans(children: &SignalFd, line: &mut UnixStream) -> io::Result<Infallible> {
    let mut leaving = false;
    loop {
        while children.read_signal()?.is_some() {}
        if bury_the_dead() && leaving {
            std::process::exit(0);
        }
        let mut looked_at = vec![PollFd::new(children.as_fd(), PollFlags::POLLIN)];
        if !leaving {
            looked_at.push(PollFd::new(line.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut looked_at, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let called = looked_at.get(1).and_then(PollFd::any).unwrap_or(false);
        drop(looked_at);
        if called {
            let mut word = [0; 16];
            if line.read(&mut word)? == 0 {
                std::process::exit(0);
            }
            leaving = true;
        }
    }
}

/// Waits for what is dead. Whether nobody is left.
fn bury_the_dead() -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return false,
            Err(Errno::ECHILD) => return true,
            Ok(_) | Err(_) => {}
        }
    }
}
