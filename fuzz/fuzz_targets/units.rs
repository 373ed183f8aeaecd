//! Feeds the door `units` of gotgan-fuzzed.
#![no_main]

use gotgan_fuzzed::{Heap, play};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static HEAP: Heap = Heap;

fuzz_target!(|bytes: &[u8]| play("units", bytes));
