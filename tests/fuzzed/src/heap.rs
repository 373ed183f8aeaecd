//! How much memory a door takes at once. The programs that feed doors allocate through [`Heap`].

#![expect(unsafe_code, reason = "an allocator that counts what passes through it to the system's")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What any input may take, bytes: tables, a world, a message's answer.
const FREE_BYTES: usize = 64 << 20;
/// What each byte of an input may take beside, bytes.
const PER_BYTE: usize = 4 << 10;

static PRESENT: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, with a count. One thread plays at a time; others count as well.
#[derive(Debug, Clone, Copy, Default)]
pub struct Heap;

// SAFETY: everything is the system's allocator, called with the very arguments.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let present = PRESENT.fetch_add(layout.size(), Relaxed).wrapping_add(layout.size());
        MOST.fetch_max(present, Relaxed);
        // SAFETY: as of this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        PRESENT.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as of this function.
        unsafe { System.dealloc(place, layout) }
    }
}

/// Runs `taken` and panics if it had more memory at once than so many bytes of input explain. Where the program does not
/// allocate through [`Heap`], nothing is counted.
pub(crate) fn watch(input_bytes: usize, taken: impl FnOnce()) {
    let before = PRESENT.load(Relaxed);
    MOST.store(before, Relaxed);
    taken();
    let most = MOST.load(Relaxed).saturating_sub(before);
    let explained = FREE_BYTES.saturating_add(input_bytes.saturating_mul(PER_BYTE));
    assert!(most <= explained, "{input_bytes} bytes of input took {most} bytes of memory at once");
}
