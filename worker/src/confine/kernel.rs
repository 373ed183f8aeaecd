//! What no library has in a safe form: a fork into a cgroup, and a program on a cgroup's devices.

#![expect(unsafe_code, reason = "system calls; each is behind one typed function")]

use std::ffi::{CStr, c_long, c_ulong};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::unistd::{ForkResult, Pid, fork};

use super::devices::Instruction;

/// `CLONE_INTO_CGROUP` of `linux/sched.h`.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// Commands and kinds of `linux/bpf.h`.
const BPF_PROG_LOAD: c_long = 5;
const BPF_PROG_ATTACH: c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs that others attach to the same cgroup, or to one around it, stay in force beside this one.
const BPF_F_ALLOW_MULTI: u32 = 2;
/// Nothing in the program is for the GPL alone, and the kernel asks.
const LICENSE: &CStr = c"Apache-2.0";

/// Forks; the child begins its life in `cgroup`, if one is given. Only for processes with one thread: the child may then
/// do anything.
pub fn fork_into(cgroup: Option<BorrowedFd<'_>>) -> nix::Result<ForkResult> {
    let Some(cgroup) = cgroup else {
        // SAFETY: the callers are the shim and its probe, which have one thread.
        return unsafe { fork() };
    };
    let arguments = libc::clone_args {
        flags: CLONE_INTO_CGROUP,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: u64::try_from(cgroup.as_raw_fd()).map_err(|_| Errno::EBADF)?,
    };
    // SAFETY: without CLONE_VM this is a fork: the child has its own copy of all memory, and there is one thread.
    let answer = unsafe {
        libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>())
    };
    match Errno::result(answer)? {
        0 => Ok(ForkResult::Child),
        pid => Ok(ForkResult::Parent { child: Pid::from_raw(i32::try_from(pid).unwrap_or(-1)) }),
    }
}

/// As every program expects to find them: none blocked, none ignored.
pub fn forget_signals() -> nix::Result<()> {
    for wanted in Signal::iterator().filter(|it| !matches!(it, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: the default runs no code of ours.
        unsafe { signal(wanted, SigHandler::SigDfl) }?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

/// Nothing that is open now is open in a program that is executed later.
pub fn close_on_exec_from(first: u32) -> nix::Result<()> {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes everything but this and the standard three. Only for a process that returns to nobody who holds any of it.
pub fn close_all_but(kept: BorrowedFd<'_>) -> nix::Result<()> {
    let kept = u32::try_from(kept.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    if kept > 3 {
        close_range(3, kept - 1, 0)?;
    }
    close_range(kept.max(2) + 1, u32::MAX, 0)
}

fn close_range(first: u32, last: u32, flags: u32) -> nix::Result<()> {
    let numbers = [first, last, flags].map(c_ulong::from);
    let [first, last, flags] = numbers;
    // SAFETY: closes numbers; the callers hold nothing afterwards that they still use.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Makes every use of a device in the cgroup ask the program first.
pub fn attach_device_program(cgroup: impl AsFd, program: &[Instruction]) -> io::Result<()> {
    let program = load(program)?;
    let attributes = Attach {
        target: cgroup.as_fd().as_raw_fd(),
        program: program.as_raw_fd(),
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the attributes are as the kernel has them, and it reads no more than their size.
    unsafe { bpf(BPF_PROG_ATTACH, &attributes) }.map(drop)
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let attributes = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: the attributes are as the kernel has them; what they point to lives until the call is over.
    let descriptor = unsafe { bpf(BPF_PROG_LOAD, &attributes) }?;
    // SAFETY: the kernel has just made it, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// What the kernel wants to know to load a program.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// What the kernel wants to know to attach one.
#[repr(C)]
struct Attach {
    target: i32,
    program: i32,
    attach_type: u32,
    flags: u32,
}

/// # Safety
/// `attributes` must be laid out as the kernel has them for this command.
unsafe fn bpf<T>(command: c_long, attributes: &T) -> io::Result<i32> {
    // SAFETY: as the caller promises.
    let answer = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
    };
    let answer = Errno::result(answer)?;
    i32::try_from(answer).map_err(io::Error::other)
}
