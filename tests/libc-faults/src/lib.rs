//! Stands before the C library in a program under test (`LD_PRELOAD`), for faults that nobody can bring about from outside:
//! a wall clock that is wrong, and a disk that takes its time to sync.
//!
//! Both are said by 16 bytes of a file that `GOTGAN_TEST_LIBC_FAULTS` names, two numbers in the machine's own order: what is
//! added to the wall clock, in nanoseconds, and how long each sync waits before it is done, in nanoseconds. The file is
//! mapped, so what is written there counts from the next call on, in the process and all of its children that have the
//! variable. Without the file everything is as it is.
//!
//! Only functions of the C library are stood before: a program that asks the kernel itself, or is linked statically, sees
//! the truth. The monotonic clocks are never touched.
#![expect(unsafe_code, reason = "functions that C programs call")]

mod clocks;
mod faults;
mod syncs;
