//! The binary `gotgan`: everything is in the library, so that tests can reach it.

use std::process::ExitCode;

/// Long listings are read on one thread and written on another, a few dozen small allocations for each job.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(gotgan::main(std::env::args_os().collect()))
}
