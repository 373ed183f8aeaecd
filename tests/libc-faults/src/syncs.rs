//! What waits until the disk has it.

use std::ffi::{c_int, c_long, c_void};
use std::sync::atomic::Ordering;

use nix::libc::{self, EINTR, off64_t, size_t, timespec};

use crate::faults::{SECOND_NS, faults};

/// As long as a sync is to take longer.
fn dawdle() {
    let wait_ns = faults().sync_ns.load(Ordering::Relaxed).max(0);
    let mut left = timespec { tv_sec: wait_ns / SECOND_NS, tv_nsec: wait_ns % SECOND_NS };
    if wait_ns == 0 {
        return;
    }
    loop {
        let wanted = left;
        // SAFETY: places of our own.
        let slept = unsafe { libc::nanosleep(&raw const wanted, &raw mut left) };
        if slept == 0 || nix::errno::Errno::last_raw() != EINTR {
            return;
        }
    }
}

/// Hands a call on to the kernel, which is what the C library does with these.
unsafe fn hand_on(number: c_long, arguments: [c_long; 4]) -> c_int {
    let [first, second, third, fourth] = arguments;
    // SAFETY: what the caller promises.
    unsafe { libc::syscall(number, first, second, third, fourth) as c_int }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(file: c_int) -> c_int {
    dawdle();
    // SAFETY: a number; what is no file is refused.
    unsafe { hand_on(libc::SYS_fsync, [file.into(), 0, 0, 0]) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(file: c_int) -> c_int {
    dawdle();
    // SAFETY: a number; what is no file is refused.
    unsafe { hand_on(libc::SYS_fdatasync, [file.into(), 0, 0, 0]) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sync_file_range(
    file: c_int,
    from: off64_t,
    length: off64_t,
    flags: libc::c_uint,
) -> c_int {
    dawdle();
    // SAFETY: numbers; what is no file is refused.
    unsafe { hand_on(libc::SYS_sync_file_range, [file.into(), from, length, flags.into()]) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn msync(start: *mut c_void, length: size_t, flags: c_int) -> c_int {
    if flags & libc::MS_SYNC != 0 {
        dawdle();
    }
    // SAFETY: what is not mapped is refused.
    unsafe { hand_on(libc::SYS_msync, [start as c_long, length as c_long, flags.into(), 0]) }
}
