//! What is to be wrong, as the file says.

use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicI64, AtomicPtr, Ordering};

use nix::libc;

const VARIABLE: &CStr = c"GOTGAN_TEST_LIBC_FAULTS";
pub const SECOND_NS: i64 = 1_000_000_000;

/// What the file holds.
#[repr(C)]
pub struct Faults {
    /// Added to the wall clock.
    pub clock_ns: AtomicI64,
    /// How much longer each sync takes.
    pub sync_ns: AtomicI64,
}

/// Where there is no file.
static NONE: Faults = Faults { clock_ns: AtomicI64::new(0), sync_ns: AtomicI64::new(0) };
/// Null until it was looked for.
static FOUND: AtomicPtr<Faults> = AtomicPtr::new(ptr::null_mut());

/// Called before `main` and within anything, so neither memory is asked for nor a lock taken.
pub fn faults() -> &'static Faults {
    let mut found = FOUND.load(Ordering::Acquire);
    if found.is_null() {
        found = map().unwrap_or(ptr::from_ref(&NONE).cast_mut());
        FOUND.store(found, Ordering::Release);
    }
    // SAFETY: it is the static, or a mapping that is never undone.
    unsafe { &*found }
}

/// None without the variable, or if the file cannot be opened.
fn map() -> Option<*mut Faults> {
    let length = size_of::<Faults>();
    // SAFETY: constants with a final zero, a descriptor of our own, and no address that is asked for.
    unsafe {
        let path = libc::getenv(VARIABLE.as_ptr());
        if path.is_null() {
            return None;
        }
        let file = libc::open(path, libc::O_RDONLY | libc::O_CLOEXEC);
        if file < 0 {
            return None;
        }
        let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED);
        let mapped = libc::mmap(ptr::null_mut(), length, protection, flags, file, 0);
        libc::close(file);
        (mapped != libc::MAP_FAILED).then(|| mapped.cast())
    }
}
