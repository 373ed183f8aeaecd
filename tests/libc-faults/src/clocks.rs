//! The wall clock, by whatever function it is asked for.

use std::ffi::{c_int, c_void};
use std::mem::transmute;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use nix::libc::{
    self, CLOCK_REALTIME, CLOCK_REALTIME_COARSE, clockid_t, time_t, timespec, timeval,
};

use crate::faults::{SECOND_NS, faults};

type ClockGettime = unsafe extern "C" fn(clockid_t, *mut timespec) -> c_int;

/// The C library's own, which asks without entering the kernel.
fn own_clock() -> ClockGettime {
    static OWN: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
    let mut own = OWN.load(Ordering::Relaxed);
    if own.is_null() {
        // SAFETY: a constant name, looked for behind this library.
        own = unsafe { libc::dlsym(libc::RTLD_NEXT, c"clock_gettime".as_ptr()) };
        OWN.store(own, Ordering::Relaxed);
    }
    if own.is_null() {
        return by_the_kernel;
    }
    // SAFETY: the function of this name has this type.
    unsafe { transmute::<*mut c_void, ClockGettime>(own) }
}

unsafe extern "C" fn by_the_kernel(clock: clockid_t, at: *mut timespec) -> c_int {
    // SAFETY: what the caller promises.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, at) as c_int }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, at: *mut timespec) -> c_int {
    // SAFETY: what the caller promises.
    let answer = unsafe { own_clock()(clock, at) };
    if answer == 0 && !at.is_null() && matches!(clock, CLOCK_REALTIME | CLOCK_REALTIME_COARSE) {
        // SAFETY: it was just written.
        let at = unsafe { &mut *at };
        let offset_ns = faults().clock_ns.load(Ordering::Relaxed);
        let sum_ns = at.tv_nsec + offset_ns % SECOND_NS;
        at.tv_sec += offset_ns / SECOND_NS + sum_ns.div_euclid(SECOND_NS);
        at.tv_nsec = sum_ns.rem_euclid(SECOND_NS);
    }
    answer
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(at: *mut timeval, _zone: *mut c_void) -> c_int {
    let mut now = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a place of our own.
    let answer = unsafe { clock_gettime(CLOCK_REALTIME, &raw mut now) };
    if answer == 0 && !at.is_null() {
        let now = timeval { tv_sec: now.tv_sec, tv_usec: now.tv_nsec / 1_000 };
        // SAFETY: what the caller promises.
        unsafe { at.write(now) };
    }
    answer
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(at: *mut time_t) -> time_t {
    let mut now = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a place of our own, and one that the caller promises.
    unsafe {
        clock_gettime(CLOCK_REALTIME, &raw mut now);
        if !at.is_null() {
            at.write(now.tv_sec);
        }
    }
    now.tv_sec
}
