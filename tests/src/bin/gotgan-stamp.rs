//! `gotgan-stamp FILE`: writes the present into a file, as microseconds since 1970, and nothing else.
//!
//! The job of benchmarks that measure how soon a job's first instruction runs. A program of its own, so that what is
//! measured is not how long a large one takes to load.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() -> ExitCode {
    // Before anything that takes time.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let Some(file) = std::env::args_os().nth(1) else {
        return ExitCode::FAILURE;
    };
    match std::fs::write(file, since.as_micros().to_string()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
